"""Plans of actions on the command line; plans of steps are in test_forecast."""

import json

import pytest
import torch

from filmstrip.__main__ import main
from filmstrip.commands.plan import Plan
from filmstrip.commands.work.plan import last_frame, plan_actions
from filmstrip.data.config import Clip, Data
from filmstrip.data.synthetic.pushing import Table
from filmstrip.errors import UserError
from filmstrip.runs.loading import load_objective
from filmstrip.video.write import write_video
from run_folders import save_run


@pytest.fixture
def run(tmp_path):
    save_run(tmp_path / "run", "control.vjepa_ac:tiny")
    for name, seed in (("start", 1), ("goal", 2)):
        table, frames = Table(seed, size=64), []
        for _ in range(4):
            frames.append(table.frame())
            table.step(torch.tensor([0.5, 0.5]).numpy())
        write_video(tmp_path / f"{name}.mp4", torch.stack(frames), 10)
    return tmp_path


def test_actions_are_printed_with_as_many_as_asked_for(run, capsys):
    paths = [str(run / name) for name in ("run", "start.mp4", "goal.mp4")]
    assert main(["plan", *paths, "--state", "0.4", "0.5", "--horizon", "2", "--json"]) in (0, None)
    found = json.loads(capsys.readouterr().out)["actions"]
    assert len(found) == 2 and all(len(action) == 2 and max(map(abs, action)) <= 1 for action in found)
    main(["plan", *paths, "--state", "0.4", "0.5"])
    assert capsys.readouterr().out.startswith("action 1: ")


def test_the_plan_is_from_the_last_frames(run):
    objective, trained = load_objective(run / "run", "cpu")
    command = Plan(run=run / "run", start=run / "start.mp4", goal=run / "goal.mp4", state=(0.4, 0.5), seed=3)
    found = plan_actions(command, objective, trained)
    frames = [last_frame(run / f"{name}.mp4", trained.data)[None] for name in ("start", "goal")]
    direct = objective.plan_actions(*frames, torch.tensor([[0.4, 0.5]]), seed=3)
    torch.testing.assert_close(found, direct[0])
    from filmstrip.video.decode import read_video

    last = read_video(run / "start.mp4").video[-1]
    assert torch.equal(last_frame(run / "start.mp4", Data(clip=Clip(num_frames=8, size=64))), last)


def test_a_state_that_is_missing_is_asked_for(run):
    objective, trained = load_objective(run / "run", "cpu")
    command = Plan(run=run / "run", start=run / "start.mp4", goal=run / "goal.mp4")
    with pytest.raises(UserError, match="plans from a state of 2 numbers beside the image, and none was given"):
        plan_actions(command, objective, trained)
