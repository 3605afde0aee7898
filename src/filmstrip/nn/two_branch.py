"""The two-branch transformer block: joint attention of context (seen) tokens and of target tokens."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from filmstrip.nn.attention import attend
from filmstrip.nn.masks import Mask
from filmstrip.nn.mlp import MLP
from filmstrip.nn.rotary import rotate

AttentionKind = Literal["joint", "self", "cross"]
_EPS = 1e-6


class Placement(NamedTuple):
    """Positions and masks of the tokens of both branches, computed once for all layers and steps; without a mask all
    tokens are valid."""

    target_angles: Tensor
    """Rotary angles of the target tokens, ``B T d/2`` or ``T d/2``."""
    seen_angles: Tensor
    """Rotary angles of the seen tokens, ``B M d/2`` or ``M d/2``."""
    targets: Mask | None
    """Mask of the valid target tokens, as keys."""
    seen: Mask | None
    """Mask of the valid seen tokens, as keys."""
    both: Mask | None
    """Mask of the valid target tokens followed by the valid seen ones."""


class Modulation(NamedTuple):
    """Shifts, scales and gates of a block's two branches at some time: ``B 6D``, or fewer where fewer are used."""

    target: Tensor
    seen: Tensor


def allow_keys(used: Tensor) -> Mask:
    """Attention to the keys that ``used`` (``B K``, bool) marks; to all if it marks none: such rows are not used."""
    allowed = used | ~used.any(dim=1, keepdim=True)
    return Mask(lambda b, h, q, k: allowed[b, k], batch=len(used))


class AdaptiveNorm(nn.Module):
    """Shifts, scales and gates of a block from the time: ``parts`` vectors of its width (DiT's adaLN-Zero).

    All are initialised to zero: a block starts as the identity.
    """

    def __init__(self, width: int, parts: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, parts * width)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, time: Tensor) -> Tensor:
        """``B (parts D)`` for embedded times ``B D``."""
        return self.linear(F.silu(time))


def split(modulation: Tensor, width: int) -> tuple[Tensor, ...]:
    """Its vectors, each ``B 1 D``: one row serves a batch of equal times."""
    return modulation[:, None].split(width, dim=-1)


def modulate(x: Tensor, shift: Tensor, scale: Tensor, *, rms: bool = False) -> Tensor:
    """Normalised tokens ``B N D`` (``rms``: by their root mean square alone), scaled by ``1 + scale`` and shifted."""
    norm = F.rms_norm if rms else F.layer_norm
    return torch.addcmul(shift, norm(x, x.shape[-1:], eps=_EPS), 1 + scale)


class JointAttention(nn.Module):
    """Attention among the tokens of two branches, each with its own projections.

    ``joint``: every token attends to both branches (Esser et al. 2024, MM-DiT). ``cross``: to the other branch only.
    ``self``: as joint, with projections shared by both. In the ``last`` block the output of the seen branch is not
    used: it provides keys and values, but no queries.
    """

    def __init__(
        self, width: int, num_heads: int, *, head_dim: int, kind: AttentionKind = "joint", last: bool = False
    ) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.kind, self.last = kind, last
        inner = num_heads * head_dim
        self.target_q = nn.Linear(width, inner)
        self.target_kv = None if kind == "cross" and last else nn.Linear(width, 2 * inner)
        self.target_out = nn.Linear(inner, width)
        if kind != "self":
            self.seen_q = None if last else nn.Linear(width, inner)
            self.seen_kv = nn.Linear(width, 2 * inner)
            self.seen_out = None if last else nn.Linear(inner, width)

    def forward(self, target: Tensor, seen: Tensor | None, placement: Placement) -> tuple[Tensor, Tensor | None]:
        """Outputs for the targets ``B T D`` and the seen tokens ``B M D``; without seen tokens, self-attention."""
        shared = self.kind == "self"
        q = self._heads(self.target_q(target), placement.target_angles)
        k, v = (None, None) if self.target_kv is None else self._pair(self.target_kv(target), placement.target_angles)
        if seen is None:
            read = torch.zeros_like(q) if self.kind == "cross" else attend(q, k, v, placement.targets)
            return self.target_out(_merged(read)), None
        seen_kv = self.target_kv if shared else self.seen_kv
        seen_k, seen_v = self._pair(seen_kv(seen), placement.seen_angles)
        seen_q = None
        if not self.last:
            seen_q = self._heads((self.target_q if shared else self.seen_q)(seen), placement.seen_angles)
        if self.kind == "cross":
            read = attend(q, seen_k, seen_v, placement.seen)
            seen_read = None if self.last else attend(seen_q, k, v, placement.targets)
        else:
            queries = q if self.last else torch.cat([q, seen_q], dim=2)
            read = attend(queries, torch.cat([k, seen_k], dim=2), torch.cat([v, seen_v], dim=2), placement.both)
            read, seen_read = read[:, :, : q.shape[2]], read[:, :, q.shape[2] :]
        if self.last:
            return self.target_out(_merged(read)), None
        seen_out = self.target_out if shared else self.seen_out
        return self.target_out(_merged(read)), seen_out(_merged(seen_read))

    def _heads(self, x: Tensor, angles: Tensor) -> Tensor:
        """Rotated queries or keys, ``B H N d``."""
        return rotate(rearrange(x, "b n (h d) -> b h n d", h=self.num_heads), angles)

    def _pair(self, x: Tensor, angles: Tensor) -> tuple[Tensor, Tensor]:
        """Rotated keys, and values."""
        k, v = x.chunk(2, dim=-1)
        return self._heads(k, angles), rearrange(v, "b n (h d) -> b h n d", h=self.num_heads)


def _merged(x: Tensor) -> Tensor:
    return rearrange(x, "b h n d -> b n (h d)")


class TwoBranchBlock(nn.Module):
    """Adaptive norms, :class:`JointAttention`, then a feed-forward network for each branch, all gated by the time.

    Algorithm 1 of Lin et al. 2024 (VEDIT), with the attention gate that its listing omits. The ``last`` block of a
    network ends the seen branch after the attention: its output is not used.
    """

    def __init__(
        self,
        width: int,
        num_heads: int,
        *,
        head_dim: int | None = None,
        mlp_ratio: float = 4.0,
        attention: AttentionKind = "joint",
        last: bool = False,
    ) -> None:
        super().__init__()
        self.width = width
        self.target_norm = AdaptiveNorm(width, 6)
        # Self-attention takes both branches as one input: one shared norm.
        self.seen_norm = None if attention == "self" else AdaptiveNorm(width, 2 if last else 6)
        self.attention = JointAttention(
            width, num_heads, head_dim=head_dim or width // num_heads, kind=attention, last=last
        )
        self.target_mlp = MLP(width, round(width * mlp_ratio))
        self.seen_mlp = None if last else MLP(width, round(width * mlp_ratio))

    def modulation(self, time: Tensor) -> Modulation:
        """Modulation of this block by embedded times ``B D``; it depends on nothing else."""
        target = self.target_norm(time)
        return Modulation(target, target if self.seen_norm is None else self.seen_norm(time))

    def forward(
        self, target: Tensor, seen: Tensor | None, time: Tensor | Modulation, placement: Placement
    ) -> tuple[Tensor, Tensor | None]:
        """Targets ``B T D`` and seen tokens ``B M D`` to the same shapes.

        Without seen tokens, and in the last block, no seen tokens are returned. ``time`` is embedded, ``B D`` or
        ``1 D``, or the result of :meth:`modulation`.
        """
        modulation = time if isinstance(time, Modulation) else self.modulation(time)
        shift, scale, gate, *for_mlp = split(modulation.target, self.width)
        of_seen = split(modulation.seen, self.width)
        read, seen_read = self.attention(
            modulate(target, shift, scale), None if seen is None else modulate(seen, *of_seen[:2]), placement
        )
        target = _feed_forward(torch.addcmul(target, gate, read), self.target_mlp, *for_mlp)
        if seen_read is None:
            return target, None
        return target, _feed_forward(torch.addcmul(seen, of_seen[2], seen_read), self.seen_mlp, *of_seen[3:])


def _feed_forward(x: Tensor, mlp: MLP, shift: Tensor, scale: Tensor, gate: Tensor) -> Tensor:
    return torch.addcmul(x, gate, mlp(modulate(x, shift, scale)))
