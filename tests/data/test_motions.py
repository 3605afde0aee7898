"""That the videos are real files, and that one frame says nothing of the class."""

from __future__ import annotations

import itertools
import multiprocessing
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from scipy import stats

from filmstrip.data.sources import open_path
from filmstrip.data.synthetic.motions import MOTIONS, PLAIN, Motions, trajectories
from filmstrip.errors import UserError

SMALL = Motions(train_per_class=2, test_per_class=1, num_frames=6, size=32)
PAIRS = [("left", "right"), ("up", "down"), ("clockwise", "counterclockwise"), ("grow", "shrink")]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FILMSTRIP_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def decode(path: Path) -> np.ndarray:
    with av.open(str(path)) as file:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)])


def starts(way: str, count: int, num_frames: int = 32) -> np.ndarray:
    """States of one shape in many videos: ``count T 4``."""
    return np.concatenate([trajectories(np.random.default_rng(i), way, 1, num_frames) for i in range(count)])


def test_files_are_h264_of_the_stated_size_and_rate_in_split_and_class_folders():
    folder = SMALL.generate()
    source = open_path(folder)
    assert source.directional and source.classes == tuple(MOTIONS)
    assert len(source.split("train")) == 16 and len(source.split("test")) == 8
    for sample in source.samples:
        assert sample.name.split("/")[:2] == [sample.split, source.classes[sample.label]]
    with av.open(source.samples[0].path) as file:
        stream = file.streams.video[0]
        assert (stream.codec.name, stream.width, stream.height) == ("h264", 32, 32)
        assert stream.average_rate == 16 and not file.streams.audio
        keys = [frame.key_frame for frame in file.decode(video=0)]
    assert len(keys) == 6 and keys[0]


def test_files_show_what_was_rendered():
    folder = replace(SMALL, seed=4).generate()
    shown = decode(folder / "train" / "grow" / "00001.mp4")
    drawn = replace(SMALL, seed=4).render("grow", np.random.default_rng((4, 0, list(MOTIONS).index("grow"), 1)))
    error = shown.astype(float) - drawn.permute(0, 2, 3, 1).numpy()
    assert 10 * np.log10(255**2 / np.mean(error**2)) > 25


def test_a_set_is_made_once_and_another_one_elsewhere(cache: Path):
    folder = SMALL.generate()
    stamp = (folder / "dataset.json").stat().st_mtime_ns
    assert SMALL.generate() == folder and (folder / "dataset.json").stat().st_mtime_ns == stamp
    assert replace(SMALL, seed=1).generate() != folder
    assert sorted(path.name for path in cache.iterdir() if path.is_dir()) == sorted(
        {folder.name, replace(SMALL, seed=1).generate().name}
    )


def test_the_same_seed_draws_the_same_videos_and_another_seed_others(tmp_path: Path):
    one, two = SMALL.generate(tmp_path / "one"), SMALL.generate(tmp_path / "two")
    other = replace(SMALL, seed=9).generate(tmp_path / "other")
    name = Path("train/left/00000.mp4")
    assert (one / name).read_bytes() == (two / name).read_bytes() != (other / name).read_bytes()
    contents = [path.read_bytes() for path in one.rglob("*.mp4")]
    assert len(set(contents)) == len(contents) == 24


def test_an_interrupted_set_leaves_nothing_behind(cache: Path, monkeypatch: pytest.MonkeyPatch):
    def fail(*args: object, **kwargs: object) -> None:
        raise OSError("disk full")

    with monkeypatch.context() as patch, pytest.raises(OSError, match="disk full"):
        patch.setattr("filmstrip.data.synthetic.motions.write_video", fail)
        SMALL.generate()
    assert not [path for path in cache.iterdir() if path.is_dir()]
    assert len(open_path(SMALL.generate()).samples) == 24


def test_a_folder_that_holds_something_else_is_left_alone(tmp_path: Path):
    (tmp_path / "mine.txt").write_text("precious")
    with pytest.raises(UserError, match="something else"):
        SMALL.generate(tmp_path)
    assert (tmp_path / "mine.txt").read_text() == "precious"


@pytest.mark.multiprocess
def test_several_processes_share_one_set(cache: Path):
    # torch replaces its thread pool after a fork, and several threads must not ask for that at once: first this one.
    fork = multiprocessing.get_context("fork")
    with fork.Pool(3, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        folders = pool.map(Motions.generate, [SMALL] * 3)
    assert len(set(folders)) == 1 and len(list(folders[0].rglob("*.mp4"))) == 24
    assert [path for path in cache.iterdir() if path.is_dir()] == [folders[0]]


@pytest.mark.parametrize(
    "wrong", [{"size": 33}, {"num_frames": 0}, {"difficulty": 1.5}, {"fps": -1}, {"seed": -1}, {"num_shapes": 0}]
)
def test_impossible_settings_are_refused(wrong: dict):
    with pytest.raises(UserError):
        Motions(**wrong)


@pytest.mark.parametrize("way", MOTIONS)
def test_a_shape_moves_as_its_class_says(way: str):
    step = (np.diff(starts(way, 20), axis=1) + 0.5) % 1.0 - 0.5
    moving = np.flatnonzero(MOTIONS[way])
    assert (np.sign(step[..., moving]) == np.array(MOTIONS[way])[moving]).all()
    assert (np.delete(step, moving, axis=-1) == 0).all()


@pytest.mark.parametrize(("way", "opposite"), PAIRS)
def test_a_motion_backwards_is_its_opposite(way: str, opposite: str):
    """With the same pace, and the last state as the first, in every number."""
    forward, other = starts(way, 8), starts(opposite, 8)
    shift = forward[:, -1:] - other[:, :1]
    np.testing.assert_allclose(((other + shift) - forward[:, ::-1] + 0.5) % 1.0, 0.5, atol=1e-9)


@pytest.mark.parametrize("way", MOTIONS)
@pytest.mark.parametrize("moment", [0, 13, 31])
def test_the_state_in_any_frame_is_uniform_in_every_class(way: str, moment: int):
    states = starts(way, 1500)[:, moment]
    for i in range(4):
        assert stats.kstest(states[:, i], "uniform").pvalue > 1e-4
    correlation = np.corrcoef(states.T) - np.eye(4)
    assert np.abs(correlation).max() < 0.12


@pytest.mark.parametrize("way", MOTIONS)
def test_in_every_frame_of_every_class_the_sizes_are_spread_evenly_and_all_else_is_independent(way: str):
    """What shapes have in common must not tell the class either."""
    states = np.stack([trajectories(np.random.default_rng(i), way, 4, 32) for i in range(1000)])
    sizes = np.sort((states[..., 3] - states[:, :1, :, 3] + 1e-9) % 1, axis=1)
    np.testing.assert_allclose(sizes, np.broadcast_to(np.arange(4)[:, None] / 4, sizes.shape), atol=1e-6)
    for moment in (0, 31):
        apart = (states[:, 0, moment, :3] - states[:, 1, moment, :3]) % 1
        assert all(stats.kstest(apart[:, i], "uniform").pvalue > 1e-4 for i in range(3))


@pytest.mark.parametrize("difficulty", [0.0, 1.0])
def test_videos_use_the_range_and_keep_moving(difficulty: float):
    video = Motions(difficulty=difficulty, num_frames=8).render("left", np.random.default_rng(0))
    assert video.shape == (8, 3, 64, 64) and video.dtype == torch.uint8
    assert video.float().std() > 25
    assert all((a != b).any() for a, b in itertools.pairwise(video))


def test_plain_videos_have_one_dark_colour_behind_few_bright_ones():
    config = Motions(difficulty=0.0, num_frames=4, num_shapes=2, plain=True)
    video = config.render("right", np.random.default_rng(1))
    pixels, counts = video[0].flatten(1).unique(dim=1, return_counts=True)
    dark = (torch.tensor(PLAIN) * 255).round()
    assert torch.equal(pixels[:, counts.argmax()].float(), dark) and 0.5 < counts.max() / counts.sum() < 1
    bright = pixels[:, (counts > 20) & (pixels.max(dim=0).values == 255)]
    assert 1 <= bright.shape[1] <= config.num_shapes
    assert (video[0] != video[3]).any()
    more = replace(config, num_shapes=6).render("right", np.random.default_rng(1))
    assert (more[0].float() != dark[:, None, None]).any(dim=0).sum() > (video[0].float() != dark[:, None, None]).any(
        dim=0
    ).sum()


def frame_features(config: Motions, way: str, count: int, seed: int, moment: int) -> np.ndarray:
    """What a linear classifier may see of one frame: coarse pixels, colour statistics, edges and their directions."""
    features = []
    for i in range(count):
        frame = config.render(way, np.random.default_rng((seed, list(MOTIONS).index(way), i)))[moment].float() / 255
        grey = frame.mean(0)
        dy, dx = grey.diff(dim=0)[:, :-1], grey.diff(dim=1)[:-1]
        edges = torch.stack([dx.abs(), dy.abs(), (dx * dy), dx.square(), dy.square(), dx, dy])
        coarse = torch.nn.functional.adaptive_avg_pool2d(torch.cat([frame, edges.new_zeros(7, *grey.shape)]), 4)[:3]
        pooled = torch.nn.functional.adaptive_avg_pool2d(edges, 2)
        features.append(torch.cat([coarse.flatten(), pooled.flatten(), frame.std((1, 2)), frame.mean((1, 2))]))
    return torch.stack(features).numpy()


@pytest.mark.slow
@pytest.mark.parametrize(("way", "opposite"), [*PAIRS, ("left", "grow"), ("up", "clockwise"), ("left", "up")])
@pytest.mark.parametrize("moment", [0, 7])
def test_a_linear_classifier_of_single_frames_stays_at_chance(way: str, opposite: str, moment: int):
    config = Motions(num_frames=8, size=32)
    train = [frame_features(config, c, 300, 1, moment) for c in (way, opposite)]
    test = [frame_features(config, c, 300, 2, moment) for c in (way, opposite)]
    inputs, targets = np.concatenate(train), np.repeat([-1.0, 1.0], 300)
    mean, scale = inputs.mean(0), inputs.std(0) + 1e-9
    inputs = (inputs - mean) / scale
    weights = np.linalg.solve(inputs.T @ inputs + 30 * np.eye(inputs.shape[1]), inputs.T @ targets)
    correct = [((((x - mean) / scale) @ weights > 0) == side).mean() for side, x in zip((False, True), test)]
    assert abs(np.mean(correct) - 0.5) < 0.085  # four standard deviations of 600 coin tosses


def test_the_difference_of_two_frames_tells_the_pair_apart():
    """So that the test above cannot pass for lack of signal: a linear classifier of displacements is right."""
    config = Motions(num_frames=2, size=32, difficulty=0.0)
    products = {}
    for way in ("left", "right"):
        found = []
        for i in range(60):
            first, second = config.render(way, np.random.default_rng((3, i))).float().mean(1)
            left, right = second.roll(1, -1), second.roll(-1, -1)
            found.append(float(((left - first) ** 2).mean() - ((right - first) ** 2).mean()))
        products[way] = np.array(found)
    correct = np.concatenate([products["left"] < 0, products["right"] > 0]).mean()
    assert correct > 0.9
