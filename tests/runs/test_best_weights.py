"""The best weights of a run by a metric: what is kept, loaded and predicted with."""

import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

import filmstrip
from colour_videos import write_colours
from filmstrip import systems
from filmstrip.__main__ import main
from filmstrip.data.config import Clip, Data
from filmstrip.errors import UserError
from filmstrip.evals.multi_view import MultiView
from filmstrip.runs import experiment
from filmstrip.runs.loading import load_objective
from filmstrip.train.config import Loop
from filmstrip.train.lengths import Steps


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("videos")
    for colour in ("red", "blue"):
        for number in range(4):
            write_colours(folder / colour / f"{number}.mp4", colour, frames=12)
    return folder


@pytest.fixture(scope="module")
def run(videos):
    tiny = systems.find("recognition.vit:tiny")
    clip = Clip(num_frames=4, stride=1, size=16, short_side=(16, 16))
    return replace(
        tiny,
        data=Data(path=videos, clip=clip, batch_size=2, num_workers=0),
        objective=replace(tiny.objective, width=12, depth=1, num_heads=2, num_frames=4, size=16),
        train=Loop(length=Steps(6), log_every=1, eval_every=2, best="top1"),
        evals=(MultiView(num_clips=1, num_crops=1),),
    )


@pytest.fixture(scope="module")
def trained(run, tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained") / "run"
    return folder, experiment.train(run, folder)


def test_everything_loads_the_best_weights_unless_told_otherwise(trained, videos, capsys):
    folder, result = trained
    recorded = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    scores = {row["step"]: row["eval/top1"] for row in recorded if "eval/top1" in row}
    best = max(scores, key=lambda step: (scores[step], -step))
    assert list(scores) == [2, 4, 6] and result.metrics["top1"] == scores[best]
    kept, last = (load_file(folder / f"{name}.safetensors") for name in ("weights", "last"))
    name = "head.weight"
    assert torch.equal(load_objective(folder, "cpu")[0].state_dict()[name], kept[name])
    assert torch.equal(load_objective(folder, "cpu", last=True)[0].state_dict()[name], last[name])
    assert torch.equal(filmstrip.load(folder, "cpu", last=True).objective.state_dict()[name], last[name])
    assert torch.equal(result.objective.state_dict()[name], kept[name])
    assert torch.equal(kept[name], last[name]) == (best == 6)
    lines = (folder / "metrics.jsonl").read_text()
    assert main(["eval", str(folder), "--last"]) == 0
    assert f"top1                     {scores[6]:.4f}" in capsys.readouterr().out
    assert (folder / "metrics.jsonl").read_text() == lines
    for flags in ([], ["--last"]):
        assert main(["predict", str(folder), str(videos / "red" / "0.mp4"), "--json", *flags]) == 0
        shown = json.loads(capsys.readouterr().out)["files"][0]["top"][0][1]
        classifier = filmstrip.load(folder, "cpu", last=bool(flags))
        assert shown == pytest.approx(classifier.predict(videos / "red" / "0.mp4").top[0][1])


def test_a_metric_that_is_not_measured_is_refused_before_the_first_step(run, tmp_path):
    wrong = replace(run, train=replace(run.train, best="top2"))
    with pytest.raises(
        UserError, match="'top2', which the run's evaluations do not measure; they measure top1, mean"
    ):
        experiment.train(wrong, tmp_path / "run")
    with pytest.raises(UserError, match="no evaluation that could measure it"):
        experiment.train(replace(run, evals=()), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_what_learns_from_labels_is_evaluated_on_the_way(run, tmp_path, monkeypatch):
    monkeypatch.setattr(experiment, "FEWEST_STEPS", 3)
    quick = replace(run, train=Loop(length=Steps(7), log_every=10))
    experiment.train(quick, tmp_path / "labels")
    experiment.train(replace(quick, train=replace(quick.train, eval_every=0)), tmp_path / "end")
    steps = [
        [row["step"] for row in map(json.loads, (tmp_path / name / "metrics.jsonl").open()) if "eval/top1" in row]
        for name in ("labels", "end")
    ]
    assert steps == [[3, 6, 7], [7]]
    assert not (tmp_path / "labels" / "last.safetensors").exists()
