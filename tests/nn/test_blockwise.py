"""Computation in blocks is the computation at once: outputs and all gradients, in less memory."""

import pytest
import torch
import torch.nn.functional as F
from torch.autograd.graph import saved_tensors_hooks

from filmstrip.nn import blockwise
from filmstrip.nn.attention import attend
from filmstrip.nn.blockwise import (
    Gradients,
    Part,
    RunningSoftmax,
    attend_in_blocks,
    cross_entropy_in_blocks,
    in_blocks,
)
from filmstrip.nn.masks import causal, document
from filmstrip.nn.mlp import GatedMLP

LENGTH = 53
CPU = torch.device("cpu")
NUMBERS = torch.tensor([[1] * 20 + [2] * 3 + [3] * 25 + [0] * 5, [1] * 53])


def drawn(heads=4, kv_heads=4, largest=5.0, dtype=torch.float32, length=LENGTH, batch=2):
    """Queries, keys and values; the largest score is given."""
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(batch, n, length, 8, generator=generator) for n in (heads, kv_heads, kv_heads))
    scores = q @ k.repeat_interleave(heads // kv_heads, dim=1).mT * 8**-0.5
    return [x.to(dtype).requires_grad_() for x in (q * (largest / scores.max()), k, v)]


def double(inputs):
    return [x.detach().double().requires_grad_() for x in inputs]


def with_gradients(function, inputs):
    out = function(*inputs)
    weight = torch.randn(out.shape, generator=torch.Generator().manual_seed(1)).to(out.dtype)
    return out.detach(), *torch.autograd.grad((out * weight).sum(), inputs)


@pytest.mark.parametrize("block", [16, 53, 100])
@pytest.mark.parametrize("largest", [1.0, 50.0])
@pytest.mark.parametrize(
    ("is_causal", "numbers", "kv_heads"),
    [(False, None, 4), (True, None, 4), (True, NUMBERS, 2), (False, NUMBERS, 1)],
    ids=["all", "causal", "causal documents", "documents"],
)
def test_attention_is_that_of_all_scores_at_once(is_causal, numbers, kv_heads, largest, block):
    inputs = drawn(kv_heads=kv_heads, largest=largest)
    masks = [causal()] if is_causal else []
    masks += [] if numbers is None else [document(numbers)]
    dense = (masks[0] & masks[-1]).dense(LENGTH, LENGTH, CPU) if masks else None
    expected = with_gradients(lambda *x: attend(*x, allowed=dense), double(inputs))
    got = with_gradients(lambda *x: attend_in_blocks(*x, causal=is_causal, document=numbers, block=block), inputs)
    for one, other in zip(got, expected):
        assert (one - other).abs().max() <= 1e-5 * max(1.0, float(other.abs().max()))


def test_bfloat16_is_as_near_the_exact_result_as_at_once():
    inputs = drawn(largest=50.0, dtype=torch.bfloat16)
    exact = with_gradients(lambda *x: attend(*x, causal()), double(inputs))
    got = with_gradients(lambda *x: attend_in_blocks(*x, block=16), inputs)
    # Not by `attend`, which widens so few tokens to float32.
    at_once = with_gradients(lambda *x: F.scaled_dot_product_attention(*x, is_causal=True), inputs)
    for one, other, true in zip(got, at_once, exact):
        assert one.dtype == torch.bfloat16
        assert (one - true).norm() <= 1.5 * (other - true).norm()


def test_mixed_precision_leaves_scores_as_they_are():
    inputs = drawn(largest=50.0)
    expected = attend_in_blocks(*inputs)
    target = torch.arange(LENGTH) % 8
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(attend_in_blocks(*inputs), expected)
        hidden, weight = inputs[0][0, 0], inputs[1][0, 0]
        own = with_gradients(lambda x, w: cross_entropy_in_blocks(x, w, target, block=8)[0], [hidden, weight])
        rounded = [x.detach().bfloat16().requires_grad_() for x in (hidden, weight)]
    other = with_gradients(lambda x, w: cross_entropy_in_blocks(x, w, target, block=8)[0], rounded)
    for one, two in zip(own, other):
        torch.testing.assert_close(one, two.float(), rtol=1e-2, atol=1e-2)


def test_a_query_without_keys_has_zeros():
    q, k, v = (x.detach() for x in drawn())
    softmax = RunningSoftmax(q, 4, 8, block=16)
    queries, keys = Part(range(LENGTH)), Part(range(30, 30 + LENGTH))
    softmax.add(k, v, queries, keys, causal=True)
    out, lse = softmax.result()
    assert not out[:, :, :30].any() and out[:, :, 30:].all()
    gradients = Gradients(q, out, lse, torch.ones_like(out), 4, block=16)
    found = gradients.add(k, v, queries, keys, causal=True)
    assert all(each.isfinite().all() for each in found) and not gradients.of_queries[..., :30, :].any()


def test_blocks_are_never_skipped_nor_computed_in_vain(monkeypatch):
    seen = []
    own = blockwise._scores
    monkeypatch.setattr(blockwise, "_scores", lambda q, k, mask: seen.append(mask is None) or own(q, k, mask))
    numbers = torch.tensor([[1] * 16 + [2] * 32])
    q, k, v = drawn(length=48, batch=1)
    attend_in_blocks(q, k, v, document=numbers, block=16)
    assert len(seen) == 4  # of nine: three on the diagonal, one below it within the second document
    seen.clear()
    attend_in_blocks(q, k, v, block=16)
    assert len(seen) == 6 and sum(seen) == 3  # a mask on the diagonal alone


def kept_bytes(function, inputs):
    """Bytes that autograd keeps for the backward pass beside the inputs."""
    kept = {}

    def pack(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with saved_tensors_hooks(pack, lambda tensor: tensor):
        out = function(*inputs)
    return sum(kept.values()), out


def test_what_attention_keeps_grows_with_the_length_and_not_its_square():
    kept = {}
    for length in (64, 128):
        ids = torch.arange(length)[None] // 10
        dense = (causal() & document(ids)).dense(length, length, CPU)
        at_once = kept_bytes(lambda *x: attend(*x, allowed=dense), drawn(length=length, batch=1))  # noqa: B023
        blocks = kept_bytes(lambda *x: attend_in_blocks(*x, document=ids), drawn(length=length, batch=1))  # noqa: B023
        kept[length] = (at_once[0], blocks[0])
    assert kept[128][1] == 2 * kept[64][1]
    assert kept[128][0] > kept[128][1] + 128**2


def test_cross_entropy_is_that_of_all_logits_at_once():
    generator = torch.Generator().manual_seed(0)
    inputs = [
        torch.randn(37, 16, generator=generator).requires_grad_(),
        torch.randn(50, 16, generator=generator).requires_grad_(),
    ]
    target = torch.randint(0, 50, (37,), generator=generator)
    expected = with_gradients(lambda x, w: F.cross_entropy(x @ w.T, target, reduction="none"), inputs)
    got = with_gradients(lambda x, w: cross_entropy_in_blocks(x, w, target, block=8)[0], inputs)
    for one, other in zip(got, expected):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)
    best = cross_entropy_in_blocks(*inputs, target, block=8)[1]
    assert torch.equal(best, (inputs[0] @ inputs[1].T).argmax(dim=-1))
    at_once, _ = kept_bytes(lambda x, w: F.cross_entropy(x @ w.T, target), inputs)
    blocks, _ = kept_bytes(lambda x, w: cross_entropy_in_blocks(x, w, target, block=8)[0], inputs)
    assert at_once > 37 * 50 * 4 and blocks < at_once - 37 * 50 * 4 / 2


def test_a_feed_forward_network_in_blocks_is_itself():
    torch.manual_seed(0)
    layer = GatedMLP(8, 32)
    x = torch.randn(2, 21, 8, requires_grad=True)
    inputs = [x, *layer.parameters()]
    expected = with_gradients(lambda x, *_: layer(x), inputs)
    got = with_gradients(lambda x, *_: in_blocks(layer, x, block=8), inputs)
    for one, other in zip(got, expected):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)
    whole, _ = kept_bytes(lambda x, *_: layer(x), inputs)
    parts, _ = kept_bytes(lambda x, *_: in_blocks(layer, x, block=8), inputs)
    assert parts < whole / 2
