"""A process of rings of two to four: what it has of ring attention is what it would have of all at once."""

import os

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from filmstrip.distributed.ring import Ring
from filmstrip.nn.ring_attention import own_tokens, ring_attention

BATCH, HEADS, LENGTH, DIM, BLOCK, LARGEST = 2, 4, 36, 8, 5, 50.0
IDS = torch.tensor([[1] * 7 + [2] * 22 + [3] + [0] * 6, [4] * 36])

CASES = [
    # causal, documents, heads of keys, striped, type
    (True, IDS, 2, False, torch.float32),
    (True, IDS, 2, True, torch.float32),
    (True, None, HEADS, True, torch.float64),
    (False, IDS, 1, True, torch.float32),
    (False, None, HEADS, False, torch.float32),
]


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


def check(ring, causal, ids, kv_heads, striped, dtype):
    *given, weight = inputs(kv_heads, dtype)
    at = torch.arange(LENGTH)
    dense = (at[:, None] >= at) | torch.tensor(not causal)
    if ids is not None:
        dense = dense & (ids[:, None, :, None] == ids[:, None, None])
    exact = with_gradients(
        lambda *x: F.scaled_dot_product_attention(*x, attn_mask=dense, enable_gqa=True),
        [x.double() for x in given],
        weight.double(),
    )
    expected = [own_tokens(x, ring, dim=2, striped=striped) for x in exact]
    *own, own_weight = (own_tokens(x, ring, dim=2, striped=striped).clone() for x in (*given, weight))
    part = None if ids is None else own_tokens(ids, ring, striped=striped)
    with LargestTensor() as largest:
        got = with_gradients(
            lambda *x: ring_attention(*x, ring, causal=causal, document=part, striped=striped, block=BLOCK),
            own,
            own_weight,
        )
    assert largest.values <= own[0].numel(), "a process holds more at once than its own tokens"
    tolerance = 1e-5 if dtype == torch.float32 else 1e-11
    for name, one, other in zip(("out", "dq", "dk", "dv"), got, expected):
        error = (one - other).abs().max() / other.abs().max().clamp(min=1)
        assert error <= tolerance, (name, ring.size, causal, ids is not None, kv_heads, striped, dtype, error)


def main():
    rank = int(os.environ["RANK"])
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    groups = [dist.new_group(range(size)) for size in (2, 3, 4)]
    for group in groups:
        if rank < dist.get_world_size(group):
            for case in CASES:
                check(Ring(group), *case)
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
