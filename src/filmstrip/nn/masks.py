"""Who may attend to whom, said once and evaluated as the device needs it."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, create_block_mask

Rule = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
"""``rule(batch, head, query, key) -> bool``, elementwise over index tensors: what FlexAttention calls a mask_mod."""


class Mask:
    """A rule of attention: a dense boolean tensor on the CPU, a sparse block mask for FlexAttention on the GPU.

    ``a & b`` allows what both allow. Evaluations are remembered, so that the layers of a model that are given the
    same object share one. Make a new object when the data behind the rule changes.
    """

    def __init__(
        self, rule: Rule, *, batch: int | None = None, plain_causal: bool = False, block: int | None = None
    ) -> None:
        self.rule = rule
        self.batch = batch
        """Number of samples the rule tells apart; ``None`` when it is the same for all."""
        self.plain_causal = plain_causal
        """Whether the rule is just "not the future", which attention kernels know without a mask."""
        self.block = block
        """Tokens in a block, where the rule is just "not the blocks of the future": one at a time needs no mask."""
        self._evaluated: dict[tuple[object, ...], Tensor | BlockMask] = {}

    def __and__(self, other: Mask) -> Mask:
        def both(b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
            return self.rule(b, h, q, k) & other.rule(b, h, q, k)

        batch = self.batch if other.batch is None else other.batch
        return Mask(both, batch=batch, plain_causal=self.plain_causal and other.plain_causal)

    def dense(self, queries: int, keys: int, device: torch.device, offset: int = 0) -> Tensor:
        """True where attention is allowed, ``B 1 Q K`` (``B`` = 1 if all samples share it).

        Queries stand at positions ``offset ..``, keys at ``0 ..``.
        """
        key = ("dense", queries, keys, device, offset)
        if key not in self._evaluated:
            b = torch.arange(self.batch or 1, device=device)[:, None, None, None]
            q = torch.arange(offset, offset + queries, device=device)[:, None]
            k = torch.arange(keys, device=device)
            allowed = self.rule(b, torch.zeros_like(b), q, k)
            self._evaluated[key] = allowed.expand(self.batch or 1, 1, queries, keys)
        return self._evaluated[key]

    def blocks(self, queries: int, keys: int, device: torch.device, offset: int = 0) -> BlockMask:
        """The same as :meth:`dense`, as a block mask for FlexAttention."""
        key = ("blocks", queries, keys, device, offset)
        if key not in self._evaluated:

            def shifted(b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
                return self.rule(b, h, q + offset, k)

            self._evaluated[key] = create_block_mask(shifted, self.batch, None, queries, keys, device=device)
        return self._evaluated[key]


def causal() -> Mask:
    """A token sees itself and everything before it."""
    return Mask(lambda b, h, q, k: k <= q, plain_causal=True)


def block_causal(block: int) -> Mask:
    """A token sees its own block of ``block`` tokens (a frame, say) and every block before it."""
    return Mask(lambda b, h, q, k: k // block <= q // block, block=block)


def document(ids: Tensor) -> Mask:
    """A token sees its own document only; ``ids`` (``B N``) says which document a token belongs to."""
    return Mask(lambda b, h, q, k: ids[b, q] == ids[b, k], batch=ids.shape[0])


def sliding_window(reach: int) -> Mask:
    """A token sees those up to ``reach`` places away and the first one, which sees all (Beltagy et al. 2020)."""
    return Mask(lambda b, h, q, k: ((q - k).abs() <= reach) | (q == 0) | (k == 0))


def local(reach: int) -> Mask:
    """A token sees those up to ``reach`` places away."""
    return Mask(lambda b, h, q, k: (q - k).abs() <= reach)


def present(valid: Tensor) -> Mask:
    """A token sees those that are there (``valid``, ``B N`` bool), and itself: padding looks at something too."""
    return Mask(lambda b, h, q, k: valid[b, k] | (q == k), batch=valid.shape[0])
