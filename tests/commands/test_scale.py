"""``filmstrip scale``: its ladder, its budget, resuming, what it finds, and what it refuses."""

import csv
import json
from dataclasses import replace

import pytest
import torch

from filmstrip import systems
from filmstrip.__main__ import main
from filmstrip.commands.scale import Ladder
from filmstrip.commands.work import scale as work
from filmstrip.commands.work.scaling_page import Measured, Sweep, scaling_report
from filmstrip.data.features import FeatureWriter
from filmstrip.errors import Diverged, Terminated
from filmstrip.protocols import Grid
from filmstrip.runs import experiment
from filmstrip.runs.contents import history
from filmstrip.runs.tokenizers import tokenizer_fingerprint
from filmstrip.systems.pretraining import toto
from run_folders import save_run

GRID = Grid(2, 2, 2)
CODES = 8


@pytest.fixture(scope="module")
def tokens(tmp_path_factory):
    """48 clips whose frames are all the same four codes of the first eight: soon learnt."""
    folder = tmp_path_factory.mktemp("tokens")
    tokenizer, _ = save_run(folder / "dvae", "tokenizers.dvae:tiny")
    about = {
        "weights": tokenizer_fingerprint(tokenizer),
        "encoder": str(folder / "dvae"),
        "level": "ids",
        "codebook_size": str(tokenizer.codebook_size),
        "classes": "[]",
    }
    with FeatureWriter(folder / "ids", about=about) as writer:
        for i in range(48):
            frame = torch.randint(8, (4,), generator=torch.Generator().manual_seed(i))
            split = "train" if i < 32 else "test"
            writer.add(f"clip{i}", frame.repeat(2)[None, :, None].short(), grid=GRID, label=None, split=split)
    return folder / "ids"


SMALL = {"objective.width": 8, "objective.depth": 1, "objective.num-heads": 1, "objective.mlp-dim": 16}
BUDGET = {"ladder": 3, "tokens": 6144, "checkpoints": 3, "rates": "1e-2 4e-2", "sweep-tokens": 256, "passes": 40}


@pytest.fixture
def scaled(tokens, tmp_path):
    """Runs the command; gives its exit code."""

    def run(*more, **changes):
        options = {"data": tokens, "out": tmp_path / "out", "data.num-workers": 0, "data.batch-size": 16}
        options |= SMALL | BUDGET | {name.replace("_", "-"): value for name, value in changes.items()}
        words = [word for name, value in options.items() for word in (f"--{name}", *str(value).split())]
        return main(["scale", "pretraining.toto:tiny", *words, *more])

    return run


@pytest.fixture
def trained(monkeypatch):
    """The folders that are trained, as it happens."""
    names = []
    train = experiment.train

    def watched(run, folder):
        names.append(folder.name)
        return train(run, folder)

    monkeypatch.setattr(experiment, "train", watched)
    return names


def test_the_presets_of_toto_are_the_ladder_of_the_first():
    first = toto.a1()
    corpus = work.Corpus(codes=8, tokens=8, unigram=1.0, batch={"tokens": torch.zeros(1, 4096, device="meta").long()})
    for i in (1, 3):
        assert work.size_of(first, i, corpus).run == getattr(toto, f"a{i}")()
    narrow, wide = (work.size_of(first, i, corpus, depth=2).run.objective for i in (1, 2))
    assert (narrow.depth, wide.depth, wide.width, wide.base_width) == (2, 2, 256, 128)


def test_the_command_begins_with_the_smallest_preset(monkeypatch, tmp_path):
    seen = []
    monkeypatch.setattr(work, "scale", lambda run, out, ladder: seen.append((run, out, ladder)) or 0)
    assert main(["scale", "pretraining.toto", "--tokens", "5e5", "--optim.lr", "0.5", "--out", str(tmp_path)]) == 0
    run, out, ladder = seen[0]
    assert run == replace(toto.a1(), optim=replace(toto.a1().optim, lr=0.5))
    assert out == tmp_path and ladder == Ladder(tokens=5e5)


def test_a_law_is_found_and_nothing_is_trained_twice(scaled, trained, tmp_path, capsys):
    out = tmp_path / "out"
    assert scaled() == 0
    assert sorted(trained) == sorted(["lr-0.01", "lr-0.04"] * 3 + [path.name for path in (out / "sizes").iterdir()])
    found = json.loads((out / "scaling.json").read_text())
    with (out / "points.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(found["points"]) == 9
    assert [row["step"] for row in rows[:3]] == ["16", "32", "48"] and rows[2]["clips"] == "768"
    by_size = {point["size"]: point for point in found["points"]}
    assert [by_size[i]["width"] for i in (1, 2, 3)] == [8, 16, 24] and by_size[3]["depth"] == 3
    assert by_size[1]["multiply_adds"] < by_size[2]["multiply_adds"] < by_size[3]["multiply_adds"]
    assert by_size[3]["loss"] < found["unigram"] < 2.3  # ln 8 = 2.08 and what counting 32 clips misses
    assert found["law"]["power"]["exponent"] > 0
    assert [sweep["best"] for sweep in found["sweeps"]] == [0.04] * 3
    assert not list((out / "sweep").rglob("*.safetensors")) and len(list((out / "sizes").rglob("weights*"))) == 3
    page = (out / "report.html").read_text()
    assert "unigram entropy" in page and "preliminary" in page
    trained.clear()
    assert scaled() == 0 and not trained
    assert json.loads((out / "scaling.json").read_text()) == found
    said = capsys.readouterr().out
    assert "trained already" in said and "tried already" in said


@pytest.mark.slow
def test_an_interrupted_ladder_goes_on_and_more_tokens_extend_it(scaled, trained, tmp_path, monkeypatch):
    train = experiment.train

    def stopped(run, folder):
        train(run, folder)
        if len(trained) == 1:
            raise Terminated()

    monkeypatch.setattr(experiment, "train", stopped)
    assert scaled(sweep="none") == 143
    monkeypatch.setattr(experiment, "train", train)
    assert scaled(sweep="none") == 0
    assert len(trained) == 3 and len(set(trained)) == 3
    first = json.loads((tmp_path / "out" / "scaling.json").read_text())["points"]
    assert scaled(sweep="none", tokens=8192) == 0 and len(trained) == 6
    points = json.loads((tmp_path / "out" / "scaling.json").read_text())["points"]
    assert max(point["step"] for point in points) == 64
    assert first == [point for point in points if point["step"] in (16, 32, 48)]


def test_a_rate_that_diverges_is_left_out(scaled, monkeypatch, tmp_path, capsys):
    train = experiment.train

    def diverging(run, folder):
        if run.optim.lr == 4e-2:
            raise Diverged("step 1: loss is not finite")
        return train(run, folder)

    monkeypatch.setattr(experiment, "train", diverging)
    assert scaled(tokens=1024) == 0
    found = json.loads((tmp_path / "out" / "scaling.json").read_text())
    assert {sweep["best"] for sweep in found["sweeps"]} == {1e-2} and found["sweeps"][0]["losses"]["0.04"] is None
    assert "diverged" in capsys.readouterr().out


def test_runs_that_stop_before_learning_are_said_and_not_fitted(scaled, capsys, tmp_path):
    assert scaled(sweep="none", tokens=512, **{"optim.lr": 1e-6}) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "No law could be fitted" in said and "stopped before anything was learnt" in said
    assert json.loads((tmp_path / "out" / "scaling.json").read_text())["law"] is None


def test_losses_are_those_that_the_runs_recorded(scaled, tmp_path):
    assert scaled(sweep="none", tokens=512) == 0
    found = json.loads((tmp_path / "out" / "scaling.json").read_text())["points"]
    recorded = history(tmp_path / "out" / "sizes" / "8x1-lr-0.003")["eval/nats/n16"]
    assert [point["loss"] for point in found[:4] if point["size"] == 1] == pytest.approx(
        [nats / CODES for nats in recorded[1]]
    )


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"ladder": 2}, "at least 3 sizes"),
        ({"passes": 1}, "24.0 passes over the 256 tokens"),
        ({"tokens": 256}, "2 steps of 128 tokens, fewer than --checkpoints 3"),
        ({"sweep_tokens": 10}, "less than one step"),
        ({"objective.base-width": 8}, "output layer of its own"),
        ({"tokens": -1}, "expected a number above 0"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_trained(scaled, trained, capsys, changes, said):
    assert scaled(**changes) == 2
    assert said in capsys.readouterr().err and not trained


@pytest.mark.parametrize("system", ["recognition.vit", "pretraining.videomae"])
def test_other_systems_are_refused(system, tokens, tmp_path, capsys):
    assert main(["scale", system, "--data", str(tokens), "--out", str(tmp_path / "out")]) == 2
    assert "give pretraining.toto or generation.videogpt" in capsys.readouterr().err


def test_a_folder_of_other_runs_is_refused(scaled, capsys):
    assert scaled(sweep="none", tokens=512) == 0
    assert scaled(sweep="none", tokens=512, seed=1) == 2
    assert "holds another run" in capsys.readouterr().err


def test_videogpt_has_a_ladder_too():
    corpus = work.Corpus(codes=8, tokens=8, unigram=1.0, batch={"tokens": torch.zeros(1, 256, device="meta").long()})
    run = systems.find("generation.videogpt:tiny")
    run = replace(run, objective=replace(run.objective, conditions=()))
    costs = [work.size_of(run, i, corpus).multiply_adds for i in (1, 2)]
    assert 0 < 4 * costs[0] < costs[1]


def test_the_page_says_which_rates_moved():
    sweeps = [
        Sweep(kind="width", size=i, width=8 * i, depth=1, losses={0.1: 2.0, 0.2: 1.0 + i % 2, 0.4: None}, steps=5)
        for i in (1, 2)
    ]
    assert [sweep.best for sweep in sweeps] == [0.1, 0.2] and sweeps[0].at_edge and not sweeps[1].at_edge
    nothing = Measured(
        ladder=3, tokens=1, points=[], unigram=2.0, margin=0.01, sweeps=sweeps, law=None, failures={}, mup=True
    )
    page = scaling_report(nothing).html()
    assert "8x1: 0.1; 16x1: 0.2" in page and "widen --rates" in page
