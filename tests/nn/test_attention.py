import re
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.attention.flex_attention import flex_attention

import filmstrip
from filmstrip.nn.attention import Attention, KVCache, attend
from filmstrip.nn.masks import block_causal, causal, document
from filmstrip.nn.rotary import Rotary, grid_positions

# Who sees whom, written out by hand over index pairs: the definition that the mask type is held against.
IDS = torch.tensor([[0, 0, 1, 1, 1, 2, 2, 2], [0, 0, 0, 0, 0, 0, 3, 3]])
MASKS = {
    "causal": (causal, lambda b, q, k: k <= q),
    "block_causal": (lambda: block_causal(3), lambda b, q, k: k // 3 <= q // 3),
    "document": (lambda: document(IDS), lambda b, q, k: IDS[b, q] == IDS[b, k]),
    "document & causal": (lambda: document(IDS) & causal(), lambda b, q, k: IDS[b, q] == IDS[b, k] and k <= q),
}


def naive(q, k, v, allowed=lambda b, q, k: True, offset=0):
    out = torch.zeros_like(q)
    for b in range(q.shape[0]):
        for i in range(q.shape[2]):
            keys = [j for j in range(k.shape[2]) if allowed(b, i + offset, j)]
            scores = (q[b, :, i, None] * k[b, :, keys]).sum(-1) / q.shape[-1] ** 0.5
            out[b, :, i] = (scores.softmax(-1)[..., None] * v[b, :, keys]).sum(1)
    return out


def heads(n=8, dim=6):
    return tuple(torch.randn(3, 2, 2, n, dim, generator=torch.Generator().manual_seed(0)).unbind(0))


@pytest.mark.parametrize("name", MASKS)
def test_masked_attention_equals_naive_softmax(name):
    make, allowed = MASKS[name]
    q, k, v = heads()
    torch.testing.assert_close(attend(q, k, v, make()), naive(q, k, v, allowed), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", [None, *MASKS])
def test_a_bias_is_added_to_the_scores_that_a_mask_leaves(name):
    make, allowed = MASKS[name] if name else (lambda: None, lambda b, q, k: True)
    q, k, v = heads()
    bias = torch.randn(1, 2, 8, 8, generator=torch.Generator().manual_seed(1), requires_grad=True)
    # A bias is a product with one more channel for each key, which holds the query's bias for it.
    scale = q.shape[-1] ** 0.5
    more_q = torch.cat([q, scale * bias.expand(2, -1, -1, -1)], dim=-1) * (14 / 6) ** 0.5
    more_k = torch.cat([k, torch.eye(8).expand(2, 2, 8, 8)], dim=-1)
    more_v = torch.cat([v, torch.zeros(2, 2, 8, 8)], dim=-1)
    want = naive(more_q, more_k, more_v, allowed)[..., :6]
    got = attend(q, k, v, make(), bias=bias)
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5)
    (ours,), (theirs,) = (torch.autograd.grad(out.sum(), bias, retain_graph=True) for out in (got, want))
    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-5)


def test_unmasked_attention_equals_naive_softmax():
    q, k, v = heads()
    torch.testing.assert_close(attend(q, k[:, :, :5], v[:, :, :5]), naive(q, k[:, :, :5], v[:, :, :5]))


@pytest.mark.parametrize("name", MASKS)
@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
def test_blocks_for_flex_attention_equal_dense(name):
    mask = MASKS[name][0]()
    q, k, v = heads(dim=16)
    blocks = mask.blocks(8, 8, torch.device("cpu"))
    dense = torch.nn.functional.scaled_dot_product_attention(q, k, v, mask.dense(8, 8, q.device))
    torch.testing.assert_close(flex_attention(q, k, v, block_mask=blocks), dense, rtol=1e-5, atol=1e-6)


def test_blocks_with_an_offset_equal_the_last_rows():
    q, k, v = heads(dim=16)
    mask = block_causal(3)
    blocks = mask.blocks(3, 8, q.device, offset=5)
    got = flex_attention(q[:, :, 5:], k, v, block_mask=blocks)
    torch.testing.assert_close(got, attend(q, k, v, mask)[:, :, 5:], rtol=1e-5, atol=1e-6)


def test_layers_share_one_evaluation_of_a_mask():
    mask = block_causal(2)
    assert mask.dense(4, 4, torch.device("cpu")) is mask.dense(4, 4, torch.device("cpu"))
    assert mask.dense(4, 4, torch.device("cpu")) is not mask.dense(2, 4, torch.device("cpu"), offset=2)


@settings(max_examples=20, deadline=None)
@given(chunks=st.lists(st.integers(1, 4), min_size=1, max_size=5), rule=st.sampled_from(["causal", "block_causal"]))
def test_cache_equals_full_attention(chunks, rule):
    torch.manual_seed(0)
    n = sum(chunks)
    attention = Attention(16, 2, qk_norm=True).eval()
    angles = Rotary(8)(torch.arange(n)[:, None])
    x = torch.randn(2, n, 16)
    mask = MASKS[rule][0]()
    if rule == "block_causal":  # within a block, tokens see later ones: those must come in one piece
        chunks = [min(3, n - start) for start in range(0, n, 3)]
    cache = KVCache(2, 2, n, 8)
    with torch.no_grad():
        full = attention(x, mask=mask, angles=angles)
        parts, start = [], 0
        for size in chunks:
            piece = slice(start, start + size)
            parts.append(attention(x[:, piece], mask=mask, angles=angles[piece], cache=cache))
            start += size
    torch.testing.assert_close(torch.cat(parts, 1), full, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("seen", [0, 1, 2])
def test_large_blocks_are_attended_one_by_one_as_under_the_mask(seen):
    block, offset = 128, 128 * seen
    q, k, v = (tensor.requires_grad_() for tensor in heads(n=3 * block))
    mask = block_causal(block)
    got = attend(q[:, :, offset:], k, v, mask, offset)
    allowed = mask.dense(3 * block - offset, 3 * block, q.device, offset)
    want = torch.nn.functional.scaled_dot_product_attention(q[:, :, offset:], k, v, allowed)
    torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-6)
    weights = torch.randn_like(want)
    for ours, theirs in zip(*(torch.autograd.grad((out * weights).sum(), (q, k, v)) for out in (got, want))):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_a_rewound_cache_has_forgotten():
    attention, x = Attention(16, 2).eval(), torch.randn(2, 6, 16)
    cache, again = KVCache(2, 2, 6, 8), KVCache(2, 2, 6, 8)
    with torch.no_grad():
        attention(x[:, :2], cache=cache)
        attention(torch.randn(2, 4, 16), cache=cache)
        cache.rewind(2)
        attention(x[:, :2], cache=again)
        assert torch.equal(attention(x[:, 2:], cache=cache), attention(x[:, 2:], cache=again))
    assert cache.length == 6


def test_cache_without_room_says_so():
    cache = KVCache(1, 1, 3, 4)
    with pytest.raises(ValueError, match="at most 3 tokens, 4 were provided"):
        cache.extend(torch.zeros(1, 1, 4, 4), torch.zeros(1, 1, 4, 4))


def test_key_bias_changes_nothing_so_no_key_leaves_it_out():
    torch.manual_seed(0)
    every, no_key = Attention(12, 3, qkv_bias="all"), Attention(12, 3, qkv_bias="no_key")
    with torch.no_grad():
        every.qkv.bias.normal_()
        no_key.load_state_dict({k: v for k, v in every.state_dict().items() if k != "qkv.bias"}, strict=False)
        no_key.q_bias.copy_(every.qkv.bias[:12])
        no_key.v_bias.copy_(every.qkv.bias[24:])
    x = torch.randn(2, 5, 12)
    torch.testing.assert_close(every(x), no_key(x), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("qkv_bias", ["all", "no_key", "none"])
def test_cross_attention_reads_its_context(qkv_bias):
    torch.manual_seed(0)
    attention = Attention(12, 2, head_dim=4, context_width=7, qkv_bias=qkv_bias)
    x, context = torch.randn(2, 5, 12), torch.randn(2, 3, 7)
    q, k, v = attention._project(x, context)
    assert q.shape == (2, 2, 5, 4) and k.shape == v.shape == (2, 2, 3, 4)
    want = attention.out(naive(q, k, v).transpose(1, 2).flatten(2))
    torch.testing.assert_close(attention(x, context=context), want, rtol=1e-4, atol=1e-6)
    with pytest.raises(ValueError, match="needs a context"):
        attention(x)


def test_head_width_and_indivisible_width():
    assert Attention(10, 3, head_dim=8)(torch.randn(1, 4, 10)).shape == (1, 4, 10)
    with pytest.raises(ValueError, match="not a multiple of 3 heads"):
        Attention(10, 3)


def test_attention_forgets_nothing_under_bfloat16():
    torch.manual_seed(0)
    attention, x = Attention(32, 4), torch.randn(1, 9, 32)
    with torch.autocast("cpu", torch.bfloat16):
        low = attention(x, angles=Rotary(8, axes=2)(grid_positions((3, 3))))
    assert low.dtype == torch.bfloat16
    high = attention(x, angles=Rotary(8, axes=2)(grid_positions((3, 3))))
    torch.testing.assert_close(low.float(), high, rtol=0.05, atol=0.02)


@pytest.mark.parametrize(
    ("tokens", "learns", "dtype"),
    [(8, True, torch.float32), (8, False, torch.bfloat16), (300, True, torch.bfloat16)],
)
def test_few_tokens_learn_in_float32_where_bfloat16_is_slower(tokens, learns, dtype, monkeypatch):
    """The backward pass of a CPU's fused kernel takes up to twice as long in bfloat16."""
    used, functions = [], torch.nn.functional
    whole = functions.scaled_dot_product_attention
    monkeypatch.setattr(
        functions,
        "scaled_dot_product_attention",
        lambda q, *a, **options: used.append(q.dtype) or whole(q, *a, **options),
    )
    q, k, v = (x.requires_grad_(learns) for x in heads(tokens, 8))
    with torch.set_grad_enabled(learns), torch.autocast("cpu", torch.bfloat16):
        found = attend(q.bfloat16(), k.bfloat16(), v.bfloat16(), causal())
    exact = attend(q, k, v, causal())
    assert used[0] == dtype and found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), exact, rtol=0.02, atol=0.02)
    if learns:
        ours, theirs = (torch.autograd.grad(x.float().square().sum(), q)[0] for x in (found, exact))
        torch.testing.assert_close(ours, theirs, rtol=0.05, atol=0.05)


def test_what_positions_do_not_determine_is_given_as_it_is():
    q, k, v = torch.randn(3, 2, 2, 5, 8, generator=torch.Generator().manual_seed(0))
    allowed = torch.eye(5, dtype=torch.bool) | (torch.arange(5) == 2)
    torch.testing.assert_close(attend(q, k, v, allowed=allowed), naive(q, k, v, lambda b, i, j: i == j or j == 2))


def test_nothing_else_calls_the_kernels():
    package = Path(filmstrip.__file__).parent
    kernels = re.compile(r"scaled_dot_product_attention\(|flex_attention\(|MultiheadAttention")
    found = [path.name for path in package.rglob("*.py") if kernels.search(path.read_text(encoding="utf-8"))]
    # The planner counts what attention takes, of tensors without content.
    assert sorted(found) == ["attention.py", "ring_cost.py", "traced_step.py"]
