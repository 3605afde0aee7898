import csv
import errno
import io
import json
from dataclasses import replace

import pytest
from rich.console import Console

from colour_videos import RGB, write_colours
from filmstrip import systems
from filmstrip.__main__ import main
from filmstrip.commands.compare import Budget
from filmstrip.commands.work.compare import MOTIONS, SPEED, compare, plan, planned
from filmstrip.errors import Terminated, UserError
from filmstrip.measure.complexity import try_out
from filmstrip.runs import experiment
from filmstrip.train.lengths import Steps

RECOGNITION = [name for name in systems.names() if name.startswith("recognition.")]
MADE_FOR_OTHERS = [
    name
    for name in RECOGNITION
    if ((clip := systems.find(name).data.clip).num_frames, clip.size) != (Budget().frames, Budget().size)
]
FLAT, DEEP = "recognition.early_fusion", "recognition.late_fusion:tiny_pooling"
TINY = Budget(steps=2, batch_size=3, frames=4, stride=1, size=16, views=1, num_workers=0)


@pytest.fixture
def videos(tmp_path):
    for colour in RGB:
        for split, count in (("train", 2), ("test", 1)):
            for i in range(count):
                write_colours(tmp_path / "videos" / split / colour / f"{i}.mp4", colour)
    return tmp_path / "videos"


@pytest.fixture
def compared(videos, tmp_path):
    """Compares within the smallest budget; gives the exit code and what was said."""

    def run(*addresses, **options):
        console = Console(file=io.StringIO(), width=200)
        code = compare(addresses, tmp_path / "out", data=videos, budget=TINY, console=console, **options)
        return code, console.file.getvalue()

    return run


@pytest.fixture
def trained(monkeypatch):
    """The names of the folders that are trained, as it happens."""
    names = []
    train = experiment.train

    def watched(run, folder):
        names.append(folder.name)
        return train(run, folder)

    monkeypatch.setattr(experiment, "train", watched)
    return names


@pytest.mark.parametrize("name", MADE_FOR_OTHERS)
def test_networks_are_made_for_the_shared_clip(name):
    run, own = plan(name, Budget(), None), systems.find(name)
    try_out(run)
    assert (run.data.clip.num_frames, run.data.clip.stride, run.data.clip.sampling) == (8, 2, "dense")
    assert run.optim == own.optim and run.train.length == Steps(Budget().steps)


def test_all_but_the_method_is_shared():
    runs = planned([], Budget(), None)
    assert list(runs) == [name for name in RECOGNITION if name != "recognition.probe"]  # for what other runs learnt
    assert len({(run.data, run.evals, run.train.length, run.seed) for run in runs.values()}) == 1
    assert next(iter(runs.values())).data.synthetic == MOTIONS
    assert len({run.objective for run in runs.values()}) == len(runs)


def test_one_table_of_what_was_trained(compared, tmp_path):
    code, said = compared(FLAT, DEEP)
    assert code == 0 and "early_fusion" in said and "2 steps of 3 clips of 4 frames, 1 apart, 16 × 16" in said
    table = json.loads((tmp_path / "out" / "table.json").read_text())
    rows = {row["system"]: row for row in table["rows"]}
    assert rows.keys() == {"early_fusion", "late_fusion:tiny_pooling"}
    assert table["budget"]["steps"] == 2 and table["chance"] == pytest.approx(1 / 3)
    for address, name in ((FLAT, "early_fusion"), (DEEP, "late_fusion:tiny_pooling")):
        row, folder = rows[name], tmp_path / "out" / address.replace(":", "-")
        last = json.loads((folder / "metrics.jsonl").read_text().splitlines()[-1])
        assert row["top1"] == last["eval/top1"] and row["videos"] == 3
        assert row["low"] <= row["top1"] <= row["high"]
        assert row["multiply_adds"] > 0 and row["train_seconds"] > 0 and row["step_memory_bytes"] > 0
        assert row["clips_per_second"] == json.loads((folder / SPEED).read_text())["clips_per_second"] > 0
    with (tmp_path / "out" / "table.csv").open() as file:
        assert [row["system"] for row in csv.DictReader(file)] == [row["system"] for row in table["rows"]]
    page = (tmp_path / "out" / "report.html").read_text()
    assert "Accuracy against compute" in page and page.count('class="spot') == 2
    assert "early_fusion (20 frames of 64 × 64)" in page


def test_what_is_done_is_not_done_again(compared, trained, tmp_path):
    compared(FLAT, measure=False)
    assert not list((tmp_path / "out").glob(f"*/{SPEED}"))
    compared(FLAT, DEEP)
    assert trained == [FLAT, DEEP.replace(":", "-")]
    speeds = {path: path.read_text() for path in (tmp_path / "out").glob(f"*/{SPEED}")}
    assert len(speeds) == 2
    compared(FLAT, DEEP)
    assert len(trained) == 2 and {path: path.read_text() for path in speeds} == speeds


def test_an_interrupted_comparison_goes_on(compared, trained, monkeypatch):
    evaluate = experiment._evaluate

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(experiment, "_evaluate", interrupted)
    with pytest.raises(KeyboardInterrupt):
        compared(FLAT, DEEP)
    monkeypatch.setattr(experiment, "_evaluate", evaluate)
    code, _ = compared(FLAT, DEEP)
    assert code == 0 and trained == [FLAT, FLAT, DEEP.replace(":", "-")]


def test_a_system_that_fails_has_a_row_and_stops_no_other(compared, tmp_path):
    code, said = compared("recognition.uniformer", FLAT)  # which divides a frame's sides by 32
    assert code == 1 and "uniformer failed" in said
    table = json.loads((tmp_path / "out" / "table.json").read_text())
    assert [row["system"] for row in table["rows"]] == ["early_fusion", "uniformer"]
    assert "not a multiple" in table["rows"][1]["failure"]
    page = (tmp_path / "out" / "report.html").read_text()
    assert "not a multiple" in page and page.count('class="spot') == 1


@pytest.mark.parametrize("stop", [OSError(errno.ENOSPC, "full"), KeyboardInterrupt(), Terminated()])
def test_what_stops_all_is_no_failure_of_one_system(compared, tmp_path, monkeypatch, stop):
    train = experiment.train

    def stopped(run, folder):
        if folder.name != "recognition.early_fusion":
            raise stop
        return train(run, folder)

    monkeypatch.setattr(experiment, "train", stopped)
    with pytest.raises(type(stop)) as told:
        compared(FLAT, DEEP, measure=False)
    out = tmp_path / "out"
    assert told.value.__notes__[-1] == f"{out} keeps 1 of 2 trained systems: the same command resumes"
    assert not (out / "table.json").exists()


def test_when_all_fail_there_still_is_a_table(compared, tmp_path, monkeypatch):
    def diverged(*_):
        raise UserError("the loss is not finite")

    monkeypatch.setattr(experiment, "train", diverged)
    code, _ = compared(FLAT)
    assert code == 1 and "the loss is not finite" in (tmp_path / "out" / "report.html").read_text()


@pytest.mark.parametrize(
    ("addresses", "expected"),
    [
        ((FLAT, "recognition.vitt"), "did you mean 'recognition.vit'"),
        ((FLAT, "recognition.vit:tyni"), "did you mean 'tiny'"),
        ((FLAT, "pretraining.videomae"), "not a classifier"),
    ],
)
def test_wrong_names_are_refused_before_anything_is_trained(compared, trained, addresses, expected):
    with pytest.raises(UserError, match=expected):
        compared(*addresses)
    assert not trained


def test_a_folder_of_another_comparison_is_refused_before_anything_is_trained(compared, trained, tmp_path, videos):
    compared(FLAT, measure=False)
    longer = replace(TINY, steps=3)
    with pytest.raises(UserError, match="a different comparison"):
        compare([DEEP, FLAT], tmp_path / "out", data=videos, budget=longer, console=Console(quiet=True))
    assert trained == [FLAT]


def test_a_budget_is_not_empty():
    with pytest.raises(UserError, match="views"):
        Budget(views=0)


def test_the_command_passes_on_what_it_is_given(monkeypatch, tmp_path):
    given = {}

    def stand_in(addresses, out, **options):
        given.update(options, addresses=addresses, out=out)
        return 1

    monkeypatch.setattr("filmstrip.commands.work.compare.compare", stand_in)
    words = "compare --systems a,b:c,a --steps 7 --frames 9 --no-measure --out"
    assert main([*words.split(), str(tmp_path)]) == 1
    assert given["addresses"] == ["a", "b:c"] and given["out"] == tmp_path and given["measure"] is False
    assert given["budget"] == Budget(steps=7, frames=9) and given["data"] is None
