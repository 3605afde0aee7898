"""What flexible diffusion learns from, its loss, and long videos stage by stage."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field, fields, replace
from itertools import count
from typing import Any, ClassVar, Literal, NamedTuple, Self, cast

import torch
from torch import Tensor

from filmstrip.bounds import Count, CountOrZero
from filmstrip.data.config import Clip, DataInfo
from filmstrip.data.kinds.clips import ClipInfo
from filmstrip.errors import UserError
from filmstrip.models.conditions import FrameConditions, Known
from filmstrip.models.video_unet import UNetArchitecture
from filmstrip.objectives.diffusion import ConditionDropout
from filmstrip.objectives.diffusion_sampling import DiffusionSampling, Predict, denoise
from filmstrip.objectives.noised_latents import NoisedLatents, NoisedLatentsConfig
from filmstrip.protocols import Batch, Condition, Loss, as_float, check_video
from filmstrip.randomness import uniform
from filmstrip.settings import FREE
from filmstrip.systems.generation.latent_fdm.network import FlexibleUNet
from filmstrip.systems.generation.latent_fdm.schedules import Schedule, stages

_GROUPS = 12
"""Maximum number of groups of a clip: the published loop ends by chance, and never where K is the whole clip."""


class Chosen(NamedTuple):
    """The frames of each of ``B`` clips that the network sees in a training step."""

    frames: Tensor
    """Numbers of ``K`` frames, ``B K`` int64: ascending, then those of the padding, ascending."""
    observed: Tensor
    """Mask of those that are given clean, ``B K`` bool."""
    padding: Tensor
    """Mask of those that are apart from the others, ``B K`` bool."""


def choose_frames(seeds: Tensor, num_frames: int, max_frames: int) -> Chosen:
    """``max_frames`` (K) of the frames ``0..num_frames - 1`` of each clip.

    Groups of ``1..K`` frames of any even spacing are drawn one after the other; the first is latent, each other
    observed or latent by chance, and frames keep what they were first. The group that would make more than K is left
    out, and ends it. What is missing to K are further frames, as padding: latent, too, but neither they nor the
    others see each other.
    """
    t, k = num_frames, max_frames
    size, spacing, start, seen = uniform(seeds, 4 * _GROUPS, "latent_fdm.groups").unflatten(1, (4, _GROUPS)).unbind(1)
    size = 1 + (size * k).long()
    spacing = torch.exp(spacing * torch.log(t / (size - 0.999)))
    start = start * (t - spacing * (size - 1))
    number = torch.arange(k, device=seeds.device)
    places = (start[..., None] + number * spacing[..., None]).long().clamp(0, t - 1)  # B groups K
    within = number < size[..., None]
    groups = torch.zeros(*size.shape, t + 1, dtype=torch.bool, device=seeds.device)
    groups.scatter_(2, torch.where(within, places, t), True)
    taken, observed = groups[:, 0, :t], torch.zeros_like(groups[:, 0, :t])
    going = torch.ones_like(size[:, :1], dtype=torch.bool)
    for group in range(1, _GROUPS):
        new = groups[:, group, :t] & ~taken
        going = going & (new.sum(dim=1, keepdim=True) + taken.sum(dim=1, keepdim=True) <= k)
        taken = taken | (new & going)
        observed = observed | (new & going & (seen[:, group, None] < 0.5))
    # Frames that are chosen come first, then others by chance, both in the order of time.
    chance = uniform(seeds, t, "latent_fdm.padding")
    picked = torch.where(taken, -1.0, chance).argsort(dim=1, stable=True)[:, :k]
    padding = ~taken.gather(1, picked)
    frames = (picked + t * padding).sort(dim=1).values
    padding, frames = frames >= t, frames % t
    return Chosen(frames, observed.gather(1, frames), padding)


@dataclass(frozen=True, kw_only=True)
class FDMSampling(DiffusionSampling):
    """Steps from noise, and the order of frames."""

    schedule: Schedule = "autoregressive"
    """Order in which frames are made, and those that are seen meanwhile."""
    at_once: Count | None = None
    """Number of frames that are made in one stage, of those that the network sees; by default half of them, or all
    that are missing, where the whole video fits."""


@dataclass(frozen=True, kw_only=True)
class LatentFDMConfig(NoisedLatentsConfig):
    """The network, the frames that it sees at once, and what else it is told."""

    has_text_run: ClassVar[bool] = False

    unet: UNetArchitecture = field(default_factory=UNetArchitecture)
    """Levels of the network."""
    max_frames: Count = 20
    """Number of frames that the network sees at once, observed ones included (the paper's K)."""
    conditions: tuple[Literal["action"], ...] = ()
    """Conditions of samples: actions that lead from frame to frame."""
    num_actions: CountOrZero = 0
    action_dim: CountOrZero = 0
    """Discrete actions, or values of a continuous one: told by the data."""
    sampling: FDMSampling = field(default_factory=FDMSampling, metadata=FREE)
    """Settings of sampling, unless others are given."""

    def bind(self, info: DataInfo) -> LatentFDMConfig:
        """Take over what the actions of the data are.

        Raises:
            UserError: the model is to see actions and the data have none.
        """
        if "action" not in self.conditions:
            return self
        if not isinstance(info, ClipInfo) or not (info.num_actions or info.action_dim):
            raise UserError("actions as condition need data with actions: leave them out of objective.conditions")
        return replace(self, num_actions=info.num_actions, action_dim=info.action_dim)

    def for_clip(self, clip: Clip) -> Self:
        """See :meth:`ObjectiveConfig.for_clip`: of shorter clips all frames are seen."""
        own = cast(Any, super().for_clip(clip))
        return replace(own, max_frames=min(self.max_frames, clip.num_frames))

    def build(self) -> LatentFDM:
        """Build everything with fresh weights.

        Raises:
            UserError: sizes do not fit, the tokenizer codes frames together, or clips are too short.
        """
        return LatentFDM(self)


class LatentFDM(NoisedLatents):
    """Predicts the noise of some frames' latents given some others; makes videos of any length by a schedule."""

    order = ("action",)

    def __init__(self, config: LatentFDMConfig) -> None:
        super().__init__(config, text_width=None)
        self.config, self.max_frames = config, config.max_frames
        if config.max_frames > config.num_frames:
            raise UserError(
                f"objective.max_frames: {config.max_frames} frames are to be chosen of clips of {config.num_frames}; "
                "give fewer, or longer clips"
            )
        if not self.tokenizer.frames_apart:
            raise UserError(
                f"{type(config.tokenizer).__name__} codes frames together, so that none could be seen alone: give a "
                "tokenizer of single frames (tokenizers.vae_kl)"
            )
        self.unet = FlexibleUNet(config.unet, channels=self.latent_dim)
        sides = self.latent_size(config.size, config.size)
        if any(side % self.unet.multiple for side in sides):
            raise UserError(
                f"latents of {sides[0]} x {sides[1]} cannot be halved {len(config.unet.widths) - 1} times: change "
                "objective.size or objective.unet.widths"
            )
        action = "action" in config.conditions
        known = Known(num_actions=config.num_actions * action, action_dim=config.action_dim * action)
        self.conditions = FrameConditions(known, label_width=0, action_width=self.unet.time_width)
        self.requires = ("video", "seed", *(("action",) if known.has_action else ()))

    @property
    def name(self) -> str:
        """Prefix of the names under which random numbers are drawn."""
        return "latent_fdm"

    # Learning

    def forward(self, batch: Batch, phase: str = "main") -> Loss:
        """Squared error of what is predicted of the chosen frames that are not observed."""
        video, seeds = batch["video"], batch["seed"]
        check_video(video, multiple=self.tokenizer.patch_size)
        num_frames = video.shape[1]
        if num_frames < self.max_frames:
            raise UserError(
                f"clips have {num_frames} frames, of which {self.max_frames} are to be chosen: set "
                "data.clip.num_frames, or objective.max_frames to fewer"
            )
        chosen = choose_frames(seeds, num_frames, self.max_frames)
        rows = torch.arange(len(video), device=video.device)[:, None]
        latents = self.latents(video[rows, chosen.frames])  # only what is seen is coded
        hidden = self.config.dropout.draw(seeds, self.order, "latent_fdm.dropout")["action"]
        given = self.conditions(len(video), num_frames, label=None, action=batch.get("action"), unknown=hidden)
        apart = chosen.padding[:, :, None] != chosen.padding[:, None]
        added = self._led_to(given, chosen.frames, chosen.padding)

        def predict(x: Tensor, time: Tensor) -> Tensor:
            return self.unet(
                x,
                time,
                frames=chosen.frames,
                observed=chosen.observed,
                reach=num_frames - 1,
                apart=apart,
                added=added,
            )

        observed = chosen.observed[:, :, None, None, None]
        losses, _ = self.diffusion.losses(predict, latents, seeds, self.name, given=observed)
        metrics = {"observed": chosen.observed.float().mean(), "padding": chosen.padding.float().mean()}
        return Loss(losses.mean(), metrics)

    def _led_to(self, given: Tensor | None, frames: Tensor, padding: Tensor | None = None) -> Tensor | None:
        """What frames (``B K``, ascending, then padding) are told of actions, by those of all frames, ``B T D``.

        The mean of what led to it since the frame that is seen before it; nothing is known of the first one.
        """
        if given is None:
            return None
        until = given.float().cumsum(dim=1)
        rows = torch.arange(len(frames), device=frames.device)[:, None]
        until = until[rows, frames]
        apart = (frames[:, 1:] - frames[:, :-1]).clamp(min=1)
        mean = (until[:, 1:] - until[:, :-1]) / apart[..., None]
        none = self.conditions.no_action.expand(len(frames), 1, -1)
        if padding is not None:
            mean = torch.where((padding[:, 1:] != padding[:, :-1])[..., None], none, mean)
        return torch.cat([none, mean], dim=1)

    # Sampling

    @torch.no_grad()
    def sample(self, condition: Condition, *, seed: int, sampling: DiffusionSampling | None = None) -> Tensor:
        """``B T C H W`` in 0..1: frames that are given, wherever in the video, stay as they are.

        Raises:
            UserError: the condition does not fit the model.
        """
        given = self._given(condition)
        pieces = list(self._made(condition, given, seed=seed, sampling=self._settings(sampling)))
        if condition.video is None or not given:
            return torch.cat(pieces, dim=1)
        video = as_float(condition.video)
        made = torch.cat([video[:, : _first_missing(given)], *pieces], dim=1)
        made[:, given] = video[:, given]
        return made

    @torch.no_grad()
    def stream(
        self, condition: Condition, *, seed: int, sampling: DiffusionSampling | None = None
    ) -> Iterator[Tensor]:
        """The frames after those given, ``B t C H W``, as soon as none before them is missing; of a condition whose
        given frames are the first ones.

        Raises:
            UserError: the condition does not fit the model, or other frames are given.
        """
        if condition.known is not None:
            raise UserError("only what follows given first frames comes piece by piece: use sample")
        yield from self._made(condition, self._given(condition), seed=seed, sampling=self._settings(sampling))

    def _made(self, condition: Condition, given: list[int], *, seed: int, sampling: FDMSampling) -> Iterator[Tensor]:
        """All frames from the first one that is not given, ``B t C H W``, as soon as none before them is missing."""
        b, t = condition.batch_size, condition.num_frames
        device = self.latent_scale.device
        seeds = seed + torch.arange(b, device=device)
        latents = self.noise(seeds, t, self.latent_size(self.size, self.size))
        if condition.video is not None and given:
            latents[:, given] = self.latents(as_float(condition.video)[:, given])
        actions = self.conditions(b, t, label=None, action=condition.action)
        order = stages(sampling.schedule, t, given, max_frames=self.max_frames, at_once=sampling.at_once)
        known, ready = set(given), _first_missing(given)
        for number, stage in enumerate(order):
            frames = sorted(stage.observed + stage.latent)
            observed = torch.tensor([n in stage.observed for n in frames], device=device)
            predict = self.predictor(latents[:, frames], frames, observed, actions)
            found = denoise(self.diffusion, predict, latents[:, frames], sampling, seeds=seeds + (number << 40))
            latents[:, list(stage.latent)] = found[:, ~observed]
            known.update(stage.latent)
            end = _first_missing(known)
            if end > ready:
                yield self.pixels(latents[:, ready:end])
            ready = end

    def predictor(self, known: Tensor, frames: list[int], observed: Tensor, actions: Tensor | None) -> Predict:
        """The network for frames of these numbers, of which some (``K`` bool) are observed: ``known``, ``B K D h w``.

        ``actions`` are embedded ones of all frames, ``B T D``.
        """
        numbers = torch.tensor(frames, device=known.device).expand(len(known), -1)
        added = self._led_to(actions, numbers)

        def predict(x: Tensor, time: Tensor) -> Tensor:
            return self.unet(
                torch.where(observed[:, None, None, None], known, x),
                time,
                frames=numbers,
                observed=observed.expand(len(x), -1),
                reach=frames[-1] - frames[0],
                added=added,
            ).float()

        return predict

    def given_places(self, known: Tensor) -> Tensor:
        """See :class:`~filmstrip.protocols.Completes`: frames of which all pixels are known."""
        whole = known.flatten(2).all(dim=2)
        return whole[:, :, None, None, None].expand(-1, -1, 1, *self.latent_size(self.size, self.size))

    def _given(self, condition: Condition) -> list[int]:
        """Numbers of the frames that are given.

        Raises:
            UserError: the condition does not fit the model.
        """
        video, frames = condition.video, condition.num_frames
        if condition.text:
            raise UserError("this model was trained without texts: leave them out of the condition")
        self.conditions.check(condition, optional=self.config.dropout != ConditionDropout())
        if video is None:
            return []
        if tuple(video.shape[3:]) != (self.size, self.size):
            raise UserError(
                f"this model makes frames of {self.size} x {self.size} pixels, and was given {tuple(video.shape[3:])}"
            )
        if condition.known is None:
            if video.shape[1] > frames:
                raise UserError(f"{video.shape[1]} frames were given, and {frames} are to be made in all")
            return list(range(video.shape[1]))
        known = condition.known.flatten(2)
        whole = known.all(dim=2)
        if bool((known.any(dim=2) != whole).any()) or bool((whole != whole[:1]).any()):
            raise UserError(
                "this model is given whole frames, and all samples the same ones: for parts of frames give a run of "
                "generation.vdt"
            )
        return [n for n, one in enumerate(whole[0].expand(frames).tolist()) if one]

    def _settings(self, sampling: object) -> FDMSampling:
        """How to sample; other settings of diffusion keep the model's own schedule.

        Raises:
            UserError: the settings are of another way of sampling.
        """
        own = self.config.sampling
        if sampling is None or isinstance(sampling, FDMSampling):
            return own if sampling is None else sampling
        if not isinstance(sampling, DiffusionSampling):
            raise UserError(f"samples are drawn from noise (FDMSampling), not by {type(sampling).__name__}")
        shared = {f.name: getattr(sampling, f.name) for f in fields(DiffusionSampling)}
        return replace(own, **shared)

    def depth_of(self, name: str) -> int:
        """The U-Net's layers; actions come first."""
        part, _, rest = name.partition(".")
        return self.unet.depth_of(rest) if part == "unet" else 0


def _first_missing(frames: Collection[int]) -> int:
    """The smallest number that is not among these."""
    return next(n for n in count() if n not in frames)
