"""Moving MNIST from digit files made here, and from the real ones where they are."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
from collections_on_disk import REAL
from hypothesis import given, settings
from hypothesis import strategies as st

from filmstrip.data.sources import open_path
from filmstrip.data.synthetic.moving_mnist import MovingMNIST, bounce, read_digits, read_idx
from filmstrip.errors import UserError
from filmstrip.video.decode import read_video


def write_idx(path: Path, array: np.ndarray, zipped: bool = False) -> None:
    data = struct.pack(f">I{array.ndim}I", 0x800 | array.ndim, *array.shape) + array.tobytes()
    path.write_bytes(gzip.compress(data) if zipped else data)


@pytest.fixture
def digits(tmp_path: Path) -> Path:
    """Digits that are squares, as bright as their class; test digits are taller."""
    folder = tmp_path / "digits"
    folder.mkdir()
    for prefix, height in (("train", 10), ("t10k", 20)):
        labels = np.arange(30, dtype=np.uint8) % 10
        images = np.zeros((30, 28, 28), np.uint8)
        images[:, 4 : 4 + height, 8:20] = 30 + 20 * labels[:, None, None]
        write_idx(folder / f"{prefix}-images-idx3-ubyte.gz", images, zipped=True)
        write_idx(folder / f"{prefix}-labels-idx1-ubyte", labels)
    return folder


def small(digits: Path, **kwargs) -> MovingMNIST:
    return MovingMNIST(**{"digits": digits, "num_train": 6, "num_test": 3, **kwargs})


def test_one_digit_is_the_class_and_test_digits_come_from_the_test_files(digits: Path, tmp_path: Path):
    source = open_path(small(digits, num_digits=1).generate(tmp_path / "out"))
    assert len(source.split("train")) == 6 and len(source.split("test")) == 3 and source.directional
    for sample in source.samples:
        video = read_video(sample.path).video
        assert video.shape == (20, 3, 64, 64)
        lit = video[0, 0] > 15
        assert lit.any(1).sum() == (10 if sample.split == "train" else 20) and lit.any(0).sum() == 12
        digit = source.classes[sample.label]
        assert abs(int(video[0, 0][lit].median()) - (30 + 20 * int(digit))) <= 3 and sample.text == (digit,)


def test_several_digits_are_text_without_a_class(digits: Path, tmp_path: Path):
    source = open_path(small(digits, num_digits=3).generate(tmp_path / "out"))
    assert source.classes == () and all(s.label is None and len(s.text[0].split()) == 3 for s in source.samples)


def test_the_same_seed_gives_the_same_files(digits: Path, tmp_path: Path):
    one, two, other = (small(digits, seed=s).generate(tmp_path / str(i)) for i, s in enumerate((0, 0, 1)))
    files = ["train/00003.mp4", "manifest.csv"]
    assert [(one / f).read_bytes() for f in files] == [(two / f).read_bytes() for f in files]
    assert (one / files[0]).read_bytes() != (other / files[0]).read_bytes()


def test_files_are_close_to_what_was_drawn(digits: Path, tmp_path: Path):
    config = small(digits, num_digits=2)
    images, _ = read_digits(digits, "train")
    rng = np.random.default_rng((0, 0, 2))
    drawn = config.render(images[rng.integers(len(images), size=2)], rng)
    shown = read_video(config.generate(tmp_path / "out") / "train/00002.mp4").video
    assert (shown.float() - drawn.float()).square().mean() < 255**2 / 10**3.5


@given(seed=st.integers(0, 10**6), speed=st.floats(0, 0.9))
@settings(max_examples=50, deadline=None)
def test_a_digit_stays_inside_and_moves_straight_between_walls(seed: int, speed: float):
    path = bounce(np.random.default_rng(seed), 40, speed)
    assert path.min() >= 0 and path.max() <= 1
    steps = np.abs(np.diff(path, axis=0))
    # Between two frames that touch no wall, the step is the whole one; a bounce only shortens it.
    longest = steps.max(axis=0)
    assert np.hypot(*longest) <= speed + 1e-9
    free = (path[:-1] > longest) & (path[:-1] < 1 - longest)
    np.testing.assert_allclose(steps[free], np.broadcast_to(longest, steps.shape)[free], atol=1e-9)


def test_overlapping_digits_show_the_lighter_one():
    images = np.stack([np.full((28, 28), 90, np.uint8), np.full((28, 28), 200, np.uint8)])
    video = MovingMNIST(size=30).render(images, np.random.default_rng(0))
    assert video.max() == 200 and set(np.unique(video.numpy())) <= {0, 90, 200}
    assert (video[0, 0] == 200).sum() == 28 * 28


def test_without_digit_files_the_message_says_what_to_do(tmp_path: Path):
    with pytest.raises(UserError, match="--digits"):
        MovingMNIST().generate(tmp_path / "out")
    with pytest.raises(UserError, match="train-images-idx3-ubyte"):
        small(tmp_path).generate(tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda data: data[: len(data) // 2], "cannot be read"),
        (lambda data: gzip.compress(gzip.decompress(data)[:5000]), "should hold 30 x 28 x 28"),
        (lambda data: b"not an idx file", "not an idx file"),
        (lambda data: gzip.compress(b"\0\0\x08\x01" + gzip.decompress(data)[4:]), "3 dimensions"),
    ],
)
def test_damaged_digit_files_are_named(digits: Path, spoil, words: str):
    path = digits / "train-images-idx3-ubyte.gz"
    path.write_bytes(spoil(path.read_bytes()))
    with pytest.raises(UserError, match=words) as caught:
        read_idx(path, 3)
    assert str(path) in str(caught.value)


def test_images_and_labels_must_match(digits: Path):
    write_idx(digits / "train-labels-idx1-ubyte", np.zeros(7, np.uint8))
    with pytest.raises(UserError, match="30 images and 7 labels"):
        read_digits(digits, "train")


@pytest.mark.parametrize(
    "wrong", [{"num_digits": 0}, {"num_digits": 4}, {"size": 28}, {"num_train": 0}, {"speed": -1}]
)
def test_impossible_settings_are_refused(wrong: dict):
    with pytest.raises(UserError):
        MovingMNIST(**wrong)


@pytest.mark.skipif(not (REAL / "mnist").is_dir(), reason="the digit files are not at ../shared/data/mnist")
def test_real_digits(tmp_path: Path):
    images, labels = read_digits(REAL / "mnist", "train")
    assert images.shape == (10000, 28, 28) and sorted(set(labels.tolist())) == list(range(10))
    source = open_path(MovingMNIST(digits=REAL / "mnist", num_train=4, num_test=2).generate(tmp_path / "out"))
    video = read_video(source.samples[0].path).video
    assert video.shape == (20, 3, 64, 64) and 0.01 < (video > 100).float().mean() < 0.3
