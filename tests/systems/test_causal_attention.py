import pytest
import torch
import torch.nn.functional as F

from filmstrip.systems.generation.videogpt.causal_attention import Blocks, CausalAttention, Pattern
from filmstrip.systems.generation.videogpt.transformer import ConditionalNorm

# Who sees whom, written out by hand.
PATTERNS = {
    "full": (Pattern(), lambda q, k: True),
    "row": (Pattern(block=4), lambda q, k: q // 4 == k // 4),
    "column": (Pattern(stride=4, block=12), lambda q, k: q // 12 == k // 12 and q % 4 == k % 4),
    "time": (Pattern(stride=12), lambda q, k: q % 12 == k % 12),
    "local": (Pattern(reach=5), lambda q, k: q - k < 5),
    "strided and near": (Pattern(stride=2, reach=3), lambda q, k: (q - k) % 2 == 0 and q - k < 6),
    "blocks": (
        Blocks(4, (Pattern(reach=2), Pattern(stride=3))),
        lambda q, k: q // 4 - k // 4 < 2 or (q // 4 - k // 4) % 3 == 0,
    ),
    "blocks of a frame": (
        Blocks(2, (Pattern(reach=1), Pattern(stride=2, block=4))),
        lambda q, k: q // 2 == k // 2 or (q // 8 == k // 8 and (q // 2 - k // 2) % 2 == 0),
    ),
}
PLACES = 24


def allowed(rule, places):
    return torch.tensor([[k <= q and rule(q, k) for k in range(places)] for q in range(places)])


@pytest.fixture(params=PATTERNS)
def pattern(request):
    return PATTERNS[request.param]


@pytest.mark.parametrize("places", [PLACES, 17, 1])
def test_attention_along_a_pattern_equals_masked_attention(pattern, places):
    pattern, rule = pattern
    q, k, v = torch.randn(3, 2, 2, places, 8, generator=torch.Generator().manual_seed(0))
    expected = F.scaled_dot_product_attention(q, k, v, attn_mask=allowed(rule, places))
    torch.testing.assert_close(pattern.attend(q, k, v), expected, rtol=1e-5, atol=1e-6)


def test_a_place_sees_the_same_named_or_on_the_device(pattern):
    pattern, rule = pattern
    for place, row in enumerate(allowed(rule, PLACES)):
        expected = row.nonzero().flatten().tolist()
        assert torch.arange(PLACES)[pattern.seen(place)].tolist() == expected
        seen = pattern.seen_by(torch.tensor([place]), PLACES)
        index = torch.arange(PLACES) if seen.index is None else seen.index
        assert sorted(index[seen.mask].tolist()) == expected


@pytest.mark.parametrize("static", [False, True])
def test_steps_equal_all_places_at_once(pattern, static):
    torch.manual_seed(0)
    attention = CausalAttention(16, 2, pattern[0])
    x = torch.randn(3, PLACES, 16)
    cache = attention.new_cache(3, PLACES)
    with torch.no_grad():
        ahead = attention(x[:, :9], cache)
        places = [
            attention.step(x[:, n], cache, pattern[0].seen_by(torch.tensor([n]), PLACES) if static else n)
            for n in range(9, PLACES)
        ]
        torch.testing.assert_close(torch.cat([ahead, torch.stack(places, dim=1)], dim=1), attention(x))


def test_static_steps_have_the_same_shapes_everywhere(pattern):
    shapes = {pattern[0].seen_by(torch.tensor([n]), PLACES).mask.shape for n in range(PLACES)}
    assert len(shapes) == 1


def test_blocks_hold_whole_strides():
    with pytest.raises(ValueError, match="whole number of strides"):
        Pattern(stride=3, block=8)


def test_a_conditional_norm_starts_as_a_norm_and_follows_its_condition():
    norm = ConditionalNorm(6, 3)
    x, vector = torch.randn(2, 4, 6), torch.eye(3)[:2]
    plain = F.layer_norm(x, (6,), norm.weight, norm.bias, norm.eps)
    torch.testing.assert_close(norm(x, norm.affine(vector)), plain)
    torch.nn.init.normal_(norm.from_condition.weight)
    gain, bias = norm.from_condition.weight.T[:2].chunk(2, dim=-1)
    torch.testing.assert_close(norm(x, norm.affine(vector)), plain * (1 + gain[:, None]) + bias[:, None])
    torch.testing.assert_close(norm(x, norm.affine(torch.zeros(2, 3))), plain)
