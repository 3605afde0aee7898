"""A decoder-only transformer that drops visual tokens on the way: some go before each of a few of its blocks.

Later blocks compute and remember fewer tokens; text and what stays keep their positions (Xing et al. 2025,
PyramidDrop; Li et al. 2025, VideoChat-Flash).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from torch import Tensor

from filmstrip.bounds import Count, NotEmpty, PositiveShare
from filmstrip.errors import UserError
from filmstrip.models.decoder import Decoder, DecoderConfig, DecoderOutput
from filmstrip.nn.attention import KVCache, StaticKVCache
from filmstrip.nn.masks import Mask, causal

By = Literal["even", "attention", "even_then_attention"]


@dataclass(frozen=True, kw_only=True)
class Dropping:
    """Where visual tokens are dropped, how many stay, and which."""

    after: Annotated[tuple[Count, ...], NotEmpty] = (8, 16, 24)
    """Numbers of blocks after which visual tokens are dropped, ascending."""
    keep: tuple[PositiveShare, ...] = (0.5, 0.25, 0.125)
    """Share of the visual tokens that stays, of all there were at first, for each of these."""
    by: By = "even_then_attention"
    """Visual tokens that stay: evenly spaced ones, those that the last token of the question attends to most in the
    next block, or the former at first and the latter then."""

    def check(self, depth: int) -> None:
        """See that it fits a decoder of so many blocks.

        Raises:
            UserError: it does not.
        """
        said = f"dropping after blocks {self.after} with shares {self.keep}"
        if len(self.keep) != len(self.after) or list(self.after) != sorted(set(self.after)):
            raise UserError(f"{said}: give a share for each, and blocks in ascending order")
        if self.after[-1] >= depth or list(self.keep) != sorted(self.keep, reverse=True):
            raise UserError(f"{said}: the last of {depth} blocks must come after it, and shares must fall")


class DroppingDecoder(Decoder):
    """A :class:`Decoder` whose later blocks do without most visual tokens, where it is told which those are."""

    def __init__(self, config: DecoderConfig, dropping: Dropping) -> None:
        """Build it with fresh weights.

        Raises:
            UserError: the decoder has too few blocks, or positions that are added to tokens.
        """
        super().__init__(config)
        dropping.check(config.depth)
        self.dropping = dropping

    def forward(
        self,
        tokens: Tensor,
        *,
        mask: Mask | None = None,
        positions: Tensor | None = None,
        caches: Sequence[KVCache | StaticKVCache] | None = None,
        layers: bool = False,
        visual: Tensor | None = None,
        count: int = 0,
        asks: Tensor | None = None,
    ) -> DecoderOutput:
        """As a :class:`Decoder`; with ``visual`` (``B N`` bool, ``count`` in each row) those tokens are dropped.

        ``asks`` (``B``) is the place of the last token of the question. What is returned for a dropped token is that
        of the last one before it that stayed.
        """
        if visual is None or asks is None:
            return super().forward(tokens, mask=mask, positions=positions, caches=caches, layers=layers)
        x = self.embedded(tokens)
        b, n = x.shape[:2]
        if positions is None:
            positions = torch.arange(n, device=x.device)
        mask = mask or causal()
        x, angles, mask = self.prepared(x, positions, mask)
        if angles is not None and angles.ndim == 2:
            angles = angles.expand(b, -1, -1)
        at = torch.arange(n, device=x.device).expand(b, -1)
        drops, outputs = dict(zip(self.dropping.after, range(len(self.dropping.after)))), []
        for i, block in enumerate(self.blocks):
            if i in drops:
                kept = self._kept(i, drops[i], x, angles, mask, visual, asks, count)
                asks = torch.searchsorted(kept, asks[:, None], right=True)[:, 0] - 1
                x, visual, at = _at(x, kept), visual.gather(1, kept), at.gather(1, kept)
                angles = None if angles is None else _at(angles, kept)
            x = block(x, mask=mask, angles=angles, cache=caches[i] if caches else None)
            if layers:
                outputs.append(self._whole(x, at, n))
        return DecoderOutput(self._whole(self.norm(x), at, n), tuple(outputs))

    @torch.no_grad()
    def _kept(
        self,
        layer: int,
        stage: int,
        x: Tensor,
        angles: Tensor | None,
        mask: Mask,
        visual: Tensor,
        asks: Tensor,
        first: int,
    ) -> Tensor:
        """Places of the tokens that stay, ``B M`` ascending."""
        how = self.dropping
        now = first if stage == 0 else int(first * how.keep[stage - 1])
        then = int(first * how.keep[stage])
        places = visual.int().argsort(dim=1, descending=True, stable=True)[:, :now]
        if how.by == "even" or (how.by == "even_then_attention" and stage == 0):
            chosen = torch.linspace(0, now - 1, then, device=x.device).long().expand(len(x), -1)
        else:
            block, keys = self.blocks[layer], torch.arange(x.shape[1], device=x.device)[None]
            rows = torch.arange(len(x), device=x.device)[:, None]
            allowed = mask.rule(rows, torch.zeros_like(rows), asks[:, None], keys)
            weights = block.attention.weights_at(block.norm1(x), asks, angles=angles, allowed=allowed).mean(dim=1)
            chosen = weights.gather(1, places).topk(then, dim=1).indices
        stays = (~visual).scatter(1, places.gather(1, chosen), True)
        return stays.int().argsort(dim=1, descending=True, stable=True)[:, : x.shape[1] - now + then].contiguous()

    @staticmethod
    def _whole(x: Tensor, at: Tensor, count: int) -> Tensor:
        """Tokens ``B M D`` that stayed at places ``at``, as ``B count D``."""
        everywhere = torch.arange(count, device=x.device).expand(len(x), -1).contiguous()
        return _at(x, (torch.searchsorted(at, everywhere, right=True) - 1).clamp(min=0))


def _at(x: Tensor, index: Tensor) -> Tensor:
    """The tokens of ``B N D`` at ``index`` (``B M``)."""
    return x.gather(1, index[..., None].expand(-1, -1, x.shape[2]))
