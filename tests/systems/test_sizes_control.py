"""World models and policies have the papers' sizes: millions of parameters."""

from dataclasses import replace

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


# VIPER's table E.4 for DrQ, by hand: four convolutions of 3 x 3 on three frames, which leave 3 x 3 of 64 x 64 pixels;
# projections to 50 numbers with a normalisation; layers of 256 for six values of an action.
CONVS = sum(9 * before * after + after for before, after in ((9, 32), (32, 64), (64, 128), (128, 256)))
PROJECTION = (256 * 3 * 3 + 1) * 50 + 2 * 50
CRITIC = (50 + 6 + 1) * 256 + (256 + 1) * 256 + (256 + 1)
ACTOR = PROJECTION + (50 + 1) * 256 + (256 + 1) * 256 + (256 + 1) * 12
AGENTS = {"control.drq:dmc": 0.0, "control.drq:viper_dmc": 1.0}


@pytest.mark.parametrize("address", AGENTS)
def test_agents(address):
    run = systems.find(address)
    with torch.device("meta"):
        agent = replace(run.objective, action_dim=6).build()
    count = {name: sum(p.numel() for p in part.parameters()) for name, part in agent.named_children()}
    assert count["critics"] == count["target"] == CONVS + PROJECTION + 2 * CRITIC
    assert count["actor"] == ACTOR and agent.target_entropy == -3
    config, reads = run.objective, run.data.reads
    assert (config.discount, config.tau, config.temperature, config.pad, config.stack) == (0.99, 0.005, 0.1, 4, 3)
    assert (run.optim.lr, run.data.batch_size, config.beta) == (3e-4, 256, AGENTS[address])
    assert (reads.env.action_repeat, reads.prefill, reads.updates_per_step) == (2, 1000, 1)


def test_every_preset_is_named():
    own = {"control.drq:point", "control.drq:viper_point"}
    assert not unnamed("control", WORLD_MODELS, POLICIES, AGENTS, own)
