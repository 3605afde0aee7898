"""Recipes: long videos of ordered steps, generated as real video files with a file of annotations.

Each task is a recipe: stages in a fixed order, of which some are optional and some swap with the next. A step is one
way of moving (:mod:`filmstrip.data.synthetic.motions`), preceded by a short pause in which nothing does. The same
step comes in several tasks with other steps after it: what comes next follows from what came before, not from the
last clip alone.

    folder/train/recipe_train_00000.mp4     the videos
    folder/procedures.json                  steps, tasks and when each step is done
    folder/manifest.csv                     every step as a clip of its own, with its caption
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from filmstrip.bounds import Count, CountOrZero, EvenSize, Seed, Share, check_numbers
from filmstrip.data.annotations.own import FILE, write_own
from filmstrip.data.config import Synthetic
from filmstrip.data.procedures.types import Annotations, Procedure, Step
from filmstrip.data.reading.order import derive_seed
from filmstrip.data.synthetic.generated import generate_once, write_videos
from filmstrip.data.synthetic.motions import MOTIONS, Motions
from filmstrip.files import write_csv
from filmstrip.video.write import write_video

STEPS = tuple(MOTIONS)
VERSION = 1
SPLITS = ("train", "test")
MANIFEST = "manifest.csv"


class Stage(NamedTuple):
    """One line of a recipe."""

    step: str
    optional: bool = False
    """Left out half of the time."""
    swaps: bool = False
    """Done after the next stage half of the time."""


TASKS: dict[str, tuple[Stage, ...]] = {
    "soup": (
        Stage("left"),
        Stage("grow", swaps=True),
        Stage("up"),
        Stage("clockwise", optional=True),
        Stage("shrink"),
        Stage("right"),
    ),
    "bread": (
        Stage("down"),
        Stage("clockwise"),
        Stage("grow", optional=True),
        Stage("left"),
        Stage("counterclockwise", swaps=True),
        Stage("shrink"),
    ),
    "salad": (
        Stage("right"),
        Stage("up", optional=True),
        Stage("counterclockwise", swaps=True),
        Stage("left"),
        Stage("down"),
        Stage("grow"),
    ),
    "tea": (
        Stage("up"),
        Stage("shrink"),
        Stage("down", swaps=True),
        Stage("right"),
        Stage("grow", optional=True),
        Stage("clockwise"),
    ),
}
CAPTIONS = {
    "left": "the shapes move to the left",
    "right": "the shapes move to the right",
    "up": "the shapes move up",
    "down": "the shapes move down",
    "clockwise": "the shapes turn clockwise",
    "counterclockwise": "the shapes turn counterclockwise",
    "grow": "the shapes grow",
    "shrink": "the shapes shrink",
}


@dataclass(frozen=True, kw_only=True)
class Recipes(Synthetic):
    """Videos of ``size`` by ``size`` pixels, with as many of each task."""

    train_per_task: Count = 40
    test_per_task: CountOrZero = 10
    step_frames: Count = 24
    """Minimum number of frames of a step; the maximum is one and a half times as many."""
    pause_frames: CountOrZero = 4
    """Number of still frames between two steps."""
    fps: Count = 16
    size: EvenSize = 64
    seed: Seed = 0
    difficulty: Share = 0.3
    """Difficulty, as in :class:`~filmstrip.data.synthetic.motions.Motions`."""

    def __post_init__(self) -> None:
        check_numbers(self)

    def annotations(self) -> Annotations:
        """The procedures, which are known without drawing them."""
        return Annotations(root=Path("recipes"), steps=STEPS, tasks=tuple(TASKS), procedures=self._procedures())

    def generate(self, out: Path | None = None) -> Path:
        """Make the set in ``out`` or in the cache, unless it is there; return its folder.

        Raises:
            UserError: ``out`` is not empty and holds something else.
        """
        notes = {"directional": True, "classes": list(STEPS)}
        return generate_once(self, name="recipes", version=VERSION, notes=notes, write=self._write, out=out)

    def _procedures(self) -> tuple[Procedure, ...]:
        counts = dict(zip(SPLITS, (self.train_per_task, self.test_per_task)))
        found = []
        for split, count in counts.items():
            for k in range(count * len(TASKS)):
                task = k % len(TASKS)
                video = f"{split}/recipe_{split}_{k:05d}.mp4"
                rng = np.random.default_rng(derive_seed(self.seed, "recipe", video))
                found.append(Procedure(video=video, split=split, task=task, steps=self._steps(task, rng)))
        return tuple(found)

    def _steps(self, task: int, rng: np.random.Generator) -> tuple[Step, ...]:
        """One way through a recipe, with its times."""
        frame, steps = 0, []
        for name in order(TASKS[tuple(TASKS)[task]], rng):
            frame += self.pause_frames
            length = int(rng.integers(self.step_frames, self.step_frames * 3 // 2 + 1))
            steps.append(Step(STEPS.index(name), frame / self.fps, (frame + length) / self.fps))
            frame += length
        return tuple(steps)

    def _write(self, folder: Path) -> None:
        annotations = self.annotations()
        for split in SPLITS:
            (folder / split).mkdir()
        write_own(annotations, folder / FILE)
        rows = [
            {
                "path": procedure.video,
                "label": STEPS[step.step],
                "split": procedure.split,
                "start": step.start,
                "end": step.end,
                "text": CAPTIONS[STEPS[step.step]],
                "group": procedure.video,
            }
            for procedure in annotations.procedures
            for step in procedure.steps
        ]
        write_csv(rows, folder / MANIFEST)
        write_videos(self._write_one, [(folder, procedure) for procedure in annotations.procedures])

    def _write_one(self, folder: Path, procedure: Procedure) -> None:
        rng = np.random.default_rng(derive_seed(self.seed, "pixels", procedure.video))
        parts = []
        for step in procedure.steps:
            drawn = self._motions(round((step.end - step.start) * self.fps)).render(STEPS[step.step], rng)
            parts += [drawn[:1].expand(self.pause_frames, -1, -1, -1), drawn]
        write_video(folder / procedure.video, torch.cat(parts), self.fps, crf=14, gop=8, preset="veryfast")

    def _motions(self, num_frames: int) -> Motions:
        """How a step of so many frames is drawn."""
        return Motions(num_frames=num_frames, size=self.size, fps=self.fps, difficulty=self.difficulty)


def order(stages: tuple[Stage, ...], rng: np.random.Generator) -> list[str]:
    """The steps of one way through a recipe."""
    left = [stage for stage in stages if not (stage.optional and rng.random() < 0.5)]
    done = []
    while left:
        later = len(left) > 1 and left[0].swaps and rng.random() < 0.5
        if later:
            left[0], left[1] = left[1], left[0]._replace(swaps=False)
        done.append(left.pop(0).step)
    return done
