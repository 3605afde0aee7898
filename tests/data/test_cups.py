"""Cups: covered objects move with their cups, and CATER's own lists."""

from __future__ import annotations

import csv

import numpy as np
import pytest

from filmstrip.data.layouts.cater import CELLS
from filmstrip.data.sources import open_path
from filmstrip.data.synthetic.cups import Cups, cell_of, last_seen
from filmstrip.errors import UserError
from filmstrip.video.decode import read_video

SMALL = Cups(num_train=12, num_test=8, num_frames=50, size=48)


@pytest.fixture(scope="module")
def scenes():
    return [SMALL.scene(np.random.default_rng(seed)) for seed in range(60)]


def test_what_is_covered_is_where_its_cup_is(scenes):
    for things in scenes:
        for thing in things:
            if thing.under is not None:
                assert thing.under.shape == "cup" and thing.radius < thing.under.radius
                assert np.allclose(thing.at, thing.under.at)
            assert len(thing.track) == len(thing.covered) == SMALL.num_frames


def test_nothing_jumps_and_everything_stays_on_the_ground(scenes):
    for things in scenes:
        for thing in things:
            track = np.array(thing.track)
            assert np.abs(track[:, :2]).max() <= 3
            assert np.linalg.norm(np.diff(track[:, :3], axis=0), axis=1).max() < 5.3  # across it in two
            assert (track[:, 2] >= -1e-9).all() and track[-1, 2] == pytest.approx(0)


def test_the_ball_is_hidden_and_moved_as_often_as_asked(scenes):
    balls = [things[0] for things in scenes]
    hidden = [ball for ball in balls if ball.covered[-1]]
    assert 0.45 < len(hidden) / len(balls) < 0.85
    moved = [ball for ball in hidden if last_seen(ball) != cell_of(ball, -1)]
    assert 0.35 < len(moved) / len(hidden) < 0.85
    assert all(last_seen(ball) == cell_of(ball, -1) for ball in balls if not ball.covered[-1])
    assert len({cell_of(ball, -1) for ball in balls}) > 20


def test_a_covered_ball_is_not_seen(scenes):
    """Drawn alone with its cup, a scene has no golden pixel once the ball is covered."""
    things = next(things for things in scenes if things[0].covered[-1] and things[0].covered.count(False) > 10)
    ball = things[0]
    carriers = [thing for thing in things if thing.shape == "cup"]
    video = SMALL.render([ball, *carriers], np.random.default_rng(0)).float()
    golden = ((video[:, 0] - video[:, 2] > 120) & (video[:, 1] > 120)).flatten(1).any(dim=1).numpy()
    covered = np.array(ball.covered)
    assert not golden[covered].any() and golden[~covered].any()


def test_videos_have_their_cell_as_class(tmp_path):
    source = open_path(SMALL.generate(tmp_path / "cups"))
    assert source.classes == CELLS and source.directional
    assert len(source.split("train")) == 12 and len(source.split("test")) == 8
    assert read_video(source.samples[0].path).video.shape == (50, 3, 48, 48)
    with (tmp_path / "cups" / "cups.csv").open(newline="") as file:
        rows = {row["path"]: row for row in csv.DictReader(file)}
    for sample in source.samples:
        row = rows[sample.name]
        assert row["hidden"] in "01" and (row["hidden"] == "1" or row["last_seen"] == source.classes[sample.label])


@pytest.fixture
def cater(tmp_path):
    """CATER's folders, with lists that hold another machine's paths."""
    made = SMALL.generate(tmp_path / "made")
    root = tmp_path / "CATER"
    (root / "videos").mkdir(parents=True)
    lists = root / "lists" / "localize"
    lists.mkdir(parents=True)
    for split, part, cells in (("train", "train", (0, 35, 7)), ("val", "test", (6, 6))):
        lines = []
        for i, cell in enumerate(cells):
            name = f"CATER_new_{split}{i:06d}.avi"
            (made / part / f"{i:05d}.mp4").rename(root / "videos" / name)
            lines.append(f"/somewhere/output/images/{name} {cell}\n")
        (lists / f"{split}.txt").write_text("".join(lines))
    return root


def test_cater_is_read_as_its_generator_writes_it(cater):
    source = open_path(cater)
    assert source.classes == CELLS and source.directional
    assert [source.classes[s.label] for s in source.split("train")] == [
        "row 1 column 1",
        "row 6 column 6",
        "row 2 column 2",
    ]
    assert [s.label for s in source.split("val")] == [6, 6]


def test_a_wrong_cell_is_refused_with_its_line(cater):
    path = cater / "lists" / "localize" / "train.txt"
    path.write_text(path.read_text() + "images/CATER_new_9.avi 36\n")
    with pytest.raises(UserError, match=r"train\.txt, line 4: expected a video and a cell from 0 to 35"):
        open_path(cater)


def test_cater_without_its_videos_is_refused(cater):
    for path in (cater / "videos").iterdir():
        path.unlink()
    with pytest.raises(UserError, match="none of the 5 videos"):
        open_path(cater)
