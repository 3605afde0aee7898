"""AMP (``control.amp``) against its formulas written out, window by window: no other implementation of it with least
squares can be installed. The slope is found by differences."""

import numpy as np
import pytest
import torch
from torch import nn

from filmstrip.protocols import Loss
from filmstrip.rl.experience import Experience
from filmstrip.systems import find

SIZES = {"B": 3, "T": 7, "F": 7, "C": 3, "H": 32, "W": 32, "A": 2}


def plain(amp, batch, step=1e-3):
    """The loss and the rewards by loops, the slope by differences of each pixel that matters: of a linear network."""
    w, net = amp.config.window, amp.discriminator
    of_experts, of_agent, slopes, rewards = [], [], [], np.full((3, 7), np.nan)
    for row in range(3):
        for end in range(w - 1, 7):
            expert, agent = (
                torch.cat(list(batch[key][row, end + 1 - w : end + 1] / 255))[None] for key in ("experts", "video")
            )
            of_experts.append(net(expert).item())
            moved = expert.expand(expert.numel(), -1, -1, -1) + step * torch.eye(expert.numel()).view(
                -1, *expert.shape[1:]
            )
            slopes.append(((net(moved) - net(expert)) / step).square().sum().item())
            if not any(batch["first"][row, end + 2 - w : end + 1]):
                of_agent.append(net(agent).item())
                rewards[row, end] = min(2, max(-2, 1 - 0.25 * (of_agent[-1] - 1) ** 2))
    error = np.mean((np.array(of_experts) - 1) ** 2) / 2 + np.mean((np.array(of_agent) + 1) ** 2) / 2
    return error + amp.config.penalty * np.mean(slopes), rewards


class Linear(nn.Module):
    """A discriminator of small windows whose slopes differences tell."""

    def __init__(self, inputs):
        super().__init__()
        self.layer = nn.Linear(inputs, 1)

    def forward(self, windows):
        return self.layer(windows.flatten(1)).tanh()[:, 0] * 2


def test_loss_and_rewards_are_those_of_plain_loops(monkeypatch):
    torch.manual_seed(0)
    amp = find("control.amp:tiny").objective.build()
    batch = Experience.example(SIZES, torch.Generator().manual_seed(0))
    batch["first"][1, 4] = True
    small = {key: batch[key][..., 8:12, 8:12] for key in ("video", "experts")}
    batch |= small
    amp.discriminator = Linear(3 * 16 * amp.config.window).double()
    monkeypatch.setattr(amp, "windows", lambda video, own=amp.windows: own(video).double())
    monkeypatch.setattr(amp.agent, "forward", lambda batch, phase: given.append(batch) or Loss(torch.zeros(()), {}))
    given = []

    loss = amp(batch, "model").total
    with torch.no_grad():
        expected, rewards = plain(
            amp, {**batch, "video": batch["video"].double(), "experts": batch["experts"].double()}
        )
    assert loss.item() == pytest.approx(expected, rel=1e-3)
    np.testing.assert_allclose(given[0]["reward"].numpy(), rewards, rtol=1e-5)
    assert np.isnan(rewards[1]).sum() == 3 + 3 and np.isnan(rewards[0]).sum() == 3
