"""Video queries: long videos of motions, sentences that say what happens, when it does, and how clips are rated.

A moment is one way of moving (:mod:`filmstrip.data.synthetic.motions`) that comes out of grey, is clearest somewhere
within, and goes again: three raters score each clip by how clear it is, from 0 to 4, not quite alike. Before, between
and after the moments shapes rest. A sentence describes a motion in one of several ways.

    folder/train/queries_train_00000.mp4  the videos
    folder/train.jsonl, test.jsonl        queries, moments and ratings, as in QVHighlights
    folder/manifest.csv                   the whole videos, for encoding them
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
import torch
from torch import Tensor

from filmstrip.bounds import Ascending, Count, CountOrZero, EvenSize, Seed, Share, check_numbers
from filmstrip.data.annotations.qvhighlights import write_qvhighlights
from filmstrip.data.config import Synthetic
from filmstrip.data.moments.types import Queries, Query, Rated
from filmstrip.data.reading.order import derive_seed
from filmstrip.data.synthetic.generated import generate_once, write_videos
from filmstrip.data.synthetic.motions import Motions
from filmstrip.files import write_csv
from filmstrip.video.write import write_video

SENTENCES: dict[str, tuple[str, ...]] = {
    "left": ("the shapes move to the left", "everything drifts left", "they slide leftwards across the picture"),
    "right": ("the shapes move to the right", "everything drifts right", "they slide rightwards across the picture"),
    "up": ("the shapes move up", "everything rises", "they float upwards to the top"),
    "down": ("the shapes move down", "everything falls", "they sink downwards to the bottom"),
    "clockwise": ("the shapes turn clockwise", "everything rotates like the hands of a clock"),
    "counterclockwise": ("the shapes turn counterclockwise", "everything rotates against the hands of a clock"),
    "grow": ("the shapes grow", "everything becomes larger", "they swell and come nearer"),
    "shrink": ("the shapes shrink", "everything becomes smaller", "they dwindle and recede"),
}
"""Sentences that describe each motion."""
VERSION = 1
SPLITS = ("train", "test")
MANIFEST = "manifest.csv"
FAINTEST, SPREAD = 0.25, 0.35
"""Minimum clarity of a moment, and the width of its clearest part as a share of the moment."""


class Part(NamedTuple):
    """A moment of one video."""

    motion: str
    start: int
    """First clip."""
    end: int
    """Clip after the last."""
    clearest: float
    """Place of the clearest frame, as a share of the moment."""


@dataclass(frozen=True, kw_only=True)
class VideoQueries(Synthetic):
    """Videos of ``size`` by ``size`` pixels."""

    num_train: Count = 100
    num_test: CountOrZero = 30
    moments: Annotated[tuple[Count, Count], Ascending] = (2, 4)
    """Minimum and maximum number of moments in a video."""
    moment_clips: Annotated[tuple[Count, Count], Ascending] = (2, 10)
    """Minimum and maximum number of clips of a moment."""
    rest_clips: Annotated[tuple[Count, Count], Ascending] = (1, 5)
    """Minimum and maximum number of clips before, between and after moments."""
    repeated: bool = False
    """Whether a motion may come more than once in a video, so that a query has several moments."""
    clip_frames: Count = 8
    """Number of frames of a clip that is rated."""
    fps: Count = 16
    size: EvenSize = 64
    seed: Seed = 0
    difficulty: Share = 0.3
    """Difficulty, as in :class:`~filmstrip.data.synthetic.motions.Motions`."""

    def __post_init__(self) -> None:
        check_numbers(self)

    def queries(self) -> Queries:
        """What happens when, which is known without drawing it: a query for each motion of each video."""
        found = tuple(query for video, split in self._videos() for query in self._queries(video, split))
        return Queries(root=Path("video_queries"), queries=found, clip_seconds=self.clip_frames / self.fps)

    def generate(self, out: Path | None = None) -> Path:
        """Make the set in ``out`` or in the cache, unless it is there; return its folder.

        Raises:
            UserError: ``out`` is not empty and holds something else.
        """
        return generate_once(
            self, name="video_queries", version=VERSION, notes={"directional": True}, write=self._write, out=out
        )

    def _videos(self) -> list[tuple[str, str]]:
        counts = dict(zip(SPLITS, (self.num_train, self.num_test)))
        return [(f"{s}/queries_{s}_{k:05d}.mp4", s) for s, count in counts.items() for k in range(count)]

    def _layout(self, video: str) -> tuple[list[Part], int]:
        """The moments of a video, and its number of clips."""
        rng = np.random.default_rng(derive_seed(self.seed, "layout", video))
        count = int(rng.integers(self.moments[0], self.moments[1] + 1))
        motions = rng.choice(list(SENTENCES), count, replace=self.repeated)
        clip, parts = int(rng.integers(self.rest_clips[0], self.rest_clips[1] + 1)), []
        for motion in motions:
            length = int(rng.integers(self.moment_clips[0], self.moment_clips[1] + 1))
            parts.append(Part(str(motion), clip, clip + length, float(rng.uniform(0.15, 0.85))))
            clip += length + int(rng.integers(self.rest_clips[0], self.rest_clips[1] + 1))
        return parts, clip

    def _queries(self, video: str, split: str) -> list[Query]:
        parts, clips = self._layout(video)
        seconds = self.clip_frames / self.fps
        rng = np.random.default_rng(derive_seed(self.seed, "ratings", video))
        found = []
        for i, motion in enumerate(dict.fromkeys(part.motion for part in parts)):
            mine = [part for part in parts if part.motion == motion]
            rated = []
            for part in mine:
                clear = self._clarity(part).view(-1, self.clip_frames).mean(dim=1).numpy()
                scores = np.clip(np.round(4 * clear[:, None] + rng.normal(0, 0.4, (len(clear), 3))), 0, 4)
                rated += [
                    Rated(clip * seconds, (clip + 1) * seconds, tuple(score.tolist()))
                    for clip, score in zip(range(part.start, part.end), scores)
                ]
            found.append(
                Query(
                    name=f"{Path(video).stem}_{i}",
                    video=video,
                    text=str(rng.choice(SENTENCES[motion])),
                    split=split,
                    moments=tuple((part.start * seconds, part.end * seconds) for part in mine),
                    rated=tuple(rated),
                    seconds=clips * seconds,
                    subject=motion,
                )
            )
        return found

    def _clarity(self, part: Part) -> Tensor:
        """How much of each frame of a moment is seen, ``T``."""
        frames = (part.end - part.start) * self.clip_frames
        place = (torch.arange(frames) + 0.5) / frames
        return FAINTEST + (1 - FAINTEST) * torch.exp(-(((place - part.clearest) / SPREAD) ** 2))

    def _write(self, folder: Path) -> None:
        for split in SPLITS:
            (folder / split).mkdir()
        write_qvhighlights(self.queries(), folder)
        videos = self._videos()
        write_csv([{"path": video, "split": split} for video, split in videos], folder / MANIFEST)
        write_videos(self._write_one, [(folder, video) for video, _ in videos])

    def _write_one(self, folder: Path, video: str) -> None:
        rng = np.random.default_rng(derive_seed(self.seed, "pixels", video))
        (parts, clips), drawn, clip = self._layout(video), [], 0
        for part in parts:
            drawn.append(self._motions(part.start - clip).render(None, rng))
            frames = self._motions(part.end - part.start).render(part.motion, rng).float()
            grey = frames.mean()
            drawn.append((grey + self._clarity(part)[:, None, None, None] * (frames - grey)).round().to(torch.uint8))
            clip = part.end
        drawn.append(self._motions(clips - clip).render(None, rng))
        write_video(folder / video, torch.cat(drawn), self.fps, crf=14, gop=8, preset="veryfast")

    def _motions(self, clips: int) -> Motions:
        """How a stretch of so many clips is drawn."""
        return Motions(num_frames=clips * self.clip_frames, size=self.size, fps=self.fps, difficulty=self.difficulty)
