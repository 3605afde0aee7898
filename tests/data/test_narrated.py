"""NarratedShapes: captions, boxes, questions and answers agree with what is drawn."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
import torch

from filmstrip.data.sources import open_path
from filmstrip.data.synthetic.narrated import NarratedShapes
from filmstrip.data.synthetic.narration import COLOURS, MOTIONS, PLACES, caption, paraphrases, with_wrong_captions
from filmstrip.video.decode import read_video

VIDEOS = NarratedShapes(num_train=10, num_test=6, num_frames=8, size=48, max_shapes=3, in_turn=True)
IMAGES = NarratedShapes(num_train=10, num_test=6, num_frames=1, size=48, noise=0.4)


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def manifest(folder):
    with (folder / "manifest.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    return VIDEOS.generate(tmp_path_factory.mktemp("narrated") / "videos")


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return IMAGES.generate(tmp_path_factory.mktemp("narrated") / "images")


def test_every_file_has_captions_boxes_and_dialogues(videos):
    rows, shapes, asked = manifest(videos), lines(videos / "shapes.jsonl"), lines(videos / "dialogues.jsonl")
    assert [row["path"] for row in rows] == [row["path"] for row in shapes]
    assert len(rows) == 16 and {row["split"] for row in rows} == {"train", "test"}
    for row, scene in zip(rows, shapes):
        texts = json.loads(row["captions"])
        assert len(set(texts)) == 4
        for shape in scene["shapes"]:
            assert f"{shape['size']} {shape['colour']} {shape['form']}" in texts[0]
            assert MOTIONS[shape["motion"]] in texts[0] and PLACES[shape["cell"]] in texts[0]
            assert len(shape["boxes"]) == VIDEOS.num_frames
        own = {line["kind"]: line for line in asked if line["video"] == row["path"]}
        assert {"colour", "count", "size", "place", "direction"} <= own.keys()
        assert ("order" in own) == (len(scene["shapes"]) > 1)
        human, answer = own["count"]["conversations"]
        assert human["value"].startswith("<video>\n") and human["from"] == "human" and answer["from"] == "gpt"
        assert answer["value"] == ("zero", "one", "two", "three")[len(scene["shapes"])]
    assert len({line["id"] for line in asked}) == len(asked)
    assert open_path(videos).classes == tuple(MOTIONS.values())


def test_boxes_hold_the_colours_of_their_shapes(videos):
    for scene in lines(videos / "shapes.jsonl")[:8]:
        video = read_video(videos / scene["path"]).video.float()
        for shape in scene["shapes"]:
            if len(scene["shapes"]) > 1:
                continue  # others may lie over it
            near = (video - torch.tensor(COLOURS[shape["colour"]]).view(3, 1, 1)).abs().amax(dim=1) < 70
            for found, box in zip(near, shape["boxes"]):
                rows, columns = found.nonzero().T
                seen = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
                assert np.allclose(np.array(seen) / 48, box, atol=2.5 / 48)


def test_scenes_differ_in_colour_form_and_cell_and_stay_in_the_frame():
    for seed in range(200):
        shapes = VIDEOS.scene(np.random.default_rng(seed))
        for values in zip(*((shape.colour, shape.form, shape.cell) for shape in shapes)):
            assert len(set(values)) == len(shapes)
        states = VIDEOS.states(shapes)
        assert (states[..., :2] > 0).all() and (states[..., :2] < 1).all()


def test_a_motion_is_what_its_name_says():
    for seed in range(100):
        (shape, *_), states = (found := VIDEOS.scene(np.random.default_rng(seed))), VIDEOS.states(found)
        x, y, turn, radius = states[0, -1] - states[0, 0]
        changed = {"left": -x, "right": x, "up": -y, "down": y, "grow": radius, "shrink": -radius}
        changed |= {"clockwise": turn, "counterclockwise": -turn}
        assert changed[shape.motion] > 0.02
        assert sum(abs(value) > 1e-9 for value in (x, y, turn, radius)) == 1


def test_shapes_in_turn_move_one_after_another():
    shapes = next(s for seed in range(50) if len(s := VIDEOS.scene(np.random.default_rng(seed))) == 2)
    first, second = np.abs(np.diff(VIDEOS.states(shapes), axis=1)).sum(axis=2)
    assert first[:3].all() and not first[4:].any() and second[4:].all() and not second[:3].any()


def test_images_say_nothing_of_motion_and_noise_spares_the_test_split(images):
    rows, shapes = manifest(images), lines(images / "shapes.jsonl")
    assert all(row["path"].endswith(".png") for row in rows)
    assert sum(scene["wrong"] for scene in shapes) == 4
    for row, scene in zip(rows, shapes):
        first = json.loads(row["captions"])[0]
        assert not any(motion in first for motion in MOTIONS.values())
        (shape,) = scene["shapes"]
        assert scene["wrong"] != (first == f"a {shape['phrase'].removeprefix('the ')} {PLACES[shape['cell']]}")
        assert not (scene["wrong"] and row["split"] == "test")
    assert {line["conversations"][0]["value"][:8] for line in lines(images / "dialogues.jsonl")} == {"<image>\n"}


def test_wrong_captions_are_half_of_other_videos():
    given = [[str(i)] for i in range(20)]
    found, wrong = with_wrong_captions(given, 0.4, np.random.default_rng(0))
    assert sum(wrong) == 8 and all((a != b) == bad for a, b, bad in zip(given, found, wrong))
    assert sum(text[0].isdecimal() for text, bad in zip(found, wrong) if bad) == 4


def test_the_same_set_is_the_same_files(tmp_path):
    one, other = (VIDEOS.generate(tmp_path / name) for name in ("a", "b"))
    for name in ("manifest.csv", "shapes.jsonl", "dialogues.jsonl", "train/00003.mp4"):
        assert (one / name).read_bytes() == (other / name).read_bytes()


def test_each_paraphrase_has_words_of_its_own():
    for noun in ("big red disc", "medium white cross", "small blue triangle"):
        assert len({f"a {noun} in the middle", *paraphrases(f"a {noun} in the middle")}) == 4


def test_captions_join_the_shapes_of_a_scene():
    shapes = next(s for seed in range(50) if len(s := VIDEOS.scene(np.random.default_rng(seed))) == 3)
    assert caption(shapes).count(" and ") == 2
