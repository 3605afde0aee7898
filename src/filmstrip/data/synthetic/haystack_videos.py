"""HaystackVideos: long walks through scenes of plain shapes, some of which hide an odd thing, as real files.

Every scene is one of :class:`~filmstrip.data.synthetic.narrated.NarratedShapes`. Odd things (a star, an arrow, ...)
are in a scene each, and nowhere else; questions ask for their colours, in the order in which they are named.

    folder/train/00000.mp4     the videos
    folder/manifest.csv        path, split, label: the colour of the first thing that is asked for
    folder/needles.jsonl       for every file what is hidden in it, and where
    folder/dialogues.jsonl     a question about each file, in LLaVA's layout
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from filmstrip.bounds import Bounds, Count, CountOrZero, EvenSize, Seed, Share, check_numbers
from filmstrip.data.config import Synthetic
from filmstrip.data.synthetic.generated import generate_once, seeded_paths, write_videos
from filmstrip.data.synthetic.narrated import SAMPLES, NarratedShapes
from filmstrip.data.synthetic.narration import COLOURS, Question, dialogues
from filmstrip.errors import UserError
from filmstrip.files import write_csv, write_text
from filmstrip.video.write import write_video

VERSION = 1


def _star() -> list[tuple[float, float]]:
    turns = (math.tau * i / 10 for i in range(10))
    return [((0.45, 1.1)[i % 2] * math.sin(a), (0.45, 1.1)[i % 2] * math.cos(a)) for i, a in enumerate(turns)]


THINGS: dict[str, list[tuple[float, float]]] = {
    "star": _star(),
    "arrow": [(1.1, 0), (0.1, -0.9), (0.1, -0.35), (-1, -0.35), (-1, 0.35), (0.1, 0.35), (0.1, 0.9)],
    "house": [(-0.9, 1), (-0.9, -0.1), (0, -1.1), (0.9, -0.1), (0.9, 1)],
    "hourglass": [(-0.9, -1), (0.9, -1), (0.2, 0), (0.9, 1), (-0.9, 1), (-0.2, 0)],
    "flash": [(0.3, -1.1), (-0.8, 0.25), (-0.1, 0.25), (-0.3, 1.1), (0.8, -0.25), (0.1, -0.25)],
}
"""Odd things and their corners, in distances from the middle to the edge."""


class OddThing(NamedTuple):
    """Something that is in one scene alone."""

    name: str
    colour: str
    scene: int
    """Number of its scene."""
    x: float
    """Its middle, in sides of the frame."""
    y: float


def question(asked: Sequence[OddThing]) -> str:
    """The question for the colours of some things."""
    names = " and the ".join(thing.name for thing in asked)
    return f"what colour is the {names}?" if len(asked) == 1 else f"what colours are the {names}?"


def answer(asked: Sequence[OddThing]) -> str:
    """The right answer."""
    return " and ".join(thing.colour for thing in asked)


def found(said: str, asked: Sequence[OddThing]) -> list[bool]:
    """Whether an answer has the colour of each thing, at the place at which it was asked for."""
    colours = [word for word in re.findall(r"\w+", said.lower()) if word in COLOURS]
    return [len(colours) > i and colours[i] == thing.colour for i, thing in enumerate(asked)]


@dataclass(frozen=True, kw_only=True)
class HaystackVideos(Synthetic):
    """Videos of several ``scenes`` that hide ``needles``, and questions about ``asked`` of them."""

    num_train: Count = 400
    num_test: CountOrZero = 100
    scenes: Count = 16
    """Number of scenes of a video."""
    scene_frames: Count = 8
    """Number of frames of a scene."""
    fps: Count = 8
    size: EvenSize = 64
    """Height and width, pixels."""
    needles: Annotated[int, Bounds(min=1, max=len(THINGS))] = 1
    """Number of odd things that a video hides, in a scene each."""
    asked: Count = 1
    """Number of these that its question asks for."""
    depth: Share | None = None
    """Place of the first thing that is asked for, from 0 (first scene) to 1 (last); by default anywhere."""
    radius: Annotated[float, Bounds(above=0, max=0.5)] = 0.12
    """Distance from the middle of an odd thing to its edge, in sides of the frame."""
    seed: Seed = 0

    def __post_init__(self) -> None:
        check_numbers(self)
        if self.asked > self.needles:
            raise UserError(
                f"{self.asked} odd things are asked for, and a video hides {self.needles}: hide more (--needles)"
            )
        if self.needles > self.scenes:
            raise UserError(
                f"{self.needles} odd things take a scene each, and a video has {self.scenes}: give longer videos "
                "(--scenes), or fewer things (--needles)"
            )

    def generate(self, out: Path | None = None) -> Path:
        """Make the files in ``out`` or in the cache, unless they are there; return the folder.

        Raises:
            UserError: ``out`` is not empty and holds something else.
        """
        notes = {"classes": list(COLOURS)}
        return generate_once(self, name="haystack-videos", version=VERSION, notes=notes, write=self._write, out=out)

    def hide(self, rng: np.random.Generator) -> list[OddThing]:
        """Odd things of a video, those that are asked for first."""
        names = rng.permutation(list(THINGS))[: self.needles]
        colours = rng.choice(list(COLOURS), self.needles)
        if self.depth is None:
            scenes = rng.permutation(self.scenes)[: self.needles].tolist()
        else:
            first = round(self.depth * (self.scenes - 1))
            others = rng.permutation([scene for scene in range(self.scenes) if scene != first])
            scenes = [first, *others[: self.needles - 1].tolist()]
        places = rng.uniform(0.2, 0.8, size=(self.needles, 2)).tolist()
        return [
            OddThing(str(name), str(colour), int(scene), x, y)
            for name, colour, scene, (x, y) in zip(names, colours, scenes, places)
        ]

    def clips(self, things: Sequence[OddThing], rng: np.random.Generator) -> Iterator[Tensor]:
        """The scenes one after another, ``T 3 H W`` uint8 each."""
        shapes = NarratedShapes(num_frames=self.scene_frames, fps=self.fps, size=self.size, max_shapes=2)
        for number in range(self.scenes):
            clip = shapes.render(shapes.scene(rng), rng)
            for thing in things:
                if thing.scene == number:
                    clip = self._with(clip, thing)
            yield clip

    def write(self, path: Path, things: Sequence[OddThing], rng: np.random.Generator) -> None:
        """Write a video."""
        video = torch.cat(list(self.clips(things, rng)))
        write_video(path, video, self.fps, crf=14, gop=8, preset="veryfast")

    def record(self, name: str, split: str, things: Sequence[OddThing], kind: str = "") -> dict[str, object]:
        """The question about a video and its answer, in LLaVA's layout."""
        asked = things[: self.asked]
        (told,) = dialogues(name, split, [Question(kind, question(asked), answer(asked))], visual="video")
        return told

    def _with(self, clip: Tensor, thing: OddThing) -> Tensor:
        """A clip with an odd thing in front of all shapes."""
        side = self.size * SAMPLES
        mask = Image.new("L", (side, side))
        corners = np.array(THINGS[thing.name]) * self.radius + (thing.x, thing.y)
        ImageDraw.Draw(mask).polygon([(x * side, y * side) for x, y in corners], fill=255)
        covers = np.asarray(mask.resize((self.size, self.size), Image.Resampling.BOX))
        share = torch.from_numpy(covers.copy()).float()[None, None] / 255
        colour = torch.tensor(COLOURS[thing.colour]).float()[None, :, None, None]
        return (clip * (1 - share) + colour * share).round().to(torch.uint8)

    def _write(self, folder: Path) -> None:
        jobs, rows, told, hidden = [], [], [], []
        for path, seed in seeded_paths(folder, {"train": self.num_train, "test": self.num_test}, self.seed):
            things = self.hide(np.random.default_rng((*seed, 1)))
            name, split = f"{path.parent.name}/{path.name}", path.parent.name
            rows.append({"path": name, "split": split, "label": things[0].colour})
            hidden.append({"path": name, "split": split, "needles": [self._described(thing) for thing in things]})
            told.append(self.record(name, split, things, "needle"))
            jobs.append((path, things, seed))
        write_csv(rows, folder / "manifest.csv")
        write_text("".join(f"{json.dumps(record)}\n" for record in hidden), folder / "needles.jsonl")
        write_text("".join(f"{json.dumps(record)}\n" for record in told), folder / "dialogues.jsonl")
        write_videos(lambda path, things, seed: self.write(path, things, np.random.default_rng(seed)), jobs)

    def _described(self, thing: OddThing) -> dict[str, object]:
        span = [second * self.scene_frames / self.fps for second in (thing.scene, thing.scene + 1)]
        return {"name": thing.name, "colour": thing.colour, "seconds": span, "x": thing.x, "y": thing.y}
