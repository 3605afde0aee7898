"""The decoder against transformers' LLaMA: logits, gradients, every layer, cached decoding; and its key map."""

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from filmstrip.errors import UserError
from filmstrip.files import write_json
from filmstrip.models.decoder import Decoder, DecoderConfig
from filmstrip.models.llama_layout import config_in_hub, decoder_config, from_llama, load_decoder, to_llama
from filmstrip.nn.sampling import Sampling
from filmstrip.weights.hub import config_of, weights_of

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


def test_divided_positions_are_linear_scaling_of_transformers(ids):
    torch.manual_seed(0)
    scaled = {"rope_type": "linear", "factor": 4.0, "rope_theta": 10_000.0}
    options = {"vocab_size": VOCAB, "hidden_size": WIDTH, "num_hidden_layers": 2, "num_attention_heads": 4}
    theirs = transformers.LlamaForCausalLM(
        transformers.LlamaConfig(**options, intermediate_size=48, rope_parameters=scaled)
    ).eval()
    for name, parameter in theirs.named_parameters():
        torch.nn.init.normal_(parameter, mean=1.0 if "norm" in name else 0.0, std=0.2)
    config = decoder_config(theirs.config.to_dict(), "there")
    assert (config.rope_index_scale, config.rope_base) == (4.0, 1e4)
    assert config_in_hub(config)["rope_parameters"] == scaled
    ours = Decoder(config).eval()
    ours.load_state_dict(from_llama(theirs.state_dict(), config))
    with torch.no_grad():
        torch.testing.assert_close(ours.logits(ours(ids).hidden), theirs(ids).logits, rtol=1e-4, atol=1e-4)


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


FAMILIES = {
    "llama": ("LlamaConfig", "LlamaForCausalLM", {}),
    "mistral": ("MistralConfig", "MistralForCausalLM", {"sliding_window": 4, "num_key_value_heads": 2}),
    "qwen2": ("Qwen2Config", "Qwen2ForCausalLM", {"num_key_value_heads": 1}),
    "qwen2 with a window": (
        "Qwen2Config",
        "Qwen2ForCausalLM",
        {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 0, "num_key_value_heads": 2},
    ),
    "llama with wide heads": ("LlamaConfig", "LlamaForCausalLM", {"head_dim": 16, "tie_word_embeddings": True}),
}


@pytest.fixture(params=FAMILIES)
def published(request, tmp_path):
    """A small language model of each family, and its folder in the Hub's layout."""
    config, model, more = FAMILIES[request.param]
    sizes = {"vocab_size": VOCAB, "hidden_size": WIDTH, "num_hidden_layers": 2, "num_attention_heads": 4}
    torch.manual_seed(0)
    theirs = getattr(transformers, model)(getattr(transformers, config)(**sizes, intermediate_size=48, **more)).eval()
    for name, parameter in theirs.named_parameters():
        torch.nn.init.normal_(parameter, mean=1.0 if "norm" in name else 0.0, std=0.2)
    theirs.save_pretrained(tmp_path / "lm")
    return theirs, tmp_path / "lm"


def test_a_folder_becomes_a_decoder_and_a_decoder_a_folder(published, ids, assert_close, tmp_path):
    theirs, folder = published
    config = decoder_config(config_of(str(folder), folder), str(folder))
    ours = Decoder(config).eval()
    load_decoder(ours, weights_of(str(folder), folder), str(folder))
    with torch.no_grad():
        assert_close(ours.logits(ours(ids).hidden), theirs(ids).logits)
        made = torch.stack(list(ours.decode(ids[:, :5], torch.zeros(2, 8), Sampling(temperature=0.0))), dim=1)
    said = theirs.generate(ids[:, :5], do_sample=False, min_new_tokens=8, max_new_tokens=8, pad_token_id=0)
    assert torch.equal(made, said[:, 5:])
    (tmp_path / "back").mkdir()
    write_json(config_in_hub(config), tmp_path / "back" / "config.json")
    save_file(to_llama(ours.state_dict(), config), tmp_path / "back" / "model.safetensors", {"format": "pt"})
    again = type(theirs).from_pretrained(tmp_path / "back").eval()
    assert_close(again(ids).logits, theirs(ids).logits)
    assert decoder_config(config_of("", tmp_path / "back"), "") == config


def test_rows_of_different_lengths_are_decoded_as_alone(models, ids):
    ours, _ = models
    lengths = torch.tensor([5, 3])
    padded = torch.stack([ids[0, :5], torch.cat([torch.zeros(2, dtype=torch.int64), ids[1, :3]])])
    together = torch.stack(
        list(ours.decode(padded, torch.zeros(2, 6), Sampling(temperature=0.0), padding=5 - lengths)), dim=1
    )
    for row, length in enumerate(lengths.tolist()):
        alone = ours.decode(ids[row : row + 1, :length], torch.zeros(1, 6), Sampling(temperature=0.0))
        assert torch.equal(together[row : row + 1], torch.stack(list(alone), dim=1))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"model_type": "gpt_neox"}, "is a gpt_neox"),
        ({"model_type": "llama", "rope_parameters": {"rope_type": "llama3"}}, "rope_type 'llama3'"),
        ({"model_type": "llama", "hidden_act": "gelu"}, "hidden_act 'gelu'"),
    ],
)
def test_what_the_decoder_does_not_have_is_refused(config, message):
    with pytest.raises(UserError, match=message):
        decoder_config(config, "it")


def test_published_files_may_leave_out_what_their_family_says():
    """LLaVA-1.5's description of Vicuna-7B names four of its sizes."""
    told = {"model_type": "llama", "max_position_embeddings": 4096, "rms_norm_eps": 1e-5, "vocab_size": 32064}
    config = decoder_config(told, "it")
    expected = transformers.LlamaConfig(**{k: v for k, v in told.items() if k != "model_type"})
    assert (config.width, config.depth, config.num_heads, config.mlp_dim) == (
        expected.hidden_size,
        expected.num_hidden_layers,
        expected.num_attention_heads,
        expected.intermediate_size,
    )
