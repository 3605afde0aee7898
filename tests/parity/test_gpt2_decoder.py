"""GPT-2 of transformers as a decoder: the same logits and text from its folder, and the same weights back."""

import pytest
import torch

from filmstrip.errors import UserError
from filmstrip.models.decoder import Decoder
from filmstrip.models.gpt2_layout import gpt2_config, to_gpt2
from filmstrip.models.llama_layout import adapt, load_decoder
from filmstrip.nn.sampling import Sampling
from filmstrip.runs.hub import hub_decoder, hub_weights

transformers = pytest.importorskip("transformers")

SIZES = {"vocab_size": 61, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 24}
GREEDY = Sampling(temperature=0.0)


@pytest.fixture(scope="module", params=[True, False], ids=["tied", "own output layer"])
def published(request, tmp_path_factory):
    torch.manual_seed(0)
    config = transformers.GPT2Config(**SIZES, tie_word_embeddings=request.param, bos_token_id=0, eos_token_id=None)
    theirs = transformers.GPT2LMHeadModel(config).eval()
    for name, parameter in theirs.named_parameters():
        torch.nn.init.normal_(parameter, mean=1.0 if "ln_" in name and name.endswith("weight") else 0.0, std=0.2)
    folder = tmp_path_factory.mktemp("gpt2")
    theirs.save_pretrained(folder)
    ours = Decoder(hub_decoder(str(folder))).eval()
    load_decoder(ours, hub_weights(str(folder)), str(folder))
    return ours, theirs


@torch.no_grad()
def test_logits_and_text_agree(published, assert_close):
    ours, theirs = published
    ids = torch.randint(0, 61, (2, 9), generator=torch.Generator().manual_seed(1))
    assert_close(ours.logits(ours(ids).hidden), theirs(ids).logits)
    said = theirs.generate(ids, do_sample=False, min_new_tokens=8, max_new_tokens=8, pad_token_id=0)
    assert torch.equal(torch.stack(list(ours.decode(ids, torch.zeros(2, 8), GREEDY)), dim=1), said[:, 9:])


@torch.no_grad()
def test_rows_of_different_lengths_are_decoded_as_alone(published):
    ours, _ = published
    ids = torch.randint(0, 61, (2, 5), generator=torch.Generator().manual_seed(2))
    padded = torch.stack([ids[0], torch.cat([torch.zeros(2, dtype=torch.int64), ids[1, :3]])])
    together = ours.decode(padded, torch.zeros(2, 6), GREEDY, padding=torch.tensor([0, 2]))
    alone = ours.decode(ids[1:, :3], torch.zeros(1, 6), GREEDY)
    assert torch.equal(torch.stack(list(together), dim=1)[1:], torch.stack(list(alone), dim=1))


def test_key_map_is_invertible(published):
    ours, theirs = published
    back, want = to_gpt2(ours.state_dict()), theirs.state_dict()
    assert set(want) - set(back) == ({"lm_head.weight"} if ours.head is None else set())
    assert all(torch.equal(tensor, want[name]) for name, tensor in back.items())


def test_what_the_decoder_does_not_have_is_refused(published):
    with pytest.raises(UserError, match="activation_function 'relu'"):
        gpt2_config({"model_type": "gpt2", "activation_function": "relu"}, "it")
    with pytest.raises(UserError, match="only LLaMA's blocks can be adapted"):
        adapt(published[0], ("q_proj",), rank=2, alpha=1.0)


@pytest.mark.parametrize("size", ["gpt2", "gpt2-xl"])
def test_published_sizes(size):
    from filmstrip.systems.language.lavila.presets import GPT2, GPT2_XL

    told = {} if size == "gpt2" else {"n_embd": 1600, "n_layer": 48, "n_head": 25}
    assert gpt2_config(told, "it") == {"gpt2": GPT2, "gpt2-xl": GPT2_XL}[size]
    with torch.device("meta"):
        ours = sum(p.numel() for p in Decoder(gpt2_config(told, "it")).parameters())
        theirs = sum(p.numel() for p in transformers.GPT2LMHeadModel(transformers.GPT2Config(**told)).parameters())
    assert ours == theirs == {"gpt2": 124_439_808, "gpt2-xl": 1_557_611_200}[size]
