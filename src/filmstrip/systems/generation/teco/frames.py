"""What a frame is to TECO, a tokenizer's codes or pixels, and the convolutions that code and rebuild it.

Both kinds read ``targets`` from a batch, ``embed`` them for a network, say how unlikely targets are under what the
network says, choose the likeliest, and ``render`` it as video.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from filmstrip.errors import UserError
from filmstrip.objectives.latent import LatentObjective
from filmstrip.objectives.tokenizing import TokenizerObjective
from filmstrip.protocols import Batch, Tokens, as_float, check_video


class CodeFrames(LatentObjective):
    """Frames as the codes of a frozen tokenizer, which each embed as the tokenizer's own latent.

    Targets are ids ``B T h w``; the network says logits, ``h w K`` for each frame. ``label_smoothing`` is the share
    of the probability that a target spreads over all codes.
    """

    def __init__(
        self, tokenizer: TokenizerObjective, *, num_frames: int, size: int, label_smoothing: float = 0.0
    ) -> None:
        super().__init__(tokenizer, num_frames=num_frames, size=size)
        self.label_smoothing = label_smoothing
        if self.num_codebooks > 1:
            raise UserError(
                f"this model predicts one code for each place, and the tokenizer has {self.num_codebooks}: use a "
                "single codebook"
            )
        self.places = (self.grid.h, self.grid.w)
        self.channels: int = tokenizer.bottleneck.latent_dim
        self.output_dim = self.codebook_size

    def targets(self, batch: Batch) -> Tensor:
        """Ids ``B T h w`` of a batch."""
        tokens = self.codes(batch)
        return rearrange(tokens.ids, "b (t h w) -> b t h w", h=tokens.grid.h, w=tokens.grid.w)

    def embed(self, targets: Tensor) -> Tensor:
        """``B T C h w``."""
        return rearrange(self.tokenizer.bottleneck.decode(targets), "b t h w c -> b t c h w")

    def nats(self, said: Tensor, targets: Tensor) -> Tensor:
        """Minus the log-probability of the codes of frames ``N h w`` under logits ``N h w K``: ``N``."""
        each = F.cross_entropy(
            said.float().movedim(-1, 1).flatten(2),
            targets.flatten(1),
            reduction="none",
            label_smoothing=self.label_smoothing,
        )
        return each.sum(dim=1)

    def likeliest(self, said: Tensor) -> Tensor:
        """The targets that the network finds most likely."""
        return said.argmax(dim=-1)

    def render(self, targets: Tensor) -> Tensor:
        """Video ``B T C H W`` in 0..1 of targets ``B t h w``."""
        grid = self.grid._replace(t=targets.shape[1])
        return self.video_of(Tokens(grid, ids=targets.flatten(1)))


class PixelFrames(nn.Module):
    """Frames as pixels in 0..1, of a Gaussian around what the network says. Targets are ``B T 3 H W``."""

    channels = output_dim = 3
    tokenizer = None

    def __init__(self, *, num_frames: int, size: int, sigma: float) -> None:
        super().__init__()
        self.places = (size, size)
        self.num_frames = num_frames
        self.sigma = sigma
        """Standard deviation of a pixel: what the squared error is measured against."""

    def targets(self, batch: Batch) -> Tensor:
        """Video in 0..1."""
        if "video" not in batch:
            raise UserError(f"a model of pixels needs 'video' in its batches, and they have {list(batch)}")
        check_video(batch["video"])
        frames, *size = batch["video"].shape[1], *batch["video"].shape[3:]
        if frames > self.num_frames or tuple(size) != self.places:
            raise UserError(
                f"clips have {frames} frames of {size[0]} x {size[1]} and the model has positions for "
                f"{self.num_frames} of {self.places[0]} x {self.places[1]}: set objective.num_frames and "
                "objective.size to the clips'"
            )
        return as_float(batch["video"])

    def embed(self, targets: Tensor) -> Tensor:
        """``B T 3 H W`` in -1..1."""
        return targets * 2 - 1

    def nats(self, said: Tensor, targets: Tensor) -> Tensor:
        """Minus the log-density of frames ``N 3 H W`` around ``N H W 3``, up to its constant: ``N``."""
        error = rearrange(said.float(), "n h w c -> n c h w") + 0.5 - targets
        return error.square().flatten(1).sum(dim=1) / (2 * self.sigma**2)

    def likeliest(self, said: Tensor) -> Tensor:
        """The mean."""
        return (rearrange(said.float(), "n h w c -> n c h w") + 0.5).clamp(0, 1)

    def render(self, targets: Tensor) -> Tensor:
        """They are video already."""
        return targets


class ScaledResidual(nn.Module):
    """Norm, ELU, convolution, twice; a tenth of it is added to the input: ``B C H W``."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(math.gcd(32, inputs), inputs, eps=1e-6)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.norm2 = nn.GroupNorm(math.gcd(32, outputs), outputs, eps=1e-6)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.shortcut = nn.Identity() if inputs == outputs else nn.Conv2d(inputs, outputs, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the block."""
        y = self.conv1(F.elu(self.norm1(x)))
        return self.shortcut(x) + 0.1 * self.conv2(F.elu(self.norm2(y)))


class ResidualEncoder(nn.Sequential):
    """One block at full size, then ``blocks`` after each halving: ``B C H W -> B D h w``."""

    def __init__(self, inputs: int, outputs: int, *, widths: Sequence[int], blocks: int) -> None:
        layers = [nn.Conv2d(inputs, widths[0], 3, padding=1), ScaledResidual(widths[0], widths[0])]
        for above, width in pairwise(widths):
            layers.append(nn.AvgPool2d(2))
            layers += [ScaledResidual(width if i else above, width) for i in range(blocks)]
        super().__init__(*layers, nn.Conv2d(widths[-1], outputs, 1))


class ResidualDecoder(nn.Module):
    """``blocks`` at each size, from the smallest to the full: ``B D h w -> B H W C``; ``widths`` as the encoder's."""

    def __init__(self, inputs: int, outputs: int, *, widths: Sequence[int], blocks: int) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(inputs, widths[0], 3, padding=1)]  # to the narrowest, as published
        above = widths[0]
        for k, width in enumerate(reversed(widths)):
            layers += [nn.Upsample(scale_factor=2)] if k else []
            layers += [ScaledResidual(width if i else above, width) for i in range(blocks)]
            above = width
        self.body = nn.Sequential(*layers)
        self.norm = nn.LayerNorm(widths[0], eps=1e-6)
        self.out = nn.Linear(widths[0], outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Decode."""
        return self.out(self.norm(rearrange(self.body(x), "b c h w -> b h w c")))
