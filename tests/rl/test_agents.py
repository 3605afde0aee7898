"""An agent trains by the loop of all methods, goes on exactly where it was interrupted, is measured and played."""

import csv
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from filmstrip.__main__ import main
from filmstrip.errors import UserError
from filmstrip.rl.replay import ReplayStream
from filmstrip.runs.experiment import train
from filmstrip.systems import find
from filmstrip.train.lengths import Steps


def agent(system="drq", steps=8, **settings):
    run = find(f"control.{system}:{'tiny' if system == 'amp' else 'tiny_bonus'}")
    reads = replace(run.data.reads, prefill=12, **settings)
    return replace(
        run,
        data=replace(run.data, reads=reads),
        train=replace(run.train, length=Steps(steps), save_every=3, log_every=1),
        evals=(replace(run.evals[0], episodes=1),),
    )


@pytest.fixture(scope="module")
def reward_run(tmp_path_factory):
    """A small model of experts' films."""
    folder = tmp_path_factory.mktemp("reward")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FILMSTRIP_CACHE", str(folder / "cache"))
        run = find("rewards.viper:tiny")
        films = replace(run.data.synthetic, num_train=4, num_test=1)
        data = replace(run.data, synthetic=films, num_workers=0)
        train(replace(run, data=data, train=replace(run.train, length=Steps(2)), evals=()), folder / "run")
    return folder / "run"


@pytest.mark.parametrize("system", ["drq", "dreamer"])
def test_it_goes_on_exactly_where_it_was_killed(system, tmp_path, reward_run, monkeypatch):
    run = agent(system, reward_run=str(reward_run), updates_per_step=0.25)
    result = train(run, tmp_path / "whole")
    assert {"return/n1", "random_return", "expert_return"} <= {name.removeprefix("eval/") for name in result.metrics}
    batch = ReplayStream._batch

    def killed(self, step, part):
        if step == 5:
            raise ConnectionError
        return batch(self, step, part)

    monkeypatch.setattr(ReplayStream, "_batch", killed)
    with pytest.raises(ConnectionError):
        train(run, tmp_path / "killed")
    monkeypatch.setattr(ReplayStream, "_batch", batch)
    train(run, tmp_path / "killed")
    one, other = (load_file(tmp_path / name / "weights.safetensors") for name in ("whole", "killed"))
    assert [name for name in one if not torch.equal(one[name], other[name])] == []
    assert not any(name.startswith(("reward.", "transformer.")) for name in one)  # the video model is no part of it
    rows = [list(csv.DictReader((tmp_path / name / "replay/episodes.csv").open())) for name in ("whole", "killed")]
    assert rows[0] == rows[1] and rows[0] and float(rows[0][0]["reward"]) < 0  # nats
    config = (tmp_path / "whole/config.json").read_text()
    assert str(reward_run) in config


def test_an_agent_that_learns_from_films_alone_goes_on_exactly(tmp_path, monkeypatch):
    monkeypatch.setenv("FILMSTRIP_CACHE", str(tmp_path / "cache"))
    run = agent("amp", updates_per_step=0.25)
    run = replace(run, data=replace(run.data, num_workers=0), evals=())
    train(run, tmp_path / "whole")
    batch = ReplayStream._batch

    def killed(self, step, part):
        if step == 5:
            raise ConnectionError
        found = batch(self, step, part)
        assert found["reward"][~found["first"]].isnan().all()  # the environment's own is not among them
        return found

    monkeypatch.setattr(ReplayStream, "_batch", killed)
    with pytest.raises(ConnectionError):
        train(run, tmp_path / "killed")
    monkeypatch.setattr(ReplayStream, "_batch", batch)
    train(run, tmp_path / "killed")
    one, other = (load_file(tmp_path / name / "weights.safetensors") for name in ("whole", "killed"))
    assert [name for name in one if not torch.equal(one[name], other[name])] == []
    rows = [list(csv.DictReader((tmp_path / name / "replay/episodes.csv").open())) for name in ("whole", "killed")]
    assert rows[0] == rows[1] and rows[0] and rows[0][0]["reward"] == ""  # it would be that of the moment


def test_commands_for_films_of_experts(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FILMSTRIP_CACHE", str(tmp_path / "cache"))
    for name in ("orbit", "point"):
        words = ["--env", name, "--max-steps", "9", "--episodes", "2", "--out", f"experts/{name}"]
        assert main(["rl", "record", *words]) == 0
    small = ["--train.steps", "2", "--data.reads.prefill", "8", "--data.reads.env.max-steps", "6"]
    small += ["--data.num-workers", "0", "--env", "orbit"]
    for experts, out in (("experts/orbit", "one"), ("experts", "several")):
        assert main(["train", "control.amp:tiny", "--experts", experts, *small, "--out", out]) == 0
    assert main(["train", "control.amp:tiny", *small, "--out", "wrong"]) == 2
    assert "films of experts in point" in capsys.readouterr().err
    assert main(["train", "control.amp:tiny", "--reward", "one", "--experts", "experts", *small, "--out", "x"]) == 2
    assert "leave out --reward one" in capsys.readouterr().err
    assert main(["train", "control.drq:tiny", "--experts", "experts", "--out", "x"]) == 2
    assert "such as control.amp" in capsys.readouterr().err
    blanked = ["--data.blanked", "0", "0", "1", "0.2"]
    assert main(["train", "control.amp:tiny", "--experts", "experts", *small, *blanked, "--out", "x"]) == 2
    assert "objective.blanked" in capsys.readouterr().err
    assert main(["train", "control.dreamer:tiny", "--data.reads.experts", "--data", "experts", "--out", "x"]) == 2
    assert "train control.amp" in capsys.readouterr().err
    assert main(["rl", "play", "one", "--episodes", "2", "--out", "episodes"]) == 0
    assert "2 episodes, 12 steps" in capsys.readouterr().out


def test_a_policy_that_is_shown_its_task_is_measured_and_plays(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FILMSTRIP_CACHE", str(tmp_path / "cache"))
    run = find("control.vid2robot:tiny")
    films = replace(run.data.synthetic, tasks=("left", "up"), num_train=2, num_test=1, max_steps=5)
    data = replace(run.data, synthetic=films, num_workers=0, batch_size=4)
    train(replace(run, data=data, train=replace(run.train, length=Steps(2))), tmp_path / "shown")
    film = next((tmp_path / "cache").rglob("prompts/test/up/*.mp4"))
    play, returns = ["rl", "play", "shown", "--episodes", "1", "--out", "episodes"], ["eval", "shown"]
    returns += ["--protocol", "returns", "--episodes", "1"]
    told = ["--env", "pick/up/steel", "--prompt", str(film)]
    for command in (play, returns):
        for words, message in (
            (told[:2], "--prompt FILM"),
            ([*told[:2], "--prompt", "nowhere.mp4"], "nowhere.mp4 cannot be read"),
            (told[2:], "--env NAME"),
        ):
            assert main([*command, *words]) == 2
            assert message in capsys.readouterr().err
    assert main([*play, *told]) == 0
    assert "1 episodes, 24 steps" in capsys.readouterr().out
    assert main([*returns, *told]) == 0
    measured = dict(line.split()[:2] for line in capsys.readouterr().out.splitlines() if "return" in line)
    with open("episodes/manifest.csv") as file:
        [row] = csv.DictReader(file)
    assert float(measured["expert_return"]) > 10 and float(measured["random_return"]) < 10
    assert 0 <= float(measured["return/n1"]) <= 24 and 0 <= float(row["return"]) <= 24
    assert main(["eval", "shown", "--protocol", "prompted_success", "--episodes", "1"]) == 0
    measured = dict(line.split()[:2] for line in capsys.readouterr().out.splitlines() if "success_rate" in line)
    assert float(measured["expert_success_rate"]) == 1 and float(measured["random_success_rate"]) < 1


def test_commands(tmp_path, reward_run, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = ["--env", "orbit", "--reward", str(reward_run), "--reward.kind", "joint", "--reward.beta", "0.5"]
    small = [
        "--train.steps",
        "2",
        "--data.reads.prefill",
        "8",
        "--data.reads.env.max-steps",
        "6",
        "--data.num-workers",
        "0",
    ]
    assert main(["train", "control.drq:tiny_bonus", *words, *small, "--out", "agent"]) == 0
    assert main(["rl", "play", "agent", "--episodes", "2", "--out", "episodes"]) == 0
    assert "2 episodes, 12 steps" in capsys.readouterr().out
    assert (
        main(
            ["rl", "record", "--env", "point", "--max-steps", "8", "--episodes", "3", "--best", "2", "--out", "films"]
        )
        == 0
    )
    assert sorted(path.name for path in (tmp_path / "films").glob("*.mp4")) == ["00000.mp4", "00001.mp4"]
    films = ["films/00000.mp4", "episodes/00000.mp4"]
    assert main(["reward", str(reward_run), *films, "--out", "reward.gif"]) == 0
    assert main(["reward", str(reward_run), *films, "--out", "rewards.csv"]) == 0
    said = capsys.readouterr().out
    assert "nats a code" in said and "earns most in" in said
    assert len((tmp_path / "rewards.csv").read_text().splitlines()) == 1 + 9 + 7
    assert (tmp_path / "reward.gif").stat().st_size


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["train", "recognition.i3d", "--env", "point"], "systems that act in environments"),
        (["train", "control.drq:tiny", "--env", "pong"], "3 discrete ones"),
        (["train", "control.drq:tiny", "--env", "nothing_of_this:Env"], "no package 'nothing_of_this'"),
        (["rl", "record", "--env", "point", "--policy", "clever", "--out", "x"], "--policy clever"),
        (["rl", "dance"], "use record or play"),
    ],
)
def test_wrong_input(words, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(words) == 2
    assert message in capsys.readouterr().err


def test_frames_of_another_size_than_the_rewards_are_refused(tmp_path, reward_run):
    run = agent(reward_run=str(reward_run))
    env = replace(run.data.reads.env, size=48)
    with pytest.raises(UserError, match="size 32"):
        train(replace(run, data=replace(run.data, reads=replace(run.data.reads, env=env))), tmp_path / "run")
