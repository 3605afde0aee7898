"""Toto's comparator without attention against transformers' Mamba: logits, gradients, token by token."""

import pytest
import torch
import torch.nn.functional as F

from filmstrip.nn.sampling import Sampling
from filmstrip.systems.pretraining.toto import mamba
from filmstrip.systems.pretraining.toto.mamba import Mamba, MambaConfig
from filmstrip.weights.keymap import KeyMap

transformers = pytest.importorskip("transformers")

VOCAB, WIDTH = 30, 32
BLOCK = {
    "norm.weight": "norm.weight",
    "mixer.in_proj.weight": "input_and_gate.weight",
    "mixer.conv1d.weight": "conv.weight",
    "mixer.conv1d.bias": "conv.bias",
    "mixer.x_proj.weight": "select.weight",
    "mixer.dt_proj.weight": "step.weight",
    "mixer.dt_proj.bias": "step.bias",
    "mixer.A_log": "log_rate",
    "mixer.D": "skip",
    "mixer.out_proj.weight": "out.weight",
}
MAP = KeyMap(
    (
        ("backbone.embeddings.weight", "embed.weight"),
        *((f"backbone.layers.{{i}}.{theirs}", f"blocks.{{i}}.{ours}") for theirs, ours in BLOCK.items()),
        ("backbone.norm_f.weight", "norm.weight"),
    ),
    spare=("lm_head.weight",),
)


@pytest.fixture
def models():
    torch.manual_seed(0)
    theirs = transformers.MambaForCausalLM(
        transformers.MambaConfig(vocab_size=VOCAB, hidden_size=WIDTH, num_hidden_layers=2, state_size=8)
    ).eval()
    ours = Mamba(MambaConfig(vocab_size=VOCAB, width=WIDTH, depth=2, state_dim=8)).eval()
    for name, parameter in theirs.named_parameters():
        if not name.endswith(("A_log", "dt_proj.bias")):
            torch.nn.init.normal_(parameter, mean=float("norm" in name), std=0.3)
    ours.load_state_dict(MAP.ours(theirs.state_dict()))
    return ours, theirs


@pytest.fixture
def ids():
    return torch.randint(0, VOCAB, (2, 27), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("chunk", [4, 64])
def test_logits_and_gradients_agree(models, ids, chunk, assert_close, monkeypatch):
    monkeypatch.setattr(mamba, "_CHUNK", chunk)
    ours, theirs = models
    logits, expected = ours.logits(ours(ids).hidden), theirs(ids).logits
    assert_close(logits, expected)
    for each in (logits, expected):
        F.cross_entropy(each[:, :-1].mT, ids[:, 1:]).backward()
    gradients = MAP.ours({name: parameter.grad for name, parameter in theirs.named_parameters()})
    for name, parameter in ours.named_parameters():
        assert_close(parameter.grad, gradients[name])


def test_token_by_token_is_the_same(models, ids, assert_close):
    ours, _ = models
    with torch.no_grad():
        caches = ours.new_caches(2, 27)
        steps = [ours(ids[:, :5], caches=caches).hidden]
        steps += [ours(ids[:, n : n + 1], caches=caches).hidden for n in range(5, 27)]
        assert_close(torch.cat(steps, dim=1), ours(ids).hidden)
        made = torch.stack(list(ours.decode(ids, torch.zeros(2, 3), Sampling(temperature=0.0))), dim=1)
        known = ids
        for _ in range(3):
            known = torch.cat([known, ours.logits(ours(known).hidden[:, -1:]).argmax(dim=-1)], dim=1)
    assert torch.equal(made, known[:, 27:])
