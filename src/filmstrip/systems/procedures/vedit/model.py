"""VEDIT's network, how it denoises, and what it learns from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from filmstrip.bounds import AnyNumber, Count, CountOrZero, Rate
from filmstrip.errors import UserError
from filmstrip.nn.attentive_pooling import AttentivePooling
from filmstrip.nn.noise_schedule import flow_levels
from filmstrip.nn.patches import take
from filmstrip.nn.rotary import Rotary
from filmstrip.nn.sampling import guided
from filmstrip.nn.time_embedding import TimeEmbedding
from filmstrip.nn.two_branch import (
    AdaptiveNorm,
    AttentionKind,
    Modulation,
    Placement,
    TwoBranchBlock,
    allow_keys,
    modulate,
    split,
)
from filmstrip.objectives.step_prediction import StepPrediction, StepPredictionConfig
from filmstrip.protocols import Batch, Loss, Objective
from filmstrip.randomness import normal, uniform


class AtTime(NamedTuple):
    """What a time asks of the network."""

    blocks: list[Modulation]
    last: Tensor
    """Modulation of the norm after the blocks, ``B 2D``."""


class VEDiT(nn.Module):
    """The velocity of noisy clips, given seen ones: two-branch blocks between linear layers.

    Lin et al. 2024, section 3.2 and algorithm 1; what surrounds the blocks is that of Esser et al. 2024 (SD3), from
    which they come. A clip's tokens all stand at the clip's place in the procedure.
    """

    def __init__(self, config: VEDITConfig) -> None:
        super().__init__()
        feature_width, depth, num_heads = config.feature_width, config.depth, config.num_heads
        width = self.width = config.width
        self.target_in = nn.Linear(feature_width, width)
        self.seen_in = nn.Linear(feature_width, width)
        self.time = TimeEmbedding(width)
        self.rotary = Rotary(width // num_heads)
        self.blocks = nn.ModuleList(
            TwoBranchBlock(width, num_heads, attention=config.attention, last=i == depth - 1) for i in range(depth)
        )
        self.norm = AdaptiveNorm(width, 2)
        self.out = nn.Linear(width, feature_width)

    def place(
        self, target_places: Tensor, seen_places: Tensor, target_used: Tensor, seen_used: Tensor, num_tokens: int
    ) -> Placement:
        """Where clips of ``num_tokens`` tokens stand: places ``B T`` and ``B M`` (int64), and which count (bool)."""

        def tokens(x: Tensor) -> Tensor:
            return repeat(x, "b t -> b (t n)", n=num_tokens)

        targets, seen = tokens(target_used), tokens(seen_used)
        return Placement(
            target_angles=self.rotary(tokens(target_places)[..., None]),
            seen_angles=self.rotary(tokens(seen_places)[..., None]),
            targets=allow_keys(targets),
            seen=allow_keys(seen),
            both=allow_keys(torch.cat([targets, seen], dim=1)),
        )

    def embed(self, seen: Tensor) -> Tensor:
        """Tokens ``B (M N) width`` of seen clips ``B M N D``: the part of their branch that no time changes."""
        return self.seen_in(rearrange(seen, "b m n d -> b (m n) d"))

    def at_times(self, times: Tensor) -> list[AtTime]:
        """What each of ``K`` times (``K``, 0..1000) asks of the network, for a whole batch: no clip changes it."""
        embedded = self.time(times)
        blocks = [block.modulation(embedded) for block in self.blocks]
        rows = [[Modulation(*row) for row in zip(m.target.split(1), m.seen.split(1))] for m in blocks]
        return [AtTime(own, last) for *own, last in zip(*rows, self.norm(embedded).split(1))]

    def forward(self, target: Tensor, seen: Tensor | None, time: AtTime, placement: Placement) -> Tensor:
        """The velocity ``B T N D``, from data to noise, of clips ``B T N D``; ``time`` is of :meth:`at_times`.

        ``seen`` are tokens from :meth:`embed`; without them nothing is known of the other clips.
        """
        x = self.target_in(rearrange(target, "b t n d -> b (t n) d"))
        for block, modulation in zip(self.blocks, time.blocks):
            x, seen = block(x, seen, modulation, placement)
        velocity = self.out(modulate(x, *split(time.last, self.width)))
        return rearrange(velocity, "b (t n) d -> b t n d", n=target.shape[2])

    def depth_of(self, name: str) -> int:
        """The layer of a parameter of this network: 0 before the blocks, ``i + 1`` for block ``i``."""
        part, _, rest = name.partition(".")
        if part == "blocks":
            return int(rest.split(".")[0]) + 1
        return len(self.blocks) + 1 if part in ("norm", "out") else 0


class Predicted(NamedTuple):
    """Clips predicted for a batch of windows."""

    clips: Tensor
    """Predicted clips, ``B T N D``."""
    places: Tensor
    """Positions of the clips in their windows, ``B T`` int64."""
    used: Tensor
    """Whether each clip is a target, ``B T``; the others are meaningless."""


class ClipDenoiser(nn.Module):
    """Clips from noise by the velocity of a network, with classifier-free guidance, also in training.

    The guided velocity is ``guidance`` times as far from the one without seen clips as the one with them; without
    them the seen branch does not run. ``recompute`` keeps only the clips between the steps for the backward pass,
    and runs each step again there.
    """

    def __init__(self, config: VEDITConfig) -> None:
        super().__init__()
        self.network = VEDiT(config)
        self.guidance = config.guidance
        self.levels = flow_levels(config.denoising_steps, config.shift)
        self.recompute = config.recompute
        self.num_targets = config.num_targets

    def predict(self, features: Tensor, seen: Tensor, target: Tensor, seeds: Tensor) -> Predicted:
        """The clips at ``target`` (``B S``), from ``features`` (``B S N D``) at ``seen``, and noise from the seeds.

        With ``num_targets`` no window has more targets, and at most the other places are seen: the branches then
        hold no more clips than that. A window that does not keep to it stops the program.
        """
        size = features.shape[1]
        most = size if self.num_targets is None else self.num_targets
        places, used = _choose(target, most)
        seen_places, seen_used = _choose(seen, size if self.num_targets is None else size - most)
        noise = normal(seeds, places.shape[1] * features.shape[2] * features.shape[3], "vedit.noise")
        clips = self(
            noise.view(*places.shape, *features.shape[2:]),
            take(features, seen_places),
            self.network.place(places, seen_places, used, seen_used, features.shape[2]),
        )
        return Predicted(clips, places, used)

    def forward(self, noise: Tensor, seen: Tensor, placement: Placement) -> Tensor:
        """Clips ``B T N D`` made of noise of that shape, given the clips ``seen`` (``B M N D``)."""
        tokens = self.network.embed(seen) if seen.shape[1] else None
        levels = torch.tensor(self.levels, device=noise.device)
        clips = noise
        for time, step in zip(self.network.at_times(1000 * levels[:-1]), levels.diff()):
            if self.recompute and torch.is_grad_enabled():
                velocity = checkpoint(
                    self.velocity, clips, tokens, time, placement, use_reentrant=False, preserve_rng_state=False
                )
            else:
                velocity = self.velocity(clips, tokens, time, placement)
            clips = clips + step * velocity
        return clips

    def velocity(self, clips: Tensor, seen: Tensor | None, time: AtTime, placement: Placement) -> Tensor:
        """The guided velocity ``B T N D``, float32; ``seen`` are the network's tokens of the seen clips."""
        given = self.network(clips, seen, time, placement).float()
        if seen is None or self.guidance == 1:
            return given
        return guided(given, self.network(clips, None, time, placement).float(), self.guidance)


def _choose(mask: Tensor, most: int) -> tuple[Tensor, Tensor]:
    """The first places that a mask ``B S`` marks, ``B most`` in temporal order, then others; and which are marked."""
    torch._assert_async((mask.sum(dim=1) <= most).all(), f"a window has more than {most} such places")
    places = (~mask).to(torch.uint8).argsort(dim=1, stable=True)[:, :most]
    return places, mask.gather(1, places)


class VEDIT(StepPrediction):
    """Names the steps of clips that are made out of noise: one cross-entropy through all denoising."""

    draws = True

    def __init__(self, config: VEDITConfig) -> None:
        super().__init__()
        self.predictor = ClipDenoiser(config)
        self.classifier = AttentivePooling(config.feature_width, config.num_steps)

    def logits(self, batch: Batch, seeds: Tensor) -> Tensor:
        """``B S steps``; zeros where no step is asked for."""
        features, seen, target = (batch[key] for key in ("features", "seen", "target"))
        clips, places, used = self.predictor.predict(features, seen, target, seeds)
        logits = self.classifier(rearrange(clips, "b t n d -> (b t) n d"))
        logits = rearrange(logits, "(b t) c -> b t c", t=places.shape[1]) * used[..., None]
        at = places[..., None].expand_as(logits)
        return logits.new_zeros(*features.shape[:2], logits.shape[-1]).scatter(1, at, logits)

    def depth_of(self, name: str) -> int:
        """The predictor's own layers; the classifier comes after its last."""
        return _depth_of(self.predictor.network, name)


class Pretraining(Objective):
    """Makes one hidden clip of a window out of noise, and compares it with the true one."""

    requires = ("features", "seen", "seed")

    def __init__(self, config: PretrainingConfig) -> None:
        super().__init__()
        self.predictor = ClipDenoiser(config)

    def forward(self, batch: Batch, phase: str = "main") -> Loss:
        """Mean squared error of the hidden clips' embeddings."""
        features, given = batch["features"], batch["seen"]
        order = uniform(batch["seed"], given.shape[1], "vedit.hidden").masked_fill(~given, -1.0)
        hidden = F.one_hot(order.argmax(dim=1), given.shape[1]).bool() & given
        clips, places, used = self.predictor.predict(features, given & ~hidden, hidden, batch["seed"])
        true = features.gather(1, places[:, :, None, None].expand_as(clips))
        error = (clips - true).square().mean(dim=(2, 3))
        return Loss((error * used).sum() / used.sum().clamp(min=1), {})

    def depth_of(self, name: str) -> int:
        """The predictor's own layers."""
        return _depth_of(self.predictor.network, name)


def _depth_of(network: VEDiT, name: str) -> int:
    prefix = "predictor.network."
    return network.depth_of(name.removeprefix(prefix)) if name.startswith(prefix) else len(network.blocks) + 2


class StepClassifier(StepPrediction):
    """Names the steps of clips that are seen: the attentive classifier alone, without a predictor."""

    def __init__(self, classifier: AttentivePooling) -> None:
        super().__init__()
        self.classifier = classifier

    def logits(self, batch: Batch, seeds: Tensor) -> Tensor:
        """``B S steps``; nothing is drawn."""
        logits = self.classifier(rearrange(batch["features"], "b s n d -> (b s) n d"))
        return rearrange(logits, "(b s) c -> b s c", b=len(batch["features"]))


@dataclass(frozen=True, kw_only=True)
class VEDITConfig(StepPredictionConfig):
    """The predictor's size, how it denoises, and how many places are asked for."""

    width: Count = 2048
    depth: Count = 12
    num_heads: Count = 32
    attention: AttentionKind = "joint"
    """Attention of tokens to both branches, each with its own projections (``joint``) or the same (``self``), or to
    the other branch alone (``cross``)."""
    denoising_steps: Count = 24
    guidance: AnyNumber = 1.0
    """Scale of classifier-free guidance, also in training; 1 for none."""
    shift: Rate = 1.0
    """Shift of the noise schedule: above 1, more steps have high noise (Esser et al. 2024)."""
    recompute: bool = True
    """Whether to recompute each denoising step in the backward pass, which saves memory."""
    num_targets: Count | None = 1
    """Maximum number of targets in a window, the other positions being seen; None for any number, which is slower."""

    def build(self) -> VEDIT:
        """Build with fresh weights.

        Raises:
            UserError: the data has no steps.
        """
        self.check()
        return VEDIT(self)


@dataclass(frozen=True, kw_only=True)
class PretrainingConfig(VEDITConfig):
    """The predictor alone; ``init`` of a later run starts from it."""

    def build(self) -> Pretraining:
        """Build with fresh weights.

        Raises:
            UserError: the size of features is not known.
        """
        if not self.feature_width:
            raise UserError("pretraining needs features (--data FOLDER), or objective.feature_width")
        return Pretraining(self)


@dataclass(frozen=True, kw_only=True)
class StepClassifierConfig(StepPredictionConfig):
    """The pooler's depth."""

    depth: CountOrZero = 3
    """Number of self-attention blocks before the query."""

    def build(self) -> StepClassifier:
        """Build with fresh weights.

        Raises:
            UserError: the data has no steps.
        """
        self.check()
        return StepClassifier(AttentivePooling(self.feature_width, self.num_steps, depth=self.depth))
