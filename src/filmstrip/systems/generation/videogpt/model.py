"""VideoGPT: the prior over a tokenizer's codes, its conditions, its loss and its samples."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from typing import Annotated, Literal, Self

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from filmstrip.bounds import Count, CountOrZero, NotEmpty, Rate, Share, ShareBelowOne
from filmstrip.data.config import DataInfo
from filmstrip.data.kinds.clips import ClipInfo
from filmstrip.errors import UserError
from filmstrip.inference import device_of
from filmstrip.models.conditions import ClipVector, Known
from filmstrip.nn.axial import AxialPositions
from filmstrip.nn.channel_norm import ChannelNorm
from filmstrip.nn.sampling import Sampling
from filmstrip.objectives.latent import LatentConfig, LatentObjective
from filmstrip.protocols import Batch, Condition, Grid, Loss, Published, Tokens, as_float
from filmstrip.randomness import uniform
from filmstrip.systems.generation.videogpt.transformer import AttentionKind, CodeTransformer
from filmstrip.systems.generation.videogpt.weights import from_prior
from filmstrip.weights.keymap import COUNTERS, Weights, check_names

ConditionKind = Literal["label", "action", "frames"]
_VQVAE = "vqvae."  # what the names of the tokenizer begin with in a released state


class FramesBlock(nn.Module):
    """Two 3 x 3 x 3 convolutions, each normalised and rectified before they join the input: ``B C T H W``."""

    def __init__(self, inputs: int, outputs: int, *, stride: int, project: bool) -> None:
        super().__init__()
        strides = (1, stride, stride)
        self.conv1 = nn.Conv3d(inputs, outputs, 3, stride=strides, padding=1, bias=False)
        self.norm1 = ChannelNorm(outputs)
        self.conv2 = nn.Conv3d(outputs, outputs, 3, padding=1, bias=False)
        self.norm2 = ChannelNorm(outputs)
        self.shortcut = nn.Identity()
        if project:
            conv = nn.Conv3d(inputs, outputs, 1, stride=strides, bias=False)
            self.shortcut = nn.Sequential(conv, ChannelNorm(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """Apply the block; the frames stay as many."""
        y = F.relu(self.norm1(self.conv1(x)))
        return F.relu(F.relu(self.norm2(self.conv2(y))) + self.shortcut(x))


class FirstFrames(nn.Module):
    """The features of a clip's first frames, at a quarter of their height and width, by a residual network.

    The second and third stage halve the grid; positions are learnt. The size is a multiple of 4, and the width of the
    last stage one of 3, which the positions' axes share.
    """

    def __init__(self, config: VideoGPTConfig) -> None:
        super().__init__()
        widths, depths = config.frames_widths, config.frames_depths
        num_frames = self.num_frames = config.context_frames
        self.width = widths[-1]
        self.stem = nn.Conv3d(3, widths[0], 3, padding=1, bias=False)
        self.norm = ChannelNorm(widths[0])
        self.stages = nn.ModuleList()
        inputs = widths[0]
        for i, (width, depth) in enumerate(zip(widths, depths, strict=True)):
            first = FramesBlock(inputs, width, stride=2 if i in (1, 2) else 1, project=True)
            rest = (FramesBlock(width, width, stride=1, project=False) for _ in range(depth - 1))
            self.stages.append(nn.Sequential(first, *rest))
            inputs = width
        self.positions = AxialPositions((num_frames, config.size // 4, config.size // 4), self.width)

    def forward(self, video: Tensor) -> Tensor:
        """Tokens ``B M D`` of the first ``num_frames`` of ``B T C H W`` video."""
        x = rearrange(as_float(video[:, : self.num_frames]) - 0.5, "b t c h w -> b c t h w")
        x = F.relu(self.norm(self.stem(x)))
        for stage in self.stages:
            x = stage(x)
        x = rearrange(x, "b d t h w -> b t h w d") + self.positions(x.shape[2:])
        return x.flatten(1, 3)


class VideoGPT(LatentObjective):
    """Cross-entropy of codes given a clip's vector (class, actions) and the tokens of its first frames; sampling."""

    def __init__(self, config: VideoGPTConfig) -> None:
        label, action = "label" in config.conditions, "action" in config.conditions
        known = Known(
            num_classes=config.num_classes if label else 0,
            num_actions=config.num_actions if action else 0,
            action_dim=config.action_dim if action else 0,
        )
        vector = ClipVector(known, config.num_frames)
        frames = FirstFrames(config) if "frames" in config.conditions else None
        super().__init__(config.build_tokenizer(), num_frames=config.num_frames, size=config.size)
        self.transformer = CodeTransformer(
            codebook_size=self.codebook_size,
            num_codebooks=self.num_codebooks,
            grid=self.grid,
            width=config.width,
            depth=config.depth,
            num_heads=config.num_heads,
            mlp_ratio=config.mlp_ratio,
            attention=config.attention,
            dropout=config.dropout,
            condition_dim=vector.width,
            context_width=None if frames is None else frames.width,
        )
        self.vector = vector
        self.frames = frames
        drop = self.condition_drop = config.condition_drop if config.conditions else 0.0
        needed = {"label": known.num_classes, "action": known.has_action, "video": frames, "seed": drop}
        self.requires = tuple(key for key, wanted in needed.items() if wanted)

    def forward(self, batch: Batch, phase: str = "main") -> Loss:
        """Nats per code; logs the same in bits."""
        nats = -self._log_probs(batch, drop=self.training).mean()
        return Loss(nats, {"bits_per_dim": nats.detach() / math.log(2)})

    @torch.no_grad()
    def log_prob(self, batch: Batch) -> Tensor:
        """The log-probability of all codes of each clip given its conditions: ``B`` nats, exact, and of codes alone.

        It says nothing of pixels: a tokenizer has the same codes for many videos. Divided by ``dims_of(batch)`` and
        by ``-log(2)`` it is the paper's bits/dim.
        """
        return self._log_probs(batch, drop=False).sum(dim=1)

    def from_published(self, theirs: Mapping[str, Tensor]) -> Weights:
        """All weights, those of its VQ-VAE included, from a released state or what its file holds.

        Raises:
            UserError: the state is of another network, or of one of another size, or the tokenizer is no VQ-VAE.
        """
        theirs = theirs.get("state_dict", theirs)
        if not isinstance(self.tokenizer, Published):
            raise UserError(
                f"a released VideoGPT holds its VQ-VAE, and this one has a {type(self.tokenizer).__name__}"
            )
        inner = {name.removeprefix(_VQVAE): w for name, w in theirs.items() if name.startswith(_VQVAE)}
        tokenizer = self.tokenizer.from_published(inner)
        own = {name: w for name, w in theirs.items() if not name.startswith(_VQVAE)}
        ours = from_prior(own, tokenizer["bottleneck.codes"][0])
        ours |= {f"tokenizer.{name}": w for name, w in tokenizer.items()}
        check_names("the published VideoGPT, in our names,", ours, self.state_dict(), optional=(COUNTERS,))
        return ours

    def dims_of(self, batch: Batch) -> int:
        """How many codes stand for a clip, each a dimension of bits/dim."""
        return self.codes(batch).ids.shape[1]

    def _log_probs(self, batch: Batch, *, drop: bool) -> Tensor:
        """Log-probability of each code given those before it, ``B N`` float32."""
        ids = self.codes(batch).ids
        vector = self.vector(batch.get("label"), batch.get("action"))
        context = None if self.frames is None else self.frames(batch["video"])
        if drop and self.condition_drop:
            kept = uniform(batch["seed"], 1, "videogpt.condition_drop") >= self.condition_drop
            vector = None if vector is None else vector * kept
            context = None if context is None else context * kept[..., None]
        return self._each(ids, vector, context)

    def _each(self, ids: Tensor, vector: Tensor | None, context: Tensor | None) -> Tensor:
        logits = self.transformer(ids, vector, context).float()
        return -F.cross_entropy(logits.flatten(0, 1), ids.flatten(), reduction="none").view_as(ids)

    @torch.no_grad()
    def frame_log_probs(self, codes: Tensor, batch: Batch) -> Tensor:
        """See :class:`~filmstrip.protocols.FrameScorer`: together they are :meth:`log_prob`.

        Raises:
            UserError: the model has conditions that frames alone do not have.
        """
        if self.frames is not None or self.vector.known.has_action:
            raise UserError(
                "a likelihood of single frames is that of frames given earlier ones, and this model has first frames "
                "or actions as conditions: train it without"
            )
        vector = self.vector(batch.get("label"), None)
        each = self._each(codes.flatten(1), vector, None)
        return each.view(*codes.shape[:2], *self.grid[1:], self.num_codebooks).sum(dim=-1)

    def sample(
        self, condition: Condition, *, seed: int, sampling: Sampling | None = None, compile: bool = False
    ) -> Tensor:
        """``B T C H W`` in 0..1: as :class:`~filmstrip.protocols.Generator` says; the pieces of :meth:`stream`.

        A model without a network for first frames continues them from their codes. Fewer frames than it was trained
        on cost less. ``compile`` pays where many are drawn on a GPU.

        Raises:
            UserError: the condition is not what the model was trained for.
        """
        made = list(self.stream(condition, seed=seed, sampling=sampling, compile=compile))
        given = [] if condition.video is None else [as_float(condition.video)]
        return torch.cat([*given, *made], dim=1)

    @torch.no_grad()
    def stream(
        self, condition: Condition, *, seed: int, sampling: Sampling | None = None, compile: bool = False
    ) -> Iterator[Tensor]:
        """The frames after those given, ``B t C H W`` in 0..1, as they are ready.

        That is one by one where the tokenizer rebuilds every frame by itself, and otherwise all at the end: a 3D
        decoder looks at what follows.

        Raises:
            UserError: the condition is not what the model was trained for.
        """
        sampling = sampling or Sampling()
        self._check(condition, sampling)
        device = device_of(self)
        video, label, action = condition.video, condition.label, condition.action
        given = 0 if video is None else video.shape[1]
        if given == condition.num_frames:
            return
        grid = Grid(-(-condition.num_frames // self.tokenizer.patch_size[0]), *self.grid[1:])
        shown = grid._replace(t=1) if self.tokenizer.frames_apart else grid
        places = grid.h * grid.w * self.num_codebooks
        seeds = torch.arange(condition.batch_size, device=device) + seed
        if label is None and action is None and self.vector.width:
            vector = torch.zeros(condition.batch_size, self.vector.width, device=device)  # as hidden in training
        else:
            vector = self.vector(label, action)
        context = None if self.frames is None else self.frames(video)
        codes = self.transformer.stream(
            uniform(seeds, grid.t * places, "videogpt.codes"),
            sampling,
            piece=shown.t * places,
            vector=vector,
            context=context,
            prefix=self.codes({"video": video}).ids if video is not None and self.frames is None else None,
            compile=compile,
        )
        if shown.t < grid.t:
            codes = islice(codes, given, None)  # frames that are given need not be rebuilt
            given = 0
        for ids in codes:
            yield self.video_of(Tokens(shown, ids=ids))[:, given : condition.num_frames]

    def _check(self, condition: Condition, sampling: Sampling) -> None:
        """Refuse what the model was not made for."""
        frames, video, step = condition.num_frames, condition.video, self.tokenizer.patch_size[0]
        if not 1 <= frames <= self.num_frames:
            raise UserError(f"the model has positions for 1 to {self.num_frames} frames; {frames} were asked for")
        if sampling.guidance != 1.0 and not self.condition_drop:
            raise UserError("guidance needs a model that was trained with objective.condition_drop above zero")
        if sampling.guidance != 1.0 and self.frames is None and condition.label is None and condition.action is None:
            raise UserError("guidance strengthens a condition: give a class or actions, or set it to 1")
        self.vector.check(condition, optional=self.condition_drop > 0)
        if video is None:
            if self.frames is not None:
                raise UserError(f"the model continues {self.frames.num_frames} first frame(s): give them")
            return
        t0, size = video.shape[1], self.grid.h * self.tokenizer.patch_size[1]
        if video.shape != (condition.batch_size, t0, 3, size, size) or t0 > frames:
            wanted = f"({condition.batch_size}, up to {frames}, 3, {size}, {size})"
            raise UserError(f"first frames of shape {wanted} are needed, not {tuple(video.shape)}")
        if self.frames is not None and t0 != self.frames.num_frames:
            raise UserError(f"the model continues {self.frames.num_frames} first frame(s), not {t0}")
        if self.frames is None and t0 % step:
            raise UserError(f"a code stands for {step} frames: give a multiple of {step} first frames, not {t0}")


@dataclass(frozen=True, kw_only=True)
class VideoGPTConfig(LatentConfig):
    """The transformer and its conditions."""

    width: Count = 512
    depth: Count = 16
    num_heads: Count = 4
    mlp_ratio: Rate = 4.0
    attention: AttentionKind = "sparse"
    dropout: ShareBelowOne = 0.0
    conditions: tuple[ConditionKind, ...] = ()
    """Conditions of samples: a class, actions, first frames."""
    num_classes: CountOrZero = 0
    num_actions: CountOrZero = 0
    action_dim: CountOrZero = 0
    """Dimension of continuous actions, set from the data."""
    context_frames: Count = 1
    """Number of first frames in the condition."""
    frames_depths: Annotated[tuple[Count, ...], NotEmpty] = (3, 4, 6, 3)
    frames_widths: Annotated[tuple[Count, ...], NotEmpty] = (64, 128, 256, 240)
    """Numbers of blocks and channels of each stage of the network for first frames; by default a ResNet-34's."""
    condition_drop: Share = 0.0
    """Fraction of training clips whose conditions are dropped."""

    def bind(self, info: DataInfo) -> Self:
        """Take classes and actions from the data, if it has any."""
        found = {}
        if "label" in self.conditions and info.classes:
            found["num_classes"] = len(info.classes)
        if "action" in self.conditions and isinstance(info, ClipInfo) and (info.num_actions or info.action_dim):
            found |= {"num_actions": info.num_actions, "action_dim": info.action_dim}
        return replace(self, **found)

    def build(self) -> VideoGPT:
        """Build everything with fresh weights.

        Raises:
            UserError: conditions that the data does not have, or sizes that do not fit.
        """
        label, action = "label" in self.conditions, "action" in self.conditions
        if label and not self.num_classes:
            raise UserError("a class as condition needs data with classes, or objective.num_classes")
        if action and not (self.num_actions or self.action_dim):
            raise UserError("actions as condition need data with actions, or objective.num_actions or action_dim")
        return VideoGPT(self)
