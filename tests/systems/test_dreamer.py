"""DreamerV3: numbers as classes, states of sequences, returns, whose gradient goes where, and acting."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from filmstrip.data.kinds.clips import ClipInfo
from filmstrip.errors import UserError
from filmstrip.rl.experience import Experience, ExperienceInfo
from filmstrip.systems import find
from filmstrip.systems.control.dreamer.behaviour import Ensemble, ReturnScale, lambda_returns
from filmstrip.systems.control.dreamer.layers import BINS, expected, symexp, symlog, two_hot_loss
from filmstrip.systems.control.dreamer.rssm import RSSM, Observed, State, divergences

SIZES = {"B": 3, "T": 6, "C": 3, "H": 32, "W": 32, "A": 2}


@pytest.fixture
def config():
    return find("control.dreamer:tiny_bonus").objective


@pytest.fixture
def agent(config):
    torch.manual_seed(0)
    return config.build()


@pytest.fixture
def batch():
    found = Experience.example(SIZES, torch.Generator().manual_seed(0))
    found["terminal"][1, 3] = found["first"][1, 4] = True
    return found


def with_gradients(module):
    return {name.split(".")[0] for name, p in module.named_parameters() if p.grad is not None and p.grad.any()}


def alone(agent, name):
    """Only what a phase trains requires a gradient, as in the loop."""
    (phase,) = (each for each in agent.phases() if each.name == name)
    own = {id(p) for module in phase.modules for p in module.parameters()}
    for param in agent.parameters():
        param.requires_grad_(id(param) in own)


def test_numbers_come_back_from_their_classes():
    numbers = torch.tensor([-1e6, -3.7, -0.01, 0.0, 0.5, 12.0, 4e8])
    torch.testing.assert_close(symexp(symlog(numbers)), numbers)
    logits = torch.zeros(len(numbers), BINS, requires_grad=True)
    optim = torch.optim.Adam([logits], 0.3)
    for _ in range(400):
        optim.zero_grad()
        two_hot_loss(logits, numbers).sum().backward()
        optim.step()
    torch.testing.assert_close(expected(logits.detach()), numbers, rtol=0.02, atol=0.01)
    share = logits.detach().softmax(dim=-1)
    assert (share > 0.01).sum(dim=1).max() <= 2 and share.sum(dim=1).allclose(torch.ones(1))


def test_a_sequence_is_forgotten_where_an_episode_begins(agent, batch):
    whole = agent.model.observe(batch, None)
    late = {key: value[1:2, 4:] for key, value in batch.items() if key in ("video", "action", "first")}
    apart = agent.model.observe(late, None)
    torch.testing.assert_close(whole.state.memory[1:2, 4:], apart.state.memory)
    torch.testing.assert_close(whole.posterior[1:2, 4:], apart.posterior)
    changed = {**batch, "action": batch["action"].clone()}
    changed["action"][:, 0] = changed["action"][1, 4] = 0.7  # which led to the start of an episode
    assert torch.equal(agent.model.observe(changed, None).posterior, whole.posterior)
    changed["action"][0, 2] = 0.7
    assert not torch.equal(agent.model.observe(changed, None).posterior[0, 3], whole.posterior[0, 3])


def test_it_acts_by_the_states_that_it_learns_from(agent, batch):
    states, memory = agent.model.observe(batch, None).state, None
    for t in range(SIZES["T"]):
        _, memory = agent.decide(batch["video"][:, t], memory, batch["first"][:, t], seed=None)
        torch.testing.assert_close(memory["memory"], states.memory[:, t])
        torch.testing.assert_close(memory["latent"], states.latent[:, t])
        memory["action"] = batch["action"][:, t + 1] if t < 5 else memory["action"]
    one, _ = agent.decide(batch["video"][:, 3], memory, batch["first"][:, 3], seed=torch.arange(3))
    part = {key: value[2:] for key, value in memory.items()}
    two, _ = agent.decide(batch["video"][2:, 3], part, batch["first"][2:, 3], seed=torch.tensor([2]))
    torch.testing.assert_close(one[2:], two)
    middle, _ = agent.decide(batch["video"][:, 3], memory, batch["first"][:, 3], seed=None)
    assert one.shape == (3, 2) and one.abs().max() <= 1 and not torch.allclose(one, middle)


def test_latents_are_drawn_as_often_as_their_probabilities_say_and_pass_gradients(agent):
    dynamics: RSSM = agent.model.dynamics
    log_p = torch.randn(8, 8).log_softmax(dim=-1).requires_grad_()
    numbers = torch.linspace(0, 1, 10001)[:-1, None].expand(-1, 8)
    drawn = dynamics.drawn(log_p.expand(10000, -1, -1), numbers)
    torch.testing.assert_close(drawn.detach().mean(dim=0), log_p.detach().exp(), atol=2e-3, rtol=0)
    drawn[0, 0, 3].backward()
    torch.testing.assert_close(log_p.grad[0, 3], log_p.detach().exp()[0, 3])
    mixed = dynamics.foreseen(torch.randn(1, agent.config.memory_dim) * 1e3).exp()
    assert mixed.min() >= 0.01 / 8 - 1e-6 and mixed.sum(dim=-1).allclose(torch.ones(()))


def test_the_divergence_is_learnt_by_each_side_apart_above_the_free_nats():
    posterior, prior = (torch.randn(2, 3, 4, 5, requires_grad=True) for _ in range(2))
    state = State(torch.zeros(2, 3, 1), torch.zeros(2, 3, 4, 5))
    observed = Observed(state, posterior.log_softmax(dim=-1), prior.log_softmax(dim=-1))
    dynamics, representation = divergences(observed, 0.0)
    distributions = (torch.distributions.Categorical(logits=x) for x in (posterior, prior))
    torch.testing.assert_close(dynamics, torch.distributions.kl_divergence(*distributions).sum(dim=-1))
    dynamics.sum().backward(retain_graph=True)
    assert posterior.grad is None and prior.grad.any()
    prior.grad = None
    representation.sum().backward()
    assert posterior.grad.any() and prior.grad is None
    free, _ = divergences(observed, 100.0)
    assert (free == 100).all()
    free.sum().backward()
    assert not prior.grad.any()


def test_returns_are_those_of_a_plain_loop():
    rng = np.random.default_rng(0)
    reward, discount, value = rng.normal(size=(4, 7)), rng.uniform(0.8, 1, (4, 7)), rng.normal(size=(4, 8))
    discount[1, 2] = discount[3, 0] = 0  # an episode ends
    wanted = np.zeros((4, 7))
    for row in range(4):
        for t in range(7):  # the sum of all n-step returns, each with its weight
            total, scale, weight = 0.0, 1.0, 1.0
            for n in range(t, 7):
                total += scale * reward[row, n]
                scale *= discount[row, n]
                share = weight * (1 - 0.9) if n < 6 else weight
                wanted[row, t] += share * (total + scale * value[row, n + 1])
                weight *= 0.9
    found = lambda_returns(*(torch.from_numpy(x) for x in (reward, discount, value)), 0.9)
    np.testing.assert_allclose(found.numpy(), wanted, rtol=1e-10)
    assert found[1, 2] == reward[1, 2] and found[3, 0] == reward[3, 0]


def test_the_scale_is_the_moving_range_of_returns():
    scale, low, high = ReturnScale(0.9), 0.0, 0.0
    returns = np.random.default_rng(1).normal(3, 5, (6, 40)).astype(np.float32)
    for part in returns:
        scale.add(torch.from_numpy(part))
        low, high = 0.9 * low + 0.1 * np.percentile(part, 5), 0.9 * high + 0.1 * np.percentile(part, 95)
    assert scale.scale.item() == pytest.approx(high - low, rel=1e-5) and high - low > 1
    assert ReturnScale(0.9).scale == 1


def test_each_phase_trains_its_own_part_and_sees_the_batch_once(agent, batch, monkeypatch):
    calls = []
    observe = agent.model.observe
    monkeypatch.setattr(agent.model, "observe", lambda *given: calls.append(1) or observe(*given))
    for name, parts in (("model", "model"), ("ensemble", "ensemble"), ("actor", "actor"), ("critic", "critics")):
        alone(agent, name)
        agent.zero_grad()
        agent(batch, name).total.backward()
        assert with_gradients(agent) == {parts}
    assert len(calls) == 1
    agent.after_step(1)
    agent(batch, "critic")
    assert len(calls) == 2  # nothing of an earlier step is used
    names = [name for phase in agent.phases() for group in agent.param_groups(phase) for name in group.names]
    for param in agent.parameters():
        param.requires_grad_(True)
    agent.slow_critics.requires_grad_(False)
    assert not any(name.startswith("slow") for name in names)


def test_the_actor_climbs_the_reward_of_its_world(agent, batch):
    """A world whose reward is the first value of the action, by hand: the policy learns to raise it."""
    agent.scales.eval()
    agent._rewards = lambda name, features, actions: actions[..., 0] * (name == "reward")
    agent.critics.requires_grad_(False)
    alone(agent, "actor")
    optim = torch.optim.Adam(agent.actor.parameters(), 3e-3)
    before = agent.imagine(batch, draws=False).actions[..., 0].mean()
    for step in range(40):
        optim.zero_grad()
        batch["seed"] = torch.arange(3) + 10 * step
        agent(batch, "actor").total.backward()
        optim.step()
    assert before.abs() < 0.5 < agent.imagine(batch, draws=False).actions[..., 0].mean()


def test_discrete_actions_are_learnt_by_their_advantage(config, batch):
    config = config.bind(ExperienceInfo(classes=(), num_train=1, directional=True, num_actions=3, size=32))
    assert (config.action_dim, config.num_actions) == (0, 3)
    agent = config.build()
    batch["action"] = torch.arange(18).view(3, 6) % 3
    losses = {phase.name: agent(batch, phase.name).total for phase in agent.phases()}
    assert all(loss.isfinite() for loss in losses.values())
    agent._rewards = lambda name, features, actions: actions[..., 2] * (name == "reward")
    alone(agent, "actor")
    optim = torch.optim.Adam(agent.actor.parameters(), 3e-3)
    for step in range(60):
        optim.zero_grad()
        batch["seed"] = torch.arange(3) + 10 * step
        agent(batch, "actor").total.backward()
        optim.step()
    chosen, memory = agent.decide(batch["video"][:, 0], None, batch["first"][:, 0], seed=None)
    assert chosen.tolist() == [2, 2, 2] and memory["action"].tolist() == [[0, 0, 1]] * 3


def test_where_nothing_ends_all_states_count(agent, batch, config):
    batch["seed"] = torch.arange(3)
    assert not agent.imagine(batch).weight.view(3, 6, -1)[1, 3].any()
    endless = replace(config, ends=False).build()
    weight = endless.imagine(batch).weight
    torch.testing.assert_close(weight, config.discount ** torch.arange(5.0).expand(18, -1))


def test_reward_and_bonus_are_each_in_their_scale(agent, batch):
    agent.eval()
    imagined = agent.imagine(batch)
    agent.scales["reward"].high.fill_(4.0)
    agent.scales["bonus"].high.fill_(3.0)
    own = {name: imagined.returns[name] - imagined.values[name] for name in ("reward", "bonus")}
    torch.testing.assert_close(agent.advantage(imagined), own["reward"] / 4 / 2 + own["bonus"] / 3 / 2)
    agent.config = replace(agent.config, beta=3.0)
    torch.testing.assert_close(agent.advantage(imagined), own["reward"] / 4 / 4 + own["bonus"] / 3 * 3 / 4)


def test_networks_disagree_where_nothing_was_seen():
    torch.manual_seed(0)
    ensemble = Ensemble(5, 6, 32, 2, 4)
    seen, unseen = torch.randn(64, 4), torch.randn(64, 4) + 4
    action, after = torch.randn(64, 2), torch.randn(64, 4)
    optim = torch.optim.Adam(ensemble.parameters(), 3e-3)
    for _ in range(200):
        optim.zero_grad()
        (ensemble(seen, action) - after).square().sum(dim=-1).mean().backward()
        optim.step()
    known, strange = (ensemble.disagreement(x, action).mean() for x in (seen, unseen))
    assert strange > 3 * known


def test_slow_critics_follow_or_are_copied(agent):
    with torch.no_grad():
        for param in agent.critics.parameters():
            param.add_(1.0)
    start = {name: p.clone() for name, p in agent.slow_critics.named_parameters()}
    agent.after_step(2)
    for name, param in agent.slow_critics.named_parameters():
        torch.testing.assert_close(param, start[name] + 0.02)
    agent.config = replace(agent.config, slow_every=50, slow_share=1.0)
    agent.after_step(99)
    assert not torch.equal(next(agent.slow_critics.parameters()), next(agent.critics.parameters()))
    agent.after_step(100)
    for one, other in zip(agent.slow_critics.parameters(), agent.critics.parameters()):
        assert torch.equal(one, other)


def test_what_it_cannot_act_in_is_refused(config):
    told = {"classes": (), "num_train": 1, "directional": True}
    assert config.bind(ClipInfo(**told)) == config
    bound = config.bind(ExperienceInfo(**told, action_dim=6, size=64))
    assert (bound.action_dim, bound.num_actions, bound.size) == (6, 0, 64)
    with pytest.raises(UserError, match="one of them is above zero"):
        replace(config, action_dim=0).build()
    with pytest.raises(UserError, match="frames of 48 x 48"):
        replace(config, size=48).build()
