"""Diffusion and flow matching: what is noised, what a network predicts of it, which conditions it is denied, and how
its predictions under several conditions are put together.

Both are one process here, ``x_t = alpha_t x + sigma_t noise``: of a diffusion ``alpha_t^2 + sigma_t^2 = 1`` at whole
times 0..T-1; of flow matching ``alpha_t = 1 - sigma_t``, with times from 0 (clean) to T (noise).
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from filmstrip.bounds import AnyNumber, Count, Rate, Share, ShareBelowOne, Weight, check_numbers
from filmstrip.errors import UserError
from filmstrip.nn.noise_schedule import BetaSchedule, flow_levels, flow_levels_to, kept_signal
from filmstrip.randomness import normal, uniform

Prediction = Literal["epsilon", "v", "clean", "velocity"]
"""What a network predicts: the noise (Ho et al. 2020), ``v = alpha noise - sigma x`` (Salimans and Ho 2022), the
clean signal, or flow matching's velocity from the signal to the noise (Lipman et al. 2023), which has its own
process."""
Spacing = Literal["trailing", "leading"]
"""Times of fewer steps than in training: ``trailing`` begins at the last one, ``leading`` ends at the first one."""
CLEAN = -1.0
"""The time of a diffusion after its last step, at which nothing is noise; that of flow matching is 0."""


class Split(NamedTuple):
    """A noisy signal as its two parts."""

    clean: Tensor
    noise: Tensor


@dataclass(frozen=True, kw_only=True)
class DiffusionConfig:
    """The process, and the loss."""

    prediction: Prediction = "v"
    """Prediction of the network; ``velocity`` is flow matching."""
    steps: Count = 1000
    """Number of times in training; flow matching's times go from 0 to this number."""
    schedule: BetaSchedule = "scaled_linear"
    """Growth of a diffusion's noise."""
    beta_start: Rate = 0.00085
    beta_end: Rate = 0.012
    """Variance of a diffusion's noise at its first and last time."""
    zero_terminal_snr: bool = False
    """Whether a diffusion's schedule is rescaled so that nothing of the signal is left at its last time."""
    min_snr: Weight = 0.0
    """Largest ratio of signal to noise that counts in the loss (Hang et al. 2023, gamma); zero weights all times
    alike."""
    shift: Rate = 1.0
    """Shift of flow matching's times towards noise, in training and in sampling."""
    size_shift: tuple[tuple[Count, AnyNumber], tuple[Count, AnyNumber]] | None = None
    """Two numbers of latents of a clip, with the logarithm of the shift for each, in place of one shift for all: of
    other numbers it lies on the line through both (Esser et al. 2024; as LTX-Video's scheduler has it)."""
    last_level: ShareBelowOne = 0.0
    """Share of noise at which the last step of sampling begins, of clips that are shifted by their size; zero where
    the shift alone decides."""

    def build(self) -> Diffusion:
        """The process.

        Raises:
            UserError: the settings contradict each other.
        """
        return Diffusion(self)


_PREDICTIONS: dict[str, Prediction] = {"epsilon": "epsilon", "v_prediction": "v", "sample": "clean"}
_SCHEDULES: dict[str, BetaSchedule] = {
    "linear": "linear",
    "scaled_linear": "scaled_linear",
    "squaredcos_cap_v2": "cosine",
}


def process_of(scheduler: Mapping[str, Any], source: str) -> DiffusionConfig:
    """The process that a scheduler of ``diffusers`` steps back through, by its ``scheduler_config.json``.

    Raises:
        UserError: it is of a kind that is not known here.
    """
    kind = scheduler.get("_class_name", "scheduler of unknown type")
    steps = scheduler.get("num_train_timesteps", 1000)
    flows = scheduler.get("use_flow_sigmas") or scheduler.get("prediction_type") == "flow_prediction"
    if flows or str(kind).startswith("FlowMatch"):
        if scheduler.get("use_dynamic_shifting"):
            return _shifted_by_size(scheduler, steps, source)
        shift = scheduler.get("flow_shift" if flows else "shift", 1.0)
        return DiffusionConfig(prediction="velocity", steps=steps, shift=shift)
    prediction, schedule = scheduler.get("prediction_type", "epsilon"), scheduler.get("beta_schedule", "linear")
    if prediction not in _PREDICTIONS or schedule not in _SCHEDULES or scheduler.get("trained_betas") is not None:
        raise UserError(
            f"{source} has a {kind} of beta_schedule {schedule!r} and prediction_type {prediction!r}: known are "
            f"{', '.join(_SCHEDULES)}, and {', '.join(_PREDICTIONS)} or flow matching, without trained_betas"
        )
    return DiffusionConfig(
        prediction=_PREDICTIONS[prediction],
        steps=steps,
        schedule=_SCHEDULES[schedule],
        beta_start=scheduler.get("beta_start", 0.0001),
        beta_end=scheduler.get("beta_end", 0.02),
        zero_terminal_snr=bool(scheduler.get("rescale_betas_zero_snr", False)),
    )


def _shifted_by_size(scheduler: Mapping[str, Any], steps: int, source: str) -> DiffusionConfig:
    kind = scheduler.get("_class_name")
    if kind != "FlowMatchEulerDiscreteScheduler" or scheduler.get("time_shift_type", "exponential") != "exponential":
        raise UserError(
            f"{source} shifts the times of its {kind} by the size of clips, of which the exponential kind of "
            "FlowMatchEulerDiscreteScheduler is known here"
        )
    ends = [
        (scheduler.get(f"{end}_image_seq_len", length), scheduler.get(f"{end}_shift", shift))
        for end, length, shift in (("base", 256, 0.5), ("max", 4096, 1.15))
    ]
    return DiffusionConfig(
        prediction="velocity",
        steps=steps,
        size_shift=(ends[0], ends[1]),
        last_level=scheduler.get("shift_terminal") or 0.0,
    )


def scheduler_of(process: DiffusionConfig, *, spacing: Spacing, uni_pc: bool) -> dict[str, Any]:
    """The ``scheduler_config.json`` of ``diffusers`` that steps back through a process: DDIM's, or of flow matching
    Euler's or UniPC's; the inverse of :func:`process_of`."""
    if process.size_shift is not None:
        (least, low), (most, high) = process.size_shift
        return {
            "_class_name": "FlowMatchEulerDiscreteScheduler",
            "num_train_timesteps": process.steps,
            "use_dynamic_shifting": True,
            "base_image_seq_len": least,
            "base_shift": low,
            "max_image_seq_len": most,
            "max_shift": high,
            "shift_terminal": process.last_level or None,
        }
    if process.prediction == "velocity" and uni_pc:
        return {
            "_class_name": "UniPCMultistepScheduler",
            "num_train_timesteps": process.steps,
            "prediction_type": "flow_prediction",
            "use_flow_sigmas": True,
            "flow_shift": process.shift,
        }
    if process.prediction == "velocity":
        return {
            "_class_name": "FlowMatchEulerDiscreteScheduler",
            "num_train_timesteps": process.steps,
            "shift": process.shift,
        }
    return {
        "_class_name": "DDIMScheduler",
        "num_train_timesteps": process.steps,
        "beta_schedule": {ours: theirs for theirs, ours in _SCHEDULES.items()}[process.schedule],
        "beta_start": process.beta_start,
        "beta_end": process.beta_end,
        "prediction_type": {ours: theirs for theirs, ours in _PREDICTIONS.items()}[process.prediction],
        "rescale_betas_zero_snr": process.zero_terminal_snr,
        "timestep_spacing": spacing,
        "clip_sample": False,
    }


class Diffusion(nn.Module):
    """A process without weights: noised signals, what is to be predicted, and its loss.

    Raises:
        UserError: the settings contradict each other.
    """

    kept: Tensor

    def __init__(self, config: DiffusionConfig) -> None:
        super().__init__()
        check_numbers(config)
        self.prediction, self.steps = config.prediction, config.steps
        self.min_snr, self.shift = config.min_snr, config.shift
        self.size_shift, self.last_level, self.size = config.size_shift, config.last_level, 0
        self.is_flow = config.prediction == "velocity"
        if config.zero_terminal_snr and config.prediction == "epsilon":
            raise UserError(
                "noise says nothing where there is no signal: zero_terminal_snr needs prediction v or clean"
            )
        if config.min_snr and (config.zero_terminal_snr or self.is_flow):
            raise UserError(
                "min_snr gives no weight to a time without signal, and is for diffusion: leave it out with "
                "zero_terminal_snr and with velocity"
            )
        if config.size_shift is not None and (not self.is_flow or config.shift != 1):
            raise UserError("size_shift is for the prediction velocity, in place of a shift")
        if config.last_level and config.size_shift is None:
            raise UserError("last_level goes with size_shift")
        kept = kept_signal(
            config.steps,
            schedule=config.schedule,
            start=config.beta_start,
            end=config.beta_end,
            zero_terminal_snr=config.zero_terminal_snr,
        )
        self.register_buffer("kept", kept, persistent=False)

    def of_size(self, size: int) -> Diffusion:
        """The process of clips of ``size`` latents: itself, unless its shift depends on that."""
        if self.size_shift is None:
            return self
        (least, low), (most, high) = self.size_shift
        own = copy.copy(self)
        own.shift = math.exp(low + (high - low) * (size - least) / (most - least))
        own.size = size
        return own

    def _check_size(self) -> None:
        if self.size_shift is not None and not self.size:
            raise UserError("this method does not shift times by the size of clips: leave out diffusion.size_shift")

    @property
    def clean_time(self) -> float:
        """The time at which nothing is noise."""
        return 0.0 if self.is_flow else CLEAN

    def levels(self, time: Tensor) -> tuple[Tensor, Tensor]:
        """``alpha`` and ``sigma`` (float32) at times of any shape."""
        if self.is_flow:
            sigma = time.double() / self.steps
            alpha = 1 - sigma
        else:
            kept = self.kept[time.long().clamp(min=0)]
            kept = torch.where(time < 0, torch.ones_like(kept), kept)
            alpha, sigma = kept.sqrt(), (1 - kept).sqrt()
        return alpha.float(), sigma.float()

    def draw_times(self, seeds: Tensor, use: str) -> Tensor:
        """A time to learn for each of ``B`` seeds: whole numbers, or of flow matching any up to ``steps``."""
        self._check_size()
        share = uniform(seeds, 1, use)[:, 0]
        if self.is_flow:
            share = 1 - share  # in (0, 1]
            return self.steps * self.shift * share / (1 + (self.shift - 1) * share)
        return (share * self.steps).long()

    def times(self, count: int, spacing: Spacing = "trailing") -> tuple[float, ...]:
        """The times of ``count`` steps of sampling, from noise on, and after them the clean one.

        Raises:
            UserError: more steps than times in training.
        """
        self._check_size()
        if self.size_shift is not None:
            levels = flow_levels_to(count, self.shift, self.last_level)
            return tuple(self.steps * level for level in levels)
        if self.is_flow:
            return tuple(self.steps * level for level in flow_levels(count, self.shift))
        if count > self.steps:
            raise UserError(f"the process has {self.steps} times, and {count} steps were asked for")
        if spacing == "trailing":
            found = [float(round(self.steps - i * self.steps / count)) - 1 for i in range(count)]
        else:
            found = [float((count - 1 - i) * (self.steps // count)) for i in range(count)]
        return (*found, CLEAN)

    def noised(self, clean: Tensor, noise: Tensor, time: Tensor) -> Tensor:
        """``clean`` (``B ...``) at times ``B``."""
        alpha, sigma = (_like(level, clean) for level in self.levels(time))
        return alpha * clean + sigma * noise

    def target(self, clean: Tensor, noise: Tensor, time: Tensor) -> Tensor:
        """What is to be predicted of a noised signal."""
        if self.prediction == "epsilon":
            return noise
        if self.prediction == "clean":
            return clean
        if self.prediction == "velocity":
            return noise - clean
        alpha, sigma = (_like(level, clean) for level in self.levels(time))
        return alpha * noise - sigma * clean

    def split(self, noisy: Tensor, output: Tensor, time: Tensor) -> Split:
        """Signal and noise of ``noisy`` (``B ...``, at times ``B``) by the network's ``output``."""
        alpha, sigma = (_like(level, noisy) for level in self.levels(time))
        if self.prediction == "v":
            return Split(alpha * noisy - sigma * output, sigma * noisy + alpha * output)
        if self.prediction == "velocity":
            return Split(noisy - sigma * output, noisy + alpha * output)
        if self.prediction == "epsilon":
            return Split((noisy - sigma * output) / alpha, output)
        return Split(output, (noisy - alpha * output) / sigma)

    def weights(self, time: Tensor) -> Tensor:
        """Weight of the squared error at times ``B``: all one, or by the smaller ratio of signal to noise."""
        if not self.min_snr:
            return torch.ones(time.shape, device=time.device)
        alpha, sigma = self.levels(time)
        ratio = (alpha / sigma).square()
        capped = ratio.clamp(max=self.min_snr)
        return capped / {"epsilon": ratio, "v": ratio + 1, "clean": torch.ones_like(ratio)}[self.prediction]

    def losses(
        self,
        network: Callable[[Tensor, Tensor], Tensor],
        clean: Tensor,
        seeds: Tensor,
        use: str,
        given: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """The weighted mean squared error of each clean signal (``B ...``), and the times it was noised to.

        ``network`` takes the noised signals and their times ``B``. Times and noise are drawn from ``seeds``, under
        the name of their ``use``. Where a signal is ``given`` (bool, sides of one are repeated) the network sees it
        clean, and its error does not count.
        """
        time = self.draw_times(seeds, f"{use}.time")
        noise = normal(seeds, clean[0].numel(), f"{use}.noise").view_as(clean)
        noisy = self.noised(clean, noise, time).to(clean.dtype)
        output = network(noisy if given is None else torch.where(given, clean, noisy), time)
        error = (output.float() - self.target(clean, noise, time).float()).square()
        if given is None:
            return error.flatten(1).mean(dim=1) * self.weights(time), time
        learnt = (~given).expand_as(error).flatten(1)
        error = (error.flatten(1) * learnt).sum(dim=1) / learnt.sum(dim=1).clamp(min=1)
        return error * self.weights(time), time


def _like(level: Tensor, x: Tensor) -> Tensor:
    """Numbers ``B`` with as many sides as ``x``."""
    return level.view(-1, *(1,) * (x.ndim - 1))


Conditions = frozenset[str]
"""Names of conditions."""


@dataclass(frozen=True, kw_only=True)
class ConditionDropout:
    """How often training does without each set of conditions.

    One row of the table is drawn for a sample; what is left of the probability drops nothing. Then each condition of
    ``also`` is dropped with a probability of its own.
    """

    table: tuple[tuple[str, Share], ...] = ()
    """Sets of conditions, their names joined by ``+``, with the probability that exactly this set is dropped."""
    also: tuple[tuple[str, Share], ...] = ()
    """Conditions with the probability that they are dropped besides."""

    def check(self, conditions: Collection[str]) -> None:
        """See that the table is about these conditions, and a distribution.

        Raises:
            UserError: it names another condition, or its probabilities sum to more than one.
        """
        named = {name for row, _ in (*self.table, *self.also) for name in row.split("+")}
        if unknown := sorted(named - set(conditions)):
            raise UserError(
                f"the dropout of conditions names {', '.join(unknown)}; the conditions are "
                f"{', '.join(conditions) or 'none'}"
            )
        if (total := sum(share for _, share in self.table)) > 1 + 1e-9:
            raise UserError(f"the probabilities of dropping conditions sum to {total:g}, more than 1")

    def draw(self, seeds: Tensor, conditions: Sequence[str], use: str) -> dict[str, Tensor]:
        """Whether each sample does without each condition, ``B`` bool by its name, from ``B`` seeds."""
        place = uniform(seeds, 1, f"{use}.row")[:, 0]
        dropped = {name: torch.zeros_like(place, dtype=torch.bool) for name in conditions}
        first = 0.0
        for row, share in self.table:
            chosen = (place >= first) & (place < first + share)
            for name in row.split("+"):
                dropped[name] = dropped[name] | chosen
            first += share
        for name, share in self.also:
            dropped[name] = dropped[name] | (uniform(seeds, 1, f"{use}.{name}")[:, 0] < share)
        return dropped


def guided_in_order(
    predict: Callable[[Conditions], Tensor], order: Sequence[str], scales: Mapping[str, float]
) -> Tensor:
    """Classifier-free guidance by several conditions, one after the other (Brooks et al. 2023).

    ``v(0) + s_1 [v(1) - v(0)] + s_2 [v(1, 2) - v(1)] + ...``, where ``v(1, 2)`` is the prediction under the first two
    conditions of the ``order``. Terms are collected by prediction, and what would be multiplied by zero is not
    computed: scales of 1 are the conditional prediction itself, bit for bit, and a last scale of 0 saves a call.
    """
    given = [1.0, *(scales[name] for name in order), 0.0]
    total: Tensor | None = None
    for count, (scale, following) in enumerate(pairwise(given)):
        if factor := scale - following:
            term = predict(frozenset(order[:count]))
            term = term if factor == 1 else factor * term
            total = term if total is None else total + term
    assert total is not None, "the factors sum to one"
    return total
