import csv
import io
import json
import math

import pyarrow.parquet as pq
import pytest
from rich.console import Console

from colour_videos import CLIP, RGB, Colours, write_colours
from filmstrip.commands.work import predict
from filmstrip.commands.work.predict import Failure, predict_files, render
from filmstrip.errors import UserError
from filmstrip.runs.classifiers import Moment, Prediction, VideoClassifier, load_classifier
from run_folders import save_run

SURE = math.exp(10) / (math.exp(10) + 2)


@pytest.fixture
def flag(tmp_path):
    return write_colours(tmp_path / "flag.mp4", "red", "blue")


@pytest.fixture
def colours(monkeypatch):
    found = VideoClassifier(Colours(), tuple(RGB), CLIP)
    monkeypatch.setattr(predict, "load_classifier", lambda source, last: found)
    return found


def text(result, width=80):
    console = Console(width=width, file=io.StringIO())
    console.print(render(result, width))
    return console.file.getvalue()


def test_timeline_and_average(flag, colours):
    found = colours.predict(flag, num_clips=4, num_crops=3, top_k=2)
    assert [m.label for m in found.timeline] == ["red", "red", "blue", "blue"]
    assert all(m.probability == pytest.approx(SURE, rel=0.02) for m in (found.timeline[0], found.timeline[-1]))
    starts, ends = [m.start for m in found.timeline], [m.end for m in found.timeline]
    assert starts == sorted(starts) and starts[0] >= 0 and ends[-1] <= 4.0
    # Four frames, two frames apart, at eight frames a second.
    assert all(end - start == pytest.approx(6 / 8) for start, end in zip(starts, ends))
    assert {label for label, _ in found.top} == {"red", "blue"}
    assert all(p == pytest.approx(0.5, abs=0.03) for _, p in found.top)
    assert not found.damaged


def test_a_bad_file_does_not_stop_the_others(flag, tmp_path, colours, capsys):
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"this is no video")
    assert predict_files(tmp_path, [broken, flag, tmp_path / "absent.mp4"], as_json=True) == 1
    first, second, third = json.loads(capsys.readouterr().out)["files"]
    assert first["path"] == str(broken) and "reason" in first
    assert second["top"][0][0] in ("red", "blue") and len(second["timeline"]) == 4
    assert third["path"].endswith("absent.mp4") and "no such file" in third["reason"]
    assert predict_files(tmp_path, [flag], as_json=True) == 0


def test_a_run_that_is_no_classifier_is_refused(tmp_path):
    save_run(tmp_path / "run", "pretraining.videomae:tiny")
    with pytest.raises(UserError, match="is not a classifier"):
        load_classifier(tmp_path / "run")


def test_classes_must_be_the_models(flag):
    with pytest.raises(UserError, match="has 3 classes, but 2 names"):
        VideoClassifier(Colours(), ("a", "b"), CLIP).predict(flag)


@pytest.fixture
def collection(tmp_path):
    """A folder of classes, with a file that is no video and one beside the classes, and a manifest of some of it."""
    for name in ("red/1.mp4", "red/2.mp4", "blue/1.mp4"):
        write_colours(tmp_path / "set" / name, name.partition("/")[0])
    (tmp_path / "set/broken.mp4").write_bytes(b"no video")
    (tmp_path / "set/notes.txt").write_text("no video either")
    write_colours(tmp_path / "flag.mp4", "red", "blue")
    rows = ["path,label,start,end", "flag.mp4,red,0,1.5", "flag.mp4,blue,2.5,4", "set/red/1.mp4,,,"]
    (tmp_path / "some.csv").write_text("\n".join(rows))
    return tmp_path


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".json"])
def test_folders_and_manifests_become_a_table(collection, colours, capsys, suffix):
    out = collection / f"said{suffix}"
    paths = [collection / "set", collection / "some.csv"]
    assert predict_files("run", paths, top_k=2, num_clips=2, out=out) == 1
    if suffix == ".csv":
        with out.open(newline="") as file:
            rows = [{name: cell or None for name, cell in row.items()} for row in csv.DictReader(file)]
    else:
        rows = pq.read_table(out).to_pylist() if suffix == ".parquet" else json.loads(out.read_text())
    said = [(row["file"], row.get("label"), row.get("class_1"), bool(row.get("error"))) for row in rows]
    folder = str(collection / "set")
    assert said == [
        (f"{folder}/broken.mp4", None, None, True),
        (f"{folder}/blue/1.mp4", None, "blue", False),
        (f"{folder}/red/1.mp4", None, "red", False),
        (f"{folder}/red/2.mp4", None, "red", False),
        (rows[4]["file"], "red", "red", False),
        (rows[5]["file"], "blue", "blue", False),
        ("set/red/1.mp4", None, "red", False),
    ]
    assert float(rows[1]["score_1"]) == pytest.approx(SURE, abs=0.02)
    assert "broken.mp4" in (said := capsys.readouterr()).out and "7 files, 1 unreadable" in said.err


def test_what_was_predicted_before_ctrl_c_is_kept(collection, colours, monkeypatch):
    seen = []
    whole = VideoClassifier.predict_views

    def stopped(self, name, views, **options):
        if len(seen) == 2:
            raise KeyboardInterrupt
        seen.append(name)
        return whole(self, name, views, **options)

    monkeypatch.setattr(VideoClassifier, "predict_views", stopped)
    out = collection / "said.parquet"
    with pytest.raises(KeyboardInterrupt) as stop:
        predict_files("run", [collection / "some.csv"], num_clips=1, out=out)
    assert [row["file"] for row in pq.read_table(out).to_pylist()] == seen
    assert stop.value.__notes__ == [f"{out} keeps 2 of 3 rows"]


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


def test_no_more_clips_than_frames(flag, colours, caplog):
    found = colours.predict(flag, num_clips=100_000, num_crops=1)
    assert len(found.timeline) == 32
    assert "32 clips are cut of it, as many as it has frames, and not 100000" in caplog.text


def test_files_are_needed(tmp_path, colours):
    with pytest.raises(UserError, match="predict needs videos"):
        predict_files("run", [])
    with pytest.raises(UserError, match="holds no videos"):
        predict_files("run", [tmp_path])
    with pytest.raises(UserError, match=r"ends with \.csv"):
        predict_files("run", [tmp_path], out=tmp_path / "said.txt")
