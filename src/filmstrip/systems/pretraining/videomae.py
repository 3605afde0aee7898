"""VideoMAE: hide nine cubes in ten, in tubes through all frames, and predict their pixels.

Only the visible cubes go through the encoder; a narrow decoder sees them and a learnt token at every hidden place,
and predicts the hidden cubes' pixels, normalised cube by cube and channel by channel. What is learnt without labels
transfers: ``filmstrip train recognition.vit:base_k400 --init RUN``.
Tong et al., "VideoMAE: Masked Autoencoders are Data-Efficient Learners for Self-Supervised Video Pre-Training",
NeurIPS 2022.

    filmstrip train pretraining.videomae:base_k400 --data.path PATH

Where we deviate: masks have an exact count in every clip, as batches need (the paper writes a Bernoulli mask, its
code does as we do); the loss is the mean over hidden cubes *and* their pixels; random resized crops of 40 to 100% of
the frame stand for the paper's multi-scale crops, whose sides are 66 to 100%; fixed learning rates are the published
1.5e-4 per 256 clips times four, because nothing here rescales them.

The paper reports (top-1 after fine-tuning, ViT-B, 800 epochs): Something-Something V2 69.6, Kinetics-400 80.0 (from
scratch 32.6 and 68.8); tube masking at 75% 68.0 and 79.8, random at 90% 68.3 and 79.5, frame at 87.5% 61.5 and 76.5.
``claims/videomae_pretraining.py`` re-runs both findings small.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from filmstrip.bounds import Count, Rate, ShareBelowOne
from filmstrip.data.config import Augment, Clip, Data
from filmstrip.data.synthetic.motions import Motions
from filmstrip.models.hub_networks import described_for_hub
from filmstrip.models.in_transformers import BLOCK, VIDEOMAE
from filmstrip.models.vit import ViT
from filmstrip.nn.block import Block
from filmstrip.nn.initialisation import init_glorot
from filmstrip.nn.patches import patchify, take, unpatchify
from filmstrip.nn.positions import sincos_table
from filmstrip.objectives.config import ObjectiveConfig
from filmstrip.protocols import Batch, Grid, Loss, Objective, as_float
from filmstrip.randomness import uniform
from filmstrip.runs.config import Run
from filmstrip.train.config import Loop
from filmstrip.train.lengths import Epochs, Steps
from filmstrip.train.optim import AdamW
from filmstrip.train.schedules import Cosine
from filmstrip.weights.keymap import Weights
from filmstrip.weights.layers import layers

Masking = Literal["tube", "random", "frame"]
_EPS = 1e-6  # added to a cube's deviation, as published


def choose_cubes(seeds: Tensor, grid: Grid, masking: Masking, ratio: float) -> tuple[Tensor, Tensor]:
    """Which cubes of each clip are seen and which are hidden, decided by the clip's own seed (``B``, int64).

    Returns their indices into the grid, ascending: ``B K`` and ``B N-K``, with the same counts for every clip.
    ``tube`` hides the same places in all frames, ``random`` any cubes, ``frame`` whole time steps.
    """
    t, h, w = grid
    units = {"tube": h * w, "random": t * h * w, "frame": t}[masking]
    order = uniform(seeds, units, "videomae.masks").argsort(dim=1)
    hide = int(ratio * units)
    hidden, seen = order[:, :hide].sort(dim=1).values, order[:, hide:].sort(dim=1).values
    return tuple(_cubes_of(chosen, grid, masking) for chosen in (seen, hidden))


def _cubes_of(chosen: Tensor, grid: Grid, masking: Masking) -> Tensor:
    """The cubes that belong to the chosen units of masking."""
    place, step = grid.h * grid.w, torch.arange(grid.t, device=chosen.device)
    if masking == "tube":
        return rearrange(step[:, None] * place + chosen[:, None, :], "b t k -> b (t k)")
    if masking == "frame":
        return rearrange(chosen[:, :, None] * place + torch.arange(place, device=chosen.device), "b t k -> b (t k)")
    return chosen


def normalise_cubes(cubes: Tensor) -> Tensor:
    """Each cube's pixels (``B K P C``) with zero mean and unit deviation in each channel."""
    variance, mean = torch.var_mean(cubes, dim=2, keepdim=True)
    return (cubes - mean) / (variance.sqrt() + _EPS)


class PixelDecoder(nn.Module):
    """Predicts the pixels of hidden cubes from the encoded visible ones."""

    def __init__(self, places: int, cube: int, encoder_width: int, *, width: int, depth: int, num_heads: int) -> None:
        super().__init__()
        self.project = nn.Linear(encoder_width, width, bias=False)
        self.mask_token = nn.Parameter(torch.zeros(width))
        self.register_buffer("positions", sincos_table(places, width), persistent=False)
        self.blocks = nn.ModuleList(Block(width, num_heads, qkv_bias="no_key") for _ in range(depth))
        self.norm = nn.LayerNorm(width, eps=1e-6)  # as in the blocks
        self.head = nn.Linear(width, cube)
        self.apply(init_glorot)
        nn.init.trunc_normal_(self.mask_token, std=0.02)

    def forward(self, encoded: Tensor, visible: Tensor, hidden: Tensor) -> Tensor:
        """Pixels ``B K (P C)`` of the cubes at ``hidden``, from ``B V D`` tokens of the cubes at ``visible``."""
        seen = self.project(encoded)
        positions = self.positions.to(seen.dtype)
        tokens = torch.cat([seen + positions[visible], self.mask_token.to(seen.dtype) + positions[hidden]], dim=1)
        for block in self.blocks:
            tokens = block(tokens)
        return self.head(self.norm(tokens[:, visible.shape[1] :]))


class Reconstruction(NamedTuple):
    """What the network was shown and what it made of it, both ``B T C H W`` in 0..1."""

    masked: Tensor
    rebuilt: Tensor


class VideoMAE(Objective):
    """Masked autoencoding with an asymmetric encoder and decoder."""

    requires = ("video", "seed")

    def __init__(self, encoder: ViT, decoder: PixelDecoder, *, masking: Masking, ratio: float) -> None:
        super().__init__()
        self.encoder = encoder
        self.decoder = decoder
        self.masking = masking
        self.ratio = ratio

    def forward(self, batch: Batch, phase: str = "main") -> Loss:
        """Mean squared error over the pixels of the hidden cubes."""
        visible, hidden = self.masks(batch["seed"])
        return Loss(self.loss(batch["video"], visible, hidden), {})

    def masks(self, seeds: Tensor) -> tuple[Tensor, Tensor]:
        """Which cubes each clip shows and which it hides (see :func:`choose_cubes`)."""
        return choose_cubes(seeds, self.encoder.grid, self.masking, self.ratio)

    def loss(self, video: Tensor, visible: Tensor, hidden: Tensor) -> Tensor:
        """The loss for a given choice of cubes."""
        with torch.no_grad():
            target = normalise_cubes(as_float(take(patchify(video, self.encoder.patch_size), hidden)))
        return F.mse_loss(self.predict_masked(video, visible, hidden).float(), target.flatten(2))

    def predict_masked(self, video: Tensor, visible: Tensor, hidden: Tensor) -> Tensor:
        """Normalised pixels (``B K (P C)``) of the cubes at ``hidden``, seeing those at ``visible``."""
        return self.decoder(self.encoder(video, visible=visible).tokens, visible, hidden)

    def to_transformers(self) -> tuple[dict[str, Any], Weights]:
        """``VideoMAEForPreTraining`` with these weights."""
        config, _ = described_for_hub(self.encoder)
        block = self.decoder.blocks[0]
        own = {
            "decoder_hidden_size": self.decoder.mask_token.numel(),
            "decoder_num_hidden_layers": len(self.decoder.blocks),
            "decoder_num_attention_heads": block.attention.num_heads,
            "decoder_intermediate_size": block.mlp.fc1.out_features,
            "norm_pix_loss": True,
            "architectures": ["VideoMAEForPreTraining"],
        }
        return {**config, **own}, VIDEOMAE.theirs(self.state_dict(), IN_TRANSFORMERS, self.encoder.patch_size)

    def from_transformers(self, theirs: Mapping[str, Tensor]) -> Weights:
        """All weights but the statistics of pixels, from ``VideoMAEForPreTraining``; none from a bare encoder.

        Raises:
            UserError: a weight has no place here.
        """
        return VIDEOMAE.ours(theirs, IN_TRANSFORMERS) if "mask_token" in theirs else {}

    @torch.no_grad()
    def reconstruct(self, video: Tensor, seeds: Tensor) -> Reconstruction:
        """Hide cubes of a video (grey) and fill them in, at the brightness and contrast that they really have."""
        grid, patch_size = self.encoder.grid, self.encoder.patch_size
        visible, hidden = self.masks(seeds)
        cubes = as_float(patchify(video, patch_size))
        covered = take(cubes, hidden)
        variance, mean = torch.var_mean(covered, dim=2, keepdim=True)
        predicted = self.predict_masked(video, visible, hidden).float()
        predicted = rearrange(predicted, "b k (p c) -> b k p c", c=cubes.shape[-1])
        sample = torch.arange(len(cubes), device=cubes.device)[:, None]
        masked, rebuilt = cubes.clone(), cubes.clone()
        masked[sample, hidden] = 0.5
        rebuilt[sample, hidden] = (predicted * (variance.sqrt() + _EPS) + mean).clamp(0, 1)
        return Reconstruction(unpatchify(masked, grid, patch_size), unpatchify(rebuilt, grid, patch_size))


IN_TRANSFORMERS = VIDEOMAE.model(
    (
        ("encoder_to_decoder.weight", "decoder.project.weight"),
        ("mask_token", "decoder.mask_token"),
        *layers("decoder.decoder_layers", "decoder.blocks", BLOCK),
        ("decoder.norm.weight", "decoder.norm.weight"),
        ("decoder.norm.bias", "decoder.norm.bias"),
        ("decoder.head.weight", "decoder.head.weight"),
        ("decoder.head.bias", "decoder.head.bias"),
    )
)
"""``VideoMAEForPreTraining`` to :class:`VideoMAE`."""


@dataclass(frozen=True, kw_only=True)
class VideoMAEConfig(ObjectiveConfig):
    """A ViT encoder, a narrower decoder, and how cubes are hidden."""

    width: Count = 768
    depth: Count = 12
    num_heads: Count = 12
    decoder_width: Count = 384
    decoder_depth: Count = 4
    decoder_num_heads: Count = 6
    num_frames: Count = 16
    size: Count = 224
    patch_size: tuple[Count, Count, Count] = (2, 16, 16)
    mlp_ratio: Rate = 4.0
    """Of the encoder."""
    masking: Masking = "tube"
    """``tube``: the same places in all frames; ``random``: any cubes; ``frame``: whole time steps."""
    mask_ratio: ShareBelowOne = 0.9
    """Share of cubes that are hidden."""

    def build(self) -> VideoMAE:
        """Build the network with fresh weights."""
        encoder = ViT(
            width=self.width,
            depth=self.depth,
            num_heads=self.num_heads,
            num_frames=self.num_frames,
            size=self.size,
            patch_size=self.patch_size,
            mlp_ratio=self.mlp_ratio,
        )
        t, h, w = encoder.grid
        p, q, r = self.patch_size
        decoder = PixelDecoder(
            t * h * w,
            p * q * r * 3,
            self.width,
            width=self.decoder_width,
            depth=self.decoder_depth,
            num_heads=self.decoder_num_heads,
        )
        return VideoMAE(encoder, decoder, masking=self.masking, ratio=self.mask_ratio)


def tiny() -> Run:
    """Motions at 64 x 64 pixels; trains in seconds on two CPU cores."""
    return Run(
        data=Data(
            synthetic=Motions(train_per_class=12, test_per_class=4),
            clip=Clip(num_frames=8, stride=2, size=64, short_side=(64, 64)),
            batch_size=16,
        ),
        objective=VideoMAEConfig(
            width=96,
            depth=4,
            num_heads=3,
            decoder_width=48,
            decoder_depth=2,
            decoder_num_heads=3,
            num_frames=8,
            size=64,
            patch_size=(2, 8, 8),
        ),
        optim=AdamW(lr=2e-3, betas=(0.9, 0.95)),
        train=Loop(length=Steps(100)),
    )


def _pretrain(network: VideoMAEConfig, *, stride: int, mirror: float, epochs: int) -> Run:
    return Run(
        data=Data(
            clip=Clip(num_frames=16, stride=stride, crop="random_resized", area=(0.4, 1.0)),
            augment=Augment(mirror=mirror),
            batch_size=1024,
            num_workers=10,
        ),
        objective=network,
        optim=AdamW(
            lr=1.5e-4 * 1024 / 256, betas=(0.9, 0.95), weight_decay=0.05, schedule=Cosine(warmup=40 / epochs)
        ),
        train=Loop(length=Epochs(epochs), precision="bfloat16", clip_grad=None),
    )


def _k400(network: VideoMAEConfig) -> Run:
    """Kinetics-400: 16 frames, 4 apart, 1600 epochs."""
    return _pretrain(network, stride=4, mirror=0.5, epochs=1600)


def _ssv2(network: VideoMAEConfig) -> Run:
    """Something-Something V2: 16 frames, 2 apart, never mirrored, 2400 epochs."""
    return _pretrain(network, stride=2, mirror=0.0, epochs=2400)


SMALL = VideoMAEConfig(width=384, num_heads=6, decoder_width=192, decoder_num_heads=3)
BASE = VideoMAEConfig()
LARGE = VideoMAEConfig(width=1024, depth=24, num_heads=16, decoder_width=512, decoder_depth=12, decoder_num_heads=8)
HUGE = VideoMAEConfig(width=1280, depth=32, num_heads=16, decoder_width=640, decoder_depth=12, decoder_num_heads=8)


def small_k400() -> Run:
    """ViT-S on Kinetics-400."""
    return _k400(SMALL)


def base_k400() -> Run:
    """ViT-B on Kinetics-400."""
    return _k400(BASE)


def base_k400_800() -> Run:
    """ViT-B on Kinetics-400 for the 800 epochs of the paper's ablations."""
    run = base_k400()
    optim = replace(run.optim, schedule=Cosine(warmup=40 / 800))
    return replace(run, optim=optim, train=replace(run.train, length=Epochs(800)))


def large_k400() -> Run:
    """ViT-L on Kinetics-400, with the deeper decoder (12 blocks) of its published training."""
    return _k400(LARGE)


def huge_k400() -> Run:
    """ViT-H on Kinetics-400, with the deeper decoder (12 blocks) of its published training."""
    return _k400(HUGE)


def small_ssv2() -> Run:
    """ViT-S on Something-Something V2."""
    return _ssv2(SMALL)


def base_ssv2() -> Run:
    """ViT-B on Something-Something V2."""
    return _ssv2(BASE)


def large_ssv2() -> Run:
    """ViT-L on Something-Something V2, with the deeper decoder (12 blocks) of its published training."""
    return _ssv2(LARGE)
