"""Attention masks: a rule stated once and evaluated in the form that the device needs."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, create_block_mask

from filmstrip.protocols import RingOfProcesses

Rule = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
"""``rule(batch, head, query, key) -> bool``, elementwise over index tensors: what FlexAttention calls a mask_mod."""


class Mask:
    """A rule of attention: a dense boolean tensor on the CPU, a sparse block mask for FlexAttention on the GPU.

    ``a & b`` allows what both allow. Evaluations are cached, so that layers that receive the same object share
    one. Make a new object when the data behind the rule changes.
    """

    def __init__(
        self,
        rule: Rule,
        *,
        batch: int | None = None,
        plain_causal: bool = False,
        block: int | None = None,
        documents: Tensor | None = None,
        within_causal: bool = False,
    ) -> None:
        self.rule = rule
        self.batch = batch
        """Number of samples with a rule of their own; ``None`` when all share one."""
        self.plain_causal = plain_causal
        """Whether the rule is plain causality, which attention kernels support without a mask."""
        self.block = block
        """Block size in tokens where the rule is plain block causality: one block at a time needs no mask."""
        self.documents = documents
        """Document of each token, ``B N``, where a token attends to its own and the rule is no other, but perhaps
        causality within it (``within_causal``): blocks of other documents need not be computed."""
        self.within_causal = within_causal
        self.ring: RingOfProcesses | None = None
        """Processes that share the tokens of each row, if there are several: ``documents`` are then this one's."""
        self.by_positions: Callable[[Tensor, Tensor], Tensor] | None = None
        """The rule by positions in whole rows, as :meth:`at`, where there is a ring; none for causality alone."""
        self._evaluated: dict[tuple[object, ...], Tensor | BlockMask] = {}

    def __and__(self, other: Mask) -> Mask:
        def both(b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
            return self.rule(b, h, q, k) & other.rule(b, h, q, k)

        batch = self.batch if other.batch is None else other.batch
        if self.ring is not None:
            return self._and_by_positions(other, both)
        if other.ring is not None:
            return other & self
        documents = self.documents if other.plain_causal else other.documents if self.plain_causal else None
        both_causal = self.plain_causal and other.plain_causal
        return Mask(both, batch=batch, plain_causal=both_causal, documents=documents, within_causal=True)

    def _and_by_positions(self, other: Mask, both: Rule) -> Mask:
        """This rule along a ring and one of positions in whole rows, which all samples share."""
        assert other.ring is None and other.batch is None, "rules of samples' own say nothing of tokens elsewhere"
        own, shared = self.by_positions, Mask(both, batch=self.batch, documents=self.documents)
        shared.ring, shared.within_causal = self.ring, self.within_causal
        shared.by_positions = other.at if own is None else lambda q, k: own(q, k) & other.at(q, k)
        return shared

    def along(self, ring: RingOfProcesses) -> Mask:
        """The same rule of documents, for rows whose tokens are shared out among processes, and the documents of this
        one's."""
        assert self.documents is not None, "a rule of documents, and causality"
        shared = Mask(self.rule, batch=self.batch, documents=self.documents, within_causal=self.within_causal)
        shared.ring = ring
        return shared

    def of_whole_rows(self, ring: RingOfProcesses, length: int) -> Mask:
        """The same rule of all ``length`` tokens of a row, for rows that are shared out among processes; after them
        come those that make the rows' length a multiple of the processes, to which none attends."""
        shared = Mask(self.rule, batch=self.batch, within_causal=self.plain_causal)
        shared.ring = ring
        if not self.plain_causal:  # causality hides what comes after all others
            shared.by_positions = lambda q, k: self.at(*(x.clamp(max=length - 1) for x in (q, k))) & (k < length)
        return shared

    def at(self, queries: Tensor, keys: Tensor) -> Tensor:
        """True where tokens at some positions (``Q``) attend to those at others (``K``), ``B Q K`` (``B`` = 1 if all
        samples share it)."""
        b = torch.arange(self.batch or 1, device=queries.device)[:, None, None]
        allowed = self.rule(b, torch.zeros_like(b), queries[:, None], keys)
        return allowed.expand(self.batch or 1, len(queries), len(keys))

    def dense(self, queries: int, keys: int, device: torch.device, offset: int | Tensor = 0) -> Tensor:
        """True where attention is allowed, ``B 1 Q K`` (``B`` = 1 if all samples share it).

        Queries are at positions ``offset ..``, keys at ``0 ..``; nothing is kept for an ``offset`` that is a tensor.
        """
        key = None if isinstance(offset, Tensor) else ("dense", queries, keys, device, offset)
        if key is not None and key in self._evaluated:
            return self._evaluated[key]
        b = torch.arange(self.batch or 1, device=device)[:, None, None, None]
        q = offset + torch.arange(queries, device=device)[:, None]
        k = torch.arange(keys, device=device)
        allowed = self.rule(b, torch.zeros_like(b), q, k).expand(self.batch or 1, 1, queries, keys)
        if key is not None:
            self._evaluated[key] = allowed
        return allowed

    def blocks(self, queries: int, keys: int, device: torch.device, offset: int = 0) -> BlockMask:
        """The same as :meth:`dense`, as a block mask for FlexAttention."""
        key = ("blocks", queries, keys, device, offset)
        if key not in self._evaluated:

            def shifted(b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
                return self.rule(b, h, q + offset, k)

            self._evaluated[key] = create_block_mask(shifted, self.batch, None, queries, keys, device=device)
        return self._evaluated[key]


def everything() -> Mask:
    """A token attends to all of its sample."""
    return Mask(lambda b, h, q, k: (q >= 0) & (k >= 0))


def causal() -> Mask:
    """A token attends to itself and everything before it."""
    return Mask(lambda b, h, q, k: k <= q, plain_causal=True)


def block_causal(block: int) -> Mask:
    """A token attends to its own block of ``block`` tokens (such as a frame) and every block before it."""
    return Mask(lambda b, h, q, k: k // block <= q // block, block=block)


def document(ids: Tensor) -> Mask:
    """A token attends to its own document only; ``ids`` (``B N``): the document of each token."""
    return Mask(lambda b, h, q, k: ids[b, q] == ids[b, k], batch=ids.shape[0], documents=ids)


def sliding_window(reach: int) -> Mask:
    """A token attends to those up to ``reach`` positions away and to the first, which attends to all.

    Beltagy et al. 2020 (Longformer).
    """
    return Mask(lambda b, h, q, k: ((q - k).abs() <= reach) | (q == 0) | (k == 0))


def local(reach: int) -> Mask:
    """A token attends to those up to ``reach`` positions away."""
    return Mask(lambda b, h, q, k: (q - k).abs() <= reach)


def present(valid: Tensor) -> Mask:
    """A token attends to ``valid`` ones (``B N`` bool) and to itself, so that padding has a key too."""
    return Mask(lambda b, h, q, k: valid[b, k] | (q == k), batch=valid.shape[0])


def readable(valid: Tensor) -> Mask:
    """Any token attends to the ``valid`` ones (``B N`` bool) of a context, of which there is one at least."""
    return Mask(lambda b, h, q, k: valid[b, k], batch=valid.shape[0])


def without_first(padding: Tensor) -> Mask:
    """A token attends to none of the first ``padding`` (``B``) tokens of its sample, but to itself."""
    return Mask(lambda b, h, q, k: (k >= padding[b]) | (q == k), batch=padding.shape[0])
