"""Odd things in long videos: files that are made, and what models that see find, by length and depth."""

import csv
import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from filmstrip.__main__ import main
from filmstrip.data.synthetic.haystack_videos import THINGS, HaystackVideos, OddThing, answer, found, question
from filmstrip.data.synthetic.narration import COLOURS
from filmstrip.errors import UserError
from filmstrip.evals import video_needles
from filmstrip.evals.needle_grid import Cell, cell_of
from filmstrip.objectives.language import VideoLanguage
from filmstrip.video.decode import read_video

SMALL = HaystackVideos(num_train=4, num_test=2, scenes=3, scene_frames=4, size=32, needles=2, asked=2, depth=1.0)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return SMALL.generate(tmp_path_factory.mktemp("made") / "videos")


@pytest.fixture(scope="module")
def run(made, tmp_path_factory):
    """A model after one step."""
    out = tmp_path_factory.mktemp("run") / "run"
    words = [
        "train",
        "language.longvlm:tiny",
        "--data",
        str(made),
        "--data.reads",
        "conversations",
        "--out",
        str(out),
    ]
    assert main([*words, "--train.steps", "1", "--data.num-workers", "0", "--data.batch-size", "2"]) == 0
    return out


def test_things_are_in_their_scene_alone(made):
    hidden = [json.loads(line) for line in (made / "needles.jsonl").read_text().splitlines()]
    told = [json.loads(line) for line in (made / "dialogues.jsonl").read_text().splitlines()]
    rows = list(csv.DictReader((made / "manifest.csv").open()))
    assert len(hidden) == len(told) == len(rows) == 6
    for record, dialogue, row in zip(hidden, told, rows):
        things = [
            OddThing(n["name"], n["colour"], round(n["seconds"][0] * 2), n["x"], n["y"]) for n in record["needles"]
        ]
        assert things[0].scene == 2 and things[1].scene in (0, 1)  # four frames of eight a second are half a second
        said = [turn["value"] for turn in dialogue["conversations"]]
        assert said == [f"<video>\n{question(things)}", answer(things)] and row["label"] == things[0].colour
        frames = read_video(made / record["path"]).video
        assert len(frames) == 12
        for thing in things:
            y, x = int(thing.y * 32), int(thing.x * 32)
            near = (frames[:, :, y, x].float() - torch.tensor(COLOURS[thing.colour]).float()).abs().amax(dim=1) < 40
            shown = torch.arange(12) // 4 == thing.scene
            assert near[shown].all()


def test_depth_is_the_place_of_the_first_thing():
    for depth, scene in ((0.0, 0), (0.5, 4), (1.0, 8)):
        videos = HaystackVideos(scenes=9, needles=3, asked=1, depth=depth)
        for seed in range(5):
            things = videos.hide(np.random.default_rng(seed))
            assert things[0].scene == scene and len({thing.scene for thing in things}) == 3
            assert len({thing.name for thing in things}) == 3
    anywhere = {HaystackVideos(scenes=4).hide(np.random.default_rng(seed))[0].scene for seed in range(40)}
    assert anywhere == {0, 1, 2, 3}


def test_colours_count_in_the_order_in_which_they_are_asked_for():
    things = [OddThing("star", "red", 0, 0.5, 0.5), OddThing("arrow", "blue", 1, 0.5, 0.5)]
    assert question(things) == "what colours are the star and the arrow?" and answer(things) == "red and blue"
    assert found("Red and blue.", things) == [True, True] and found("blue and red", things) == [False, False]
    assert found("it is red", things) == [True, False] and found("reddish", things) == [False, False]


def test_what_does_not_fit_is_refused(run, capsys):
    with pytest.raises(UserError, match="3 odd things take a scene each, and a video has 2"):
        HaystackVideos(scenes=2, needles=3)
    with pytest.raises(UserError, match="2 odd things are asked for, and a video hides 1"):
        HaystackVideos(asked=2)
    assert main(["eval", str(run), "--protocol", "needles", "--lengths", "64", "8", "--needles", "2"]) == 2
    said = capsys.readouterr().err
    assert "2 odd things take 8 frames each, and a video is to have 8: give longer videos (--lengths)" in said
    assert main(["eval", str(run), "--protocol", "needles", "--texts", str(run)]) == 2
    assert "is asked about videos: leave out texts" in capsys.readouterr().err
    assert main(["eval", str(run), "--protocol", "needles", "--asked", "2"]) == 2
    assert "2 needles are asked for, and 1 are hidden" in capsys.readouterr().err


def test_a_model_that_knows_finds_all_and_the_report_shows_the_grid(run, monkeypatch, capsys):
    """The model is replaced by one that is told what is hidden in one video after another, if it sees any."""
    sample, told = video_needles._sample, []

    def noted(example, path, asked, cell):
        told.append(example.serialiser.answer(answer(asked)))
        return sample(example, path, asked, cell)

    def known(self, visual, prompt, *, count, seed=0, sampling=None):
        rows = [told.pop(0) if visual.any() else [0] for _ in prompt["text"]]
        for i in range(count):
            yield torch.tensor([row[min(i, len(row) - 1)] for row in rows])

    monkeypatch.setattr(video_needles, "_sample", noted)
    monkeypatch.setattr(VideoLanguage, "answer", known)
    options = ["--lengths", "16", "32", "--depths", "2", "--rounds", "2", "--needles", "2", "--asked", "2"]
    assert main(["eval", str(run), "--protocol", "needles", *options]) == 0
    said = dict(line.split() for line in capsys.readouterr().out.splitlines() if len(line.split()) == 2)
    assert {said[name] for name in ("found", "found/16_frames", "found/32_frames/100%", "oracle")} == {"1.0000"}
    assert said["blind"] == "0.0000" and float(said["chance"]) == pytest.approx(1 / 6, abs=1e-4)
    page = (run / "report.html").read_text()
    assert "Needles found" in page and "32 frames, depth 100%: 100.0% found" in page and "blind 0" in page


def test_videos_have_the_length_and_depth_of_their_place():
    cell = Cell(70, 0.5, "frames")
    assert cell_of(cell.name) == cell and cell.name == "found/70_frames/50%"
    videos = video_needles.haystack(cell, needles=1, asked=1, size=32)
    assert videos.scenes == 8 and replace(videos, depth=None).depth is None and len(THINGS) == 5
