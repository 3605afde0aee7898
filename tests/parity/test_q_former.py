"""Learned queries against transformers' Q-Formers and SigLIP's head, and torch's attention for Qwen-VL's adapter."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from filmstrip.models.query_transformer import (
    BLIP2,
    INSTRUCTBLIP,
    QueryPooling,
    QueryPoolingConfig,
    QueryTransformer,
    QueryTransformerConfig,
    fused,
    unfused,
)
from filmstrip.protocols import Grid

transformers = pytest.importorskip("transformers")

SIZES = {
    "hidden_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 40,
    "encoder_hidden_size": 20,
    "cross_attention_frequency": 2,
    "vocab_size": 30,
    "max_position_embeddings": 12,
}
OURS = dict(
    num_queries=5,
    width=24,
    depth=3,
    num_heads=4,
    mlp_dim=40,
    context_width=20,
    cross_every=2,
    vocab_size=30,
    max_length=12,
)
LENGTHS = torch.tensor([7, 4])
VALID = torch.arange(7) < LENGTHS[:, None]


def randomise(module):
    for name, parameter in module.named_parameters():
        torch.nn.init.normal_(
            parameter, mean=1.0 if "norm" in name.lower() and name.endswith("weight") else 0, std=0.3
        )
    return module.eval()


@pytest.fixture
def context():
    return torch.randn(2, 9, 20, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def text():
    ids = torch.randint(1, 30, (2, 7), generator=torch.Generator().manual_seed(2))
    return torch.where(VALID, ids, 0)


def load(ours, keys, theirs, beside):
    """Ours with their weights, and ``beside`` of ours."""
    return ours.load_state_dict(keys.ours(fused(theirs)) | beside)


@pytest.fixture
def blip2():
    torch.manual_seed(0)
    theirs = randomise(
        transformers.Blip2QFormerModel(transformers.Blip2QFormerConfig(**SIZES, use_qformer_text_input=True))
    )
    ours = randomise(QueryTransformer(QueryTransformerConfig(**OURS)))
    beside = {name: ours.state_dict()[name] for name in ("queries", "embed.weight", "pos_embed")}
    load(ours, BLIP2, theirs.state_dict(), beside)
    return ours, theirs


@pytest.fixture
def instructblip():
    torch.manual_seed(0)
    theirs = randomise(transformers.InstructBlipQFormerModel(transformers.InstructBlipQFormerConfig(**SIZES)))
    ours = randomise(QueryTransformer(QueryTransformerConfig(**OURS)))
    load(ours, INSTRUCTBLIP, theirs.state_dict(), {"queries": ours.state_dict()["queries"]})
    return ours, theirs


def embedded(ours, text):
    return ours.embed(text) + ours.pos_embed[: text.shape[1]]


@torch.no_grad()
def test_queries_alone_agree_with_blip2(blip2, context, assert_close):
    ours, theirs = blip2
    want = theirs(query_embeds=ours.queries.expand(2, -1, -1), encoder_hidden_states=context)
    assert_close(ours(context).queries, want.last_hidden_state)


@torch.no_grad()
def test_text_alone_agrees_with_blip2(blip2, text, assert_close):
    ours, theirs = blip2
    want = theirs(query_embeds=embedded(ours, text), query_length=0, attention_mask=VALID.long())
    got = ours(None, text, valid=VALID)
    assert got.queries.shape == (2, 0, 24)
    assert_close(got.text[VALID], want.last_hidden_state[VALID])


@torch.no_grad()
def test_both_together_agree_with_blip2(blip2, context, text, assert_close):
    ours, theirs = blip2
    both = torch.cat([ours.queries.expand(2, -1, -1), embedded(ours, text)], dim=1)
    seen = F.pad(VALID, (5, 0), value=True)
    want = theirs(both, query_length=5, attention_mask=seen.long(), encoder_hidden_states=context).last_hidden_state
    got = ours(context, text, valid=VALID, sees="together")
    assert_close(got.queries, want[:, :5])
    assert_close(got.text[VALID], want[:, 5:][VALID])


@torch.no_grad()
def test_a_mask_of_generation_agrees_with_blip2(blip2, context, text, assert_close):
    ours, theirs = blip2
    both = torch.cat([ours.queries.expand(2, -1, -1), embedded(ours, text)], dim=1)
    allowed = torch.ones(12, 12, dtype=torch.bool).tril()
    allowed[:5, :5] = True
    allowed = allowed & F.pad(VALID, (5, 0), value=True)[:, None]
    want = theirs(both, query_length=5, attention_mask=allowed[:, None], encoder_hidden_states=context)
    got = ours(context, text, valid=VALID, sees="generation")
    assert_close(got.queries, want.last_hidden_state[:, :5])
    assert_close(got.text[VALID], want.last_hidden_state[:, 5:][VALID])


@torch.no_grad()
def test_instructions_agree_with_instructblip(instructblip, context, text, assert_close):
    ours, theirs = instructblip
    seen = F.pad(VALID, (5, 0), value=True)
    want = theirs(
        input_ids=text,
        attention_mask=seen.long(),
        query_embeds=ours.queries.expand(2, -1, -1),
        encoder_hidden_states=context,
    )
    assert_close(ours(context, text, valid=VALID).queries, want.last_hidden_state[:, :5])


@pytest.mark.parametrize("name", ["blip2", "instructblip"])
def test_key_maps_are_invertible(name, request):
    ours, theirs = request.getfixturevalue(name)
    keys = BLIP2 if name == "blip2" else INSTRUCTBLIP
    known = {pair[1] for pair in keys.pairs}
    state = {k: v for k, v in ours.state_dict().items() if k in known or k.startswith("blocks.")}
    back = unfused(keys.theirs(state))
    want = theirs.state_dict()
    assert set(back) == set(want)
    assert all(torch.equal(back[name], tensor) for name, tensor in want.items())


def table(size, width):
    """The published table of positions, written out: columns first, sines before cosines."""
    rows = []
    for y in range(size):
        for x in range(size):
            waves = 1 / 10_000 ** (np.arange(width // 4) / (width / 4))
            rows.append(np.concatenate([np.sin(x * waves), np.cos(x * waves), np.sin(y * waves), np.cos(y * waves)]))
    return torch.tensor(np.stack(rows), dtype=torch.float32)


@torch.no_grad()
@pytest.mark.parametrize("side", [3, 5])
def test_the_adapter_of_qwen_vl_agrees_with_torch(side, assert_close):
    torch.manual_seed(0)
    config = QueryPoolingConfig(num_queries=9, width=24, num_heads=3, context_width=20, project=True, grid=(3, 3))
    ours = randomise(QueryPooling(config))
    theirs = torch.nn.MultiheadAttention(24, 3, batch_first=True)
    theirs.in_proj_weight.copy_(torch.cat([ours.attention.q.weight, ours.attention.kv.weight]))
    theirs.in_proj_bias.copy_(torch.cat([ours.attention.q.bias, ours.attention.kv.bias]))
    theirs.out_proj.load_state_dict(ours.attention.out.state_dict())
    tokens = torch.randn(2, side * side, 20)
    x = ours.context_norm(F.linear(tokens, ours.project.weight))
    places = table(3, 24)
    image = places.T.reshape(1, 24, 3, 3)
    resized = F.interpolate(image, size=(side, side), mode="bicubic", align_corners=False).flatten(2)[0].T
    queries = (ours.query_norm(ours.queries) + places).expand(2, -1, -1)
    want = ours.norm(theirs(queries, x + resized, x)[0])
    assert_close(ours(tokens, Grid(1, side, side)), want)


@torch.no_grad()
def test_the_pooling_of_lavila_agrees_with_a_loop_over_heads(assert_close):
    torch.manual_seed(0)
    config = QueryPoolingConfig(
        num_queries=4, width=24, num_heads=3, head_dim=6, num_kv_heads=1, bias=False, context_width=20, norm_eps=1e-5
    )
    ours = randomise(QueryPooling(config))
    tokens = torch.randn(2, 7, 20)
    x = ours.context_norm(tokens)
    key, value = F.linear(x, ours.attention.kv.weight).chunk(2, dim=-1)
    queries = F.linear(ours.query_norm(ours.queries), ours.attention.q.weight)
    heads = [(q @ key.mT * 6**-0.5).softmax(-1) @ value for q in queries.chunk(3, dim=-1)]
    want = ours.norm(F.linear(torch.cat(heads, dim=-1), ours.attention.out.weight))
    assert_close(ours(tokens), want)


@torch.no_grad()
def test_one_query_is_siglips_head(assert_close):
    torch.manual_seed(0)
    sizes = dict(hidden_size=24, num_attention_heads=3, intermediate_size=40, num_hidden_layers=1, image_size=8)
    vision = transformers.SiglipVisionConfig(**sizes, patch_size=4)
    theirs = randomise(transformers.SiglipVisionModel(vision)).head
    config = QueryPoolingConfig(
        num_queries=1, width=24, num_heads=3, context_width=24, norms=False, mlp_dim=40, gelu="tanh"
    )
    ours = QueryPooling(config).eval()
    state = theirs.state_dict()
    q, kv = state["attention.in_proj_weight"].split([24, 48])
    q_bias, kv_bias = state["attention.in_proj_bias"].split([24, 48])
    ours.load_state_dict(
        {
            "queries": state["probe"][0],
            "attention.q.weight": q,
            "attention.q.bias": q_bias,
            "attention.kv.weight": kv,
            "attention.kv.bias": kv_bias,
            "attention.out.weight": state["attention.out_proj.weight"],
            "attention.out.bias": state["attention.out_proj.bias"],
            "mlp_norm.weight": state["layernorm.weight"],
            "mlp_norm.bias": state["layernorm.bias"],
            **{f"mlp.{name}": state[f"mlp.{name}"] for name in ("fc1.weight", "fc1.bias", "fc2.weight", "fc2.bias")},
        }
    )
    tokens = torch.randn(2, 6, 24)
    assert_close(ours(tokens)[:, 0], theirs(tokens))
