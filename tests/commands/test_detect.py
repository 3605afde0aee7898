"""Boxes of a file named, followed and drawn by one command."""

import json
from dataclasses import replace

import pytest
import torch

from filmstrip import systems
from filmstrip.__main__ import main
from filmstrip.commands.work import detect as command
from filmstrip.commands.work.detect import Detection, Track, boxes_of, draw
from filmstrip.data.annotations.ava import read_boxes
from filmstrip.data.detection.types import Actor
from filmstrip.data.kinds.actors import ActorInfo
from filmstrip.data.reading import views
from filmstrip.errors import UserError
from filmstrip.protocols import Objective
from filmstrip.studio import works
from filmstrip.video import DecodeError, Request, open_video
from filmstrip.video.write import write_video
from studio_films import answer_of

CLASSES = ("red", "green", "blue")


class Colours(Objective):
    """How red, green and blue it is within a box, in the middle of the clip."""

    def detect(self, video, boxes):
        assert torch.is_inference_mode_enabled() and not self.training
        frame = video[0, video.shape[1] // 2].float() / 255
        height, width = frame.shape[1:]
        scores = []
        for box in boxes[0].tolist():
            left, top, right, bottom = (round(side * n) for side, n in zip(box, (width, height) * 2))
            scores.append(frame[:, top:bottom, left:right].mean(dim=(1, 2)))
        return torch.stack(scores)[None]


@pytest.fixture
def run(monkeypatch):
    trained = systems.find("detection.actor_roi")
    trained = replace(trained, data=replace(trained.data, clip=replace(trained.data.clip, num_frames=2, size=64)))
    monkeypatch.setattr(command, "load_objective", lambda folder: (Colours(), trained))
    info = ActorInfo(classes=CLASSES, num_train=1, directional=True, class_numbers=(3, 7, 12))
    monkeypatch.setattr(command, "load_data_info", lambda folder: info)


@pytest.fixture
def file(tmp_path):
    """On black, a red square that goes right and, from 2 s on, a blue one that stays; 4 s at 8 frames a second."""
    video = torch.zeros(32, 3, 64, 96)
    for i in range(32):
        video[i, 0, 8:24, i : i + 16] = 1.0
    video[16:, 2, 40:60, 60:90] = 1.0
    write_video(tmp_path / "squares.mp4", video, 8, crf=5)
    return tmp_path / "squares.mp4"


def red(second):
    left = 8 * second / 96
    return f"squares,{second},{left:.3f},0.125,{left + 16 / 96:.3f},0.375,,0.99\n"


@pytest.fixture
def boxes(tmp_path):
    path = tmp_path / "boxes.csv"
    path.write_text(
        red(1)
        + red(2)
        + red(3)
        + "squares,3,0.625,0.625,0.9375,0.9375,,0.9\nsquares,2,0,0,1,1,,0.3\nother,1,0,0,1,1,,1\n"
    )
    return path


def test_actors_are_named_and_followed(run, file, boxes, tmp_path, capsys):
    assert main(["detect", str(tmp_path), str(file), "--boxes", str(boxes), "--json", "--top-k", "1"]) == 0
    first, second = json.loads(capsys.readouterr().out)["actors"]
    assert (first["start"], first["end"]) == (1.0, 3.0) and first["actions"][0]["name"] == "red"
    assert [key["second"] for key in first["key_frames"]] == [1.0, 2.0, 3.0]
    assert first["key_frames"][2]["box"][0] == pytest.approx(0.25)
    assert first["actions"][0]["probability"] > 0.8
    (moment,) = first["moments"]
    assert (moment["name"], moment["start"], moment["end"]) == ("red", 0.5, 3.5)
    assert (second["start"], second["end"]) == (3.0, 3.0) and second["actions"][0]["name"] == "blue"
    apart = ["--min-iou", "0.5", "--min-score", "0.2"]
    assert main(["detect", str(tmp_path), str(file), "--boxes", str(boxes), *apart]) == 0
    printed = capsys.readouterr().out
    assert len(printed.splitlines()) == 6 and "red" in printed  # a head, and five boxes that are not linked


def test_the_studio_draws_boxes_and_a_row_for_each_actor(run, file, boxes, tmp_path):
    answer = answer_of(works.detect, tmp_path, file, tmp_path / "job", boxes=boxes.read_text())
    first, second = answer["rows"]
    assert [(s["start"], s["end"], s["label"]) for s in first["spans"]] == [(0.5, 3.5, "red")]
    assert [(s["start"], s["end"], s["label"]) for s in second["spans"]] == [(2.5, 3.5, "blue")]
    keys = [box for box in answer["boxes"] if box["track"] == 1]
    assert [(key["start"], key["end"]) for key in keys] == [(0.5, 1.5), (1.5, 2.5), (2.5, 3.5)]
    assert keys[2]["box"][0] == pytest.approx(0.25) and keys[2]["text"].startswith("red ") and answer["moves"]


def test_the_file_is_opened_once_for_all_key_frames(run, file, boxes, tmp_path, monkeypatch):
    decoders = []
    monkeypatch.setattr(views, "open_video", lambda *a, **k: decoders.append(open_video(*a, **k)) or decoders[-1])
    assert main(["detect", str(tmp_path), str(file), "--boxes", str(boxes)]) == 0
    assert len(decoders) == 1
    with pytest.raises(DecodeError, match="closed"):
        decoders[0].read([Request([0.0])])


def test_boxes_are_drawn_between_key_frames_too(run, file, boxes, tmp_path, capsys):
    out = tmp_path / "drawn.mp4"
    assert main(["detect", str(tmp_path), str(file), "--boxes", str(boxes), "--out", str(out)]) == 0
    assert str(out) in capsys.readouterr().out
    with open_video(out) as drawn:
        # From half a second before the first key frame to half a second after the last, six times as large.
        assert (drawn.info.height, drawn.info.width) == (384, 576)
        assert drawn.info.duration == pytest.approx(3.0, abs=0.13)
        frame = drawn.frames_at([1.0]).video[0].float()  # the source's 1.5 s: the red square is at 12 pixels of 96
    left, bottom = 12 * 6, 24 * 6 - 1
    edge = frame[:, bottom - 8 : bottom, left : left + 2].mean(dim=(1, 2))
    inside = frame[:, bottom - 30 : bottom - 10, left + 20 : left + 60].mean(dim=(1, 2))
    assert inside[0] > 200 and inside[1:].max() < 60
    assert edge[2] > edge[0]  # the first actor's colour is a blue
    assert main(["detect", str(tmp_path), str(file), "--boxes", str(boxes), "--out", str(tmp_path / "a.gif")]) == 0
    assert (tmp_path / "a.gif").stat().st_size > 1000


def test_actors_are_classified_between_key_frames_where_asked_for(run, file, boxes, tmp_path, capsys):
    words = ["detect", str(tmp_path), str(file), "--boxes", str(boxes), "--every", "0.5", "--json"]
    scores = tmp_path / "scores.csv"
    assert main([*words, "--csv", str(scores)]) == 0
    first, second = json.loads(capsys.readouterr().out)["actors"]
    assert [key["second"] for key in first["key_frames"]] == [1.0, 2.0, 3.0]
    (moment,) = first["moments"]
    assert (moment["name"], moment["start"], moment["end"]) == ("red", 0.75, 3.25)
    assert (second["moments"][0]["start"], second["moments"][0]["end"]) == (2.5, 3.5)
    seconds = {float(line.split(",")[1]) for line in scores.read_text().splitlines()}
    assert seconds == {1.0, 2.0, 3.0}  # the format of an evaluation at key frames


def test_a_moment_begins_and_ends_where_the_probability_crosses_the_threshold():
    rows = ((0.0, 0.2), (1.0, 0.8), (2.0, 0.2), (3.0, 0.7), (4.0, 0.9))
    track = Track(tuple(Detection(s, (0, 0, 1, 1), torch.tensor([p, 0.4])) for s, p in rows))
    found = [(span.start, span.end, span.label, span.probability) for span in track.moments(0.5)]
    assert found[0] == pytest.approx((0.5, 1.5, 0, 0.8))
    assert found[1] == pytest.approx((2.6, 4.5, 0, 0.9))
    assert len(found) == 2 and len(track.moments(0.3)) == 3


def test_a_box_moves_on_a_straight_line_and_ends():
    track = Track(
        (Detection(1.0, (0.0, 0.0, 0.2, 0.2), torch.ones(1)), Detection(3.0, (0.4, 0.2, 0.8, 0.4), torch.zeros(1)))
    )
    assert track.box_at(2.0) == pytest.approx((0.2, 0.1, 0.5, 0.3)) and track.box_at(0.8) == (0.0, 0.0, 0.2, 0.2)
    assert track.nearest(1.9).second == 1.0 and track.nearest(2.1).second == 3.0
    assert track.nearest(0.4) is None and track.nearest(3.6) is None
    assert float(track.scores) == 0.5


def test_what_is_said_can_be_read_as_a_table(run, file, tmp_path, capsys):
    table = tmp_path / "boxes.csv"
    table.write_text("squares,0903,0.25,0.125,0.417,0.375,,0.99\nsquares,0902.5,0.1,0.1,0.9,0.9,,0.9\n")
    out, words = tmp_path / "new/said.csv", ["--boxes", str(table), "--offset", "900"]
    assert main(["detect", str(tmp_path), str(file), *words, "--csv", str(out)]) == 0
    assert str(out) in capsys.readouterr().out
    rows = [line.split(",") for line in out.read_text().splitlines()]
    assert [row[:2] + row[6:7] for row in rows] == [
        ["squares", second, number] for second in ("902.5", "0903") for number in ("3", "7", "12")
    ]
    numbers = {3: 0, 7: 1, 12: 2}
    found, given = read_boxes(out, numbers), read_boxes(table)
    assert found.keys() == given.keys()
    for key, (actor,) in found.items():
        assert actor.box == given[key][0].box and actor.classes == (0, 1, 2) and actor.person is None
    assert found["squares", 903.0][0].score == max(float(row[7]) for row in rows[3:]) > 0.8
    (tmp_path / "folder").mkdir()
    assert main(["detect", str(tmp_path), str(file), *words, "--csv", str(tmp_path / "folder")]) == 2
    assert "cannot be written" in capsys.readouterr().err


def test_the_table_may_count_from_elsewhere(file, tmp_path):
    path = tmp_path / "boxes.csv"
    path.write_text("squares,0902,0.1,0.1,0.5,0.5\n")
    assert list(boxes_of(file, path, min_score=0.8, offset=900)) == [2.0]


def test_what_cannot_be_is_refused(run, file, boxes, tmp_path, capsys, monkeypatch):
    with pytest.raises(
        UserError, match=r"no boxes of squares with scores of at least 1; it has boxes of other, squares"
    ):
        boxes_of(file, boxes, min_score=1.0)
    assert main(["detect", str(tmp_path), str(file), "--boxes", str(boxes), "--offset", "-9"]) == 2
    assert "key frame is at 10 s" in capsys.readouterr().err
    track = Track((Detection(1.0, (0.0, 0.0, 0.2, 0.2), torch.ones(3)),))
    with pytest.raises(UserError, match="mp4, gif or webp"):
        draw(file, [track], CLASSES, tmp_path / "a.avi")
    monkeypatch.setattr(command, "load_objective", lambda folder: (Objective(), systems.find("detection.actor_roi")))
    assert main(["detect", str(tmp_path), str(file), "--boxes", str(boxes)]) == 2
    assert "is not a detector" in capsys.readouterr().err


class Squares:
    """A detector of what is bright: one box around all of it."""

    def __call__(self, frames):
        found = []
        for frame in frames:
            rows, columns = (frame.amax(dim=0) > 100).nonzero(as_tuple=True)
            height, width = frame.shape[1:]
            box = (columns.min() / width, rows.min() / height, (columns.max() + 1) / width, (rows.max() + 1) / height)
            found.append((Actor(tuple(float(side) for side in box), score=0.9),))
        return found


def test_a_detector_finds_the_boxes(run, file, tmp_path, monkeypatch, capsys):
    asked = {}
    monkeypatch.setattr(command, "load_person_detector", lambda source, **options: asked.update(options) or Squares())
    saved = tmp_path / "found.csv"
    words = ["detect", str(tmp_path), str(file), "--json", "--top-k", "1", "--min-score", "0.5"]
    assert main([*words, "--detector", "somewhere", "--save-boxes", str(saved), "--min-iou", "0.1"]) == 0
    assert asked == {"name": "person", "min_score": 0.5, "trusted": False}
    (first, *_) = json.loads(capsys.readouterr().out)["actors"]
    assert [key["second"] for key in first["key_frames"]][:2] == [0.5, 1.5]
    assert first["key_frames"][0]["box"] == pytest.approx([4 / 96, 0.125, 20 / 96, 0.375], abs=0.02)
    assert first["key_frames"][0]["actions"][0]["name"] == "red"
    table = read_boxes(saved)
    assert [second for _, second in table] == [0.5, 1.5, 2.5, 3.5]
    assert all(actor.score == 0.9 for actors in table.values() for actor in actors)
    assert main([*words, "--boxes", str(saved), "--min-iou", "0.1"]) == 0
    assert json.loads(capsys.readouterr().out)["actors"][0]["key_frames"][0]["second"] == 0.5


def test_boxes_come_from_one_place(run, file, boxes, tmp_path, capsys):
    words = ["detect", str(tmp_path), str(file)]
    assert main(words) == 2 and "give --boxes TABLE or --detector DETECTOR" in capsys.readouterr().err
    assert main([*words, "--boxes", str(boxes), "--detector", "x"]) == 2
    assert main([*words, "--boxes", str(boxes), "--save-boxes", "x.csv"]) == 2
    assert "--save-boxes writes the boxes of a detector" in capsys.readouterr().err
