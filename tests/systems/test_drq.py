"""DrQ: its target against numpy, its entropy, whose gradient goes where, what it sees, and its bonus."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from filmstrip.data.kinds.clips import ClipInfo
from filmstrip.errors import UserError
from filmstrip.rl.experience import Experience, ExperienceInfo
from filmstrip.systems import find
from filmstrip.systems.control.drq import Actor, RunningScale


@pytest.fixture
def agent():
    torch.manual_seed(0)
    return find("control.drq:tiny_bonus").objective.build()


@pytest.fixture
def batch():
    sizes = {"B": 6, "T": 4, "C": 3, "H": 32, "W": 32, "A": 2}
    found = Experience.example(sizes, torch.Generator().manual_seed(0))
    found["terminal"][2, -1] = True
    return found


def gradients(module):
    return [p.grad for p in module.parameters() if p.grad is not None]


def test_the_target_is_that_of_soft_actor_critic(agent, batch):
    agent.eval()  # no shifts
    agent.distillation = None
    from filmstrip.randomness import normal

    _, after = agent.seen(batch)
    with torch.no_grad():
        drawn = agent.actor(agent.critics.encoder(after / 255), normal(batch["seed"], 2, "drq.next"))
        q = agent.target(agent.target.encoder(after / 255), drawn.action).numpy()
        before, _ = agent.seen(batch)
        values = agent.critics(agent.critics.encoder(before / 255), batch["action"][:, -1]).numpy()
    wanted = batch["reward"][:, -1].numpy() + 0.99 * (1 - batch["terminal"][:, -1].numpy()) * (
        np.minimum(q[0], q[1]) - 0.1 * drawn.log_prob.numpy()
    )
    expected = ((values - wanted) ** 2).sum(axis=0).mean()
    assert agent(batch, "critic").total.item() == pytest.approx(expected, rel=1e-5)


def test_log_densities_are_those_of_a_squashed_gaussian(agent):
    """By integration over actions: the density of tanh of a normal number adds up to one."""
    config = replace(agent.config, action_dim=1)
    actor = Actor(config, 8).eval()
    features = torch.randn(1, 8)
    noise = torch.linspace(-6, 6, 20001)[:, None]
    with torch.no_grad():
        drawn = actor(features.expand(len(noise), -1), noise)
    total = torch.trapezoid(drawn.log_prob.exp(), drawn.action[:, 0])
    assert total.item() == pytest.approx(1, abs=1e-3)


def test_the_temperature_moves_towards_the_entropy_that_is_wanted(agent, batch):
    assert agent.target_entropy == -1 and agent.temperature.item() == pytest.approx(0.1)
    entropy = agent(batch, "actor").metrics["entropy"].item()
    for target, sign in ((entropy + 1, -1), (entropy - 1, 1)):
        agent.target_entropy = target
        agent.zero_grad()
        agent(batch, "temperature").total.backward()
        (gradient,) = gradients(agent.log_temperature)
        assert np.sign(gradient.item()) == sign  # too little entropy: the temperature rises
        assert not gradients(agent.actor) and not gradients(agent.critics)


def test_the_actor_does_not_change_the_encoder(agent, batch):
    agent(batch, "actor").total.backward()
    assert gradients(agent.actor) and not gradients(agent.critics.encoder)
    agent.zero_grad()
    agent(batch, "critic").total.backward()
    assert gradients(agent.critics.encoder) and not gradients(agent.actor) and not gradients(agent.target)
    assert not gradients(agent.distillation)


def test_every_parameter_is_in_one_phase_and_what_is_frozen_in_none(agent):
    names = [name for phase in agent.phases() for group in agent.param_groups(phase) for name in group.names]
    assert len(names) == len(set(names))
    assert set(names) == {name for name, p in agent.named_parameters() if p.requires_grad}
    assert not any(name.startswith(("target", "distillation.target")) for name in names)


def test_frames_of_an_earlier_episode_are_not_seen(agent, batch):
    batch["first"][:] = False
    batch["first"][1, 2] = True
    batch["first"][2, 1] = True
    before, after = (x.unflatten(1, (3, 3)) for x in agent.seen(batch))
    video = batch["video"]
    assert torch.equal(before[0], video[0, :3]) and torch.equal(after[0], video[0, 1:])
    assert torch.equal(before[1], video[1, [2, 2, 2]]) and torch.equal(after[1], video[1, [2, 2, 3]])
    assert torch.equal(before[2], video[2, [1, 1, 2]]) and torch.equal(after[2], video[2, [1, 2, 3]])
    with pytest.raises(UserError, match=r"data.reads.length to 4"):
        agent.seen({**batch, "video": video[:, :3], "first": batch["first"][:, :3]})


def test_it_remembers_the_frames_that_it_learns_from(agent, batch):
    """What it sees while acting is what it sees of the same steps in training."""
    agent.eval()
    batch["first"][:] = False
    batch["first"][:, 0] = True
    memory = None
    for t in range(4):
        first = batch["first"][:, t]
        action, memory = agent.decide(batch["video"][:, t], memory, first, seed=None)
        if t == 2:
            assert torch.equal(memory["frames"].flatten(1, 2), agent.seen(batch)[0])
    assert torch.equal(memory["frames"].flatten(1, 2), agent.seen(batch)[1])
    assert action.shape == (6, 2) and action.abs().max() <= 1
    one, _ = agent.decide(batch["video"][:, 3], None, first, seed=torch.arange(6))
    two, _ = agent.decide(batch["video"][2:3, 3], None, first[:1], seed=torch.tensor([2]))
    torch.testing.assert_close(one[2:3], two)
    assert not torch.allclose(one[0], agent.decide(batch["video"][:, 3], None, first, seed=None)[0][0])


def test_shifts_are_of_up_to_four_pixels_with_edges_repeated(agent):
    frames = torch.arange(32.0).view(1, 1, 1, 32).expand(64, 9, 32, 32) / 64
    seeds = torch.arange(64)
    shifted = agent._shifted(frames, seeds, "now")
    moves = (shifted[:, 0, 0, 16] - frames[:, 0, 0, 16]) * 64
    assert set(moves.round().int().tolist()) == set(range(-4, 5))
    assert shifted.min() >= 0 and shifted.max() <= 31 / 64
    assert not torch.equal(shifted, agent._shifted(frames, seeds, "next"))
    assert torch.equal(agent.eval()._shifted(frames, seeds, "now"), frames)


def test_the_bonus_falls_where_frames_were_seen(agent):
    generator = torch.Generator().manual_seed(3)
    seen, unseen = (torch.rand(8, 3, 32, 32, generator=generator) for _ in range(2))
    agent.distillation.pixels.add(torch.cat([seen, unseen]))
    optim = torch.optim.Adam(agent.distillation.predictor.parameters(), 3e-3)
    start = [agent.distillation(x).mean().item() for x in (seen, unseen)]
    for _ in range(60):
        optim.zero_grad()
        agent.distillation(seen).mean().backward()
        optim.step()
    end = [agent.distillation(x).mean().item() for x in (seen, unseen)]
    assert end[0] < 0.3 * start[0] and end[1] > 2 * end[0]


def test_scales_are_those_of_all_values():
    values = torch.randn(50, generator=torch.Generator().manual_seed(0)) * 3 + 7
    scale = RunningScale()
    assert scale.std == 1
    for part in values.split(7):
        scale.add(part)
    assert scale.std.item() == pytest.approx(values.std(correction=0).item(), rel=1e-6)
    assert scale.mean.item() == pytest.approx(values.mean().item(), rel=1e-6)


def test_rewards_and_bonus_are_each_divided_by_their_deviation(agent, batch):
    agent.rewards(batch)
    agent.eval()
    bonus = agent.distillation(batch["video"][:, -1] / 255)
    expected = batch["reward"][:, -1] / agent.reward_scale.std + bonus / agent.bonus_scale.std
    torch.testing.assert_close(agent.rewards(batch), expected)


def test_what_it_cannot_act_in_is_refused():
    config = replace(find("control.drq:dmc").objective, action_dim=0)
    told = {"classes": (), "num_train": 1, "directional": True}
    with pytest.raises(UserError, match="18 discrete ones"):
        config.bind(ExperienceInfo(**told, num_actions=18, size=64))
    assert config.bind(ClipInfo(**told)) == config
    bound = config.bind(ExperienceInfo(**told, action_dim=6, size=48))
    assert (bound.action_dim, bound.size) == (6, 48)
    with pytest.raises(UserError, match="action_dim is not set"):
        config.build()
    with pytest.raises(UserError, match="too small"):
        replace(config, action_dim=2, size=16).build()
