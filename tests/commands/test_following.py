"""Following a live source by commands: what is said as time goes by, and how it ends."""

import csv
import json
import os
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from colour_videos import CLIP, RGB, Colours
from filmstrip import systems
from filmstrip.__main__ import main
from filmstrip.commands.work import live, live_detection
from filmstrip.data.detection.types import Actor
from filmstrip.data.kinds.actors import ActorInfo
from filmstrip.protocols import Objective
from filmstrip.runs.classifiers import VideoClassifier

sys.path += [str(Path(__file__).parents[1] / "video"), str(Path(__file__).parent)]
from camera import Camera
from test_stopping import command


def colours_in_turn(*names: str, frames: int = 25) -> np.ndarray:
    pictures = np.array([RGB[name] for name in names for _ in range(frames)], np.uint8)
    return np.broadcast_to(pictures[:, None, None], (len(pictures), 32, 48, 3)).copy()


@pytest.fixture
def classifier(monkeypatch):
    monkeypatch.setattr(live, "load_classifier", lambda run: VideoClassifier(Colours(), tuple(RGB), CLIP))


def test_classes_are_printed_as_time_goes_by(classifier, capsys):
    camera = Camera(colours_in_turn("red", "blue"))
    assert main(["predict", "run", camera.address, "--every", "0.4", "--top-k", "1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert 3 <= len(lines) <= 6
    assert "red 100%" in lines[0] and "blue 100%" in lines[-1] and lines[-1].startswith("   0:0")


def test_json_lines_and_tables(classifier, capsys, tmp_path):
    camera = Camera(colours_in_turn("red", "green"))
    words = ["predict", "run", camera.address, "--every", "0.2", "--top-k", "2", "--window", "0.2"]
    assert main([*words, "--json", "--out", str(tmp_path / "said.csv")]) == 0
    printed = capsys.readouterr().out.splitlines()
    said = [json.loads(line) for line in printed[:-1]]
    with (tmp_path / "said.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(said) and printed[-1] == f"{tmp_path / 'said.csv'}: {len(rows)} rows"
    assert [row["class_1"] for row in rows] == [one["class_1"] for one in said]
    assert rows[0]["class_1"] == "red" and rows[-1]["class_1"] == "green"
    assert [one["seconds"] for one in said] == sorted(one["seconds"] for one in said)


def test_a_source_is_left_after_the_given_time(classifier, capsys):
    camera = Camera(colours_in_turn("red", frames=500))
    started = time.monotonic()
    assert main(["predict", "run", camera.address, "--seconds", "1", "--every", "0.1"]) == 0
    assert time.monotonic() - started < 10 and capsys.readouterr().out


def test_what_is_wrong_is_said_before_anything_is_loaded(capsys, tmp_path):
    assert main(["predict", "run", "rtsp://a/1", "rtsp://b/1"]) == 2
    assert "one live source is followed at a time, and 2 paths were given" in capsys.readouterr().err
    assert main(["predict", "run", "rtsp://a/1", "--out", str(tmp_path / "a.txt")]) == 2
    assert "cannot write the table" in capsys.readouterr().err
    assert main(["predict", "run", "/dev/video97"]) == 2
    assert "/dev/video97, video stream 0: it cannot be opened" in capsys.readouterr().err


FOLLOWING = """
import sys
sys.path.append({tests!r})
from colour_videos import CLIP, RGB, Colours
from filmstrip.__main__ import main
from filmstrip.commands.work import live
from filmstrip.runs.classifiers import VideoClassifier
live.load_classifier = lambda run: VideoClassifier(Colours(), tuple(RGB), CLIP)
sys.exit(main())
"""


def test_ctrl_c_is_the_end(tmp_path):
    camera = Camera(colours_in_turn("red", frames=2000))
    code = FOLLOWING.format(tests=str(Path(__file__).parents[1]))
    out = tmp_path / "said.csv"
    process = command("predict", "run", camera.address, "--every", "0.1", "--out", out, code=code)
    until = time.monotonic() + 120
    while not out.exists() or len(out.read_text().splitlines()) < 3:
        assert time.monotonic() < until and process.poll() is None
        time.sleep(0.1)
    os.kill(process.pid, signal.SIGINT)
    printed, errors = process.communicate(timeout=60)
    assert process.returncode == 0 and "Traceback" not in errors
    assert printed.startswith(f"{out}: ") and len(out.read_text().splitlines()) >= 3


class Half:
    """A detector of one person in the left half of every frame."""

    def __call__(self, frames):
        return [(Actor((0.0, 0.0, 0.5, 1.0), score=0.9),) for _ in frames]


class ColoursOfBoxes(Objective):
    """How red, green and blue the first frame is within a box."""

    def detect(self, video, boxes):
        return video[:, 0].float().mean(dim=(2, 3))[:, None] / 255


def test_persons_are_followed(monkeypatch, capsys):
    trained = systems.find("detection.actor_roi")
    trained = replace(trained, data=replace(trained.data, clip=replace(trained.data.clip, num_frames=4, size=64)))
    monkeypatch.setattr(live_detection, "load_objective", lambda folder: (ColoursOfBoxes(), trained))
    info = ActorInfo(classes=tuple(RGB), num_train=1, directional=True, class_numbers=(1, 2, 3))
    monkeypatch.setattr(live_detection, "load_data_info", lambda folder: info)
    monkeypatch.setattr(live_detection, "load_person_detector", lambda source, **options: Half())
    words = ["--detector", "x", "--every", "0.3", "--top-k", "1"]
    camera = Camera(colours_in_turn("red", "blue"))
    assert main(["detect", "run", camera.address, *words]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) >= 3 and all("actor 1" in line for line in lines)
    assert "red 100%" in lines[0] and "blue 100%" in lines[-1]
    camera = Camera(colours_in_turn("green"))
    assert main(["detect", "run", camera.address, *words, "--json"]) == 0
    said = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert said[0]["actors"][0]["actions"][0]["name"] == "green" and said[0]["actors"][0]["actor"] == 1
    assert main(["detect", "run", "rtsp://a/1", "--boxes", "x.csv"]) == 2
    assert "boxes of a live source come from a detector" in capsys.readouterr().err
    assert main(["detect", "run", "rtsp://a/1", *words, "--out", "x.mp4"]) == 2
    assert "a live source is not written: leave out --out" in capsys.readouterr().err


def test_numbers_of_persons_follow_their_boxes():
    numbers = live_detection.Numbers(min_iou=0.3, max_gap=2.0)
    one, other = Actor((0.0, 0.0, 0.4, 1.0)), Actor((0.6, 0.0, 1.0, 1.0))
    assert numbers.of(0.0, [one, other]) == [1, 2]
    assert numbers.of(1.0, [other, Actor((0.1, 0.0, 0.5, 1.0))]) == [2, 1]
    assert numbers.of(2.0, []) == [] and numbers.of(2.5, [other]) == [2]
    assert numbers.of(9.0, [other]) == [3]
