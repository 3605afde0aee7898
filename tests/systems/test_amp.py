"""AMP: the discriminator's penalty and optimum, what it tells apart, and what it and its agent must not see."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from filmstrip.bounds import check_numbers
from filmstrip.errors import UserError
from filmstrip.rl.experience import Experience, ExperienceInfo
from filmstrip.systems import find
from filmstrip.systems.control.dreamer.layers import two_hot_loss

SIZES = {"B": 3, "T": 7, "F": 7, "C": 3, "H": 32, "W": 32, "A": 2}


@pytest.fixture
def amp():
    torch.manual_seed(0)
    return find("control.amp:tiny").objective.build()


@pytest.fixture
def batch():
    found = Experience.example(SIZES, torch.Generator().manual_seed(0))
    found["first"][1, 4] = True
    return found


def test_the_penalty_is_that_of_a_double_backward(amp, batch):
    """Its gradient, against differences of the loss along a direction of the weights."""
    amp.discriminator.double()
    windows = amp.windows(batch["experts"]).double()
    amp.windows = lambda video: windows
    known = torch.ones(3, 4, dtype=torch.bool)

    def penalty():
        return amp.discrimination(batch["experts"], torch.zeros(3, 4), known)[0]

    params = list(amp.discriminator.parameters())
    slopes = torch.autograd.grad(penalty(), params)
    toward = [torch.randn_like(p) for p in params]
    expected = sum((slope * d).sum() for slope, d in zip(slopes, toward)).item()
    values = []
    for step in (1e-6, -1e-6):
        with torch.no_grad():
            for p, d in zip(params, toward):
                p.add_(d, alpha=step)
            values.append(penalty().item())
            for p, d in zip(params, toward):
                p.sub_(d, alpha=step)
    assert (values[0] - values[1]) / 2e-6 == pytest.approx(expected, rel=0.02)  # what it says is float32


class Table(nn.Module):
    """A discriminator that says anything of each brightness, whatever it says of others."""

    def __init__(self):
        super().__init__()
        self.said = nn.Embedding(41, 1)
        nn.init.zeros_(self.said.weight)

    def forward(self, windows):
        place = (windows[:, 0, 0, 0].detach() * 255).round().long()
        return self.said(place)[:, 0] + 0 * windows.sum(dim=(1, 2, 3))


def test_its_optimum_is_that_of_least_squares(amp):
    """Of two Gaussians: (p - q) / (p + q)."""
    bins = torch.linspace(-4, 4, 41)
    p, q = (torch.exp(-0.5 * (bins - mean) ** 2) for mean in (-0.5, 1.0))
    p, q = p / p.sum(), q / q.sum()
    experts, video = (
        torch.multinomial(x, 4_000, replacement=True, generator=torch.Generator().manual_seed(0))[
            :, None, None, None, None
        ]
        .expand(-1, 4, 3, 1, 1)
        .byte()
        for x in (p, q)
    )
    amp.discriminator = Table()
    optim = torch.optim.Adam(amp.discriminator.parameters(), 0.1)
    batch = {"video": video, "first": torch.zeros(4_000, 4, dtype=torch.bool)}
    for _ in range(60):
        optim.zero_grad()
        loss, metrics = amp.discrimination(experts, *amp.judged(batch))
        loss.backward()
        optim.step()
    said, often = amp.discriminator.said.weight.detach()[:, 0], p + q > 0.02
    torch.testing.assert_close(said[often], ((p - q) / (p + q))[often], atol=0.15, rtol=0)
    assert metrics["penalty"] == 0
    earned = amp.reward(said)[often]
    assert earned[0] > 0.95 and earned[-1] < 0.1  # at the experts' side, at the agent's
    assert amp.reward(torch.tensor([1.0, -1.0, 3.0, -9.0])).tolist() == [1.0, 0.0, 0.0, -2.0]


def test_it_learns_to_tell_motion_that_no_single_frame_shows():
    """Experts move to the right and the agent to the left, through the same places."""
    torch.manual_seed(0)
    amp = replace(find("control.amp:tiny").objective, penalty=0.05).build()
    frames = torch.zeros(8, 4, 3, 32, 32, dtype=torch.uint8)
    for row in range(8):
        for t in range(4):
            left = (3 * row + 4 * t) % 28
            frames[row, t, :, 8:20, left : left + 4] = 255
    optim = torch.optim.Adam(amp.discriminator.parameters(), 3e-3)
    inside = torch.zeros(8, 4, dtype=torch.bool)
    batch = {"video": frames.flip(1), "experts": frames, "first": inside}
    for _ in range(100):
        optim.zero_grad()
        said, whole = amp.judged(batch)
        loss, metrics = amp.discrimination(batch["experts"], said, whole)
        loss.backward()
        optim.step()
    assert metrics["of_experts"] > 0.5 and metrics["of_agent"] < -0.5


def test_each_step_rewards_anew_and_only_the_first_phase_learns_to_tell_apart(amp, batch):
    seen = []
    forward = amp.agent.forward
    amp.agent.forward = lambda batch, phase: seen.append((phase, batch.get("reward"))) or forward(batch, phase)
    model, *others = amp.phases()
    assert model.name == "model" and amp.discriminator in model.modules
    assert not any(amp.discriminator in phase.modules for phase in others)
    amp(batch, "model")
    with torch.no_grad():
        for param in amp.discriminator.parameters():
            param.add_(0.05)
    amp.after_step(1)
    amp(batch, "model")
    one, other = (reward for _, reward in seen)
    known = ~one.isnan()
    assert torch.equal(known, ~other.isnan()) and not torch.allclose(one[known], other[known])
    assert not torch.equal(one.nan_to_num(), batch["reward"])  # the environment's own is never used
    assert "reward" not in amp.requires and "label" not in amp.requires
    alone = {key: value for key, value in batch.items() if key != "reward"}
    for phase in amp.phases():
        amp(alone, phase.name).total.backward()
    changed = {**batch, "reward": batch["reward"] + 5}
    amp.after_step(2)
    assert amp(changed, "model").total == amp(alone, "model").total


def test_the_reward_head_learns_from_known_steps_alone(amp, batch):
    agent = amp.agent
    reward = torch.full((3, 7), torch.nan)
    reward[:, 5] = 0.7
    for p in agent.model.parameters():
        p.grad = None
    nn.init.normal_(agent.model.reward.out.weight, std=0.1)
    one = agent({**batch, "reward": reward}, "model").metrics["reward"]
    other = agent({**batch, "reward": torch.full((3, 7), 0.7)}, "model").metrics["reward"]
    features = agent._states(batch).features
    each = two_hot_loss(agent.model.reward(features), torch.full((3, 7), 0.7))
    torch.testing.assert_close(one, each[:, 5].mean())
    torch.testing.assert_close(other, each.mean())
    nothing = agent({**batch, "reward": torch.full((3, 7), torch.nan)}, "model")
    assert nothing.metrics["reward"] == 0 and nothing.total.isfinite()


def test_what_is_blanked_tells_nothing(batch):
    config = replace(find("control.amp:tiny").objective, blanked=((0.0, 0.0, 1.0, 0.25),))
    amp = config.build()
    before = amp.judged(batch)[0]
    batch["video"][..., :8, :] = 255
    assert torch.equal(amp.judged(batch)[0], before)
    batch["video"][..., 8, :] = 255
    assert not torch.equal(amp.judged(batch)[0], before)


def test_what_it_cannot_learn_from_is_refused(amp, batch):
    config = amp.config
    with pytest.raises(UserError, match="length to 4 or more"):
        amp({**batch, "video": batch["video"][:, :3]}, "model")
    with pytest.raises(UserError, match="DrQ cannot learn from sequences"):
        replace(config, agent=find("control.drq:tiny").objective).build()
    told = {"classes": (), "num_train": 1, "directional": True}
    bound = config.bind(ExperienceInfo(**told, num_actions=3, size=64))
    assert (bound.agent.num_actions, bound.action_dim, bound.size) == (3, 0, 64)
    with pytest.raises(UserError, match="window"):
        check_numbers(replace(config, window=1))
