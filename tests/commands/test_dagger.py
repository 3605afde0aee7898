"""DAgger on the command line: rounds are folders of videos and runs, which resume."""

import dataclasses
import json

import numpy as np
import pytest

from filmstrip import systems
from filmstrip.__main__ import main
from filmstrip.data.kinds.clips import Clips
from filmstrip.data.sources import open_path
from filmstrip.data.synthetic.demonstrations import Demonstrations, TableTask
from filmstrip.evals.success import Success
from filmstrip.runs import experiment
from filmstrip.runs.config import read_config
from filmstrip.train.lengths import Steps


@pytest.fixture(scope="module")
def cloned(tmp_path_factory):
    """A policy that was trained for two steps."""
    folder = tmp_path_factory.mktemp("cloned")
    run = systems.find("control.behaviour_cloning:tiny")
    task = TableTask(steps=4)
    demonstrations = Demonstrations(task=task, num_train=3, num_test=1, size=32).generate(folder / "demonstrations")
    data = dataclasses.replace(run.data, path=demonstrations, num_workers=0, batch_size=2)
    train = dataclasses.replace(run.train, length=Steps(2), log_every=1)
    run = dataclasses.replace(run, data=data, train=train, evals=(Success(episodes=1),))
    experiment.train(run, folder / "run")
    return folder / "run"


def test_each_round_learns_from_all_episodes_so_far(cloned, tmp_path, capsys):
    out = tmp_path / "dagger"
    command = ["dagger", str(cloned), "--out", str(out), "--rounds", "2", "--episodes", "2"]
    assert main(command) == 0
    assert "95% interval" in capsys.readouterr().out
    for number, videos in ((1, 3 + 2), (2, 3 + 4)):
        source = open_path(out / f"round_{number}")
        assert len(source.split("train")) == videos and len(source.split("test")) == 1
        run = read_config(out / f"round_{number}" / "run" / "config.json")
        assert run.data.path == out / f"round_{number}"
        weights = out / f"round_{number}" / "run" / "weights.safetensors"
        assert weights.stat().st_size > 0
    with np.load(out / "round_2/rollouts/train/00001.actions.npz") as rows:
        assert np.abs(rows["expert"][:-1] - rows["actions"][1:]).max() > 0.1  # the policy acted, the expert advised
    policies = {
        json.loads((out / f"round_{n}/rollouts/dataset.json").read_text())["generated"]["config"]["policy"]
        for n in (1, 2)
    }
    assert len(policies) == 2  # the second round's episodes are the first round's policy's

    before = {path: path.stat().st_mtime_ns for path in out.glob("*/rollouts/train/*")}
    assert main(command) == 0
    assert before == {path: path.stat().st_mtime_ns for path in out.glob("*/rollouts/train/*")}
    assert main([*command[:-1], "3"]) == 2  # other episodes
    assert "round_1/rollouts holds something else" in capsys.readouterr().err


def test_the_expert_can_act_in_the_policys_place(cloned, tmp_path):
    out = tmp_path / "dagger"
    assert (
        main(["dagger", str(cloned), "--out", str(out), "--rounds", "1", "--episodes", "1", "--expert-share", "1"])
        == 0
    )
    with np.load(out / "round_1/rollouts/train/00000.actions.npz") as rows:
        assert np.allclose(rows["expert"][:-1], rows["actions"][1:])


def test_a_policy_of_its_own_actions_is_refused(cloned, tmp_path, capsys):
    run = read_config(cloned / "config.json")
    run = dataclasses.replace(run, data=dataclasses.replace(run.data, reads=Clips(states="gripper")), evals=())
    experiment.train(run, tmp_path / "run")
    assert main(["dagger", str(tmp_path / "run"), "--out", str(tmp_path / "out")]) == 2
    assert "learnt from the actions that were taken" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
