"""Discrete VAE: each frame becomes a grid of codes, chosen by a Gumbel-softmax that sharpens during training.

The encoder gives logits over codes; the decoder sees a mixture of codes while training and one code afterwards, and
says how likely each pixel is (logit-Laplace). A divergence from uniform codes keeps them all in use.
Ramesh et al., "Zero-Shot Text-to-Image Generation" (DALL-E), ICML 2021, appendix A.

    filmstrip train tokenizers.dvae:dalle --data.path PATH

Where we deviate: the published learning rate reaches its minimum after 1.2 of 3 million steps, ours at the end; the
loss is a mean over pixel values, so that the divergence is weighed by the published 6.6 over the 192 values of a
code's patch. The published encoder and decoder load through :func:`from_dalle`.

The paper found a final temperature of 1/16 enough to close the gap between relaxed and single codes. Measured here
(``filmstrip claims dvae_temperature``, motions at 32 x 32, 64 codes, 300 steps, mean of five seeds): single codes
have 1.00 times the error of relaxed ones after annealing, and 1.22 times at a constant temperature of 1, where
relaxed codes do better (0.81 of the variance against 0.87) and single ones worse (0.98 against 0.87). So short a
training leaves 3 to 22% of the codes in use either way.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from filmstrip.bounds import Count
from filmstrip.data.config import Augment, Clip, Data
from filmstrip.data.synthetic.motions import Motions
from filmstrip.objectives.codebook import Codebook
from filmstrip.objectives.config import ObjectiveConfig
from filmstrip.objectives.tokenizing import TokenizerObjective
from filmstrip.protocols import Batch, Loss, as_float
from filmstrip.runs.config import Run
from filmstrip.train.config import Loop
from filmstrip.train.lengths import Steps
from filmstrip.train.optim import AdamW
from filmstrip.train.schedules import Cosine
from filmstrip.weights.keymap import Weights, check_names

_MARGIN = 0.1  # pixels are modelled in 0.1..0.9, where their logits are finite


def squeeze_pixels(video: Tensor) -> Tensor:
    """From 0..1 to 0.1..0.9."""
    return (1 - 2 * _MARGIN) * video + _MARGIN


def stretch_pixels(video: Tensor) -> Tensor:
    """The inverse of :func:`squeeze_pixels`, clamped to 0..1."""
    return ((video - _MARGIN) / (1 - 2 * _MARGIN)).clamp(0, 1)


class Bottle(nn.Module):
    """Four convolutions of a quarter of the width, scaled down by ``gain`` and added to the input: ``B C H W``."""

    def __init__(self, inputs: int, outputs: int, kernels: Sequence[int], gain: float) -> None:
        super().__init__()
        inner = outputs // 4
        widths = (inputs, inner, inner, inner, outputs)
        self.convs = nn.ModuleList(_conv(*pair, kernel) for pair, kernel in zip(pairwise(widths), kernels))
        self.shortcut = nn.Identity() if inputs == outputs else _conv(inputs, outputs, 1)
        self.gain = gain

    def forward(self, x: Tensor) -> Tensor:
        """Apply the block."""
        y = x
        for conv in self.convs:
            y = conv(F.relu(y))
        return self.shortcut(x) + self.gain * y


class Group(nn.Module):
    """Residual blocks of one width: ``B C H W``."""

    def __init__(self, inputs: int, width: int, depth: int, kernels: Sequence[int], gain: float) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Bottle(width if i else inputs, width, kernels, gain) for i in range(depth))

    def forward(self, x: Tensor) -> Tensor:
        """Apply the blocks in turn."""
        for block in self.blocks:
            x = block(x)
        return x


class DVAEAutoencoder(nn.Module):
    """Ramesh et al. 2021, as published: groups of residual blocks, between which
    the frame is halved by maximum pooling, and doubled by repetition.

    The decoder gives ``B T 6 H W``: mean and log scale of the logit of each squeezed pixel.
    """

    frames_apart = True

    def __init__(self, config: DVAEConfig, input_dim: int, latent_dim: int) -> None:
        super().__init__()
        width, num_groups, depth = config.width, config.num_groups, config.depth
        self.patch_size = (1, 2 ** (num_groups - 1), 2 ** (num_groups - 1))
        gain = 1 / (num_groups * depth) ** 2
        widths = [width * 2**i for i in range(num_groups)]
        self.encoder_in = _conv(3, width, 7)
        self.down = nn.ModuleList(
            Group(inputs, outputs, depth, (3, 3, 3, 1), gain) for inputs, outputs in pairwise([width, *widths])
        )
        self.encoder_out = _conv(widths[-1], input_dim, 1)
        self.up = nn.ModuleList(
            Group(inputs, outputs, depth, (1, 3, 3, 3), gain)
            for inputs, outputs in pairwise([latent_dim, *reversed(widths)])
        )
        self.decoder_out = _conv(width, 6, 1)

    def encode(self, video: Tensor) -> Tensor:
        """Latents ``B t h w D`` of ``B T C H W`` video in 0..1."""
        x = self.encoder_in(rearrange(squeeze_pixels(video), "b t c h w -> (b t) c h w"))
        for i, group in enumerate(self.down):
            x = group(F.max_pool2d(x, 2) if i else x)
        return rearrange(self.encoder_out(F.relu(x)), "(b t) d h w -> b t h w d", t=video.shape[1])

    def decode(self, latents: Tensor) -> Tensor:
        """Mean and log scale, ``B T 6 H W``, of latents ``B t h w D``."""
        x = rearrange(latents, "b t h w d -> (b t) d h w")
        for i, group in enumerate(self.up):
            x = group(F.interpolate(x, scale_factor=2, mode="nearest") if i else x)
        return rearrange(self.decoder_out(F.relu(x)), "(b t) c h w -> b t c h w", t=latents.shape[1])


def _conv(inputs: int, outputs: int, kernel: int) -> nn.Conv2d:
    conv = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2)
    nn.init.normal_(conv.weight, std=1 / math.sqrt(inputs * kernel**2))
    nn.init.zeros_(conv.bias)
    return conv


def logit_laplace(pixels: Tensor, mean: Tensor, log_scale: Tensor) -> Tensor:
    """Negative log-density, elementwise, of pixels between 0 and 1 whose logit is Laplace-distributed."""
    distance = (torch.logit(pixels) - mean).abs()
    return log_scale + (2 * pixels * (1 - pixels)).log() + distance * (-log_scale).exp()


class DVAE(TokenizerObjective):
    """Logit-Laplace likelihood, and what the codebook adds."""

    def forward(self, batch: Batch, phase: str = "main") -> Loss:
        """The loss of one batch; also logs the mean squared error of what is shown."""
        video = as_float(batch["video"])
        decoded, passage = self.pass_through(video)
        decoded = decoded.float()
        mean, log_scale = decoded.chunk(2, dim=2)
        nats = logit_laplace(squeeze_pixels(video), mean, log_scale).mean()
        with torch.no_grad():
            error = (self.pixels(decoded) - video).square().mean()
        return Loss(nats + passage.loss, {"nats": nats.detach(), "mse": error, **passage.metrics})

    def from_published(self, theirs: Mapping[str, Tensor]) -> Weights:
        """All weights from the states of DALL-E's two networks in one file, ``encoder.*`` and ``decoder.*``.

        Raises:
            UserError: a weight is missing or has no place here.
        """
        encoder, decoder = (
            {name.removeprefix(side): value for name, value in theirs.items() if name.startswith(side)}
            for side in ("encoder.", "decoder.")
        )
        return from_dalle(encoder, decoder)

    def pixels(self, decoded: Tensor) -> Tensor:
        """The median of each pixel's distribution."""
        return stretch_pixels(decoded[:, :, :3].sigmoid())


@dataclass(frozen=True, kw_only=True)
class DVAEConfig(ObjectiveConfig):
    """The network and its codebook."""

    width: Count = 256
    """Number of channels at full resolution; it doubles whenever the resolution is halved."""
    num_groups: Count = 4
    """Number of groups of residual blocks, between which the resolution is halved."""
    depth: Count = 2
    """Number of residual blocks in a group."""
    codebook: Codebook = field(default_factory=lambda: Codebook(kind="gumbel", size=8192, dim=128))

    def build(self) -> DVAE:
        """Build the network with fresh weights."""
        quantiser = self.codebook.build()
        return DVAE(DVAEAutoencoder(self, quantiser.input_dim, quantiser.latent_dim), quantiser)


_DEPTH = 2  # blocks in a group, everywhere
_CODES = ["blocks.input.w", "blocks.input.b"]  # of the decoder, which ours has as codes


def from_dalle(encoder: Mapping[str, Tensor], decoder: Mapping[str, Tensor]) -> Weights:
    """Weights of :class:`~filmstrip.systems.tokenizers.dvae.DVAE` from the two published states.

    The decoder's first convolution sees codes in proportions that add up to one: its columns, with its bias added to
    each, are our codes.

    Raises:
        UserError: a state lacks something, or has something else.
    """
    ours: Weights = {}
    for theirs, names, rest in ((encoder, _names("down"), []), (decoder, _names("up"), _CODES)):
        what = "this is not the state of DALL-E's dVAE: it"
        check_names(what, theirs, [*names.values(), *rest], optional=_same_width(theirs))
        ours |= {name: theirs[key] for name, key in names.items() if key in theirs}
    weight = decoder["blocks.input.w"].flatten(1)
    return ours | {"bottleneck.codes": (weight + decoder["blocks.input.b"][:, None]).T.contiguous()}


def _same_width(theirs: Mapping[str, Tensor]) -> list[str]:
    """Patterns of the paths around blocks that end as wide as they begin: there are none there."""
    blocks = [name.removesuffix(".res_path.conv_1.w") for name in theirs if name.endswith(".res_path.conv_1.w")]
    last = {block: theirs.get(f"{block}.res_path.conv_4.w") for block in blocks}
    same = [b for b, w in last.items() if w is not None and len(w) == theirs[f"{b}.res_path.conv_1.w"].shape[1]]
    return [rf"{re.escape(block)}\.id_path\.[wb]" for block in same]


def _names(side: str) -> dict[str, str]:
    """Ours to theirs, for the encoder (``down``) or the decoder (``up``)."""
    convs = {"autoencoder.encoder_in": "input", "autoencoder.encoder_out": "output.conv"}
    if side == "up":
        convs = {"autoencoder.decoder_out": "output.conv"}
    for group in range(4):
        for block in range(_DEPTH):
            ours = f"autoencoder.{side}.{group}.blocks.{block}"
            theirs = f"group_{group + 1}.block_{block + 1}"
            convs[f"{ours}.shortcut"] = f"{theirs}.id_path"
            convs |= {f"{ours}.convs.{i}": f"{theirs}.res_path.conv_{i + 1}" for i in range(4)}
    return {
        f"{ours}.{a}": f"blocks.{theirs}.{b}"
        for ours, theirs in convs.items()
        for a, b in (("weight", "w"), ("bias", "b"))
    }


def tiny() -> Run:
    """Motions at 32 x 32 pixels; trains in seconds on two CPU cores."""
    return Run(
        data=Data(
            synthetic=Motions(),
            clip=Clip(num_frames=2, stride=8, size=32, short_side=(32, 32)),
            augment=Augment(mirror=0.0),
            batch_size=16,
        ),
        objective=DVAEConfig(
            width=16,
            num_groups=3,
            depth=1,
            codebook=Codebook(kind="gumbel", size=64, dim=16, kl_weight=0.01, warmup_steps=10, anneal_steps=80),
        ),
        optim=AdamW(lr=2e-3, weight_decay=0.0),
        train=Loop(length=Steps(100)),
    )


def dalle() -> Run:
    """DALL-E's: frames of 256 x 256 as 32 x 32 codes of 8192."""
    return Run(
        data=Data(
            clip=Clip(num_frames=1, stride=1, size=256, short_side=(256, 256)),
            augment=Augment(mirror=0.5),
            batch_size=512,
            num_workers=10,
        ),
        objective=DVAEConfig(width=256, num_groups=4, depth=2, codebook=Codebook(kind="gumbel", size=8192, dim=128)),
        optim=AdamW(lr=1e-4, weight_decay=1e-4, schedule=Cosine(warmup=0.0, final=1.25e-6 / 1e-4)),
        train=Loop(length=Steps(3_000_000), precision="float16", clip_grad=None, ema=0.999),
    )
