"""Untrimmed: long videos in which a few actions happen, generated as real video files with a file of annotations.

An action is one way of moving (:mod:`filmstrip.data.synthetic.motions`). Before, between and after the actions lies
background: other shapes, which rest.

    folder/train/untrimmed_train_00000.mp4  the videos
    folder/procedures.json                  what happens when, and how long each video is
    folder/manifest.csv                     the whole videos, for encoding them
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import torch

from filmstrip.bounds import Ascending, Count, CountOrZero, EvenSize, Seed, Share, check_numbers
from filmstrip.data.annotations.own import FILE, write_own
from filmstrip.data.config import Synthetic
from filmstrip.data.procedures.types import Annotations, Procedure, Step
from filmstrip.data.reading.order import derive_seed
from filmstrip.data.synthetic.generated import generate_once, write_videos
from filmstrip.data.synthetic.motions import MOTIONS, Motions
from filmstrip.files import write_csv
from filmstrip.video.write import write_video

ACTIONS = tuple(MOTIONS)
VERSION = 1
SPLITS = ("train", "test")
MANIFEST = "manifest.csv"


@dataclass(frozen=True, kw_only=True)
class Untrimmed(Synthetic):
    """Videos of ``size`` by ``size`` pixels."""

    num_train: Count = 60
    num_test: CountOrZero = 20
    actions: Annotated[tuple[Count, Count], Ascending] = (2, 5)
    """Minimum and maximum number of actions in a video."""
    action_frames: Annotated[tuple[Count, Count], Ascending] = (16, 96)
    """Minimum and maximum number of frames of an action; lengths are uniform on a logarithmic scale."""
    background_frames: Annotated[tuple[Count, Count], Ascending] = (16, 64)
    """Minimum and maximum number of background frames before, between and after actions."""
    fps: Count = 16
    size: EvenSize = 64
    seed: Seed = 0
    difficulty: Share = 0.3
    """Difficulty, as in :class:`~filmstrip.data.synthetic.motions.Motions`."""

    def __post_init__(self) -> None:
        check_numbers(self)

    def annotations(self) -> Annotations:
        """What happens when, which is known without drawing it."""
        counts = dict(zip(SPLITS, (self.num_train, self.num_test)))
        procedures = tuple(
            self._video(f"{split}/untrimmed_{split}_{k:05d}.mp4", split)
            for split, count in counts.items()
            for k in range(count)
        )
        return Annotations(root=Path("untrimmed"), steps=ACTIONS, tasks=(), procedures=procedures)

    def generate(self, out: Path | None = None) -> Path:
        """Make the set in ``out`` or in the cache, unless it is there; return its folder.

        Raises:
            UserError: ``out`` is not empty and holds something else.
        """
        return generate_once(
            self, name="untrimmed", version=VERSION, notes={"directional": True}, write=self._write, out=out
        )

    def _video(self, video: str, split: str) -> Procedure:
        rng = np.random.default_rng(derive_seed(self.seed, "untrimmed", video))
        frame, steps = int(rng.integers(*_through(self.background_frames))), []
        for _ in range(rng.integers(*_through(self.actions))):
            shortest, longest = np.log(self.action_frames)
            length = round(float(np.exp(rng.uniform(shortest, longest))))
            action = int(rng.integers(len(ACTIONS)))
            steps.append(Step(action, frame / self.fps, (frame + length) / self.fps))
            frame += length + int(rng.integers(*_through(self.background_frames)))
        return Procedure(video=video, split=split, steps=tuple(steps), seconds=frame / self.fps, fps=float(self.fps))

    def _write(self, folder: Path) -> None:
        annotations = self.annotations()
        for split in SPLITS:
            (folder / split).mkdir()
        write_own(annotations, folder / FILE)
        rows = [{"path": procedure.video, "split": procedure.split} for procedure in annotations.procedures]
        write_csv(rows, folder / MANIFEST)
        write_videos(self._write_one, [(folder, procedure) for procedure in annotations.procedures])

    def _write_one(self, folder: Path, procedure: Procedure) -> None:
        rng = np.random.default_rng(derive_seed(self.seed, "pixels", procedure.video))
        parts, frame = [], 0
        for step in procedure.steps:
            start, end = (round(moment * self.fps) for moment in (step.start, step.end))
            parts.append(self._motions(start - frame).render(None, rng))
            parts.append(self._motions(end - start).render(ACTIONS[step.step], rng))
            frame = end
        assert procedure.seconds is not None, "set by _video"
        parts.append(self._motions(round(procedure.seconds * self.fps) - frame).render(None, rng))
        write_video(folder / procedure.video, torch.cat(parts), self.fps, crf=14, gop=8, preset="veryfast")

    def _motions(self, num_frames: int) -> Motions:
        """How a stretch of so many frames is drawn."""
        return Motions(num_frames=num_frames, size=self.size, fps=self.fps, difficulty=self.difficulty)


def _through(least_most: tuple[int, int]) -> tuple[int, int]:
    """A range of whole numbers that includes its end."""
    least, most = least_most
    return least, most + 1
