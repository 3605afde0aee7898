import io
import json
import math

import pytest
from rich.console import Console

from colour_videos import CLIP, RGB, Colours, write_colours
from filmstrip.commands.work import predict
from filmstrip.commands.work.predict import Failure, Moment, Prediction, predict_file, predict_files, render
from filmstrip.data.config import Data
from filmstrip.errors import UserError
from filmstrip.objectives.config import ObjectiveConfig
from filmstrip.protocols import Objective
from filmstrip.runs.config import Run
from filmstrip.train.config import Loop
from filmstrip.train.lengths import Steps

RUN = Run(data=Data(clip=CLIP), objective=ObjectiveConfig(), train=Loop(length=Steps(1)))
SURE = math.exp(10) / (math.exp(10) + 2)


@pytest.fixture
def flag(tmp_path):
    return write_colours(tmp_path / "flag.mp4", "red", "blue")


@pytest.fixture
def run_of(monkeypatch):
    def use(objective):
        monkeypatch.setattr(predict, "load_objective", lambda folder: (objective, RUN))
        monkeypatch.setattr(predict, "load_classes", lambda folder: tuple(RGB))

    return use


def text(result, width=80):
    console = Console(width=width, file=io.StringIO())
    console.print(render(result, width))
    return console.file.getvalue()


def test_timeline_and_average(flag):
    found = predict_file(Colours(), RUN, flag, classes=tuple(RGB), num_clips=4, num_crops=3, top_k=2)
    assert [m.label for m in found.timeline] == ["red", "red", "blue", "blue"]
    assert all(m.probability == pytest.approx(SURE, rel=0.02) for m in (found.timeline[0], found.timeline[-1]))
    starts, ends = [m.start for m in found.timeline], [m.end for m in found.timeline]
    assert starts == sorted(starts) and starts[0] >= 0 and ends[-1] <= 4.0
    # Four frames, two frames apart, at eight frames a second.
    assert all(end - start == pytest.approx(6 / 8) for start, end in zip(starts, ends))
    assert {label for label, _ in found.top} == {"red", "blue"}
    assert all(p == pytest.approx(0.5, abs=0.03) for _, p in found.top)
    assert not found.damaged


def test_a_bad_file_does_not_stop_the_others(flag, tmp_path, run_of, capsys):
    run_of(Colours())
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"this is no video")
    assert predict_files(tmp_path, [broken, flag, tmp_path / "absent.mp4"], as_json=True) == 1
    first, second, third = json.loads(capsys.readouterr().out)["files"]
    assert first["path"] == str(broken) and "reason" in first
    assert second["top"][0][0] in ("red", "blue") and len(second["timeline"]) == 4
    assert third["path"].endswith("absent.mp4") and "no such file" in third["reason"]
    assert predict_files(tmp_path, [flag], as_json=True) == 0


def test_a_run_that_is_no_classifier_is_refused(flag, run_of):
    run_of(Objective())
    with pytest.raises(UserError, match="is not a classifier"):
        predict_files(flag.parent, [flag])


def test_classes_must_be_the_models(flag):
    with pytest.raises(UserError, match="has 3 classes, but 2 names"):
        predict_file(Colours(), RUN, flag, classes=("a", "b"))


@pytest.mark.parametrize("width", [40, 80, 200])
def test_the_strip_reads_without_colour(width):
    moments = (Moment(0, 2, "walk", 0.9), Moment(2, 4, "walk", 0.2), Moment(4, 8, "run", 1.0))
    lines = text(Prediction("a.mp4", (("walk", 0.55), ("run", 0.45)), moments), width).splitlines()
    strip, sureness, axis = (line[2:] for line in lines[3:6])
    assert strip.startswith("▏walk") and strip.count("▏") == 2
    # The border lies half-way between the middles of the second clip (3 s) and the third (6 s).
    assert strip.index("▏run") / len(sureness) == pytest.approx(4.5 / 8, abs=0.03)
    assert (sureness[0], sureness[-1]) == ("█", "█") and "▂" in sureness
    assert axis.startswith("0.0 s") and axis.endswith("8.0 s")
    assert max(map(len, lines)) <= width
    assert "55.0%" in lines[1]


def test_a_name_that_does_not_fit_is_cut_visibly():
    moments = (Moment(0, 1, "x", 1.0), Moment(1, 2, "a very long name indeed", 1.0))
    assert "▏a very long name…" in text(Prediction("a.mp4", (("x", 1.0),), moments), 40).splitlines()[2]


def test_names_with_markup_are_printed_as_they_are():
    lines = text(Prediction("[red]a.mp4", (("[bold]x[/]", 1.0),), (Moment(0, 1, "[bold]x[/]", 1.0),)))
    assert "[red]a.mp4" in lines and lines.count("[bold]x[/]") == 2
    assert "[/b] is bad" in text(Failure("a.mp4", "[/b] is bad"))


def test_no_more_clips_than_frames(flag, caplog):
    found = predict_file(Colours(), RUN, flag, classes=tuple(RGB), num_clips=100_000, num_crops=1)
    assert len(found.timeline) == 32
    assert "32 clips are cut of it, as many as it has frames, and not 100000" in caplog.text


def test_files_are_needed(flag, run_of):
    run_of(Colours())
    with pytest.raises(UserError, match="predict needs videos"):
        predict_files(flag.parent, [])
    with pytest.raises(UserError, match=r"is a folder, and predict takes files"):
        predict_files(flag.parent, [flag, flag.parent])
