"""A process of rings of one to four: what it has of ring attention is what it would have of all at once, and what two
other implementations give: ``ring-attention-pytorch``, and the authors' ``ringattention``, by stored outputs."""

import sys
from contextlib import nullcontext
from datetime import timedelta

import torch
import torch._dynamo  # which torch otherwise imports in each process
import torch.distributed as dist
import torch.nn.functional as F
from context_of_systems import SYSTEMS, check_system, check_writing
from published import recipe_input, stored
from ring_attention_pytorch.ring_flash_attention import ring_flash_attn
from torch.utils._python_dispatch import TorchDispatchMode

from filmstrip.distributed.ring import Ring
from filmstrip.nn.attention import SharedKVCache
from filmstrip.nn.block import Block
from filmstrip.nn.masks import causal, document, local
from filmstrip.nn.ring_attention import all_tokens, own_tokens, ring_attention

BATCH, HEADS, LENGTH, DIM, BLOCK, LARGEST = 2, 4, 36, 8, 5, 50.0
IDS = torch.tensor([[1] * 7 + [2] * 22 + [3] + [0] * 6, [4] * 36])

WINDOW = causal() & local(9)
CASES = [
    # causal, documents, rule, heads of keys, striped, type
    (True, IDS, None, 2, False, torch.float32),
    (True, IDS, None, 2, True, torch.float32),
    (True, None, None, HEADS, False, torch.float32),
    (True, None, None, HEADS, True, torch.float64),
    (True, None, WINDOW, 2, False, torch.float32),
    (False, IDS, None, 1, True, torch.float32),
    (False, None, None, HEADS, False, torch.float32),
    (True, IDS, None, 2, False, torch.bfloat16),
    (False, None, None, HEADS, True, torch.bfloat16),
]
TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-11, torch.bfloat16: 2**-6}
"""Largest error, relative to the largest number. In bfloat16 outputs are rounded, and gradients are made of those."""


class LargestTensor(TorchDispatchMode):
    """The number of values of the largest tensor that anything made meanwhile."""

    values = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        found = function(*args, **(kwargs or {}))
        for each in found if isinstance(found, (tuple, list)) else [found]:
            if isinstance(each, torch.Tensor):
                self.values = max(self.values, each.numel())
        return found


def inputs(kv_heads, dtype):
    generator = torch.Generator().manual_seed(0)
    q, k, v, weight = (
        torch.randn(BATCH, heads, LENGTH, DIM, generator=generator, dtype=torch.float64)
        for heads in (HEADS, kv_heads, kv_heads, HEADS)
    )
    scores = q @ k.repeat_interleave(HEADS // kv_heads, dim=1).mT * DIM**-0.5
    return [x.to(dtype) for x in (q * LARGEST / scores.max(), k, v, weight)]


def with_gradients(function, given, weight):
    leaves = [x.double().requires_grad_() if weight.dtype == torch.float64 else x.requires_grad_() for x in given]
    out = function(*leaves)
    return out.detach(), *torch.autograd.grad((out * weight).sum(), leaves)


def check(group, causal, ids, rule, kv_heads, striped, dtype):
    ring = Ring(group, striped=striped)
    *given, weight = inputs(kv_heads, dtype)
    at = torch.arange(LENGTH)
    dense = (at[:, None] >= at) | torch.tensor(not causal)
    if ids is not None:
        dense = dense & (ids[:, None, :, None] == ids[:, None, None])
    if rule is not None:
        dense = dense & rule.at(at, at)
    exact = with_gradients(
        lambda *x: F.scaled_dot_product_attention(*x, attn_mask=dense, enable_gqa=True),
        [x.double() for x in given],
        weight.double(),
    )
    expected = [own_tokens(x, ring, dim=2) for x in exact]
    *own, own_weight = (own_tokens(x, ring, dim=2).clone() for x in (*given, weight))
    options = {"causal": causal, "document": None if ids is None else own_tokens(ids, ring), "block": BLOCK}
    watched = ring.size > 1 and rule is None and dtype == torch.float32 and causal and ids is None  # it takes long
    with LargestTensor() if watched else nullcontext() as largest:
        got = with_gradients(
            lambda *x: ring_attention(*x, ring, rule=None if rule is None else rule.at, **options), own, own_weight
        )
    assert largest is None or largest.values <= own[0].numel(), "a process holds more at once than its own tokens"
    for name, one, other in zip(("out", "dq", "dk", "dv"), got, expected):
        error = ((one - other).abs().max() / other.abs().max().clamp(min=1)).item()
        case = (name, ring.size, causal, ids is not None, rule is not None, kv_heads, striped, dtype)
        assert one.dtype == dtype and error <= TOLERANCE[dtype], (case, error)


def check_published(group):
    """The authors' code was given these queries, keys and values, and weights of the outputs for the gradients."""
    ring, kept = Ring(group), stored("ring_attention")
    q, k, v, weight = (recipe_input(name, (2, 4, 36, 8)) for name in "qkvw")
    q = q * (50 / ((q @ k.mT).max() * 8**-0.5))
    ids = torch.tensor([[1] * 7 + [2] * 22 + [3] + [4] * 6, [5] * 36])
    for name, numbers in (("documents", ids), ("causal", None), ("all", None)):
        own = [own_tokens(x, ring, dim=2).clone() for x in (q, k, v, weight)]
        part = None if numbers is None else own_tokens(numbers, ring)

        def attend(*x, name=name, part=part):
            return ring_attention(*x, ring, causal=name != "all", document=part, block=BLOCK)

        for what, found in zip(("out", "dq", "dk", "dv"), with_gradients(attend, own[:3], own[3])):
            error = kept.error(f"{name}.{what}", torch.cat(ring.gather(found), dim=2))
            assert error <= 1e-5, (name, what, ring.size, error)


def check_peer(group, striped):
    """``ring-attention-pytorch`` has tokens before heads, and no documents; all processes must take part.

    Of its gradients (0.5.20, off a GPU) those of queries alone: after the last exchange it takes what it received and
    what it sent for those of keys and of values.
    """
    ring = Ring(group, striped=striped)
    *given, weight = inputs(HEADS, torch.float32)
    own = [own_tokens(x, ring, dim=2).clone() for x in (*given, weight)]

    def theirs(*x):
        q, k, v = (one.transpose(1, 2) for one in x)
        bucket = LENGTH // ring.size  # by which its stripes are told apart: one a process
        return ring_flash_attn(q, k, v, None, True, bucket, True, striped, None, ring.size).transpose(1, 2)

    expected = with_gradients(theirs, own[:3], own[3])
    got = with_gradients(lambda *x: ring_attention(*x, ring, block=BLOCK), own[:3], own[3])
    for name, one, other in zip(("out", "dq"), got[:2], expected[:2]):
        error = ((one - other).abs().max() / other.abs().max()).item()
        assert error <= 2e-5, (name, ring.size, striped, error)


def check_decoding(group, striped):
    """Keys and values are shared out, those of the prompt and those that follow it one by one."""
    ring = Ring(group, striped=striped)
    q, k, v, _ = inputs(2, torch.float32)
    prompt, ids = 24, torch.zeros(2, LENGTH, dtype=torch.int64)
    ids[1, :3] = 1  # the first tokens of a row are another document, as padding is
    mask = causal() & document(ids)
    dense = F.scaled_dot_product_attention(
        q, k, v, attn_mask=mask.at(*2 * [torch.arange(LENGTH)])[:, None], enable_gqa=True
    )
    cache = SharedKVCache(2, 2, LENGTH, DIM, ring=ring)
    first = [own_tokens(x[:, :, :prompt], ring, dim=2) for x in (q, k, v)]
    found = [all_tokens(cache.attend(*first, mask), ring, dim=2)]
    found += [cache.attend(*(x[:, :, n : n + 1] for x in (q, k, v)), mask) for n in range(prompt, LENGTH)]
    error = (torch.cat(found, dim=2) - dense).abs().max().item()
    assert error <= 1e-5, (ring.size, striped, error)
    assert cache.length == LENGTH and cache.keys.shape[2] < LENGTH / ring.size + 2, cache.keys.shape


def check_blocks(group, striped):
    """Blocks whose tokens are shared out return, and learn, what they would alone: gradients in their mean."""
    ring = Ring(group, striped=striped)
    for length, mask in ((LENGTH, None), (LENGTH - 1, None), (LENGTH - 1, causal() & local(9))):
        found = []
        for shared in (False, True):
            torch.manual_seed(0)
            blocks = torch.nn.Sequential(Block(16, 2), Block(16, 2))
            if shared:
                assert all(block.share_tokens(ring) for block in blocks)
            x = torch.randn(2, length, 16, requires_grad=True)
            y = x
            for block in blocks:
                y = block(y, mask=mask, angles=torch.randn(length, 4))
            (y * torch.randn(2, length, 16)).sum().backward()
            gradients = [x.grad, *(p.grad for p in blocks.parameters())]
            found.append([y.detach(), *(ring.sum(g) / ring.size if shared else g for g in gradients)])
        for one, other in zip(*found):
            assert one.shape == other.shape
            error = ((one - other).abs().max() / one.abs().max().clamp(min=1)).item()
            assert error <= 1e-5, (ring.size, striped, length, error)


def check_all(rank, address):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"file://{address}", rank=rank, world_size=4, timeout=timedelta(seconds=90))
    groups = [dist.new_group(range(size)) for size in (1, 2, 3, 4)]
    for group in groups:
        if rank < dist.get_world_size(group):
            for case in CASES:
                check(group, *case)
            check_published(group)
            for striped in (False, True):
                check_decoding(group, striped)
                check_blocks(group, striped)
            check_writing(Ring(group))
    for name, changes, striped in SYSTEMS:
        if rank < 3:
            check_system(Ring(groups[2], striped=striped), name, changes)
    for striped in (False, True):
        check_peer(groups[-1], striped)
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    # Forked, so that torch is imported once.
    torch.multiprocessing.start_processes(check_all, sys.argv[1:], nprocs=4, start_method="fork")
