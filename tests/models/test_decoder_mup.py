"""muP of the decoder: its coordinate check (Yang et al. 2022, appendix D.1), weights, rates, and what it refuses."""

import dataclasses
import math

import pytest
import torch
import torch.nn.functional as F

from filmstrip import systems
from filmstrip.errors import UserError
from filmstrip.models.decoder import Decoder, DecoderConfig
from filmstrip.protocols import Objective, Phase
from filmstrip.train.optim import SGD, AdamW, Muon, set_rates
from filmstrip.train.schedules import Constant

WIDTHS = (32, 64, 128, 256)
STEPS, FEW, RATE, HEADS, VOCAB = 20, 5, 2**-6, 4, 32
SIZES = ("hidden", "scores", "logits")


class NextToken(Objective):
    """The loss of a decoder's next token, as any system would have it."""

    def __init__(self, decoder):
        super().__init__()
        self.decoder = decoder

    def rate_of(self, name):
        return self.decoder.rate_of(name.removeprefix("decoder."))

    def forward(self, batch, phase="main"):
        logits = self.decoder.logits(self.decoder(batch[:, :-1]).hidden)
        return F.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())


def config_of(width, *, mup=True, **changes):
    """Wider heads rather than more of them, so that the scores' scale matters."""
    config = DecoderConfig(
        vocab_size=VOCAB,
        width=width,
        depth=2,
        num_heads=HEADS,
        mlp_dim=4 * width,
        base_width=WIDTHS[0] if mup else None,
        base_head_dim=WIDTHS[0] // HEADS if mup else None,
    )
    return dataclasses.replace(config, **changes)


def groups_of(model, optim):
    return optim.build(model, Phase("main", (model,)))


def drawn(seed):
    """Sequences that repeat four random tokens, so that there is something to learn in where to look."""
    return torch.randint(VOCAB, (16, 4), generator=torch.Generator().manual_seed(seed)).repeat(1, 5)


def sizes_after(config, steps):
    """How far so many steps of Adam move the last block's output, its scores and the logits, in the mean.

    Of the scores, what moves alike in all sequences: what is left of their random start shrinks with wider heads.
    """
    torch.manual_seed(0)
    model = NextToken(Decoder(config))
    optimiser = groups_of(model, AdamW(lr=RATE, weight_decay=0.0))
    before = coordinates(model.decoder)
    for step in range(steps):
        optimiser.zero_grad()
        model(drawn(step)).backward()
        optimiser.step()
    after = coordinates(model.decoder)
    return {name: (after[name] - before[name]).abs().mean().item() for name in SIZES}


@torch.no_grad()
def coordinates(decoder):
    seen = {}
    attention = decoder.blocks[-1].attention

    def watched(q, k, *rest):
        seen["scores"] = (q @ k.mT / q.shape[-1] ** 0.5).mean(dim=0)
        return type(attention).attend(attention, q, k, *rest)

    attention.attend = watched
    made = decoder(drawn(1000), layers=True)
    del attention.attend
    return {**seen, "hidden": made.layers[-1], "logits": decoder.logits(made.hidden)}


def growth(mup, steps=STEPS, **changes):
    """By which power of the width each size grows."""
    found = [sizes_after(config_of(width, mup=mup, **changes), steps) for width in WIDTHS]
    logs = torch.tensor([math.log(width) for width in WIDTHS])
    logs -= logs.mean()
    return {
        name: ((logs @ torch.tensor([sizes[name] for sizes in found]).log()) / logs.square().sum()).item()
        for name in SIZES
    }


@pytest.mark.parametrize("block", ["llama", "gpt2"])
def test_sizes_do_not_grow_with_the_width(block):
    positions = "rotary" if block == "llama" else "sincos"
    found = growth(True, block=block, positions=positions)
    assert all(abs(power) < 0.25 for power in found.values()), found


def test_the_standard_parametrisation_fails_the_same_check():
    found = growth(False)
    assert found["hidden"] > 1 and found["scores"] > 1


def test_the_check_sees_each_of_the_rules(monkeypatch):
    whole = growth(True, FEW)
    assert growth(True, FEW, base_head_dim=None)["scores"] > whole["scores"] + 0.25
    with monkeypatch.context() as without:
        without.setattr(Decoder, "logits", lambda self, hidden: hidden @ self.output_weight.mT)
        assert growth(True, FEW)["logits"] > whole["logits"] + 0.4
    monkeypatch.setattr(Decoder, "rate_of", lambda self, name: 1.0)
    assert growth(True, FEW)["hidden"] > whole["hidden"] + 0.4


def test_initial_weights():
    torch.manual_seed(0)
    decoder = Decoder(config_of(256)).requires_grad_(False)
    assert decoder.embed.weight.std() == pytest.approx(1, rel=0.05)
    block = decoder.blocks[0]
    assert block.attention.qkv.weight.std() == pytest.approx(256**-0.5, rel=0.05)
    assert block.mlp.gate_and_value.weight.std() == pytest.approx(256**-0.5, rel=0.05)
    assert block.mlp.out.weight.std() == pytest.approx(1024**-0.5 / 2, rel=0.05)  # of 2 x 2 layers
    assert not decoder.output_weight.any()


def test_rates_follow_the_width_and_their_product_with_the_decay_does_not():
    model = NextToken(Decoder(config_of(128)))
    optimiser = groups_of(model, AdamW(lr=0.5, weight_decay=0.1))
    set_rates([optimiser], AdamW(lr=0.5, weight_decay=0.1, schedule=Constant()), 0, 1)
    found = {
        name: (group["lr"], group["weight_decay"])
        for group in optimiser.param_groups
        for name in group["param_names"]
    }
    assert found["decoder.blocks.1.mlp.out.weight"] == (0.125, pytest.approx(0.4))
    assert found["decoder.blocks.1.norm1.weight"] == (0.5, 0)
    assert found["decoder.embed.weight"] == found["decoder.head.weight"] == (0.5, 0.1)


def test_at_the_base_width_only_initial_weights_differ():
    config = config_of(WIDTHS[0])
    ours, plain = Decoder(config), Decoder(dataclasses.replace(config, base_width=None, base_head_dim=None))
    torch.nn.init.normal_(ours.output_weight)
    plain.load_state_dict(ours.state_dict())
    ids = torch.randint(VOCAB, (2, 9))
    assert torch.equal(ours.logits(ours(ids).hidden), plain.logits(plain(ids).hidden))
    assert {ours.rate_of(name) for name, _ in ours.named_parameters()} == {1.0}


def test_toto_hands_the_rates_on():
    run = systems.find("pretraining.toto")
    objective = dataclasses.replace(run.objective, tied=False, base_width=16).build()
    rates = {objective.rate_of(name) for name, _ in objective.named_parameters() if ".blocks." in name}
    assert rates == {0.25, 1.0}  # matrices, norms
    assert objective.rate_of("encoder.decoder.embed.weight") == 1


@pytest.mark.parametrize("optim", [SGD(), Muon()])
def test_other_optimisers_than_adamw_are_refused(optim):
    model = NextToken(Decoder(config_of(64)))
    with pytest.raises(UserError, match="those of AdamW"):
        groups_of(model, optim)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"tied": True}, "output layer of its own"),
        ({"base_width": None}, "give base_width"),
    ],
)
def test_what_mup_cannot_be_is_refused(changes, said):
    with pytest.raises(UserError, match=said):
        Decoder(config_of(64, **changes))


def test_mamba_is_refused():
    run = systems.find("pretraining.toto")
    with pytest.raises(UserError, match="not for mamba"):
        dataclasses.replace(run.objective, network="mamba", tied=False, base_width=16).build()
