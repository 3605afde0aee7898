"""Quantisers whose codes are fixed grid points: no codebook is learned, so none can collapse."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from filmstrip.errors import UserError
from filmstrip.nn.quantise import Quantised, Quantiser, straight_through, usage

_GROUP_BITS = 9


class FSQ(Quantiser):
    """Finite scalar quantisation: each channel is bounded and rounded to one of a few levels (Mentzer et al. 2023).

    Channel ``i`` takes ``levels[i]`` values, evenly spaced in -1..1; an id is their mixed-radix number, the first
    channel the least significant. There is no loss. The bound is that of the paper's listing (its appendix
    A.1), as in ElasticTok's code.
    """

    def __init__(self, levels: Sequence[int]) -> None:
        super().__init__()
        if not levels or min(levels) < 2:
            raise UserError(f"FSQ needs two levels or more in each channel, not {tuple(levels)}")
        self.codebook_size = math.prod(levels)
        self.input_dim = self.latent_dim = len(levels)
        radix = [math.prod(levels[:i]) for i in range(len(levels))]
        self.register_buffer("levels", torch.tensor(levels), persistent=False)
        self.register_buffer("radix", torch.tensor(radix), persistent=False)

    def forward(self, latents: Tensor) -> Quantised:
        """Round ``B ... D`` latents."""
        bounded = self._bound(latents.float())
        rounded = straight_through(bounded, bounded.round())
        digits = rounded.detach().long() + self.levels // 2
        ids = (digits * self.radix).sum(dim=-1)
        quantised = rounded / (self.levels // 2)
        loss = quantised.new_zeros(())
        return Quantised(quantised.to(latents.dtype), ids, loss, usage(ids.flatten(), self.codebook_size))

    def _bound(self, latents: Tensor) -> Tensor:
        """Squash each channel so that rounding yields exactly ``levels`` integers, from ``-(levels // 2)``."""
        half = (self.levels - 1) * (1 - 1e-3) / 2
        offset = torch.where(self.levels % 2 == 0, 0.5, 0.0)
        # the tangent is as published; its near equal, the inverse of tanh, would map zero to zero
        return torch.tanh(latents + torch.tan(offset / half)) * half - offset

    def decode(self, ids: Tensor) -> Tensor:
        """The points of ``B ...`` ids: ``B ... D`` in -1..1."""
        digits = ids[..., None] // self.radix % self.levels
        return (digits - self.levels // 2) / (self.levels // 2)


class LookupFree(Quantiser):
    """Lookup-free quantisation: the signs of the channels are the bits of the id (Yu et al. 2023, MAGVIT-v2).

    The loss is ``commitment * |z - q|^2 + entropy * (E[H(p(code|z))] - H(E[p(code|z)]))``: each latent should
    be assigned to its code with confidence, and all codes should be used. ``p`` is a softmax over squared distances,
    which factorises into bits; the second entropy is summed over groups of 9 channels, exact up to 512 codes and an
    upper bound beyond.
    """

    def __init__(
        self, bits: int, *, commitment: float = 0.25, entropy: float = 1.0, temperature: float = 1.0
    ) -> None:
        super().__init__()
        self.codebook_size = 2**bits
        self.input_dim = self.latent_dim = bits
        self.commitment = commitment
        self.entropy = entropy
        self.temperature = temperature
        self.register_buffer("weights", 2 ** torch.arange(bits), persistent=False)

    def forward(self, latents: Tensor) -> Quantised:
        """Take the signs of ``B ... D`` latents."""
        z = latents.float()
        bits = z.detach() > 0
        signs = bits.to(z.dtype) * 2 - 1
        ids = (bits * self.weights).sum(dim=-1)
        loss = self.commitment * F.mse_loss(z, signs) + self.entropy * self._entropy_loss(z.flatten(0, -2))
        quantised = straight_through(z, signs).to(latents.dtype)
        return Quantised(quantised, ids, loss, usage(ids.flatten(), self.codebook_size))

    def decode(self, ids: Tensor) -> Tensor:
        """The vertices of the hypercube with ids ``B ...``: ``B ... D`` of -1 and 1."""
        bits = (ids[..., None] & self.weights) != 0
        return bits.to(torch.float32) * 2 - 1

    def _entropy_loss(self, z: Tensor) -> Tensor:
        logits = 4 * z / self.temperature  # |z + 1|^2 - |z - 1|^2 = 4 z
        sure = F.binary_cross_entropy_with_logits(logits, logits.sigmoid(), reduction="none").sum(dim=1).mean()
        spread = [_joint(group.sigmoid()).mean(dim=0) for group in logits.split(_GROUP_BITS, dim=1)]
        return sure + sum(torch.xlogy(p, p).sum() for p in spread)


def _joint(ones: Tensor) -> Tensor:
    """Probabilities ``N 2^D`` of all patterns of independent bits that are one with probability ``N D``."""
    joint = torch.ones_like(ones[:, :1])
    for p in ones.unbind(dim=1):
        joint = torch.cat([joint * (1 - p[:, None]), joint * p[:, None]], dim=1)
    return joint
