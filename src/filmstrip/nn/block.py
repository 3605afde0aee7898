"""The pre-norm transformer block."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

from torch import Tensor, nn

from filmstrip.nn.attention import Attention, KVCache, StaticKVCache
from filmstrip.nn.blockwise import in_blocks
from filmstrip.nn.drop_path import DropPath
from filmstrip.nn.masks import Mask, everything
from filmstrip.nn.mlp import GELU, MLP, GatedMLP
from filmstrip.nn.ring_attention import own_of_padded
from filmstrip.nn.shared_tokens import share_tokens
from filmstrip.protocols import RingOfProcesses


class Block(nn.Module):
    """Attention, then a feed-forward network, on normalised tokens, with residual connections: ``B N D -> B N D``.

    ``kind``: layer normalisation and a GELU network (``vit``), or RMS normalisation, a SwiGLU one and no biases but
    those of ``qkv_bias`` (``llama``). ``gelu`` applies to the ``vit`` kind only. ``head_dim``, ``num_kv_heads``,
    ``qk_norm`` and ``score_scale`` are those of :class:`Attention`.
    """

    def __init__(
        self,
        width: int,
        num_heads: int,
        *,
        mlp_ratio: float = 4.0,
        head_dim: int | None = None,
        num_kv_heads: int | None = None,
        qk_norm: bool = False,
        qkv_bias: Literal["all", "no_key", "none"] = "all",
        score_scale: float = 1.0,
        drop_path: float = 0.0,
        norm_eps: float = 1e-6,
        kind: Literal["vit", "llama"] = "vit",
        gelu: GELU = "exact",
    ) -> None:
        super().__init__()
        norm = nn.LayerNorm if kind == "vit" else nn.RMSNorm
        self.norm1 = norm(width, eps=norm_eps)
        self.attention = Attention(
            width,
            num_heads,
            head_dim=head_dim,
            num_kv_heads=num_kv_heads,
            qkv_bias=qkv_bias,
            qk_norm=qk_norm,
            out_bias=kind == "vit",
            score_scale=score_scale,
        )
        self.norm2 = norm(width, eps=norm_eps)
        hidden = round(width * mlp_ratio)
        self.mlp = MLP(width, hidden, gelu=gelu) if kind == "vit" else GatedMLP(width, hidden)
        self.drop_path = DropPath(drop_path)

    def forward(
        self,
        x: Tensor,
        *,
        mask: Mask | None = None,
        angles: Tensor | None = None,
        cache: KVCache | StaticKVCache | None = None,
    ) -> Tensor:
        """Apply the block; the options are those of :class:`Attention`."""
        x = x + self.drop_path(self.attention(self.norm1(x), mask=mask, angles=angles, cache=cache))
        if mask is not None and mask.ring is not None:  # rows are shared out because they are long
            return x + self.drop_path(in_blocks(self.mlp, self.norm2(x)))
        return x + self.drop_path(self.mlp(self.norm2(x)))

    def share_tokens(self, ring: RingOfProcesses) -> bool:
        """See :class:`~filmstrip.protocols.SharesTokens`."""
        if type(self).forward is not Block.forward:  # what attends otherwise may not see that tokens are missing
            return False

        def options(given: dict[str, Any], length: int) -> dict[str, Any]:
            mask, angles = given.get("mask") or everything(), given.get("angles")
            plain = given.get("mask") is None and length % ring.size == 0
            shared = mask.of_whole_rows(ring, length)
            if plain:
                shared.by_positions = None
            own = None if angles is None else own_of_padded(angles, ring, angles.ndim - 2)
            return {**given, "mask": shared, "angles": own}

        share_tokens(self, ring, options)
        return True


def run_blocks(blocks: Iterable[nn.Module], x: Tensor, layers: bool, *arguments: Any) -> tuple[Tensor, list[Tensor]]:
    """Pass ``x`` through blocks, each called with the same further ``arguments``.

    Returns the last output and, with ``layers``, the output of each block; without, none is kept for longer than the
    next block needs it.
    """
    outputs = []
    for block in blocks:
        x = block(x, *arguments)
        if layers:
            outputs.append(x)
    return x, outputs
