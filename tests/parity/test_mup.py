"""muP of the decoder: function and steps of AdamW, against the authors' package by stored outputs; LLaMA's files."""

import dataclasses

import pytest
import torch
import torch.nn.functional as F
from published import TOLERANCE, recipe_video, stored

from filmstrip.models.decoder import Decoder, DecoderConfig
from filmstrip.models.llama_layout import from_llama, to_llama
from filmstrip.protocols import Objective, Phase
from filmstrip.train.optim import AdamW

CONFIG = DecoderConfig(
    vocab_size=40, width=96, depth=2, num_heads=4, mlp_dim=288, base_width=32, base_head_dim=8, norm_eps=1e-6
)
STEPS = 5


class NextToken(Objective):
    def __init__(self, decoder):
        super().__init__()
        self.decoder = decoder

    def rate_of(self, name):
        return self.decoder.rate_of(name.removeprefix("decoder."))

    def forward(self, ids, phase="main"):
        logits = self.decoder.logits(self.decoder(ids[:, :-1]).hidden)
        return F.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten())


@pytest.fixture
def ids():
    return recipe_video("tokens", (4, 13)).long() % 40


@pytest.fixture
def model():
    plain = dataclasses.replace(CONFIG, base_width=None, base_head_dim=None)
    made = NextToken(Decoder(CONFIG)).eval()
    made.decoder.load_state_dict(from_llama(stored("mup").weights(), plain))  # the numbers as they stand
    return made


def test_losses_of_training_and_logits_agree_with_the_package(model, ids):
    kept = stored("mup")
    optimiser = AdamW(lr=2**-6, weight_decay=0.1).build(model, Phase("main", (model,)))
    losses = []
    for _ in range(STEPS):
        optimiser.zero_grad()
        losses.append(model(ids))
        losses[-1].backward()
        optimiser.step()
    assert kept.error("losses", torch.stack(losses)) < TOLERANCE
    with torch.no_grad():
        assert kept.error("logits", model.decoder.logits(model.decoder(ids).hidden)) < 10 * TOLERANCE


@pytest.mark.parametrize("qk_norm", [False, True])
def test_in_llamas_layout_the_factors_are_in_the_weights(ids, qk_norm):
    torch.manual_seed(0)
    config = dataclasses.replace(CONFIG, qk_norm=qk_norm)
    ours = Decoder(config)
    torch.nn.init.normal_(ours.output_weight)
    plain = dataclasses.replace(config, base_width=None, base_head_dim=None)
    theirs = to_llama(ours.state_dict(), config)
    same = Decoder(plain)
    same.load_state_dict(from_llama(theirs, plain))
    with torch.no_grad():
        torch.testing.assert_close(same.logits(same(ids).hidden), ours.logits(ours(ids).hidden), rtol=1e-5, atol=1e-5)
    for name, tensor in from_llama(theirs, config).items():
        torch.testing.assert_close(tensor, ours.state_dict()[name])
