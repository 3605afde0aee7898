"""The network of flexible diffusion: any frames of a video in one pass, each with its number.

The U-Net's levels are those of :mod:`filmstrip.models.video_unet`. Frames know of each other by attention alone, at
each position of a frame, whose scores and values also depend on how far apart two frames are (iRPE: Wu et al. 2021),
by a small network of the distance and the time.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from filmstrip.models.video_unet import ResidualBlock, UNet, UNetArchitecture, start_at_zero
from filmstrip.nn.attention import Attention

_FEATURES = 3  # of a distance


class _Step(NamedTuple):
    """What the blocks of one pass share, of ``B`` clips of ``T`` frames."""

    time: Tensor
    """Vectors of the time and what else is known of a frame, ``(B T) D``."""
    distances: Distances
    apart: Tensor | None
    """Pairs of frames that must not see each other, ``B T T`` bool."""
    moment: Tensor
    """Vectors of the time alone, ``B D``."""


class Distances(NamedTuple):
    """How many frames lie between two: the different ones, and which of them each pair has."""

    features: Tensor
    """``B P 3`` of ``P`` distances."""
    pairs: Tensor | None
    """Number of each pair's distance, ``B T T``; none if each pair has one of its own (``P = T T``)."""

    @classmethod
    def between(cls, frames: Tensor, reach: int) -> Distances:
        """Those of frames with numbers ``B T``, none further than ``reach`` from another."""
        apart = frames[:, :, None] - frames[:, None]
        if 2 * reach + 1 >= frames.shape[1] ** 2:
            return cls(_features(apart.flatten(1)), None)
        every = torch.arange(-reach, reach + 1, device=frames.device).expand(len(frames), -1)
        return cls(_features(every), apart + reach)


def _features(distance: Tensor) -> Tensor:
    """``... 3``: the logarithm of how far a frame is after another, of how far before it, and whether it is it."""
    after, before = distance.clamp(min=0), (-distance).clamp(min=0)
    return torch.stack([after.float().log1p(), before.float().log1p(), (distance == 0).float()], dim=-1)


class DistanceNetwork(nn.Module):
    """Vectors of each pair of frames, ``B T T H d``, by their distance and the time; zero at first."""

    def __init__(self, width: int, num_heads: int, time_width: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.distance = nn.Linear(_FEATURES, width)
        self.time = nn.Linear(time_width, width)
        self.out = nn.Linear(width, width)
        start_at_zero(self.out)

    def forward(self, distances: Distances, time: Tensor, frames: int) -> Tensor:
        """``time`` is ``B D``, the same for all frames."""
        x = self.out(F.silu(self.time(time)[:, None] + self.distance(distances.features)))
        if distances.pairs is None:
            x = x.unflatten(1, (frames, frames))
        else:
            first = torch.arange(len(x), device=x.device)[:, None, None] * x.shape[1]
            x = F.embedding(first + distances.pairs, x.flatten(0, 1))
        return x.unflatten(3, (self.num_heads, -1))


class FrameAttention(nn.Module):
    """Attention among the frames of a clip at each position, added to normalised ``(B T) C H W``; zero at first.

    What it is added to is normalised, too, as published: over all frames of a position together. The score of frames
    ``i`` and ``j`` is ``q_i k_j + q_i a_ij + b_ji k_j``, what ``i`` reads of ``j`` is ``v_j + c_ij``, where ``a``,
    ``b`` and ``c`` are of a :class:`DistanceNetwork` each.
    """

    def __init__(self, width: int, num_heads: int, time_width: int, groups: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(groups, width, eps=1e-5)
        self.num_heads = num_heads
        self.qkv = nn.Linear(width, 3 * width)
        self.of_keys, self.of_queries, self.of_values = (
            DistanceNetwork(width, num_heads, time_width) for _ in range(3)
        )
        self.out = nn.Linear(width, width)
        start_at_zero(self.out)

    def forward(self, x: Tensor, step: _Step) -> Tensor:
        """Apply the layer."""
        batch = len(step.distances.features)
        height, width, frames = *x.shape[2:], len(x) // batch
        y = self.norm(rearrange(x, "(b t) c h w -> (b h w) c t", b=batch)).mT
        q, k, v = rearrange(
            self.qkv(y), "(b p) t (three n d) -> three b p n t d", b=batch, three=3, n=self.num_heads
        ).unbind(0)
        q = q * q.shape[-1] ** -0.5
        nets = (self.of_keys, self.of_queries, self.of_values)
        a, b, c = (net(step.distances, step.moment, frames) for net in nets)
        scores = q @ k.mT + torch.einsum("bpnid,bijnd->bpnij", q, a)
        scores = scores + torch.einsum("bpnjd,bjind->bpnij", k * k.shape[-1] ** -0.5, b)
        if step.apart is not None:
            scores = scores.masked_fill(step.apart[:, None, None], float("-inf"))
        weights = scores.float().softmax(dim=-1).to(v.dtype)
        read = weights @ v + torch.einsum("bpnij,bijnd->bpnid", weights, c)
        y = y + self.out(rearrange(read, "b p n t d -> (b p) t (n d)"))
        return rearrange(y, "(b h w) t c -> (b t) c h w", h=height, w=width)


class PositionAttention(nn.Module):
    """Attention among the positions of each frame, added to normalised ``N C H W``, as published; zero at first."""

    def __init__(self, width: int, num_heads: int, groups: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(groups, width, eps=1e-5)
        self.attention = Attention(width, num_heads)
        start_at_zero(self.attention.out)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the layer."""
        y = rearrange(self.norm(x), "n c h w -> n (h w) c")
        return rearrange(y + self.attention(y), "n (h w) c -> n c h w", h=x.shape[2])


class FlexibleBlock(nn.Module):
    """A residual block and, where asked for, attention among frames, then within them."""

    def __init__(
        self, inputs: int, outputs: int, config: UNetArchitecture, time_width: int, *, attention: bool
    ) -> None:
        super().__init__()
        groups, heads = config.groups, outputs // config.head_dim
        self.residual = ResidualBlock(inputs, outputs, time_width, groups, scales=True)
        start_at_zero(self.residual.conv2)
        self.frames = FrameAttention(outputs, heads, time_width, groups) if attention else None
        self.positions = PositionAttention(outputs, heads, groups) if attention else None

    def forward(self, x: Tensor, step: _Step) -> Tensor:
        """``(B T) C H W``."""
        x = self.residual(x, step.time)
        if self.frames is not None and self.positions is not None:
            x = self.positions(self.frames(x, step))
        return x


class FlexibleUNet(UNet):
    """Frames ``B T D h w``, some of them observed, to what is to be predicted of the others."""

    def __init__(self, config: UNetArchitecture, *, channels: int) -> None:
        """``channels`` is the number of those of a frame's latents.

        Raises:
            UserError: a width is no multiple of the groups or of a head, or a level does not exist.
        """
        super().__init__(config, inputs=channels + 1, outputs=channels)
        start_at_zero(self.conv_out)

    def block(self, inputs: int, outputs: int, config: UNetArchitecture, *, attention: bool) -> FlexibleBlock:
        """See :class:`FlexibleBlock`."""
        return FlexibleBlock(inputs, outputs, config, self.time_width, attention=attention)

    def forward(
        self,
        x: Tensor,
        time: Tensor,
        *,
        frames: Tensor,
        observed: Tensor,
        reach: int,
        apart: Tensor | None = None,
        added: Tensor | None = None,
    ) -> Tensor:
        """``B T D h w`` for times ``B`` (0..1000).

        ``frames`` are the frames' numbers (``B T`` int64), none further from another than ``reach``; ``observed``
        (``B T`` bool) says which of them are clean. Pairs that are ``apart`` (``B T T`` bool) do not see each other.
        ``added`` (``B T time_width``) is added to the time's vectors.

        Raises:
            ValueError: height or width cannot be halved as often as there are levels.
        """
        batch, count = x.shape[:2]
        self.check_size(*x.shape[3:])
        vector = self.time(time)
        each = vector[:, None].expand(-1, count, -1)
        step = _Step(
            (each if added is None else each + added).flatten(0, 1), Distances.between(frames, reach), apart, vector
        )
        shown = observed[:, :, None, None, None].to(x.dtype).expand_as(x[:, :, :1])
        return self.through(torch.cat([x, shown], dim=2).flatten(0, 1), step).unflatten(0, (batch, count))
