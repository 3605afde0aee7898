"""Adaptations of the language model in peft's files: written, read, and the same function as peft's, if installed."""

import pytest
import torch
from torch import nn

from filmstrip.errors import UserError
from filmstrip.models.decoder import Decoder, DecoderConfig
from filmstrip.models.llama_layout import ADAPTABLE, adapt, adapt_from_peft, to_llama, to_peft
from filmstrip.nn.lora import is_adaptation, merge

CONFIG = DecoderConfig(vocab_size=40, width=32, depth=2, num_heads=4, num_kv_heads=2, mlp_dim=48)


def decoder(names=(), rank=3):
    torch.manual_seed(0)
    made = Decoder(CONFIG).eval()
    if names:
        adapt(made, names, rank=rank, alpha=6.0)
        for name, parameter in made.named_parameters():
            if is_adaptation(name):
                nn.init.normal_(parameter, std=0.2)
    return made


@pytest.fixture
def ids():
    return torch.randint(0, 40, (2, 9), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("names", [("q_proj", "v_proj"), ("up_proj",), ADAPTABLE])
def test_files_are_written_and_read_back(names, ids):
    ours = decoder(names)
    config, weights = to_peft(ours)
    assert len(weights) == 2 * 2 * len(names)
    again = decoder()
    adapt_from_peft(again, config, weights, "it")
    with torch.no_grad():
        assert torch.equal(again(ids).hidden, ours(ids).hidden)
        merge(again)
        torch.testing.assert_close(again(ids).hidden, ours(ids).hidden, atol=1e-5, rtol=1e-4)
    assert to_llama(again.state_dict(), CONFIG).keys() == to_llama(decoder().state_dict(), CONFIG).keys()


def test_peft_reads_the_files_as_the_same_function(ids, tmp_path):
    peft = pytest.importorskip("peft")
    transformers = pytest.importorskip("transformers")
    names = ("q_proj", "v_proj", "o_proj", "gate_proj", "down_proj")
    ours = decoder(names)
    config, weights = to_peft(ours)
    sizes = {"vocab_size": 40, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    theirs = transformers.LlamaForCausalLM(
        transformers.LlamaConfig(**sizes, num_key_value_heads=2, intermediate_size=48)
    )
    theirs.load_state_dict(to_llama(decoder().state_dict(), CONFIG))
    known = {key: config[key] for key in ("r", "lora_alpha", "target_modules")}
    adapted = peft.get_peft_model(theirs, peft.LoraConfig(**known)).eval()
    state = peft.get_peft_model_state_dict(adapted)
    assert state.keys() == weights.keys()
    peft.set_peft_model_state_dict(adapted, weights)
    with torch.no_grad():
        torch.testing.assert_close(adapted(ids).logits, ours.logits(ours(ids).hidden), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"peft_type": "IA3"}, "no plain adaptation"),
        ({"use_dora": True}, "no plain adaptation"),
        ({"rank_pattern": {"q_proj": 2}}, "rank_pattern"),
        ({"r": 5}, "does not fit"),
    ],
)
def test_other_adaptations_are_refused(change, message):
    config, weights = to_peft(decoder(("q_proj",)))
    with pytest.raises(UserError, match=message):
        adapt_from_peft(decoder(), config | change, weights, "it")


def test_unknown_layers_are_refused():
    with pytest.raises(UserError, match=r"lm_head cannot be adapted"):
        adapt(decoder(), ("lm_head",), rank=1, alpha=1.0)
    with pytest.raises(UserError, match="is not adapted"):
        to_peft(decoder())
