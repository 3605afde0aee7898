import pytest
import torch

from filmstrip.models.query_transformer import (
    QueryPooling,
    QueryPoolingConfig,
    QueryTransformer,
    QueryTransformerConfig,
)
from filmstrip.protocols import Grid

SIZES = dict(num_queries=3, width=16, depth=2, num_heads=2, mlp_dim=32, context_width=12)


def build(**changes):
    torch.manual_seed(0)
    network = QueryTransformer(QueryTransformerConfig(**SIZES | {"vocab_size": 20, "max_length": 8} | changes))
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    return network.eval()


@pytest.fixture
def context():
    return torch.randn(2, 5, 12, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def text():
    return torch.randint(20, (2, 6), generator=torch.Generator().manual_seed(2))


def changed(text, place):
    other = text.clone()
    other[:, place] = (other[:, place] + 1) % 20
    return other


def differs(a, b):
    """Which positions of two outputs differ."""
    return (a != b).any(dim=-1).any(dim=0).tolist()


@torch.no_grad()
def test_in_generation_a_token_changes_itself_and_later_ones_alone(context, text):
    network = build()
    one, two = (network(context, t, sees="generation") for t in (text, changed(text, 3)))
    assert differs(one.text, two.text) == [False] * 3 + [True] * 3
    assert not any(differs(one.queries, two.queries))


@torch.no_grad()
def test_in_generation_text_sees_what_the_queries_see(context, text):
    network = build()
    one, two = (network(c, text, sees="generation").text for c in (context, context + 1))
    assert all(differs(one, two))


@torch.no_grad()
def test_apart_neither_sees_the_other(context, text):
    network = build()
    both = network(context, text, sees="apart")
    torch.testing.assert_close(both.queries, network(context).queries)
    torch.testing.assert_close(both.text, network(None, text).text)


@torch.no_grad()
def test_together_text_changes_queries(context, text):
    network = build()
    one, two = (network(context, t, sees="together") for t in (text, changed(text, 5)))
    assert all(differs(one.queries, two.queries)) and all(differs(one.text, two.text))


@torch.no_grad()
@pytest.mark.parametrize("sees", ["apart", "together", "generation"])
def test_padding_changes_nothing(sees, context, text):
    network = build()
    valid = torch.arange(6) < torch.tensor([[4], [2]])
    one, two = (network(context, t, valid=valid, sees=sees) for t in (text, torch.where(valid, text, 7)))
    assert torch.equal(one.queries, two.queries)
    assert torch.equal(one.text[valid], two.text[valid])


def test_queries_and_text_have_feed_forward_networks_of_their_own(context, text):
    network = build(depth=1)
    network(context, text, sees="apart").text.sum().backward()
    gradients = {name: parameter.grad is not None for name, parameter in network.named_parameters()}
    assert gradients["blocks.0.text_mlp.fc1.weight"] and gradients["blocks.0.attention.qkv.weight"]
    network.zero_grad()
    network(context, text, sees="apart").queries.sum().backward()
    moved = {name for name, parameter in network.named_parameters() if parameter.grad is not None}
    assert "blocks.0.query_mlp.fc1.weight" in moved and "blocks.0.cross.kv.weight" in moved


def test_cross_attention_is_in_every_kth_layer():
    network = build(depth=5, cross_every=2)
    assert [block.cross is not None for block in network.blocks] == [True, False, True, False, True]


def test_without_text_there_are_no_parameters_for_it():
    network = QueryTransformer(QueryTransformerConfig(**SIZES))
    assert not [name for name, _ in network.named_parameters() if "text" in name or "embed" in name]
    with pytest.raises(ValueError, match="set vocab_size"):
        network(torch.zeros(1, 2, 12), torch.zeros(1, 2, dtype=torch.int64))


def test_text_that_is_too_long_is_refused(context):
    with pytest.raises(ValueError, match="9 tokens exceeds the maximum of 8"):
        build()(context, torch.zeros(2, 9, dtype=torch.int64))


def test_sizes_of_blip2s_q_former():
    with torch.device("meta"):
        config = QueryTransformerConfig(
            num_queries=32,
            width=768,
            depth=12,
            num_heads=12,
            mlp_dim=3072,
            context_width=1408,
            cross_every=2,
            vocab_size=30_523,
        )
        network = QueryTransformer(config)
    count = sum(parameter.numel() for parameter in network.parameters())
    assert count == pytest.approx(187e6, rel=0.01)  # the heads of BLIP-2 are its own


def test_sizes_of_video_llamas_query_transformer():
    with torch.device("meta"):
        config = QueryTransformerConfig(
            num_queries=32, width=768, depth=2, num_heads=12, mlp_dim=3072, context_width=768
        )
        network = QueryTransformer(config)
    assert sum(parameter.numel() for parameter in network.parameters()) == pytest.approx(18.9e6, rel=0.01)


def test_sizes_of_qwen_vls_adapter():
    with torch.device("meta"):
        config = QueryPoolingConfig(
            num_queries=256, width=4096, num_heads=32, context_width=1664, project=True, grid=(16, 16)
        )
        network = QueryPooling(config)
    assert sum(parameter.numel() for parameter in network.parameters()) == pytest.approx(75.0e6, rel=0.001)


def test_positions_tell_places_apart():
    config = QueryPoolingConfig(num_queries=4, width=16, num_heads=2, context_width=16, grid=(2, 2))
    torch.manual_seed(0)
    pooling = QueryPooling(config)
    for parameter in pooling.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    tokens = torch.randn(1, 9, 16)
    moved = pooling(tokens.roll(1, dims=1), Grid(1, 3, 3))
    assert not torch.allclose(pooling(tokens, Grid(1, 3, 3)), moved, atol=1e-3)
    with pytest.raises(ValueError, match="grid of the visual tokens"):
        pooling(tokens)


@pytest.mark.parametrize("wrong, says", [({"grid": (2, 3)}, "4 queries"), ({"context_width": 8}, "set project")])
def test_positions_that_do_not_fit_are_refused(wrong, says):
    fitting = dict(num_queries=4, width=16, num_heads=2, context_width=16, grid=(2, 2))
    with pytest.raises(ValueError, match=says):
        QueryPooling(QueryPoolingConfig(**fitting | wrong))
