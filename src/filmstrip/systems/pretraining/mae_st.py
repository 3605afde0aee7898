"""MAE-ST: masked autoencoding of any tubelets, in no regard of space and time, with learnt positions of both.

Nine tubelets in ten are masked at random. The encoder, with a class token, sees the others; a decoder of the whole
grid predicts one frame of each masked tubelet, normalised patch by patch. Feichtenhofer et al., "Masked Autoencoders
As Spatiotemporal Learners", NeurIPS 2022. The loss is in :mod:`filmstrip.objectives.masked_tubelets`, the encoder in
:mod:`filmstrip.models.video_transformer`.

    filmstrip train pretraining.mae_st:large_k400 --data.path PATH

The authors' files start it (``--init FILE``). No classifier here has its encoder yet: probes and ``filmstrip encode``
read its features.

Where we deviate: colours are not jittered, as in the published code's default; a step has 128 videos of four clips,
with which the published rate, 1.6e-3 per 256 videos, is as we remember the paper's. Its text was not at hand, so its
figures are left out. ``filmstrip claims mae_st_masking`` compares what is masked.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from filmstrip.bounds import Count, ShareBelowOne
from filmstrip.data.config import Augment, Clip, Data
from filmstrip.data.synthetic.motions import Motions
from filmstrip.models.tubelet_decoder import DecoderArchitecture
from filmstrip.models.video_transformer import JOINT, SpaceTimeTransformer, TransformerArchitecture
from filmstrip.nn.block import Block
from filmstrip.nn.initialisation import STD, init_glorot
from filmstrip.nn.normalise import Normalise
from filmstrip.nn.patches import conv_to_linear, linear_to_conv, patchify, take
from filmstrip.nn.tubelet_masking import Masking, choose_tubelets
from filmstrip.objectives.config import ObjectiveConfig
from filmstrip.objectives.masked_tubelets import MaskedTubelets, Prediction
from filmstrip.protocols import Grid, Layout
from filmstrip.runs.config import Run
from filmstrip.train.config import Loop
from filmstrip.train.lengths import Epochs, Steps
from filmstrip.train.optim import AdamW
from filmstrip.train.schedules import Cosine
from filmstrip.weights.keymap import Weights
from filmstrip.weights.layers import fuse, unfuse


class MAESTEncoder(SpaceTimeTransformer):
    """Joint attention with a class token and positions of space and of time, which are learnt."""

    def __init__(self, config: MAESTConfig) -> None:
        super().__init__(JOINT, config, time_positions=True)

    def layouts(self) -> tuple[Layout, ...]:
        """That of the authors' training, with separate positions and a class token."""
        return (
            Layout(
                name="pretraining",
                rules=_PUBLISHED,
                after=(r"decoder_.*", r"mask_token"),
                to_ours=_as_linear,
                to_theirs=partial(_as_convolution, self.patch_size),
                unpack=_unpacked,
                pack=_packed,
            ),
        )


class MAESTDecoder(nn.Module):
    """Predicts something at masked positions by a narrow transformer over the whole grid and a class token."""

    def __init__(self, config: MAESTConfig, grid: Grid, output_width: int) -> None:
        super().__init__()
        width = config.decoder_width
        self.project = nn.Linear(config.width, width)
        self.mask_token = nn.Parameter(torch.empty(width).normal_(std=STD))
        self.cls_token = nn.Parameter(torch.zeros(width))
        self.pos_embed = nn.Parameter(torch.empty(1 + grid.h * grid.w, width))
        self.time_pos_embed = nn.Parameter(torch.empty(grid.t, width))
        for positions in (self.pos_embed, self.time_pos_embed):
            nn.init.trunc_normal_(positions, std=STD)
        self.blocks = nn.ModuleList(
            Block(width, config.decoder_num_heads, norm_eps=config.norm_eps) for _ in range(config.decoder_depth)
        )
        self.norm = nn.LayerNorm(width, eps=config.norm_eps)
        self.head = nn.Linear(width, output_width)
        self.apply(init_glorot)

    def forward(self, encoded: Tensor, visible: Tensor, wanted: Tensor) -> Tensor:
        """Predictions ``B K D`` at ``wanted`` (``B K``), from ``B V C`` tokens at ``visible`` (``B V``)."""
        seen = self.project(encoded)
        space = self.pos_embed[1:] + self.time_pos_embed[:, None]
        positions = F.embedding(torch.cat([visible, wanted], dim=1), rearrange(space, "t p d -> (t p) d"))
        masked = self.mask_token.to(seen.dtype).expand(*wanted.shape, -1)
        tokens = torch.cat([seen, masked], dim=1) + positions.to(seen.dtype)
        cls = (self.cls_token + self.pos_embed[0]).to(seen.dtype).expand(seen.shape[0], 1, -1)
        tokens = torch.cat([cls, tokens], dim=1)
        for block in self.blocks:
            tokens = block(tokens)
        return self.head(self.norm(tokens[:, 1 + visible.shape[1] :]))


class FramePatches(nn.Module):
    """One frame for each tubelet, evenly from the clip's first to its last, normalised patch by patch."""

    def __init__(self, config: MAESTConfig, grid: Grid) -> None:
        super().__init__()
        self.patch_size = (1, *config.tubelet[1:])
        self.normalise = Normalise(config.mean, config.std)
        self.grid = grid

    def forward(self, video: Tensor, positions: Tensor) -> Tensor:
        """Targets ``B K (h w C)`` at ``positions`` (``B K``) of ``B T C H W`` video."""
        frames = torch.linspace(0, video.shape[1] - 1, self.grid.t).long().to(video.device)
        pixels = self.normalise(video[:, frames])
        patches = take(patchify(pixels, self.patch_size), positions).flatten(2)
        variance, mean = torch.var_mean(patches, dim=-1, keepdim=True)
        return (patches - mean) / (variance + 1e-6).sqrt()


class MAEST(MaskedTubelets):
    """Masked autoencoding of one frame of each masked tubelet."""

    def __init__(self, config: MAESTConfig) -> None:
        encoder = MAESTEncoder(config)
        super().__init__(encoder, config.masking, config.mask_ratio)
        self.target = FramePatches(config, encoder.grid)
        _, height, width = config.tubelet
        self.decoder = MAESTDecoder(config, encoder.grid, 3 * height * width)
        self.predictions = (Prediction("pixels", self.decoder, self.target, F.mse_loss),)

    def masks(self, seeds: Tensor) -> tuple[Tensor, Tensor]:
        """The visible and the masked tubelets of each clip; visible ones are rounded down, as published."""
        grid = self.encoder.grid
        if self.masking != "random":
            return super().masks(seeds)
        count = grid.t * grid.h * grid.w
        masked = count - int(count * (1 - self.ratio))
        return choose_tubelets(seeds, grid, "random", (masked + 0.5) / count, use="mae_st.masks")

    def depth_of(self, name: str) -> int:
        """The layer of a parameter: the encoder's, then the decoder."""
        part, _, rest = name.partition(".")
        return self.encoder.depth_of(rest) if part == "encoder" else self.encoder.depth + 2


@dataclass(frozen=True, kw_only=True)
class MAESTConfig(TransformerArchitecture, DecoderArchitecture, ObjectiveConfig):
    """An encoder with learnt positions, a narrower decoder, and the masking."""

    patch_size: tuple[Count, Count, Count]
    """Frames, height and width of a tubelet."""
    masking: Masking = "random"
    """Masked tubelets: ``random``, any; ``tube``, the same positions in all frames; ``frame``, whole time steps."""
    mask_ratio: ShareBelowOne
    """Share of tubelets that are masked."""

    def build(self) -> MAEST:
        """Build the network with fresh weights."""
        return MAEST(self)


_PUBLISHED = (
    (r"^encoder\.embed\.", "patch_embed."),
    (r"^encoder\.time_pos_embed$", "pos_embed_temporal"),
    (r"^encoder\.pos_embed$", "pos_embed_class_and_spatial"),
    (r"^encoder\.", ""),
    (r"^decoder\.project\.", "decoder_embed."),
    (r"^decoder\.mask_token$", "mask_token"),
    (r"^decoder\.time_pos_embed$", "decoder_pos_embed_temporal"),
    (r"^decoder\.pos_embed$", "decoder_pos_embed_class_and_spatial"),
    (r"^decoder\.head\.", "decoder_pred."),
    (r"^decoder\.", "decoder_"),
    (r"\.attention\.out\.", ".attn.proj."),
    (r"\.attention\.", ".attn."),
)
_POSITIONS = ("class", "spatial")
_JOINED = "_class_and_spatial"


def _unpacked(file: Mapping[str, Any]) -> Mapping[str, Any]:
    """One matrix of queries, keys and values, and one table of a frame's positions, the class token's first."""
    state = fuse(file, ("q", "k", "v"))
    for before in ("pos_embed", "decoder_pos_embed"):
        names = [f"{before}_{part}" for part in _POSITIONS]
        if all(name in state for name in names):
            state[before + _JOINED] = torch.cat([state.pop(name) for name in names], dim=1)
    return state


def _packed(state: Mapping[str, Tensor]) -> Weights:
    """The inverse; tokens and positions have a leading axis of one there."""
    file = unfuse(state, ("q", "k", "v"))
    for name in list(file):
        if name.endswith(_JOINED):
            table = file.pop(name)[None]
            stem = name.removesuffix(_JOINED)
            file[f"{stem}_class"], file[f"{stem}_spatial"] = table[:, :1], table[:, 1:]
        elif name.endswith("_temporal"):
            file[name] = file[name][None]
        elif name.endswith("_token"):
            file[name] = file[name].view(1, 1, -1)
    return file


def _as_linear(name: str, tensor: Tensor) -> Tensor:
    """Tubelets are projected by a convolution there."""
    return conv_to_linear(tensor) if name.endswith("embed.proj.weight") else tensor


def _as_convolution(patch_size: tuple[int, int, int], name: str, tensor: Tensor) -> Tensor:
    return linear_to_conv(tensor, patch_size) if name.endswith("embed.proj.weight") else tensor


def tiny() -> Run:
    """Motions at 64 x 64 pixels; trains in seconds on two CPU cores."""
    return Run(
        data=Data(
            synthetic=Motions(train_per_class=12, test_per_class=4),
            clip=Clip(num_frames=8, stride=2, size=64, short_side=(64, 64)),
            batch_size=16,
        ),
        objective=MAESTConfig(
            width=96,
            depth=4,
            num_heads=3,
            num_frames=8,
            size=64,
            patch_size=(2, 8, 8),
            linear_init="glorot",
            decoder_width=48,
            decoder_depth=2,
            decoder_num_heads=3,
            mask_ratio=0.9,
        ),
        optim=AdamW(lr=2e-3, betas=(0.9, 0.95)),
        train=Loop(length=Steps(100)),
    )


LARGE = MAESTConfig(
    width=1024,
    depth=24,
    num_heads=16,
    num_frames=16,
    size=224,
    patch_size=(2, 16, 16),
    mean=(0.45, 0.45, 0.45),
    std=(0.225, 0.225, 0.225),
    linear_init="glorot",
    decoder_width=512,
    decoder_depth=4,
    decoder_num_heads=16,
    mask_ratio=0.9,
)
BASE = replace(LARGE, width=768, depth=12, num_heads=12)
HUGE = replace(LARGE, width=1280, depth=32, patch_size=(2, 14, 14))
_VIDEOS, _EPOCHS = 128, 100


def _k400(network: MAESTConfig) -> Run:
    """Kinetics-400: 16 frames, 4 apart, 100 times four clips of each video."""
    return Run(
        data=Data(
            clip=Clip(num_frames=16, stride=4, crop="random_resized", area=(0.5, 1.0)),
            augment=Augment(mirror=0.5),
            batch_size=4 * _VIDEOS,
            clips_per_video=4,
            num_workers=14,
        ),
        objective=network,
        optim=AdamW(
            lr=1.6e-3 * _VIDEOS / 256,
            betas=(0.9, 0.95),
            weight_decay=0.05,
            schedule=Cosine(warmup=5 / _EPOCHS),
        ),
        train=Loop(length=Epochs(_EPOCHS), precision="bfloat16", clip_grad=0.02),
    )


def base_k400() -> Run:
    """ViT-B on Kinetics-400."""
    return _k400(BASE)


def large_k400() -> Run:
    """ViT-L on Kinetics-400."""
    return _k400(LARGE)


def huge_k400() -> Run:
    """ViT-H (patches of 14 pixels) on Kinetics-400."""
    return _k400(HUGE)
