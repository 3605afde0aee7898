"""Samples of diffusion and flow matching: from noise to signal, and back from a signal to the noise it would come of.

DDIM and the midpoint rule are ours, one formula for both processes; the other solvers are those of ``diffusers`` (the
extra ``diffusion``). DDIM goes from each time of the list to the next one. ``diffusers`` steps by the whole ratio of
training's times to sampling's instead, which misses them where that is no whole number (64 of 1000).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from filmstrip.bounds import Count, CountOrZero, Share
from filmstrip.errors import UserError
from filmstrip.nn.sampling import SampleSettings
from filmstrip.objectives.diffusion import Diffusion, Spacing
from filmstrip.randomness import normal

Solver = Literal["ddim", "midpoint", "euler", "heun", "dpm_solver", "uni_pc"]
"""``ddim``: Song et al. 2021, for flow matching Euler's rule; ``midpoint``: the same with the prediction of half a
step (two calls; RF-Solver's second order, Wang et al. 2024); ``euler`` and ``heun``: Karras et al. 2022;
``dpm_solver``: DPM-Solver++ of second order, Lu et al. 2022; ``uni_pc``: UniPC of second order, Zhao et al. 2023, the
only one of ``diffusers`` that also takes flow matching."""
Predict = Callable[[Tensor, Tensor], Tensor]
"""A network under its conditions: noisy signals ``B ...`` and times ``B`` to its output."""
OnStep = Callable[[int, Tensor], Tensor]
"""Called after each step with its number and the signals; what it returns is gone on with."""

_SMALLEST = 2.0**-24
"""The least share of signal for solvers that divide by it."""


@dataclass(frozen=True, kw_only=True)
class DiffusionSampling(SampleSettings):
    """How samples are drawn from noise."""

    solver: Solver = "ddim"
    steps: Count = 64
    """Number of steps."""
    spacing: Spacing = "trailing"
    """Times of the steps: ``trailing`` begins at the last time of training, ``leading`` ends at its first one."""
    eta: Share = 0.0
    """Fresh noise in each step of DDIM: none for 0, as much as in the process itself for 1."""
    refinements: CountOrZero = 0
    """Number of times that each step back to noise is corrected, each a call of the network: the step to signal then
    leads back to where it came from."""


def solver_of(scheduler: Mapping[str, Any]) -> Solver | None:
    """The solver that a scheduler of ``diffusers`` for flow matching is, by its ``scheduler_config.json``; none of
    another one."""
    kind = scheduler.get("_class_name")
    if kind == "FlowMatchEulerDiscreteScheduler":
        return "ddim"
    own = {"solver_order": 2, "solver_type": "bh2", "predict_x0": True, "final_sigmas_type": "zero"}
    usual = all(scheduler.get(name, value) == value for name, value in own.items())
    return "uni_pc" if kind == "UniPCMultistepScheduler" and scheduler.get("use_flow_sigmas") and usual else None


def advance(process: Diffusion, noisy: Tensor, output: Tensor, time: Tensor, next_time: Tensor) -> Tensor:
    """One step of DDIM from times ``B`` to others, in either direction."""
    clean, noise = process.split(noisy, output, time)
    alpha, sigma = (x.view(-1, *(1,) * (noisy.ndim - 1)) for x in process.levels(next_time))
    return alpha * clean + sigma * noise


@torch.no_grad()
def denoise(
    process: Diffusion,
    predict: Predict,
    noisy: Tensor,
    sampling: DiffusionSampling,
    *,
    first: int = 0,
    seeds: Tensor | None = None,
    on_step: OnStep | None = None,
) -> Tensor:
    """Clean signals ``B ...`` of noisy ones, which stand at the time of step ``first`` (noise alone for 0).

    ``seeds`` (``B``) are for the fresh noise of an ``eta`` above zero.

    Raises:
        UserError: the solver is not for this process, or ``diffusers`` is not installed.
    """
    if sampling.solver not in ("ddim", "midpoint"):
        return _by_diffusers(process, predict, noisy, sampling, first=first, on_step=on_step)
    if sampling.eta and (seeds is None or process.is_flow or sampling.solver != "ddim"):
        raise UserError("eta is for the solver ddim of a diffusion, with seeds")
    times = torch.tensor(process.times(sampling.steps, sampling.spacing), device=noisy.device)
    x = noisy.float()
    for i in range(first, sampling.steps):
        now, then = times[i].expand(len(x)), times[i + 1].expand(len(x))
        output = predict(x, now)
        if sampling.solver == "midpoint":
            between = _between(process, now, then)
            middle = advance(process, x, output, now, between)
            output = _carried(process, middle, predict(middle, between), between, now)
        if sampling.eta and i + 1 < sampling.steps:
            assert seeds is not None
            fresh = normal(seeds, x[0].numel(), "diffusion.fresh_noise", i).view_as(x)
            x = _stochastic(process, x, output, now, then, fresh, sampling.eta)
        else:
            x = advance(process, x, output, now, then)
        if on_step is not None:
            x = on_step(i, x)
    return x


@torch.no_grad()
def invert(process: Diffusion, predict: Predict, clean: Tensor, sampling: DiffusionSampling) -> list[Tensor]:
    """What each step of :func:`denoise` would begin with to end at ``clean``: ``steps + 1`` signals, noise first.

    DDIM backwards (Dhariwal and Nichol 2021): the prediction at the end of a step stands for that at its beginning.
    ``refinements`` correct it.
    """
    times = torch.tensor(process.times(sampling.steps, sampling.spacing), device=clean.device)
    found = [clean.float()]
    for i in reversed(range(sampling.steps)):
        x = found[-1]
        noisy_time, time = times[i].expand(len(x)), times[i + 1].expand(len(x))
        # At the clean time itself a prediction of the clean signal says nothing of the noise.
        at = noisy_time if process.prediction == "clean" else time
        y = advance(process, x, predict(x, noisy_time), at, noisy_time)
        if sampling.refinements:
            own = _own_factor(process, noisy_time, time, x)
            for _ in range(sampling.refinements):
                rest = advance(process, y, predict(y, noisy_time), noisy_time, time) - own * y
                y = (x - rest) / own
        found.append(y)
    return found[::-1]


def _own_factor(process: Diffusion, now: Tensor, then: Tensor, like: Tensor) -> Tensor:
    """By how much a step multiplies the noisy signal itself, beside what it takes of the prediction."""
    one, none = torch.ones_like(like[:, :1]), torch.zeros_like(like[:, :1])
    return advance(process, one, none, now, then)


def _between(process: Diffusion, now: Tensor, then: Tensor) -> Tensor:
    """The time half-way."""
    middle = (now + then) / 2
    return middle if process.is_flow else middle.round().clamp(min=0)


def _carried(process: Diffusion, middle: Tensor, output: Tensor, between: Tensor, now: Tensor) -> Tensor:
    """The output at ``now`` with the signal and noise that the network sees ``between``, half a step on."""
    if process.is_flow:
        return output
    clean, noise = process.split(middle, output, between)
    return process.target(clean, noise, now)


def _stochastic(
    process: Diffusion, x: Tensor, output: Tensor, now: Tensor, then: Tensor, fresh: Tensor, eta: float
) -> Tensor:
    """DDIM's step with part of its noise drawn anew (Song et al. 2021, equations 12 and 16)."""
    clean, noise = process.split(x, output, now)
    shape = (-1, *(1,) * (x.ndim - 1))
    (before, spread), (alpha, sigma) = (
        tuple(level.view(shape) for level in process.levels(time)) for time in (now, then)
    )
    new = eta * (sigma / spread) * (1 - (before / alpha).square()).clamp(min=0).sqrt()
    return alpha * clean + (sigma.square() - new.square()).clamp(min=0).sqrt() * noise + new * fresh


def _by_diffusers(
    process: Diffusion,
    predict: Predict,
    noisy: Tensor,
    sampling: DiffusionSampling,
    *,
    first: int,
    on_step: OnStep | None,
) -> Tensor:
    """The same by a scheduler of ``diffusers``, whose signals are scaled in their own way in between."""
    if process.is_flow and sampling.solver != "uni_pc":
        raise UserError(
            f"the solver {sampling.solver} is for diffusion: flow matching takes ddim, midpoint or uni_pc"
        )
    if first or on_step is not None or sampling.eta:
        raise UserError(f"the solver {sampling.solver} only goes from noise to signal: take ddim or midpoint")
    scheduler = _scheduler(process, sampling)
    scheduler.set_timesteps(sampling.steps)
    x = noisy.float() * scheduler.init_noise_sigma
    for time in scheduler.timesteps:
        seen = scheduler.scale_model_input(x, time)
        x = scheduler.step(predict(seen, time.to(x.device).expand(len(x))), time, x).prev_sample
    return x


def _scheduler(process: Diffusion, sampling: DiffusionSampling) -> Any:
    try:
        import diffusers
    except ImportError:
        raise UserError(f"the solver {sampling.solver} needs diffusers: pip install 'filmstrip[diffusion]'") from None
    if process.is_flow:
        return diffusers.UniPCMultistepScheduler(
            num_train_timesteps=process.steps,
            prediction_type="flow_prediction",
            use_flow_sigmas=True,
            flow_shift=process.shift,
        )
    kept = process.kept.cpu().clamp(min=_SMALLEST)
    betas = 1 - kept / torch.cat([kept.new_ones(1), kept[:-1]])
    kinds = {"epsilon": "epsilon", "v": "v_prediction", "clean": "sample"}
    kind, own = {
        "euler": (diffusers.EulerDiscreteScheduler, {}),
        "heun": (diffusers.HeunDiscreteScheduler, {}),
        "dpm_solver": (diffusers.DPMSolverMultistepScheduler, {"solver_order": 2}),
        "uni_pc": (diffusers.UniPCMultistepScheduler, {"solver_order": 2}),
    }[sampling.solver]
    return kind(
        num_train_timesteps=process.steps,
        trained_betas=betas.numpy(),
        prediction_type=kinds[process.prediction],
        timestep_spacing=sampling.spacing,
        **own,
    )
