"""Motions: eight ways of moving that no single frame can tell apart, generated as real video files.

Textured shapes all move in the way of the video's class, over a textured background that drifts in a direction of
its own. A frame shows each shape's place, angle and size. All three live on circles: a shape that leaves on one side
comes in on the other, and one that has grown to the largest size fades out and comes back small. The starting state
is uniform on these circles and every motion is a rotation of them, so that at every moment and in every class a frame
has exactly the same distribution; and a video played backwards is one of the opposite class.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from einops import rearrange
from torch import Tensor
from torch.nn import functional as F

from filmstrip.bounds import Count, CountOrZero, EvenSize, Seed, Share, check_numbers
from filmstrip.data.config import Synthetic
from filmstrip.data.synthetic.generated import generate_once, write_videos
from filmstrip.data.synthetic.shapes import random_colours, random_shape, random_texture, wrapped_sample
from filmstrip.video.write import write_video

MOTIONS: dict[str, tuple[int, int, int, int]] = {
    "left": (-1, 0, 0, 0),
    "right": (1, 0, 0, 0),
    "up": (0, -1, 0, 0),
    "down": (0, 1, 0, 0),
    "clockwise": (0, 0, 1, 0),
    "counterclockwise": (0, 0, -1, 0),
    "grow": (0, 0, 0, 1),
    "shrink": (0, 0, 0, -1),
}
"""Each class's direction in the space of a shape's states: x, y, angle and size, each on a circle of length 1."""

SPEED = np.array([0.024, 0.024, 0.014, 0.026])
"""Fastest change of x, y, angle (turns) and size (cycles) from one frame to the next."""
LARGEST, RATIO = 0.27, 3.0
"""The largest radius of a shape, in sides of the frame, and how much smaller the smallest is."""
PLAIN = (0.09, 0.1, 0.14)
"""The background of plain videos, in 0..1."""
VERSION = 3
SPLITS = ("train", "test")


@dataclass(frozen=True, kw_only=True)
class Motions(Synthetic):
    """Videos of ``size`` by ``size`` pixels, with as many of each class."""

    train_per_class: Count = 40
    test_per_class: CountOrZero = 10
    num_frames: Count = 32
    fps: Count = 16
    size: EvenSize = 64
    seed: Seed = 0
    difficulty: Share = 0.3
    """Difficulty from 0 to 1: less contrast, slower motion, a faster background, noise, and up to two shapes with
    other motions."""
    num_shapes: Count = 4
    """Number of shapes with the motion of the class."""
    plain: bool = False
    """Whether shapes have one of six bright colours on a dark background, which is easier for generators."""

    def __post_init__(self) -> None:
        check_numbers(self)

    def generate(self, out: Path | None = None) -> Path:
        """Make the set as ``split/class/*.mp4`` in ``out`` or in the cache, unless it is there; return its folder.

        Raises:
            UserError: ``out`` is not empty and holds something else.
        """
        notes = {"directional": True, "classes": list(MOTIONS)}
        return generate_once(self, name="motions", version=VERSION, notes=notes, write=self._write, out=out)

    def render(self, motion: str | None, rng: np.random.Generator) -> Tensor:
        """Draw one video of a class, or of shapes at rest: ``T 3 H W`` uint8."""
        video = background(rng, self.size, self.num_frames, self.difficulty, plain=self.plain)
        strays = rng.choice(list(MOTIONS), round(2 * self.difficulty))
        groups = [(motion, self.num_shapes), *((str(way), 1) for way in strays)]
        pace = 1 - 0.5 * self.difficulty
        for shape_states in np.concatenate([trajectories(rng, *group, self.num_frames, pace) for group in groups]):
            contrast = 1 - 0.6 * self.difficulty
            sprite = random_shape(rng, round(2 * LARGEST * self.size), contrast, plain=self.plain)
            painted = _place(sprite, torch.from_numpy(shape_states).float(), self.size)
            video.mul_(1 - painted[:, 3:]).add_(painted[:, :3])
        return noisy(rng, video, self.difficulty)

    def _write(self, folder: Path) -> None:
        """Every video has a generator of its own, so that it does not matter who draws it, or when."""
        jobs = []
        for i, (split, count) in enumerate(zip(SPLITS, (self.train_per_class, self.test_per_class))):
            for j, motion in enumerate(MOTIONS):
                (folder / split / motion).mkdir(parents=True)
                jobs += [
                    (folder / split / motion / f"{k:05d}.mp4", motion, (self.seed, i, j, k)) for k in range(count)
                ]
        write_videos(self._write_one, jobs)

    def _write_one(self, path: Path, motion: str, seed: tuple[int, ...]) -> None:
        video = self.render(motion, np.random.default_rng(seed))
        write_video(path, video, self.fps, crf=14, gop=8, preset="veryfast")


def trajectories(
    rng: np.random.Generator, way: str | None, count: int, num_frames: int, speed: float = 1.0
) -> np.ndarray:
    """The states of ``count`` shapes that move in one way, or not at all: ``N T 4``, x, y, angle, size in [0, 1).

    Sizes are spread evenly from a random start, so that some shapes are large in every frame. The shapes share one
    pace: otherwise the spread would be lost as they grow, and uneven sizes would give the class away.
    """
    start = rng.uniform(size=(count, 1, 4))
    start[:, 0, 3] = start[0, 0, 3] + np.arange(count) / count
    step = speed * rng.uniform(0.6, 1.0) * SPEED * np.array(MOTIONS[way] if way else (0, 0, 0, 0))
    return (start + np.arange(num_frames)[:, None] * step) % 1.0


def background(
    rng: np.random.Generator, size: int, num_frames: int, difficulty: float, *, plain: bool = False
) -> Tensor:
    """A texture seen through a window that drifts, or one dark colour: ``T 3 H W`` in 0..1."""
    colours = random_colours(rng, (0.1, 0.5), (0.3, 0.45 + 0.3 * difficulty))
    if plain:
        colours = torch.tensor([PLAIN] * 2)
    texture = random_texture(rng, size, colours, frequency=(1, 3))
    drift = rng.uniform(0, 1, 2), rng.normal(size=2)
    speed = (0.004 + 0.016 * difficulty) * rng.uniform(0.5, 1.0)
    offsets = drift[0] + np.arange(num_frames)[:, None] * speed * drift[1] / np.linalg.norm(drift[1])
    pixels = torch.stack(torch.meshgrid(_ticks(size), _ticks(size), indexing="xy"), dim=-1)
    return wrapped_sample(texture, pixels + rearrange(torch.from_numpy(offsets).float(), "t c -> t 1 1 c"))


def noisy(rng: np.random.Generator, video: Tensor, difficulty: float) -> Tensor:
    """Video in 0..1 with grey noise as uint8; what is given is overwritten."""
    noise = torch.from_numpy(rng.standard_normal(video[:, :1].shape, dtype=np.float32))
    return video.add_(noise, alpha=0.05 * difficulty).mul_(255).round_().clamp_(0, 255).to(torch.uint8)


def paint(sprite: Tensor, place: Tensor, turn: Tensor, radius: Tensor, size: int) -> Tensor:
    """A shape (``4 S S``) in the frames of a video, ``T 4 H W`` premultiplied; what leaves on one side comes in.

    It is centred at ``place`` (``T 2``: x, y), turned by ``turn`` (``T``, whole turns) and as large as ``radius``
    (``T``); lengths are in sides of the frame.
    """
    cos, sin = ((f(turn * 2 * torch.pi) / radius)[:, None, None] for f in (torch.cos, torch.sin))
    offset = (_ticks(size) - place[..., None] + 0.5).remainder(1.0) - 0.5
    x, y = offset[:, 0, None, :], offset[:, 1, :, None]
    grid = torch.stack([cos * x + sin * y, cos * y - sin * x], dim=-1)
    return F.grid_sample(sprite.expand(len(place), -1, -1, -1), grid, align_corners=False)


def fade(phase: Tensor, share: float) -> Tensor:
    """How visible something is on its way around a circle (0 to 1): not at its ends, wholly ``share`` from them."""
    edge = (torch.minimum(phase, 1 - phase) / share).clamp(max=1.0)
    return edge * edge * (3 - 2 * edge)


def _ticks(size: int) -> Tensor:
    """The centres of a row of pixels, in sides of the frame."""
    return (torch.arange(size) + 0.5) / size


def _place(sprite: Tensor, states: Tensor, size: int) -> Tensor:
    """A shape in the frames of a video, ``T 4 H W`` premultiplied, from its states ``T 4``."""
    place, turn, phase = states[:, :2], states[:, 2], states[:, 3]
    painted = paint(sprite, place, turn, LARGEST * RATIO ** (phase - 1), size)
    return painted * rearrange(fade(phase, 0.15), "t -> t 1 1 1")
