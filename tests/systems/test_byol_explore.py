"""BYOL-Explore as a reward: its loss and rewards against loops over starts and steps, and what it never learns."""

import pytest
import torch
import torch.nn.functional as F

from filmstrip.errors import UserError
from filmstrip.systems import find
from filmstrip.systems.rewards.byol_explore import ByolExploreConfig


@pytest.fixture
def objective():
    torch.manual_seed(0)
    return find("rewards.byol_explore:tiny").objective.build()


@pytest.fixture
def video():
    return torch.randint(256, (2, 6, 3, 32, 32), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


def by_loops(objective, video):
    """``L[t][k]`` of each clip, as the text has it."""
    found = {}
    with torch.no_grad():
        for row, clip in enumerate(video):
            seen, wanted = objective.features(clip / 255), F.normalize(objective.target(clip / 255), dim=-1)
            for t in range(len(clip)):
                state = objective.closed(seen[None, : t + 1])[0][0, -1:]
                for k in range(1, min(objective.config.horizon, len(clip) - 1 - t) + 1):
                    state = objective.open(torch.zeros(1, 1), state)
                    said = F.normalize(objective.predictor(state), dim=-1)[0]
                    found[row, t, k] = (said - wanted[t + k]).square().sum().item()
    return found


def test_the_loss_is_the_mean_over_starts_of_means_over_steps(objective, video):
    found, frames = by_loops(objective, video), video.shape[1]
    starts = [
        sum(own := [value for (r, s, _), value in found.items() if (r, s) == (row, t)]) / len(own)
        for row in range(2)
        for t in range(frames - 1)
    ]
    assert objective({"video": video}).total.item() == pytest.approx(sum(starts) / len(starts), rel=1e-4)


def test_a_reward_is_the_mean_of_all_forecasts_of_a_frame(objective, video):
    found = by_loops(objective, video)
    rewards = objective.frame_log_probs(objective.frame_codes(video), {})
    assert rewards.shape == (2, 6, 1, 1) and (rewards[:, 0] == 0).all()
    for row in range(2):
        for frame in range(1, 6):
            own = [value for (r, t, k), value in found.items() if r == row and t + k == frame]
            assert len(own) == min(frame, 3)
            assert rewards[row, frame].item() == pytest.approx(-sum(own) / len(own), rel=1e-4)


def test_the_target_learns_nothing_and_follows(objective, video):
    objective({"video": video}).total.backward()
    assert all(p.grad is None for p in objective.target.parameters())
    assert all(p.grad is not None for p in objective.parameters() if p.requires_grad)
    before = objective.target[0].weight.clone()
    with torch.no_grad():
        objective.features[0].weight += 1
    objective.after_step(2)  # the first one takes the encoder whole
    torch.testing.assert_close(objective.target[0].weight, before + 0.01, atol=1e-5, rtol=0)


def test_what_cannot_be_foretold_is_refused():
    with pytest.raises(UserError, match="two or more"):
        ByolExploreConfig(num_frames=1).build()
    with pytest.raises(UserError, match="fewer widths"):
        ByolExploreConfig(size=8).build()
