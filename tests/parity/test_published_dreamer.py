"""DreamerV3 (``control.dreamer``) and the PyTorch code of NM512, by stored outputs, on the same weights.

Latents and actions are the most probable ones, which needs no random numbers; gradients are those of the loss.
"""

import re

import pytest
import torch
import torch.nn.functional as F
from published import TOLERANCE, recipe_input, recipe_video, stored

from filmstrip.systems.control.dreamer.behaviour import Actor
from filmstrip.systems.control.dreamer.layers import expected, two_hot_loss
from filmstrip.systems.control.dreamer.model import DreamerConfig
from filmstrip.systems.control.dreamer.rssm import divergences

CONFIG = DreamerConfig(
    size=32,
    action_dim=3,
    channels=4,
    memory_dim=24,
    num_latents=6,
    latent_classes=5,
    width=20,
    depth=2,
    horizon=5,
    discount=0.997,
)
B, T = 3, 5
RULES = (
    (r"^model\.encoder\._cnn\.", "model.encoder."),
    (r"^model\.heads\.decoder\._cnn\._linear_layer", "model.decoder.first"),
    (r"^model\.heads\.decoder\._cnn\.", "model.decoder."),
    (r"^model\.heads\.reward\.", "model.reward."),
    (r"^model\.heads\.cont\.", "model.goes_on."),
    (r"^behavior\.value\.", "critics.reward."),
    (r"^behavior\._slow_value\.", "slow_critics.reward."),
    (r"^behavior\.actor\.", "actor.network."),
    (r"^discrete\.", "network."),
    (r"layers\.(\d)\.norm\.", r"layers.\1."),
    (r"layers\.[A-Z][a-z]+_linear(\d)", r"hidden.\1.linear"),
    (r"layers\.[A-Z][a-z]+_norm(\d)", r"hidden.\1.norm"),
    (r"_img_in_layers", "enter"),
    (r"_img_out_layers", "foresee"),
    (r"_obs_out_layers", "look"),
    (r"(enter|foresee|look)\.0", r"\1.linear"),
    (r"(enter|foresee|look)\.1", r"\1.norm"),
    (r"_cell\.layers\.GRU_linear", "cell"),
    (r"_cell\.layers\.GRU_norm", "cell_norm"),
    (r"_imgs_stat_layer", "prior"),
    (r"_obs_stat_layer", "posterior"),
    (r"dynamics\.W$", "dynamics.start"),
    (r"mean_layer", "out"),
)


def ours(name):
    for pattern, replacement in RULES:
        name = re.sub(pattern, replacement, name)
    return name


def with_deviations(weights, prefix):
    """A Gaussian's means and deviations are two layers there, and one here."""
    for part in ("weight", "bias"):
        std = weights.pop(f"{prefix}std_layer.{part}")
        weights[f"{prefix}out.{part}"] = torch.cat([weights[f"{prefix}out.{part}"], std])
    return weights


@pytest.fixture
def kept():
    return stored("dreamer_v3")


@pytest.fixture
def agent(kept):
    found = CONFIG.build()
    theirs = {ours(n): w for n, w in kept.weights().items() if not n.startswith("discrete.")}
    missing, unexpected = found.load_state_dict(with_deviations(theirs, "actor.network."), strict=False)
    assert not unexpected and {name.split(".")[0] for name in missing} == {"scales"}
    return found


@pytest.fixture
def batch():
    first, terminal = torch.zeros(B, T, dtype=torch.bool), torch.zeros(B, T, dtype=torch.bool)
    first[:, 0] = first[1, 3] = terminal[1, 2] = terminal[2, 4] = True
    return {
        "video": recipe_video("video", (B, T, 3, 32, 32)),
        "action": recipe_input("action", (B, T, 3)) / 3**0.5,
        "reward": recipe_input("reward", (B, T)) * 4,
        "first": first,
        "terminal": terminal,
        "seed": torch.arange(B),
    }


@pytest.fixture
def most_probable(monkeypatch):
    """Nothing is drawn: the most probable latents are taken."""
    from filmstrip.systems.control.dreamer import rssm

    monkeypatch.setattr(rssm.RSSM, "drawn", lambda self, log_p, numbers, own=rssm.RSSM.drawn: own(self, log_p, None))


def gradients(kept, module, names):
    """Errors of gradients by our names."""
    for name in names:
        param = module.get_parameter(ours(name))
        yield name, kept.error(f"grad:{name}", param.grad[: kept.shapes[name][0]])


def test_states_and_the_loss_of_the_world_model(kept, agent, batch, most_probable):
    observed = agent.model.observe(batch, None)
    features = observed.state.features
    frames = agent.model.encoder(batch["video"].flatten(0, 1) / 255)
    dynamics, representation = divergences(observed, 1.0)
    found = {
        "embed": frames.unflatten(0, (B, T)),
        "memory": observed.state.memory,
        "latent": observed.state.latent,
        "posterior": observed.posterior,
        "prior": observed.prior,
        "dynamics": dynamics,
        "representation": representation,
        "decoded": agent.model.decoder(features),
        "rewards": expected(agent.model.reward(features)),
        "loss_reward": two_hot_loss(agent.model.reward(features), batch["reward"]),
        "total": agent(batch, "model").total[None],
    }
    assert {name: error for name, value in found.items() if (error := kept.error(name, value)) > TOLERANCE} == {}
    assert dynamics.min() == 1 and dynamics.max() > 1.9  # free nats count


def test_gradients_of_the_world_model(kept, agent, batch, most_probable):
    """Who learns of the divergence, and that latents pass gradients on."""
    agent(batch, "model").total.backward()
    names = [name.removeprefix("grad:") for name in kept.outputs if name.startswith("grad:model.")]
    assert len(names) == 7
    assert {name: e for name, e in gradients(kept, agent, names) if e > 10 * TOLERANCE} == {}


def test_imagination_returns_and_the_losses_of_actor_and_critic(kept, agent, batch, most_probable):
    """The published code weighs what is imagined by the predicted continuation of the first state, where ours, as the
    authors' own, has the true one; and it does not weigh the entropy."""
    for part in (agent.model, agent.critics):
        part.requires_grad_(False)
    agent.eval()
    imagined = agent.imagine(batch, draws=False)
    agent.scales["reward"].add(imagined.returns["reward"])
    policy = agent.actor(imagined.features[:, :-1].detach())
    discount = 0.997 * agent.model.goes_on(imagined.features)[..., 0].sigmoid()
    weights = torch.cat([torch.ones(B * T, 1), discount[:, :-2]], dim=1).cumprod(dim=1)
    found = {
        "imagined": torch.cat([imagined.features], dim=1),
        "actions": imagined.actions,
        "returns": imagined.returns["reward"],
        "values": imagined.values["reward"],
        "weights": weights,
        "entropy": policy.entropy(),
        "ema": torch.stack([agent.scales["reward"].low, agent.scales["reward"].high]),
    }
    loss = -(weights.detach() * agent.advantage(imagined)).mean() - CONFIG.entropy * policy.entropy().mean()
    assert kept.error("actor_loss", loss[None]) < TOLERANCE
    loss.backward()
    names = [name.removeprefix("grad:") for name in kept.outputs if name.startswith("grad:behavior.")]
    names.remove("behavior.actor.std_layer.weight")
    assert len(names) == 2
    assert {name: e for name, e in gradients(kept, agent, names) if e > 10 * TOLERANCE} == {}
    std = agent.actor.network.out.weight.grad[3:]
    assert kept.error("grad:behavior.actor.std_layer.weight", std) < 10 * TOLERANCE
    assert {name: error for name, value in found.items() if (error := kept.error(name, value)) > TOLERANCE} == {}
    agent._dreamt[batch["seed"]] = imagined._replace(weight=weights.detach())
    assert kept.error("critic_loss", agent(batch, "critic").total[None]) < TOLERANCE


def test_weights_are_the_authors(agent, batch, most_probable):
    """As in danijar's code: no state after an end counts, and a start that is one does not either."""
    with torch.no_grad():
        imagined = agent.imagine(batch, draws=False)
        goes_on = agent.model.goes_on(imagined.features)[..., 0].sigmoid()
    goes_on[:, 0] = 1 - batch["terminal"].flatten().float()
    expected_weights = (0.997 * goes_on).cumprod(dim=1)[:, :-1] / 0.997
    torch.testing.assert_close(imagined.weight, expected_weights)
    assert not imagined.weight[batch["terminal"].flatten()].any()


def test_a_policy_over_several_actions(kept):
    actor = Actor(54, 20, 2, actions=4, discrete=True, std=(0.1, 1.0), unimix=0.01)
    actor.load_state_dict({ours(n): w for n, w in kept.weights().items() if n.startswith("discrete.")})
    policy = actor(recipe_input("features", (7, 54)))
    one_hot = F.one_hot(torch.arange(7) % 4, 4).float()
    assert kept.error("discrete_log_prob", policy.log_prob(one_hot)) < TOLERANCE
    assert kept.error("discrete_entropy", policy.entropy()) < TOLERANCE


def test_numbers_as_classes(kept):
    logits = recipe_input("logits", (40, 255))
    numbers = recipe_input("numbers", (40, 1))[:, 0] * torch.logspace(-3, 9, 40)  # beyond the last class, too
    assert kept.error("two_hot", two_hot_loss(logits, numbers)) < TOLERANCE
    assert kept.error("expected", expected(logits)) < TOLERANCE


def test_what_norms_add(kept, agent):
    names = {ours(name): name for name in kept.shapes if not name.startswith("discrete.")}
    assert agent.config.depth and not kept.other_eps(agent, names)
