"""VideoGPT: a GPT over the codes that a tokenizer makes of a video.

The tokenizer is frozen; a transformer learns the distribution of its codes in raster order and draws new ones, which
the tokenizer turns into video. Labels and actions move the gains and biases of all norms; given first frames go
through a residual network, whose features every block reads by cross-attention.
Yan et al., "VideoGPT: Video Generation using VQ-VAE and Transformers", 2021; VIPER's presets: Escontrela et al. 2023.

    filmstrip train tokenizers.vqvae3d:bair --data PATH --out runs/codes
    filmstrip train generation.videogpt:bair --data PATH --objective.tokenizer-run runs/codes

The network is that of the published code (tests/parity/test_published_videogpt.py), also where the text differs: the
residual network for first frames has 240 units, as there (table A.2: 512), and sparse attention in the paper's
presets sees near and far in every layer, in blocks of 32 codes. ``weights/videogpt.py`` maps released weights.

Where we deviate: codes have embeddings of their own (published: the codebook's, projected), and the tables of
positions add up (published: the axes share the channels); both can be what is published. Norms have a gain and a bias
of their own beside a condition's, which start at one and zero, and guard against a variance of zero (published: 1e-5
more than its inverse root). Weights start as GPT-2's (published: attention by its width, zero for logits). There is
no dropout inside attention (published: 0.3 where it is not sparse). ``tiny`` has another sparse attention, which
takes turns, layer by layer, between the nearest codes and a stride of whole rows. The action of the first frame,
which lies before the clip, is left out (60 and 315 values for ViZDoom as in the paper, 60 for BAIR instead of 64).
The paper names no schedule: a cosine, as in its code. Its text gives Moving MNIST's transformer 384 features, its
table 192 and 384 between them: the table's. ``condition_drop`` (ours) hides conditions from some clips in training,
so that sampling can be guided, and go without them.

The paper reports, on BAIR, FVD 103.6 and 2.05 bits/dim with 16 layers (2.84, 2.52 and 2.39 bits/dim with 2, 4 and 8).
A dim is a code, ten bits at most for one of 1024; ``bits_per_dim`` counts the same. We measured, when the network
still had the exact GELU and biases on queries, keys and values, with ``python claims/videogpt_depth.py`` (plain
moving shapes, 300 steps, one seed), 2.09, 1.93, 1.90 and 1.89 bits for a code of unseen videos with 1, 2, 4 and 8
layers, where each place's own distribution needs 3.81: most of the gain is in the second layer. On textured motions
depth does not show in a few hundred steps, for priors stay long, some longer than others, at what each place alone
gives.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice
from typing import Annotated, Literal, Self

import torch
import torch.nn.functional as F
from torch import Tensor

from filmstrip.bounds import Count, CountOrZero, NotEmpty, Rate, Share, ShareBelowOne
from filmstrip.data.config import DataInfo
from filmstrip.data.kinds.clips import ClipInfo
from filmstrip.errors import UserError
from filmstrip.inference import device_of, inference
from filmstrip.models.code_transformer import AttentionKind, CodeTransformer
from filmstrip.models.conditions import ClipVector, Known
from filmstrip.models.first_frames import FirstFrames
from filmstrip.nn.sampling import Sampling
from filmstrip.objectives.latent import LatentConfig, LatentObjective
from filmstrip.objectives.tokenizing import TokenizerObjective
from filmstrip.protocols import Batch, Condition, Grid, Loss, Tokens, as_float
from filmstrip.randomness import uniform
from filmstrip.runs.config import Run
from filmstrip.systems import find
from filmstrip.train.config import Loop, Optim

ConditionKind = Literal["label", "action", "frames"]
_DROP, _CODES = 0x71D0, 0x71D1  # salts


class VideoGPT(LatentObjective):
    """Cross-entropy of codes given a clip's vector (class, actions) and the tokens of its first frames; sampling."""

    def __init__(
        self,
        tokenizer: TokenizerObjective,
        transformer: CodeTransformer,
        vector: ClipVector,
        frames: FirstFrames | None,
        *,
        num_frames: int,
        size: int,
        condition_drop: float,
    ) -> None:
        super().__init__(tokenizer, num_frames=num_frames, size=size)
        self.transformer = transformer
        self.vector = vector
        self.frames = frames
        self.condition_drop = condition_drop
        known = vector.known
        needed = {"label": known.num_classes, "action": known.has_action, "video": frames, "seed": condition_drop}
        self.requires = tuple(key for key, wanted in needed.items() if wanted)

    def forward(self, batch: Batch, phase: str = "main") -> Loss:
        """Nats per code; logs the same in bits."""
        nats = -self._log_probs(batch, drop=self.training).mean()
        return Loss(nats, {"bits_per_dim": nats.detach() / math.log(2)})

    def log_prob(self, batch: Batch) -> Tensor:
        """The log-probability of all codes of each clip given its conditions: ``B`` nats, exact, and of codes alone.

        It says nothing of pixels: a tokenizer has the same codes for many videos. Divided by ``dims_of(batch)`` and
        by ``-log(2)`` it is the paper's bits/dim.
        """
        with inference(self):
            nats = self._log_probs(batch, drop=False).sum(dim=1)
        return nats.clone()

    def dims_of(self, batch: Batch) -> int:
        """How many codes stand for a clip, each a dimension of bits/dim."""
        return self.codes(batch).ids.shape[1]

    def _log_probs(self, batch: Batch, *, drop: bool) -> Tensor:
        """Of each code given those before it, ``B N`` float32."""
        ids = self.codes(batch).ids
        vector = self.vector(batch.get("label"), batch.get("action"))
        context = None if self.frames is None else self.frames(batch["video"])
        if drop and self.condition_drop:
            kept = uniform(batch["seed"], 1, _DROP) >= self.condition_drop
            vector = None if vector is None else vector * kept
            context = None if context is None else context * kept[..., None]
        logits = self.transformer(ids, vector, context).float()
        return -F.cross_entropy(logits.flatten(0, 1), ids.flatten(), reduction="none").view_as(ids)

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
        given = [] if condition.video is None else [as_float(condition.video.to(device_of(self)))]
        return torch.cat([*given, *made], dim=1)

    def stream(
        self, condition: Condition, *, seed: int, sampling: Sampling | None = None, compile: bool = False
    ) -> Iterator[Tensor]:
        """The frames after those given, ``B t C H W`` in 0..1, as they are ready.

        That is one by one where the tokenizer rebuilds every frame by itself, and otherwise all at the end: a 3D
        decoder looks at what follows.

        Raises:
            UserError: the condition is not what the model was trained for.
        """
        pieces = self._pieces(condition, seed, sampling or Sampling(), compile)
        while True:
            with inference(self):
                piece = next(pieces, None)
            if piece is None:
                return
            yield piece.clone()  # outside of inference mode, so that it is an ordinary tensor

    def _pieces(self, condition: Condition, seed: int, sampling: Sampling, compile: bool) -> Iterator[Tensor]:
        self._check(condition, sampling)
        device = device_of(self)
        video, label, action = (
            None if given is None else given.to(device)
            for given in (condition.video, condition.label, condition.action)
        )
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
            uniform(seeds, grid.t * places, _CODES),
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
    """The transformer and its conditions; the defaults are BAIR's."""

    width: Count = 512
    depth: Count = 16
    num_heads: Count = 4
    mlp_ratio: Rate = 4.0
    attention: AttentionKind = "sparse"
    dropout: ShareBelowOne = 0.2
    conditions: tuple[ConditionKind, ...] = ()
    """What samples can be asked for: a class, actions, first frames."""
    num_classes: CountOrZero = 0
    num_actions: CountOrZero = 0
    action_dim: CountOrZero = 0
    """Taken from the data."""
    context_frames: Count = 1
    """First frames that are given."""
    frames_depths: Annotated[tuple[Count, ...], NotEmpty] = (3, 4, 6, 3)
    frames_widths: Annotated[tuple[Count, ...], NotEmpty] = (64, 128, 256, 240)
    """Blocks and channels of each stage of the network that sees them; the defaults are the published ResNet-34's."""
    condition_drop: Share = 0.0
    """Share of clips whose conditions are hidden in training."""

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
        known = Known(
            num_classes=self.num_classes if label else 0,
            num_actions=self.num_actions if action else 0,
            action_dim=self.action_dim if action else 0,
        )
        vector = ClipVector(known, self.num_frames)
        frames = None
        if "frames" in self.conditions:
            frames = FirstFrames(self.context_frames, self.size, widths=self.frames_widths, depths=self.frames_depths)
        tokenizer = self.build_tokenizer()
        t, h, w = tokenizer.patch_size
        transformer = CodeTransformer(
            codebook_size=tokenizer.codebook_size,
            num_codebooks=getattr(tokenizer.bottleneck, "num_codebooks", 1),
            grid=(self.num_frames // t, self.size // h, self.size // w),
            width=self.width,
            depth=self.depth,
            num_heads=self.num_heads,
            mlp_ratio=self.mlp_ratio,
            attention=self.attention,
            dropout=self.dropout,
            condition_dim=vector.width,
            context_width=None if frames is None else frames.width,
        )
        return VideoGPT(
            tokenizer,
            transformer,
            vector,
            frames,
            num_frames=self.num_frames,
            size=self.size,
            condition_drop=self.condition_drop if self.conditions else 0.0,
        )


def tiny() -> Run:
    """Motions at 32 x 32 pixels, from their class; trains in seconds on two CPU cores."""
    of_tokenizer = find("tokenizers.vqvae3d:tiny")
    return Run(
        data=of_tokenizer.data,
        objective=VideoGPTConfig(
            tokenizer=of_tokenizer.objective,
            untrained_tokenizer=True,
            num_frames=8,
            size=32,
            width=64,
            depth=4,
            num_heads=4,
            dropout=0.0,
            conditions=("label",),
            num_classes=8,
            condition_drop=0.1,
        ),
        optim=Optim(lr=3e-3, weight_decay=0.0),
        train=Loop(steps=100),
    )


def _paper(tokenizer: str, *, steps: int, **network: object) -> Run:
    """The tokenizer's clips, the published sparse attention, batches of 32, Adam at 3e-4 (table A.2)."""
    of_tokenizer = find(f"tokenizers.vqvae3d:{tokenizer}")
    return Run(
        data=of_tokenizer.data,
        objective=VideoGPTConfig(
            tokenizer=of_tokenizer.objective, size=of_tokenizer.objective.size, attention="blocks", **network
        ),
        optim=Optim(lr=3e-4, weight_decay=0.0, warmup=0.0),
        train=Loop(steps=steps),
    )


def moving_mnist() -> Run:
    """Moving MNIST from its first frame: 4 x 16 x 16 codes of 512, a ResNet-18."""
    return _paper(
        "moving_mnist",
        steps=80_000,
        width=192,
        depth=8,
        mlp_ratio=2.0,
        dropout=0.1,
        conditions=("frames",),
        frames_depths=(2, 2, 2, 2),
    )


def bair() -> Run:
    """BAIR robot pushing, and RoboNet, from the first frame: 8 x 32 x 32 codes of 1024."""
    return _paper("bair", steps=150_000, conditions=("frames",))


def bair_actions() -> Run:
    """BAIR from the first frame and the robot's actions."""
    return _paper("bair", steps=150_000, conditions=("frames", "action"), action_dim=4)


def vizdoom() -> Run:
    """ViZDoom, without a condition."""
    return _paper("vizdoom", steps=150_000)


def vizdoom_health() -> Run:
    """ViZDoom's Health Gathering Supreme from its actions, 4 values each."""
    return _paper("vizdoom", steps=150_000, conditions=("action",), num_actions=4)


def vizdoom_battle() -> Run:
    """ViZDoom's Battle2 from its actions, 21 values each."""
    return _paper("vizdoom", steps=150_000, conditions=("action",), num_actions=21)


def ucf101() -> Run:
    """UCF-101, without a condition: 4 x 32 x 32 codes of 1024."""
    return _paper("ucf101", steps=200_000, width=1024, depth=20, num_heads=8)


def ucf101_128() -> Run:
    """UCF-101 at 128 x 128: as many codes, from the tokenizer of that size."""
    return _paper("ucf101_128", steps=200_000, width=1024, depth=20, num_heads=8)


def tgif() -> Run:
    """Tumblr GIF: UCF-101's network, trained for longer."""
    return _paper("tgif", steps=600_000, width=1024, depth=20, num_heads=8)


def _viper(tokenizer: str, *, width: int, frames: int = 16, stride: int = 1, classes: int = 0) -> Run:
    """VIPER: 64 x 64 frames, coded one by one, batches of 32, Adam at a constant 1e-4 (table E.2)."""
    of_tokenizer = find(f"tokenizers.vqgan:{tokenizer}")
    clip = replace(of_tokenizer.data.clip, num_frames=frames, stride=stride)
    return Run(
        data=replace(of_tokenizer.data, clip=clip, batch_size=32),
        objective=VideoGPTConfig(
            tokenizer=of_tokenizer.objective,
            num_frames=frames,
            width=width,
            depth=8,
            num_heads=8,
            attention="full",
            dropout=0.0,
            conditions=("label",) if classes else (),
            num_classes=classes,
        ),
        optim=Optim(lr=1e-4, weight_decay=0.0, schedule="constant", warmup=0.0),
        train=Loop(steps=500_000),
    )


def viper_dmc() -> Run:
    """VIPER's for the DeepMind Control Suite: 16 tasks, 16 x 8 x 8 codes."""
    return _viper("viper_dmc", width=256, classes=16)


def viper_atari() -> Run:
    """VIPER's for Atari: 8 games, 16 x 16 x 16 codes."""
    return _viper("viper_atari", width=512, classes=8)


def viper_rlbench() -> Run:
    """VIPER's for one task of RLBench: 4 frames, every fourth, of 16 x 16 codes."""
    return _viper("viper_rlbench", width=256, frames=4, stride=4)


def viper_rlbench_multi() -> Run:
    """VIPER's for 34 tasks of RLBench."""
    return _viper("viper_rlbench", width=512, frames=4, stride=4, classes=34)
