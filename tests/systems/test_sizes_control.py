"""World models and policies have the papers' sizes: millions of parameters."""

import pytest
import torch
from sizes import unnamed

from filmstrip import systems

# Millions of parameters of encoder and predictor, counted over the published networks; the paper says 1B and 300M.
WORLD_MODELS = {"control.vjepa_ac:giant_droid": (1012.17, 305.213824)}
# Millions of parameters of a policy's encoder, as its paper says, and of MVP's head, by hand.
HEAD = (768 + 1) * 128 + (7 + 1) * 128 + (256 + 1) * 256 + (256 + 1) * 128 + (128 + 1) * 64 + (64 + 1) * 7
POLICIES = {
    "control.behaviour_cloning:toto_base_franka": (119.56, HEAD / 1e6),
    "control.behaviour_cloning:mvp_base_franka": (85.8, HEAD / 1e6),
}


@pytest.mark.parametrize("address", WORLD_MODELS)
def test_world_models(address):
    with torch.device("meta"):
        objective = systems.find(address).objective.build()
    counts = [sum(p.numel() for p in part.parameters()) / 1e6 for part in (objective.encoder, objective.predictor)]
    assert counts == [pytest.approx(count, rel=1e-4) for count in WORLD_MODELS[address]]


@pytest.mark.parametrize("address", POLICIES)
def test_policies(address):
    with torch.device("meta"):
        policy = systems.find(address).objective.build()
    encoder = getattr(policy.encoder.encoder, "decoder", policy.encoder.encoder)  # without a tokenizer
    counts = [sum(p.numel() for p in part.parameters()) / 1e6 for part in (encoder, policy.head)]
    assert counts == [pytest.approx(count, rel=0.01) for count in POLICIES[address]]


def test_every_preset_is_named():
    assert not unnamed("control", WORLD_MODELS, POLICIES)
