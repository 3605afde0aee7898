"""DrQ (``control.drq``) and its authors' code, by stored outputs, on the same weights and noise: losses, shifts."""

import re

import pytest
import torch
from published import TOLERANCE, recipe_input, recipe_video, stored

from filmstrip.systems.control import drq
from filmstrip.systems.control.drq import DrQConfig

CONFIG = DrQConfig(size=16, action_dim=3, widths=(6, 8), latent_dim=14, hidden=(10, 10))
B = 5
RULES = (
    (r"^critic\.", "critics."),
    (r"encoder\.head", "project"),
    (r"^actor\.trunk", "actor.policy"),
    (r"\.Q1\.", ".values.0."),
    (r"\.Q2\.", ".values.1."),
)


def ours(name):
    for pattern, replacement in RULES:
        name = re.sub(pattern, replacement, name)
    return name


@pytest.fixture
def kept():
    return stored("drq")


@pytest.fixture
def agent(kept, monkeypatch):
    found = CONFIG.build().eval()  # no shifts
    missing, unexpected = found.load_state_dict({ours(n): w for n, w in kept.weights().items()}, strict=False)
    assert not unexpected and {name.split(".")[0] for name in missing} == {
        "log_temperature",
        "reward_scale",
        "bonus_scale",
    }
    noise = {"drq.next": recipe_input("next", (B, 3)), "drq.actor": recipe_input("now", (B, 3))}
    monkeypatch.setattr(drq, "normal", lambda seed, count, use: noise[use])
    return found


@pytest.fixture
def batch():
    terminal = torch.zeros(B, 4, dtype=torch.bool)
    terminal[2, -1] = True
    return {
        "video": recipe_video("video", (B, 4, 3, 16, 16)),
        "action": recipe_input("action", (B, 3))[:, None].expand(-1, 4, -1) / 3**0.5,
        "reward": recipe_input("reward", (B, 1)).expand(-1, 4),
        "terminal": terminal,
        "first": torch.zeros(B, 4, dtype=torch.bool),
        "seed": torch.arange(B),
    }


@torch.no_grad()
def test_actions_values_and_losses(kept, agent, batch):
    before, _ = agent.seen(batch)
    features = agent.critics.encoder(before / 255)
    drawn = agent.actor(features, recipe_input("now", (B, 3)))
    found = {
        "action": drawn.action,
        "log_prob": drawn.log_prob,
        "middle": agent.actor(features, None).action,
        "values": agent.critics(features, drawn.action),
        "critic_loss": agent(batch, "critic").total[None],
        "actor_loss": agent(batch, "actor").total[None],
        "temperature_loss": agent(batch, "temperature").total[None],
    }
    assert agent.target_entropy == -1.5
    assert {name: error for name, value in found.items() if (error := kept.error(name, value)) > TOLERANCE} == {}


def test_shifts_are_those_of_its_second_version(kept, agent, batch, monkeypatch):
    places = torch.tensor([[0, 0], [8, 8], [4, 4], [1, 7], [6, 2]])  # columns and rows, of 0 to 8
    monkeypatch.setattr(drq, "uniform", lambda seed, count, use: (places.flip(1) + 0.5) / 9)
    before, _ = agent.seen(batch)
    shifted = agent.train()._shifted(before, batch["seed"], "drq.shift.now")
    assert kept.error("shifted", shifted * 255) < TOLERANCE
    assert torch.equal(shifted[2], before[2] / 255)
