"""Segments of films: saved at once as a manifest that training reads, and never lost."""

import sys

import pytest

from filmstrip.data.sources import open_path
from filmstrip.errors import UserError
from filmstrip.files import write_csv
from filmstrip.studio import training
from filmstrip.studio.app import application
from filmstrip.studio.context import Context
from filmstrip.studio.places import Places
from filmstrip.studio.security import Tokens
from filmstrip.studio.segments import Changed, Segments, version
from filmstrip.video import write_video
from studio_films import colours

A = {"start": 0.0, "end": 0.5, "label": "jump"}
B = {"start": 0.5, "end": 1.25, "label": "in the water"}


@pytest.fixture
def videos(tmp_path):
    folder = tmp_path / "videos"
    (folder / "deep").mkdir(parents=True)
    for name in ("a.mp4", "deep/b.mp4"):
        write_video(folder / name, colours(), 8)
    return folder


@pytest.fixture
def context(runs, videos):
    return Context(Places(runs, videos), Tokens(page="page-token"))


def seen(segments, video):
    return version(segments.of(video))


def test_training_reads_what_was_labelled(videos):
    segments = Segments(videos)
    segments.save("a.mp4", [B, A], seen(segments, "a.mp4"))
    segments.save("deep/b.mp4", [A | {"label": " jump \n "}], seen(segments, "deep/b.mp4"))
    source = open_path(segments.path)
    assert source.classes == ("in the water", "jump")
    found = {(s.name, s.start, s.end, source.classes[s.label]) for s in source.samples}
    assert found == {
        ("a.mp4 [0-0.5]", 0.0, 0.5, "jump"),
        ("a.mp4 [0.5-1.25]", 0.5, 1.25, "in the water"),
        ("deep/b.mp4 [0-0.5]", 0.0, 0.5, "jump"),
    }
    assert {s.split for s in source.samples} == {"train", "test"}


def test_other_rows_and_columns_stay_as_they_are(videos):
    segments = Segments(videos)
    rows = [
        {"path": "a.mp4", "label": "jump", "start": "0.000", "end": "0.500", "subject": "eve", "split": "test"},
        {"path": "deep/b.mp4", "label": "run", "start": "", "end": "", "subject": "adam", "split": "train"},
    ]
    write_csv(rows, segments.path)
    segments.save("a.mp4", [A | {"label": "hop"}, B], seen(segments, "a.mp4"))
    found = segments.rows()
    assert [(row["path"], row["label"], row["subject"]) for row in found] == [
        ("a.mp4", "hop", "eve"),
        ("a.mp4", "in the water", ""),
        ("deep/b.mp4", "run", "adam"),
    ]
    segments.save("a.mp4", [], seen(segments, "a.mp4"))
    assert [row["path"] for row in segments.rows()] == ["deep/b.mp4"]
    assert not list(videos.glob(".*part*"))


def test_the_last_segment_can_be_removed_and_another_made(videos):
    segments = Segments(videos)
    now = segments.save("a.mp4", [A], seen(segments, "a.mp4"))
    now = segments.save("a.mp4", [], now)
    assert segments.rows() == []
    segments.save("a.mp4", [B], now)
    assert segments.counts() == {"in the water": 1}


def test_two_pages_do_not_overwrite_each_other(videos):
    segments = Segments(videos)
    first = seen(segments, "a.mp4")
    segments.save("a.mp4", [A], first)
    with pytest.raises(Changed, match="changed elsewhere"):
        segments.save("a.mp4", [B], first)
    assert [row["label"] for row in segments.of("a.mp4")] == ["jump"]


@pytest.mark.parametrize(
    "segment",
    [
        {"start": 1, "end": 1, "label": "a"},
        {"start": 2, "end": 1, "label": "a"},
        {"start": -1, "end": 1, "label": "a"},
        {"start": 0, "end": float("inf"), "label": "a"},
        {"start": "x", "end": 1, "label": "a"},
        {"end": 1, "label": "a"},
        {"start": 0, "end": 1, "label": "  "},
        {"start": 0, "end": 1, "label": "NaN"},
        {"start": 0, "end": 1, "label": "a" * 201},
        "segment",
    ],
)
def test_segments_that_are_none_are_refused_and_nothing_is_written(videos, segment):
    segments = Segments(videos)
    with pytest.raises(UserError):
        segments.save("a.mp4", [A, segment], seen(segments, "a.mp4"))
    assert not segments.path.exists()


def test_a_table_of_another_kind_is_not_overwritten(client, post, videos):
    (videos / "segments.csv").write_text("name,score\nx,1\n")
    assert client.get("/label").status_code == 400
    answer = post("/label/save", json={"video": "a.mp4", "segments": [A], "seen": version([])})
    assert answer.status_code == 400 and "rename the file" in answer.json()["error"]
    assert (videos / "segments.csv").read_text() == "name,score\nx,1\n"


def test_the_pages_show_films_and_save_segments(client, post, videos):
    assert client.get("/label").text.count("no segments") == 2
    page = client.get("/label", params={"video": "a.mp4"}).text
    assert f'data-seen="{version([])}"' in page and "Next film" in page
    saved = post("/label/save", json={"video": "a.mp4", "segments": [A, B], "seen": version([])})
    assert saved.json()["counts"] == {"in the water": 1, "jump": 1}
    assert "2 segments" in client.get("/label").text
    late = post("/label/save", json={"video": "a.mp4", "segments": [], "seen": version([])})
    assert late.status_code == 409 and len(Segments(videos).rows()) == 2
    for name in ("../a.mp4", "/etc/passwd", "segments.csv", "", "no.mp4"):
        answer = post("/label/save", json={"video": name, "segments": [A], "seen": version([])})
        assert answer.status_code == 404


def test_films_to_label_are_served(client, videos):
    assert client.get("/film/data", params={"video": "deep/b.mp4"}).content == (videos / "deep/b.mp4").read_bytes()
    assert client.get("/film/data", params={"video": "segments.csv"}).status_code == 404


def test_without_a_folder_of_videos_the_page_says_how(runs):
    from starlette.testclient import TestClient

    with TestClient(application(Context(Places(runs))), base_url="http://localhost") as client:
        assert "--videos my_videos" in client.get("/label").text


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"preset": "recognition.vit:no"}, "there is no preset"),
        ({"preset": "--help"}, "there is no preset"),
        ({"name": "../out"}, "cannot be that of a run"),
        ({"name": "-out"}, "cannot be that of a run"),
        ({"name": ".studio"}, "cannot be that of a run"),
        ({"name": "taken"}, "choose another name"),
        ({"steps": "-5"}, "number of steps"),
        ({"steps": "1e9"}, "number of steps"),
    ],
)
def test_wrong_trainings_are_not_started(post, videos, make_run, changes, expected):
    Segments(videos).save("a.mp4", [A, B], version([]))
    make_run("taken")
    given = {"preset": "recognition.vit:tiny", "name": "new", "steps": "2"} | changes
    answer = post("/train", json=given)
    assert answer.status_code == 400 and expected in answer.json()["error"]


def test_training_needs_two_classes(post, videos):
    Segments(videos).save("a.mp4", [A], version([]))
    answer = post("/train", json={"preset": "recognition.vit:tiny", "name": "new", "steps": "2"})
    assert "at least two classes" in answer.json()["error"]


@pytest.fixture
def asleep(monkeypatch):
    """In place of training, a process that ends when it is told to; the list of what was to be run."""
    import subprocess

    ran = []

    def start(arguments, log, out=None):
        ran.append(arguments)
        log.write_text("step 1/2  loss 1.0\n")
        code = (
            "import signal, sys, time; signal.signal(signal.SIGTERM, lambda *_: sys.exit(143)); print(1, flush=True)"
        )
        code += "; time.sleep(600)"
        process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
        process.stdout.readline()
        return process

    monkeypatch.setattr(training, "start", start)
    return ran


def test_a_training_is_started_shown_and_stopped(client, post, context, videos, runs, asleep):
    Segments(videos).save("a.mp4", [A, B], version([]))
    given = {"preset": "recognition.vit:tiny", "name": "new", "steps": "2"}
    assert post("/train", json=given).json() == {"name": "new"}
    data, out = str(videos / "segments.csv"), str(runs / "new")
    assert asleep == [["train", "recognition.vit:tiny", "--data", data, "--out", out, "--train.steps", "2"]]
    assert "choose another name" in post("/train", json=given).json()["error"]
    assert "step 1/2" in client.get("/trainings").text and 'data-stop="new"' in client.get("/trainings").text
    assert post("/train/stop", json={"name": "new"}).status_code == 200
    started = context.trainings.get("new")
    assert started.process.wait(20) == 143
    assert "was stopped; it keeps what it saved" in client.get("/trainings").text
    assert post("/train/stop", json={"name": "other"}).status_code == 400


def test_the_end_of_the_studio_stops_trainings(context, post, videos, asleep):
    Segments(videos).save("a.mp4", [A, B], version([]))
    post("/train", json={"preset": "recognition.vit:tiny", "name": "new", "steps": ""})
    context.trainings.close()
    assert context.trainings.get("new").process.returncode in training.STOPPED
