"""Actors: two or three shapes in each video, of which each moves in a way of its own, with boxes in AVA's layout.

What an actor does is one way of moving (:mod:`filmstrip.data.synthetic.motions`), or two at once, such as going left
while growing. Its state (x, y, angle, size) lies on circles: at their ends it fades out and another actor
appears on the other side. States begin uniformly and every motion is a rotation of the circles, so that the box of a
single frame has the same distribution whatever is done in it. Who is faded by half or more has no box.

    folder/actors_train_00000.mp4  the videos
    folder/ava_train.csv           the boxes, once a second; ava_val.csv those of the test split
    folder/ava_action_list.pbtxt   the names of the classes
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from torch import Tensor

from filmstrip.bounds import Ascending, Bounds, Count, CountOrZero, EvenSize, Seed, Share, check_numbers
from filmstrip.data.config import Synthetic
from filmstrip.data.detection.types import Actor, Box
from filmstrip.data.reading.order import derive_seed
from filmstrip.data.synthetic.generated import generate_once, write_videos
from filmstrip.data.synthetic.motions import MOTIONS, background, fade, noisy, paint
from filmstrip.data.synthetic.shapes import random_shape
from filmstrip.video.write import write_video

CLASSES = tuple(MOTIONS)
SPEED = np.array([0.4, 0.4, 0.24, 0.4])
"""Fastest change of x, y, angle and size, in circles, within a second."""
LARGEST, RATIO = 0.2, 1.8
"""The largest radius of an actor, in sides of the frame, and how much smaller the smallest is."""
FADE = 0.08
"""Share of a circle in which an actor fades in, and out."""
VERSION = 1
SPLITS = {"train": "train", "test": "val"}
"""Our names and AVA's."""


@dataclass(frozen=True, kw_only=True)
class Actors(Synthetic):
    """Videos of ``size`` by ``size`` pixels that last ``seconds``, with a key frame at each whole second within."""

    num_train: Count = 160
    """Number of training videos."""
    num_test: CountOrZero = 40
    """Number of test videos."""
    num_actors: Annotated[tuple[Count, Count], Ascending] = (2, 3)
    """Minimum and maximum number of simultaneous actors."""
    seconds: Annotated[int, Bounds(min=2)] = 5
    both: Share = 0.25
    """Fraction of the actors with two simultaneous actions."""
    fps: Count = 8
    size: EvenSize = 64
    seed: Seed = 0
    difficulty: Share = 0.2
    """Difficulty from 0 to 1: less contrast, a faster background, noise."""

    def __post_init__(self) -> None:
        check_numbers(self)

    def generate(self, out: Path | None = None) -> Path:
        """Make the set in ``out`` or in the cache, unless it is there; return its folder.

        Raises:
            UserError: ``out`` is not empty and holds something else.
        """
        notes = {"directional": True}
        return generate_once(self, name="actors", version=VERSION, notes=notes, write=self._write, out=out)

    def render(self, rng: np.random.Generator) -> tuple[Tensor, dict[int, list[Actor]]]:
        """Draw one video, ``T 3 H W`` uint8, and say who acts in each of its key frames, by their seconds."""
        num_frames = self.seconds * self.fps
        video = background(rng, self.size, num_frames, self.difficulty)
        keys: dict[int, list[Actor]] = {second: [] for second in range(1, self.seconds)}
        persons: dict[tuple[int, ...], int] = {}
        for i in range(rng.integers(self.num_actors[0], self.num_actors[1] + 1)):
            classes = self._choose(rng)
            step = (
                sum(np.array(MOTIONS[CLASSES[kind]]) for kind in classes) * SPEED * rng.uniform(0.6, 1.0) / self.fps
            )
            states = rng.uniform(size=4) + np.arange(num_frames)[:, None] * step
            sprite = random_shape(rng, round(2 * LARGEST * self.size), 1 - 0.6 * self.difficulty)
            phase = torch.from_numpy(states % 1.0).float()
            radius = LARGEST * RATIO ** (phase[:, 3] - 1)
            place = LARGEST + (1 - 2 * LARGEST) * phase[:, :2]
            painted = paint(sprite, place, phase[:, 2], radius, self.size)
            visible = fade(phase[:, [0, 1, 3]], FADE).prod(dim=1)
            for second, actors in keys.items():
                frame = second * self.fps
                if visible[frame] > 0.5:
                    life = (i, *np.floor(states[frame, [0, 1, 3]]).astype(int).tolist())
                    person = persons.setdefault(life, len(persons))
                    actors.append(Actor(_box(painted[frame, 3]), classes, person))
            painted *= visible[:, None, None, None]
            video.mul_(1 - painted[:, 3:]).add_(painted[:, :3])
        return noisy(rng, video, self.difficulty), keys

    def _choose(self, rng: np.random.Generator) -> tuple[int, ...]:
        """What an actor does: one thing, or two that do not undo each other."""
        first = int(rng.integers(len(CLASSES)))
        if rng.uniform() >= self.both:
            return (first,)
        others = [kind for kind in range(len(CLASSES)) if kind // 2 != first // 2]
        return tuple(sorted((first, int(rng.choice(others)))))

    def _write(self, folder: Path) -> None:
        """Every video has a generator of its own, so that it does not matter who draws it, or when."""
        for (split, name), count in zip(SPLITS.items(), (self.num_train, self.num_test)):
            rows: dict[str, list[list[str | int | None]]] = {}
            write_videos(self._write_one, [(folder, f"actors_{split}_{k:05d}", rows) for k in range(count)])
            with (folder / f"ava_{name}.csv").open("w", newline="", encoding="utf-8") as file:
                csv.writer(file).writerows(row for video in sorted(rows) for row in rows[video])
        items = (f'item {{\n  name: "{name}"\n  id: {i + 1}\n}}\n' for i, name in enumerate(CLASSES))
        (folder / "ava_action_list.pbtxt").write_text("".join(items))

    def _write_one(self, folder: Path, name: str, rows: dict[str, list[list[str | int | None]]]) -> None:
        video, keys = self.render(np.random.default_rng(derive_seed(self.seed, "actors", name)))
        write_video(folder / f"{name}.mp4", video, self.fps, crf=14, gop=8, preset="veryfast")
        rows[name] = [
            [name, f"{second:04d}", *(f"{side:.3f}" for side in actor.box), kind + 1, actor.person]
            for second, actors in keys.items()
            for actor in actors
            for kind in actor.classes
        ]


def _box(opacity: Tensor) -> Box:
    """What encloses a shape that is drawn in a frame, ``H W``."""
    shape = opacity > 0.5
    height, width = shape.shape
    (top, bottom), (left, right) = (
        (int(found[0]), int(found[-1]) + 1) for found in (shape.any(dim=axis).nonzero()[:, 0] for axis in (1, 0))
    )
    return left / width, top / height, right / width, bottom / height
