"""Runs on videos with several classes or numbers, from the manifest to predictions."""

import csv
import json
from dataclasses import replace

import pytest
import torch

import filmstrip
from colour_videos import write_colours
from filmstrip import systems
from filmstrip.__main__ import main
from filmstrip.data.config import Clip, Data
from filmstrip.data.kinds.clips import Clips
from filmstrip.errors import UserError
from filmstrip.evals.knn import KNN
from filmstrip.evals.multi_view import MultiView
from filmstrip.report.run import run_report
from filmstrip.runs import experiment
from filmstrip.runs.target_predictions import NumberPredictions, SeveralPredictions
from filmstrip.train.config import Loop
from filmstrip.train.lengths import Steps
from filmstrip.train.optim import AdamW

CONTENT = [["red"], ["blue"], ["red", "blue"], ["green"], ["red", "green"], ["blue", "green"]]


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    """Colours one after another; the manifests tell all of them, or the share of red."""
    folder = tmp_path_factory.mktemp("videos")
    rows = []
    for i, colours in enumerate(CONTENT * 2):
        write_colours(folder / f"{i}.mp4", *colours, frames=8 // len(colours))
        rows.append((f"{i}.mp4", "train" if i < 6 else "test", colours))
    labels = {"several": ";".join, "number": lambda colours: 10 + 5 * ("red" in colours) / len(colours)}
    for name, label in labels.items():
        with (folder / f"{name}.csv").open("w", newline="") as file:
            table = [(path, label(colours), split) for path, split, colours in rows]
            csv.writer(file).writerows([("path", "label", "split"), *table])
    return folder


def run_on(videos, labels, system="recognition.c3d", steps=1, **changes):
    tiny = systems.find(f"{system}:tiny")
    clip = Clip(num_frames=8, stride=1, size=32, short_side=(32, 32))
    data = Data(path=videos / f"{labels}.csv", reads=Clips(labels=labels), clip=clip, batch_size=6, num_workers=0)
    run = replace(
        tiny,
        train=Loop(length=Steps(steps), log_every=1),
        optim=AdamW(lr=3e-3, weight_decay=0.0),
        evals=(MultiView(num_clips=1, num_crops=1),),
    )
    run = replace(run, data=data).on_clip(clip)
    return replace(run, objective=replace(run.objective, **changes))


@pytest.fixture(scope="module")
def several(videos, tmp_path_factory):
    folder = tmp_path_factory.mktemp("several") / "run"
    return folder, experiment.train(run_on(videos, "several", steps=25), folder)


@pytest.fixture(scope="module")
def number(videos, tmp_path_factory):
    folder = tmp_path_factory.mktemp("number") / "run"
    return folder, experiment.train(run_on(videos, "number", steps=25), folder)


def table(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_several_classes_are_learnt_evaluated_and_predicted(several, videos, capsys, tmp_path):
    folder, result = several
    assert result.run.objective.labels == "several" and result.metrics["mAP"] > 0.8, result.metrics
    losses = [json.loads(line)["loss"] for line in (folder / "metrics.jsonl").read_text().splitlines()[:-1]]
    assert losses[-1] < losses[0] / 2
    rows = table(folder / "predictions.csv")
    assert rows[2]["label"] == "blue;red" and set(rows[0]) == {"file", "label"} | {
        f"{what}_{i}" for i in (1, 2, 3) for what in ("class", "score")
    }
    classes = [(row["class"], row["videos"]) for row in table(folder / "classes.csv")]
    assert classes == [("blue", "3"), ("green", "3"), ("red", "3")]
    capsys.readouterr()
    assert main(["eval", str(folder)]) == 0
    assert f"mAP                      {result.metrics['mAP']:.4f}" in capsys.readouterr().out
    assert main(["predict", str(folder), str(videos / "2.mp4"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["files"][0]
    assert found["labels"] == "several" and {name for name, p in found["top"] if p > 0.5} == {"red", "blue"}
    assert sum(p for _, p in found["top"]) > 1.2, "probabilities are each class's own"
    assert "Mean average precision" in run_report(folder).read_text()


def test_numbers_are_learnt_evaluated_and_predicted(number, videos, capsys, tmp_path):
    folder, result = number
    assert result.metrics["mae"] < 1.0 and result.metrics["spearman"] > 0.5 and result.metrics["pearson"] > 0.8
    row = table(folder / "predictions.csv")[0]
    assert row["label"] == "15.0" and abs(float(row["label predicted"]) - 15) < 2
    assert main(["predict", str(folder), str(videos / "0.mp4"), "--out", str(tmp_path / "out.csv")]) == 0
    told = table(tmp_path / "out.csv")[0]
    predicted = filmstrip.load(folder, "cpu").predict(videos / "0.mp4")
    assert predicted.top[0] == ("label", pytest.approx(float(told["label predicted"]), abs=1e-4))
    capsys.readouterr()
    assert main(["predict", str(folder), str(videos / "0.mp4")]) == 0
    assert f"label  {predicted.top[0][1]:.4g}" in capsys.readouterr().out
    assert main(["explain", str(folder), str(videos / "0.mp4"), "--out", str(tmp_path / "x.mp4")]) == 2
    assert "predicts numbers" in capsys.readouterr().err
    assert "Mean absolute error" in run_report(folder).read_text()


@pytest.mark.parametrize("system", ["recognition.lrcn", "recognition.single_frame", "recognition.two_stream"])
def test_methods_that_learn_one_class_say_so(videos, tmp_path, system):
    with pytest.raises(UserError, match="learns from videos with one class each, and these have several"):
        experiment.train(run_on(videos, "several", system), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_fine_tuning_learns_numbers(videos, tmp_path):
    result = experiment.train(run_on(videos, "number", "recognition.finetuned"), tmp_path / "run")
    assert result.metrics["mae"] < 5 and result.objective.labels == "number"


def test_what_does_not_fit_is_refused_or_left_out(several, videos, tmp_path, caplog):
    folder, _ = several
    with pytest.raises(UserError, match=r"KNN compares videos of one class each, and those of .* have several"):
        list(experiment.evaluate(folder, (KNN(),)))
    rows = ("path,label,split", f"{videos}/0.mp4,red,train", f"{videos}/1.mp4,,train", f"{videos}/2.mp4,red,test")
    (tmp_path / "some.csv").write_text("\n".join(rows))
    run = run_on(videos, "several")
    with pytest.raises(UserError, match=r"have none, such as .* \(\[\] stands for none of the classes\)"):
        experiment.train(replace(run, data=replace(run.data, path=tmp_path / "some.csv")), tmp_path / "run")
    weighted = run_on(videos, "number", balance=1.0)
    with pytest.raises(UserError, match="are for classes, and the labels are numbers"):
        experiment.train(weighted, tmp_path / "run")


def test_average_precision_is_that_of_scikit_learn():
    metrics = pytest.importorskip("sklearn.metrics")
    torch.manual_seed(0)
    labels, scores = (torch.rand(40, 3) < 0.3).float(), torch.rand(40, 3)
    labels[:, 2] = 0
    found = SeveralPredictions(("v",) * 40, labels, scores, ("a", "b", "c"), 0)
    expected = [metrics.average_precision_score(labels[:, i], scores[:, i]) for i in range(2)]
    assert found.average_precision()[:2].tolist() == pytest.approx(expected, rel=1e-5)
    assert dict(found.metrics())["mAP"] == pytest.approx(sum(expected) / 2, rel=1e-5)


def test_correlations_are_those_of_scipy():
    stats = pytest.importorskip("scipy.stats")
    torch.manual_seed(0)
    true = torch.rand(30, 2)
    said = true + 0.3 * torch.randn(30, 2)
    found = dict(NumberPredictions(("v",) * 30, true, said, ("x", "y"), 1).metrics())
    for i, name in enumerate("xy"):
        assert found[f"spearman/{name}"] == pytest.approx(stats.spearmanr(said[:, i], true[:, i])[0], rel=1e-4)
        assert found[f"pearson/{name}"] == pytest.approx(stats.pearsonr(said[:, i], true[:, i])[0], rel=1e-4)
    assert found["mae"] == pytest.approx((said - true).abs().mean().item(), rel=1e-5) and found["unreadable"] == 1
