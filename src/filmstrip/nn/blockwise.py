"""Exact attention, feed-forward and cross-entropy in blocks, whose memory grows with the length and not its square.

Softmax over keys that come block by block needs a running maximum and a denominator (Milakov and Gimelshein 2018): a
sum of the blocks' own softmaxes would be another function. Backward passes compute scores anew from queries, keys and
each query's log-sum-exp (Dao et al. 2022, FlashAttention; Liu and Abbeel 2023, "Blockwise Parallel Transformer for
Large Context Models"). All statistics are float32, or float64 for such inputs.
:mod:`filmstrip.distributed.ring` passes the blocks of keys from process to process.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from filmstrip.nn.fused_attention import kernel_for

BLOCK = 1024
"""Number of queries and of keys of a block, by default."""


Rule = Callable[[Tensor, Tensor], Tensor]
"""Which of the keys at some positions (``K``) those at others (``Q``) attend to, ``B Q K`` or ``1 Q K`` bool."""


@dataclass(frozen=True)
class Part:
    """Some tokens of a sequence: which they are, and the document of each."""

    positions: range
    """Their positions in the whole sequence."""
    document: Tensor | None = None
    """Number of the document of each, ``B N``; none where all belong to one."""
    rule: Rule | None = None
    """A further rule of what those attend to, by positions in the whole sequence."""

    def __getitem__(self, places: slice) -> Part:
        document = None if self.document is None else self.document[:, places]
        return Part(self.positions[places], document, self.rule)

    def at(self, device: torch.device) -> Tensor:
        """Positions as a tensor, ``N``."""
        own = self.positions
        return torch.arange(own.start, own.stop, own.step, device=device)


def allowed(queries: Part, keys: Part, causal: bool, device: torch.device) -> Tensor | bool:
    """Which keys each query attends to, ``B Q K`` or ``1 Q K``; or whether all attend to all, or none to any.

    Those are of the query's document and, if ``causal``, not behind it.
    """
    if causal and keys.positions[0] > queries.positions[-1]:
        return False
    found: Tensor | None = None
    if causal and keys.positions[-1] > queries.positions[0]:
        found = (queries.at(device)[:, None] >= keys.at(device))[None]
    if queries.document is not None and keys.document is not None:
        same = queries.document[:, :, None] == keys.document[:, None]
        found = same if found is None else found & same
    if queries.rule is not None:
        by_rule = queries.rule(queries.at(device), keys.at(device))
        found = by_rule if found is None else found & by_rule
    if found is None:
        return True
    return False if _is_known(found) and not found.any() else found


class RunningSoftmax:
    """Attention of queries to the keys that were added so far."""

    def __init__(self, q: Tensor, kv_heads: int, value_dim: int, *, block: int = BLOCK) -> None:
        """``q``: queries ``B H N D``, whose heads are a multiple of ``kv_heads``."""
        self.q = q.unflatten(1, (kv_heads, -1))
        self.block = block
        shape, options = self.q.shape[:-1], {"dtype": _wide(q).dtype, "device": q.device}
        self.numerator = torch.zeros((*shape, value_dim), **options)
        self.denominator = torch.zeros((*shape, 1), **options)
        self.maximum = torch.full((*shape, 1), float("-inf"), **options)

    def add(self, k: Tensor, v: Tensor, queries: Part, keys: Part, causal: bool) -> None:
        """Attend to further keys and values, ``B H K D``, as well."""
        alike = _without_mask(queries, keys, causal)
        kernel = None if alike is None else kernel_for(self.q, k, v)
        if kernel is not None:
            groups = self.q.shape[2]
            each = (self.q.flatten(1, 2), *(x.repeat_interleave(groups, dim=1) for x in (k, v)))
            out, lse = (x.unflatten(1, (-1, groups)) for x in kernel.forward(*each, alike))
            most = torch.maximum(self.maximum, lse[..., None])
            kept, more = ((x - most).exp() for x in (self.maximum, lse[..., None]))
            self.denominator.mul_(kept).add_(more)
            self.numerator.mul_(kept).add_(_wide(out) * more)
            self.maximum = most
            return
        for rows, columns, mask in _blocks(queries, keys, causal, self.block, self.q.device):
            scores = _scores(self.q[..., rows, :], k[:, :, columns], mask)
            before = self.maximum[..., rows, :]
            most = torch.maximum(before, scores.amax(dim=-1, keepdim=True))
            base = most.masked_fill(most == float("-inf"), 0.0)  # a query that has seen no key yet
            weights = scores.sub_(base).exp_()
            kept = (before - base).exp()
            self.denominator[..., rows, :].mul_(kept).add_(weights.sum(dim=-1, keepdim=True))
            self.numerator[..., rows, :].mul_(kept).add_(_by_group(weights, v[:, :, columns]))
            before.copy_(most)

    def result(self) -> tuple[Tensor, Tensor]:
        """Outputs ``B H N D`` of the queries' type, and the log-sum-exp ``B H N 1`` of scores, float32.

        A query without keys has zeros, and infinity.
        """
        empty = self.denominator == 0
        out = self.numerator / self.denominator.masked_fill(empty, 1.0)
        lse = (self.maximum + self.denominator.log()).masked_fill(empty, float("inf"))
        return out.flatten(1, 2).to(self.q.dtype), lse.flatten(1, 2)


class Gradients:
    """Gradients of attention for the queries, and for keys and values block by block.

    ``out`` and ``lse`` are what :class:`RunningSoftmax` had after all keys, ``grad`` (``B H N D``) is the gradient of
    its output.
    """

    def __init__(
        self, q: Tensor, out: Tensor, lse: Tensor, grad: Tensor, kv_heads: int, *, block: int = BLOCK
    ) -> None:
        self.q, self.grad = (each.unflatten(1, (kv_heads, -1)) for each in (q, _wide(grad)))
        self.lse = lse.unflatten(1, (kv_heads, -1))
        self.out = out
        self.delta = (self.grad * out.unflatten(1, (kv_heads, -1))).sum(dim=-1, keepdim=True)
        self.block = block
        self.of_queries = torch.zeros_like(self.q, dtype=self.grad.dtype)

    def add(self, k: Tensor, v: Tensor, queries: Part, keys: Part, causal: bool) -> tuple[Tensor, Tensor]:
        """Gradients for some keys and values, float32, of all queries; those for the queries are summed up here."""
        alike = _without_mask(queries, keys, causal)
        kernel = None if alike is None else kernel_for(self.q, k, v)
        if kernel is not None:
            groups = self.q.shape[2]
            q, grad = (x.flatten(1, 2).to(self.q.dtype) for x in (self.q, self.grad))
            both = (x.repeat_interleave(groups, dim=1) for x in (k, v))
            each = (q, *both, self.out, self.lse.flatten(1, 2)[..., 0])
            of_q, *of_both = kernel.backward(grad, *each, alike)
            self.of_queries += of_q.unflatten(1, (-1, groups))
            of_keys, of_values = (_wide(x).unflatten(1, (-1, groups)).sum(dim=2) for x in of_both)
            return of_keys, of_values
        of_keys, of_values = (torch.zeros_like(each, dtype=self.grad.dtype) for each in (k, v))
        scale = self.q.shape[-1] ** -0.5
        for rows, columns, mask in _blocks(queries, keys, causal, self.block, self.q.device):
            q, grad = self.q[..., rows, :], self.grad[..., rows, :]
            weights = _scores(q, k[:, :, columns], mask).sub_(self.lse[..., rows, :]).exp_()
            of_values[:, :, columns] += weights.flatten(2, 3).mT @ grad.flatten(2, 3)
            change = _by_group(grad, v[:, :, columns].mT).sub_(self.delta[..., rows, :]).mul_(weights).mul_(scale)
            self.of_queries[..., rows, :] += _by_group(change, k[:, :, columns])
            of_keys[:, :, columns] += change.flatten(2, 3).mT @ _wide(q.flatten(2, 3))
        return of_keys, of_values


def _without_mask(queries: Part, keys: Part, causal: bool) -> bool | None:
    """Whether attention is causal between tokens that lie alike, or all attend to all; neither is none."""
    q, k = queries.positions, keys.positions
    if queries.document is not None or queries.rule is not None:
        return None
    if not causal or k[-1] <= q[0]:
        return False
    # A key is behind a query exactly if its number is: they are the same, or one apart within a step.
    alike = q.step == k.step and len(q) == len(k) and 0 <= q.start - k.start < q.step
    return True if alike else None


def _blocks(
    queries: Part, keys: Part, causal: bool, size: int, device: torch.device
) -> Iterator[tuple[slice, slice, Tensor | None]]:
    """Blocks of queries and of keys of which some attend to some, with the mask that they need, if any."""
    meet = _meet(queries.document, keys.document, size)
    for i, first in enumerate(range(0, len(queries.positions), size)):
        rows = slice(first, first + size)
        for j, start in enumerate(range(0, len(keys.positions), size)):
            if meet is not None and not meet[i][j]:
                continue
            columns = slice(start, start + size)
            mask = allowed(queries[rows], keys[columns], causal, device)
            if mask is not False:
                yield rows, columns, None if mask is True else mask


def _meet(queries: Tensor | None, keys: Tensor | None, size: int) -> list[list[bool]] | None:
    """Which blocks of queries and of keys may have a document in common, by the ranges of their numbers; none if that
    is not known."""
    if queries is None or keys is None or not _is_known(queries):
        return None
    least, most = (
        [torch.stack([extreme(part, dim=1) for part in ids.split(size, dim=1)]) for ids in (queries, keys)]
        for extreme in (torch.amin, torch.amax)
    )
    overlap = (least[0][:, None] <= most[1]) & (least[1] <= most[0][:, None])
    return overlap.any(dim=2).tolist()  # type: ignore[no-any-return]  # torch does not say


def _is_known(x: Tensor) -> bool:
    """Whether values can be asked for: a GPU would have to be waited for, and a plan's tensors have no content."""
    return x.device.type == "cpu" and type(x) is Tensor


def _wide(x: Tensor) -> Tensor:
    """As float32, unless it is wider."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _by_group(left: Tensor, right: Tensor) -> Tensor:
    """The product of ``B H G N K``, for the ``G`` heads of queries of each of keys, with ``B H K D``, float32."""
    return (_wide(left.flatten(2, 3)) @ _wide(right)).unflatten(2, left.shape[2:4])


def _scores(q: Tensor, k: Tensor, mask: Tensor | None) -> Tensor:
    """Scaled scores ``B H G Q K`` of queries ``B H G Q D`` and keys ``B H K D``, minus infinity where masked."""
    scores = _by_group(_wide(q) * q.shape[-1] ** -0.5, k.mT)
    return scores if mask is None else scores.masked_fill_(~mask[:, None, None], float("-inf"))


def attend_in_blocks(
    q: Tensor, k: Tensor, v: Tensor, *, causal: bool = True, document: Tensor | None = None, block: int = BLOCK
) -> Tensor:
    """What :func:`~filmstrip.nn.attention.attend` computes of ``B H N D``, without a score of every pair in memory.

    ``document`` (``B N``): tokens attend to those of their own document alone. Keys and values may have fewer heads
    than queries, each serving as many.
    """
    with torch.autocast(q.device.type, enabled=False):  # a block's scores stay float32
        return _InBlocks.apply(q, k, v, causal, document, block)  # type: ignore[no-any-return]  # torch does not say


class _InBlocks(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, q: Tensor, k: Tensor, v: Tensor, causal: bool, document: Tensor | None, block: int
    ) -> Tensor:
        part = Part(range(q.shape[2]), document)
        softmax = RunningSoftmax(q, k.shape[1], v.shape[3], block=block)
        softmax.add(k, v, part, part, causal)
        out, lse = softmax.result()
        ctx.save_for_backward(q, k, v, out, lse)
        ctx.part, ctx.causal, ctx.block = part, causal, block
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Tensor | None, ...]:
        q, k, v, out, lse = ctx.saved_tensors
        found = Gradients(q, out, lse, gradients[0], k.shape[1], block=ctx.block)
        of_keys, of_values = found.add(k, v, ctx.part, ctx.part, ctx.causal)
        of_queries = found.of_queries.flatten(1, 2)
        return of_queries.to(q.dtype), of_keys.to(k.dtype), of_values.to(v.dtype), None, None, None


def in_blocks(layer: nn.Module | Callable[[Tensor], Tensor], x: Tensor, *, block: int = BLOCK) -> Tensor:
    """What a layer that treats each of ``B N D`` tokens alone makes of them, some at a time.

    What is within the layer is computed anew in the backward pass, so that only one block of it is in memory; of a
    single block it is kept.
    """
    if x.shape[1] <= block:
        return layer(x)  # type: ignore[no-any-return]  # a module does not say
    return torch.cat([checkpoint(layer, part, use_reentrant=False) for part in x.split(block, dim=1)], dim=1)


def cross_entropy_in_blocks(
    hidden: Tensor, weight: Tensor, target: Tensor, *, smoothing: float = 0.0, block: int = BLOCK
) -> tuple[Tensor, Tensor]:
    """The cross-entropy ``N`` of ``hidden @ weight.T``, and the ids with the largest logits, ``N``.

    ``hidden`` are ``N D`` outputs, ``weight`` an output layer's ``K D`` and ``target`` ``N`` ids; ``smoothing`` is
    the share of the loss that spreads evenly over all ids. The logits of one block of tokens are in memory at a time,
    in the backward pass as well.
    """
    device = hidden.device.type
    if torch.is_autocast_enabled(device):
        kind = torch.get_autocast_dtype(device)
        hidden, weight = hidden.to(kind), weight.to(kind)
    with torch.autocast(device, enabled=False):  # as in the backward pass
        return _CrossEntropy.apply(hidden, weight, target, smoothing, block)  # type: ignore[no-any-return]


class _CrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, target: Tensor, smoothing: float, block: int
    ) -> tuple[Tensor, Tensor]:
        lse, right, best = [], [], []
        for own, ids in zip(hidden.split(block), target.split(block)):
            logits = _wide(own @ weight.T)
            lse.append(logits.logsumexp(dim=-1))
            right.append((1 - smoothing) * logits.gather(1, ids[:, None])[:, 0] + smoothing * logits.mean(dim=-1))
            best.append(logits.argmax(dim=-1))
        total = torch.cat(lse)
        ctx.save_for_backward(hidden, weight, target, total)
        ctx.smoothing, ctx.block = smoothing, block
        chosen = torch.cat(best)
        ctx.mark_non_differentiable(chosen)
        return total - torch.cat(right), chosen

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Tensor | None, ...]:
        hidden, weight, target, lse = ctx.saved_tensors
        of_hidden = torch.empty_like(hidden)
        of_weight = torch.zeros_like(weight, dtype=lse.dtype)
        for start in range(0, len(hidden), ctx.block):
            at = slice(start, start + ctx.block)
            change = (_wide(hidden[at] @ weight.T) - lse[at, None]).exp_()
            change.sub_(ctx.smoothing / len(weight))
            change.scatter_add_(1, target[at, None], torch.full_like(change[:, :1], ctx.smoothing - 1))
            change.mul_(gradients[0][at, None])
            of_hidden[at] = change.to(weight.dtype) @ weight
            of_weight += change.to(hidden.dtype).T @ hidden[at]
        return of_hidden, of_weight.to(weight.dtype), None, None, None
