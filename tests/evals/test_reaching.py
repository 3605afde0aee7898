"""Reaching goals: a planner that knows the world reaches all, one that does nothing none."""

import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

from filmstrip import systems
from filmstrip.data.config import Clip, Data
from filmstrip.data.synthetic.pushing import GRIPPER, SPEED, Table
from filmstrip.errors import UserError
from filmstrip.evals.reaching import Reaching
from filmstrip.protocols import Objective
from filmstrip.runs.evaluation import Subject


class Knowing(Objective):
    """Plans the true way: it recognises each goal image among those that the evaluation draws."""

    action_dim, state_dim = 2, 2

    def __init__(self, episodes, speed=SPEED):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.episodes, self.speed, self.asked = episodes, speed, 0

    def plan_actions(self, frame, goal, state=None, *, seed, horizon=None):
        assert torch.is_inference_mode_enabled() and frame.dtype == goal.dtype == torch.uint8
        self.asked += 1
        targets = []
        for image in goal:
            [episode] = [one for one in self.episodes if torch.equal(one.goal, image)]
            targets.append(torch.from_numpy(episode.target).float())
        return ((torch.stack(targets) - state) / self.speed).clamp(-1, 1)[:, None].repeat(1, 3, 1)


def subject(objective):
    data = Data(clip=Clip(num_frames=4, size=32))
    return Subject(objective=objective, source=None, data=data, device=torch.device("cpu"))


def test_a_planner_that_knows_the_way_is_as_good_as_the_true_way():
    protocol = Reaching(episodes=4, steps=8)
    episodes = [protocol.episode(protocol.seed + i, 32) for i in range(4)]
    found = dict(protocol(subject(Knowing(episodes))))
    assert found["success_rate"] == found["true_way_success_rate"] == 1
    assert found["random_success_rate"] < 0.5 and found["random_distance"] > 3 * GRIPPER
    still = dict(protocol(subject(Knowing(episodes, speed=1e9))))
    assert still["success_rate"] == 0 and still["distance"] > 0.2


def test_plans_are_made_again_after_the_actions_that_are_taken():
    for taken, asked in ((1, 6), (3, 2)):
        protocol = Reaching(episodes=2, steps=6, taken=taken)
        planner = Knowing([protocol.episode(protocol.seed + i, 32) for i in range(2)])
        dict(protocol(subject(planner)))
        assert planner.asked == asked


@pytest.mark.parametrize("task", ["reach", "push"])
def test_the_true_way_ends_as_the_goal_shows(task):
    protocol = Reaching(episodes=6, steps=8, task=task)
    for i in range(6):
        episode = protocol.episode(i, 32)
        assert episode.distance > GRIPPER
        first = episode.table.frame()
        assert not torch.equal(first, episode.goal)
    assert (protocol.run(32, protocol._true_way) < 1e-6).all()
    if task == "push":
        episode = protocol.episode(3, 32)
        for action in episode.path:
            episode.table.step(action)
        assert torch.equal(episode.table.frame(), episode.goal)


def test_a_table_depends_on_its_seed_and_goes_back_to_its_states():
    one, same, other = Table(3, num_things=2), Table(3, num_things=2), Table(4, num_things=2)
    assert torch.equal(one.frame(), same.frame()) and not torch.equal(one.frame(), other.frame())
    before, first = one.state_dict(), one.frame()
    for _ in range(4):
        one.step(np.array([0.7, -3.0]))
    assert np.allclose(np.clip(before["gripper"] + 4 * SPEED * np.array([0.7, -1.0]), 0.06, 0.94), one.gripper)
    assert not torch.equal(one.frame(), first)
    one.load_state_dict(before)
    assert torch.equal(one.frame(), first)


def test_what_does_not_plan_is_refused():
    with pytest.raises(UserError, match="VJEPA does not plan actions towards an image"):
        Reaching().check(subject(systems.find("pretraining.vjepa:tiny").objective.build()))
    other = dataclasses.replace(systems.find("control.vjepa_ac:tiny").objective, action_dim=7, state_dim=7).build()
    with pytest.raises(UserError, match="the run was trained with 7 and 7: train it on the set `pushing`"):
        Reaching().check(subject(other))


def test_tables_of_one_look_share_it_and_a_wide_arm_covers_more():
    first, second = (Table(seed, num_things=1, size=64, look=7) for seed in (1, 2))
    corner = [table.frame()[:, -12:-4, :8].float() for table in (first, second)]  # away from arm and thing
    other = Table(2, num_things=1, size=64).frame()[:, -12:-4, :8].float()
    assert (corner[0] - corner[1]).abs().mean() < 0.2 * (corner[0] - other).abs().mean()
    wide = Table(1, num_things=1, size=64, look=7, arm_width=4.0)
    assert np.array_equal(wide.gripper, first.gripper)
    steel = [
        ((frame[0] - frame[2]).abs() < 25).float().mean() for frame in (wide.frame().float(), first.frame().float())
    ]
    assert steel[0] > steel[1] + 0.05
