"""Success: a policy that does what the expert does solves all, one that does nothing none."""

import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

from filmstrip import systems
from filmstrip.data.config import Clip, Data
from filmstrip.data.sample import Source
from filmstrip.data.synthetic.demonstrations import Demonstrations, TableTask
from filmstrip.errors import UserError
from filmstrip.evals.success import Success
from filmstrip.protocols import Objective
from filmstrip.runs.evaluation import Subject

TASK = TableTask(steps=25)


class Knowing(Objective):
    """Asks the expert about the table whose picture it is shown, and does that ``share`` of the way."""

    action_dim, state_dim = 2, 2

    def __init__(self, protocol, share):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.share = share
        self.known = [TASK.begin(protocol.seed + i, 32) for i in range(protocol.episodes)]

    def act(self, frame, state=None):
        assert torch.is_inference_mode_enabled() and frame.dtype == torch.uint8
        for image, place, episode in zip(frame, state, self.known, strict=True):
            assert torch.equal(image, episode.table.frame()) and np.allclose(place, episode.table.gripper, atol=1e-6)
        actions = [(self.share * episode.expert()).astype(np.float32) for episode in self.known]
        for episode, action in zip(self.known, actions):
            episode.table.step(action)
        return torch.from_numpy(np.stack(actions))


def subject(objective, data=None, root=None):
    data = data or Data(synthetic=Demonstrations(task=TASK), clip=Clip(num_frames=2, size=32))
    source = Source(root=root, classes=(), samples=())
    return Subject(objective=objective, source=source, data=data, device=torch.device("cpu"))


@pytest.mark.parametrize(("share", "rate"), [(1.0, 1.0), (0.0, 0.0)])
def test_the_share_of_solved_episodes_comes_with_its_interval(share, rate):
    protocol = Success(episodes=3)
    found = dict(protocol(subject(Knowing(protocol, share))))
    assert found["success_rate"] == rate and found["expert_success_rate"] == 1 and found["random_success_rate"] == 0
    assert found["success_low"] <= rate <= found["success_high"]
    assert found["success_high"] - found["success_low"] == pytest.approx(0.7076, abs=1e-3)
    assert found["distance"] > found["expert_distance"] or rate


def test_the_task_is_that_of_the_data(tmp_path):
    protocol = Success(episodes=1)
    other = TableTask(goal="touch", steps=3)
    Demonstrations(task=other, num_train=1, num_test=0, size=32).generate(tmp_path / "set")
    data = Data(path=tmp_path / "set", clip=Clip(num_frames=2, size=32))
    for given, root, task in ((None, tmp_path / "set", other), (TASK, tmp_path / "set", TASK)):
        from filmstrip.evals.success import task_of

        assert task_of(subject(None, data, root).source, data, given) == task
    with pytest.raises(UserError, match=r"does not say what the task is.*name it \(--task.goal"):
        protocol.check(subject(Knowing(protocol, 1.0), data, tmp_path))


def test_what_does_not_act_on_tables_is_refused():
    with pytest.raises(UserError, match="VJEPA does not act on what it sees"):
        Success().check(subject(systems.find("pretraining.vjepa:tiny").objective.build()))
    config = systems.find("control.behaviour_cloning:tiny").objective
    with pytest.raises(UserError, match="trained with 7 and 7: train it on the set `demonstrations`"):
        Success().check(subject(dataclasses.replace(config, action_dim=7, state_dim=7).build()))
