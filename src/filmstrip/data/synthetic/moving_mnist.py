"""Moving MNIST: digits that bounce off the walls of a black square, made from the digit files you give.

After Srivastava, Mansimov & Salakhutdinov (2015), "Unsupervised Learning of Video Representations using LSTMs":
20 frames of 64 x 64 with two digits, each moving in a straight line of random direction.
"""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from einops import repeat
from torch import Tensor

from filmstrip.bounds import Bounds, Count, Seed, Weight, check_numbers
from filmstrip.data.config import Synthetic
from filmstrip.data.synthetic.generated import generate_once, write_videos
from filmstrip.errors import UserError
from filmstrip.files import write_csv
from filmstrip.video.write import write_video

VERSION = 2
MAGIC = {1: 0x801, 3: 0x803}
"""The first four bytes of an idx file of bytes, by its number of dimensions."""


@dataclass(frozen=True, kw_only=True)
class MovingMNIST(Synthetic):
    """Videos of digits; training videos take theirs from the training files, test videos from the test files.

    With one digit, the digit is the video's class. With more, the digits are its text.
    """

    digits: Path | None = None
    """Folder with the four files of MNIST, ``train-images-idx3-ubyte`` and so on, gzipped or not."""
    num_digits: Annotated[int, Bounds(min=1, max=3)] = 2
    num_train: Count = 1000
    num_test: Count = 200
    num_frames: Count = 20
    fps: Count = 10
    size: Annotated[int, Bounds(min=30, multiple=2)] = 64
    speed: Weight = 0.1
    """Distance moved per frame, as a fraction of the range of a digit's position."""
    seed: Seed = 0

    def __post_init__(self) -> None:
        check_numbers(self)

    def generate(self, out: Path | None = None) -> Path:
        """Make the set with its ``manifest.csv`` in ``out`` or in the cache, unless it is there; return its folder.

        Raises:
            UserError: there are no digit files, or they are damaged; or ``out`` is not empty.
        """
        if self.digits is None:
            raise UserError("moving_mnist needs digits: provide the folder of the MNIST files (--digits FOLDER)")
        notes = {"directional": True}
        return generate_once(self, name="moving_mnist", version=VERSION, notes=notes, write=self._write, out=out)

    def render(self, images: np.ndarray, rng: np.random.Generator) -> Tensor:
        """Draw one video of digits ``N 28 28``: ``T 3 H W`` uint8. Where digits overlap, the lighter one shows."""
        room = self.size - images.shape[-1]
        video = np.zeros((self.num_frames, self.size, self.size), np.uint8)
        for image in images:
            corners = np.rint(bounce(rng, self.num_frames, self.speed) * room).astype(int)
            for frame, (left, top) in zip(video, corners):
                window = frame[top : top + image.shape[0], left : left + image.shape[1]]
                np.maximum(window, image, out=window)
        return repeat(torch.from_numpy(video), "t h w -> t 3 h w")

    def _write(self, folder: Path) -> None:
        rows, jobs = [], []
        for i, (split, count) in enumerate((("train", self.num_train), ("test", self.num_test))):
            images, labels = read_digits(Path(self.digits or ""), split)
            (folder / split).mkdir()
            for k in range(count):
                rng = np.random.default_rng((self.seed, i, k))
                chosen = rng.integers(len(images), size=self.num_digits)
                shown = [str(labels[c]) for c in chosen]
                path = f"{split}/{k:05d}.mp4"
                rows.append({"path": path, "split": split, "text": " ".join(sorted(shown))})
                if self.num_digits == 1:
                    rows[-1]["label"] = shown[0]
                jobs.append((folder / path, images[chosen], rng))
        write_videos(self._write_one, jobs)
        write_csv(rows, folder / "manifest.csv")

    def _write_one(self, path: Path, images: np.ndarray, rng: np.random.Generator) -> None:
        write_video(path, self.render(images, rng), self.fps, crf=8, gop=8, preset="veryfast")


def bounce(rng: np.random.Generator, num_frames: int, speed: float) -> np.ndarray:
    """A straight line of random start and direction in the unit square, reflected by its sides: ``T 2``."""
    angle = rng.uniform(0, 2 * math.pi)
    step = speed * np.array([math.cos(angle), math.sin(angle)])
    straight = rng.uniform(size=2) + np.arange(num_frames)[:, None] * step
    return 1 - np.abs(straight % 2.0 - 1)


def read_digits(folder: Path, split: str) -> tuple[np.ndarray, np.ndarray]:
    """The images (``N 28 28`` uint8) and labels (``N``) of MNIST's ``train`` or ``test`` files.

    Raises:
        UserError: a file is missing or is not an idx file, or images and labels differ in number.
    """
    prefix = {"train": "train", "test": "t10k"}[split]
    images = read_idx(_find(folder, prefix, "images-idx3-ubyte"), 3)
    labels = read_idx(_find(folder, prefix, "labels-idx1-ubyte"), 1)
    if len(images) != len(labels) or not len(images):
        raise UserError(f"{folder}: the {split} files hold {len(images)} images and {len(labels)} labels")
    if images.shape[1:] != (28, 28):
        raise UserError(f"{folder}: digits are 28 x 28 pixels, not {images.shape[2]} x {images.shape[1]}")
    return images, labels


def read_idx(path: Path, dimensions: int) -> np.ndarray:
    """An array of bytes from an idx file, gzipped or not.

    Raises:
        UserError: it is not one of that many dimensions, or is cut short.
    """
    try:
        data = path.read_bytes()
        data = gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path} cannot be read: {error}") from None
    start = 4 + 4 * dimensions
    if len(data) < start or struct.unpack(">I", data[:4])[0] != MAGIC[dimensions]:
        raise UserError(f"{path} is not an idx file of bytes in {dimensions} dimensions, as MNIST's are")
    shape = struct.unpack(f">{dimensions}I", data[4:start])
    if len(data) - start != math.prod(shape):
        raise UserError(f"{path} should hold {' x '.join(map(str, shape))} bytes, but holds {len(data) - start}")
    return np.frombuffer(data, np.uint8, offset=start).reshape(shape)


def _find(folder: Path, prefix: str, suffix: str) -> Path:
    """The file of that name, which may be a shorter training set (``train10k-...``), and may end in ``.gz``."""
    found = sorted(path for ending in ("", ".gz") for path in folder.glob(f"{prefix}*-{suffix}{ending}"))
    if not found:
        raise UserError(f"{folder} has no {prefix}-{suffix}(.gz): provide the folder with the four files of MNIST")
    return found[0]
