"""World models and policies have the papers' sizes: millions of parameters."""

from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from sizes import unnamed

from filmstrip import systems
from filmstrip.train.lengths import Steps

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


# Millions of parameters of DreamerV3's sizes S and XL, as its paper says, of what is trained for the reward alone, in
# the environments of those presets.
DREAMERS = {
    "control.dreamer:dmc": (18, {"action_dim": 6}),
    "control.dreamer:atari_100k": (18, {"num_actions": 18}),
    "control.dreamer:atari": (200, {"num_actions": 18}),
}
VIPER_DREAMERS = {"control.dreamer:viper_dmc", "control.dreamer:viper_atari", "control.dreamer:viper_rlbench"}


@pytest.mark.parametrize("address", DREAMERS)
def test_dreamers(address):
    run, (size, actions) = systems.find(address), DREAMERS[address]
    with torch.device("meta"):
        agent = replace(run.objective, **actions).build()
    trained = sum(p.numel() for p in agent.parameters() if p.requires_grad)
    assert trained / 1e6 == pytest.approx(size, rel=0.01)
    config, optim = run.objective, run.optim
    assert (config.horizon, config.return_lambda, config.entropy, config.slow_share) == (15, 0.95, 3e-4, 0.02)
    assert 1 / (1 - config.discount) == pytest.approx(333)
    for phase, rate, eps in (("model", 1e-4, 1e-8), ("actor", 3e-5, 1e-5), ("critic", 3e-5, 1e-5)):
        (found,) = (each for each in agent.phases() if each.name == phase)
        (group,) = {(g["lr"], g["eps"]) for g in optim.build(agent, found).param_groups}
        assert group == (pytest.approx(rate), eps)


@pytest.mark.parametrize("address", sorted(VIPER_DREAMERS))
def test_vipers_dreamers(address):
    """Table E.3."""
    run = systems.find(address)
    config, reads = run.objective, run.data.reads
    small = address.endswith("dmc")
    assert (config.width, config.depth) == ((512, 2) if small else (1024, 4))
    assert config.memory_dim == (512 if small else 4096)
    assert (config.num_latents, config.latent_classes, config.ensemble_size) == (32, 32, 10)
    assert config.dynamics_weight / (config.dynamics_weight + config.representation_weight) == pytest.approx(
        0.667, abs=1e-3
    )
    assert (config.horizon, config.discount, config.return_lambda) == (15, 0.995, 0.95)
    assert (config.slow_every, config.beta, config.ends) == (50, 1.0, False)
    assert (run.data.batch_size, reads.length, reads.prefill, reads.capacity) == (16, 64, 0, 1_000_000)
    assert (run.optim.lr, run.optim.eps, run.train.clip_grad) == (1e-4, 1e-6, 100)


# Channels of the discriminator's first convolution, as in the public code; and its inputs, by hand: convolutions of
# 4 x 4 on five frames, with a norm's weight and bias, until 4 x 4 places of eight times the channels are left, and
# five layers of 1024 without biases, with norms.
DISCRIMINATORS = {"control.amp:dmc": 32, "control.amp:atari": 96, "control.amp:rlbench": 96}


@pytest.mark.parametrize("address", DISCRIMINATORS)
def test_discriminators(address):
    run, channels = systems.find(address), DISCRIMINATORS[address]
    with torch.device("meta"):
        amp = replace(run.objective, agent=replace(run.objective.agent, action_dim=6)).build()
    widths = [15, *(channels * 2**i for i in range(4))]
    convs = sum(16 * before * after + 2 * after for before, after in pairwise(widths))
    layers = sum(before * 1024 + 2 * 1024 for before in (16 * widths[-1], *[1024] * 4)) + 1024 + 1
    assert sum(p.numel() for p in amp.discriminator.parameters()) == convs + layers
    viper = systems.find(f"control.dreamer:viper_{address.partition(':')[2]}")
    assert run.objective.agent == replace(viper.objective, beta=0.0, ends=True)
    assert (run.optim, run.train) == (viper.optim, viper.train)
    config = run.objective
    assert (config.window, config.penalty * config.window, config.reward_range) == (5, 2.5, (-2.0, 2.0))


def test_the_policy_that_is_shown_its_task():
    """Table IV: a base transformer, layers of 768 channels (attention to a context, of four projections, and a
    feed-forward network of four times the channels), tokens of 64 x 768, and 256 bins; four times eleven queries."""
    run = systems.find("control.vid2robot:robot")
    with torch.device("meta"):
        policy = replace(run.objective, action_dim=11).build()
    count = {name: sum(p.numel() for p in part.parameters()) / 1e6 for name, part in policy.named_children()}
    assert count["encoder"] == pytest.approx(85.8, rel=0.01)
    layer = 12 * 768**2 / 1e6
    for name, depth in (("state_prompt", 4), ("decoder", 4)):
        assert count[name] == pytest.approx(depth * layer, rel=0.01)
    for name, frames in (("prompt_tokens", 16), ("state_tokens", 8)):
        own = (768**2 + (64 + frames) * 768) / 1e6  # of what comes in, of queries and of times
        assert count[name] == pytest.approx(2 * layer + own, rel=0.01)
    assert policy.action_queries.shape == (4 * 11, 768) and policy.to_bins.weight.shape == (256, 768)
    heads = {name: module.num_heads for name, module in policy.named_modules() if name.endswith("blocks.0.attention")}
    assert {heads[f"{name}.layers.blocks.0.attention"] for name in ("prompt_tokens", "state_tokens")} == {12}
    assert {heads[f"{name}.blocks.0.attention"] for name in ("state_prompt", "decoder")} == {8}
    # Table V.
    assert (run.data.batch_size, run.optim.lr, run.train.length) == (2_048, 8e-5, Steps(200_000))
    assert (run.data.reads.prompt_frames, run.objective.seen_frames, run.objective.horizon) == (16, 8, 4)


def test_every_preset_is_named():
    own = {f"control.{agent}:{name}" for agent in ("drq", "dreamer") for name in ("point", "viper_point")}
    own |= {f"control.amp:{name}" for name in ("point", "reach", "reach_multi")} | {"control.vid2robot:pick"}
    own |= {"control.vid2robot:robot"}
    assert not unnamed("control", WORLD_MODELS, POLICIES, AGENTS, DREAMERS, VIPER_DREAMERS, DISCRIMINATORS, own)
