"""The decoder against transformers' LLaMA: logits, gradients, every layer, cached decoding; and its key map."""

import pytest
import torch
import torch.nn.functional as F

from filmstrip.models.decoder import Decoder, DecoderConfig
from filmstrip.models.llama_layout import from_llama, to_llama
from filmstrip.nn.sampling import Sampling

transformers = pytest.importorskip("transformers")

WIDTH, VOCAB = 32, 50


def pair(*, tied=False, kv_heads=4, base=10_000.0, qwen=False):
    """LLaMA (or Qwen2, whose queries, keys and values have biases), and ours with its weights."""
    torch.manual_seed(0)
    options = {
        "vocab_size": VOCAB,
        "hidden_size": WIDTH,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": kv_heads,
        "intermediate_size": 48,
        "rms_norm_eps": 1e-6,
        "rope_parameters": {"rope_type": "default", "rope_theta": base},
        "tie_word_embeddings": tied,
    }
    if qwen:
        theirs = transformers.Qwen2ForCausalLM(transformers.Qwen2Config(**options))
    else:
        theirs = transformers.LlamaForCausalLM(transformers.LlamaConfig(**options))
    for name, parameter in theirs.named_parameters():
        torch.nn.init.normal_(parameter, mean=1.0 if "norm" in name else 0.0, std=0.2)
    config = DecoderConfig(
        vocab_size=VOCAB,
        width=WIDTH,
        depth=3,
        num_heads=4,
        num_kv_heads=kv_heads,
        mlp_dim=48,
        tied=tied,
        rope_base=base,
        qkv_bias=qwen,
    )
    ours = Decoder(config)
    ours.load_state_dict(from_llama(theirs.state_dict(), config))
    return ours.eval(), theirs.eval()


VARIANTS = [
    {"tied": True},
    {"tied": False},
    {"kv_heads": 2},
    {"kv_heads": 1, "tied": True},
    {"base": 50_000.0},
    {"qwen": True, "kv_heads": 2},
]


@pytest.fixture(params=VARIANTS, ids=lambda v: "-".join(f"{k}={w}" for k, w in v.items()))
def models(request):
    return pair(**request.param)


@pytest.fixture
def ids():
    return torch.randint(0, VOCAB, (2, 11), generator=torch.Generator().manual_seed(1))


def test_logits_and_layers_agree(models, ids, assert_close):
    ours, theirs = models
    with torch.no_grad():
        said = theirs(ids, output_hidden_states=True)
        made = ours(ids, layers=True)
        assert_close(ours.logits(made.hidden), said.logits)
        for ours_layer, theirs_layer in zip(made.layers[:-1], said.hidden_states[1:-1], strict=True):
            assert_close(ours_layer, theirs_layer)
        assert_close(made.hidden, said.hidden_states[-1])  # theirs is normalised after the last layer


def test_gradients_agree(models, ids, assert_close):
    ours, theirs = models
    F.cross_entropy(ours.logits(ours(ids[:, :-1]).hidden).mT, ids[:, 1:]).backward()
    theirs(ids, labels=ids).loss.backward()
    gradients = {name: parameter.grad for name, parameter in theirs.named_parameters()}
    tied = ours.config.tied
    expected = from_llama(
        gradients | ({"lm_head.weight": gradients["model.embed_tokens.weight"]} if tied else {}), ours.config
    )
    assert {name for name, _ in ours.named_parameters()} == set(expected)
    for name, parameter in ours.named_parameters():
        assert_close(parameter.grad, expected[name])


def test_cached_decoding_agrees(models, ids):
    ours, theirs = models
    prompt, count = ids[:, :5], 9
    made = torch.stack(list(ours.decode(prompt, torch.zeros(2, count), Sampling(temperature=0.0))), dim=1)
    expected = theirs.generate(
        prompt,
        attention_mask=torch.ones_like(prompt),
        do_sample=False,
        min_new_tokens=count,
        max_new_tokens=count,
        pad_token_id=0,
        eos_token_id=None,
    )
    assert torch.equal(made, expected[:, 5:])


def test_key_map_is_invertible(models):
    ours, theirs = models
    back = to_llama(ours.state_dict(), ours.config)
    state = theirs.state_dict()
    assert set(back) | {"lm_head.weight"} == set(state) | {"lm_head.weight"}
    for name, tensor in back.items():
        assert torch.equal(tensor, state[name]), name
