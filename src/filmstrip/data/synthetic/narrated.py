"""NarratedShapes: plain shapes that move, with captions, boxes, and questions and answers, as real files.

One to three shapes, of different colours and forms, each start in a cell of their own of a 3 x 3 grid and move, turn,
grow or shrink. A darker mark shows how a shape is turned. With ``num_frames`` 1 the files are images.

    folder/train/00000.mp4     the videos (images: .png)
    folder/manifest.csv        path, split, label, and captions: a JSON list, the template's sentence first
    folder/shapes.jsonl        for every file its shapes, with a box per frame, and whether its captions are wrong
    folder/dialogues.jsonl     questions and answers in LLaVA's layout, with the split and kind of each
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from einops import rearrange
from PIL import Image, ImageDraw
from torch import Tensor

from filmstrip.bounds import Bounds, Count, CountOrZero, EvenSize, Seed, Share, check_numbers
from filmstrip.data.config import Synthetic
from filmstrip.data.synthetic.generated import generate_once, seeded_paths, write_videos
from filmstrip.data.synthetic.narration import (
    COLOURS,
    FORMS,
    MOTIONS,
    PLACES,
    SIZES,
    Shape,
    caption,
    dialogues,
    paraphrases,
    questions,
    with_wrong_captions,
)
from filmstrip.files import write_csv, write_text
from filmstrip.video.write import write_grid, write_video

VERSION = 2
SAMPLES = 4
"""Pixels drawn along each axis for one pixel of a frame."""
BACKGROUND = (23, 26, 36)
STEP, TURN, GROWTH = 1 / 3, 0.4, 1.7
"""Change over a whole video: sides of the frame, turns, and factor of the size."""
_WAYS = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}
_MIXED = 2**40
"""Second number of the seeds that mix captions, which no file's seed has."""


@dataclass(frozen=True, kw_only=True)
class NarratedShapes(Synthetic):
    """Videos, or images, of ``size`` by ``size`` pixels with captions, boxes, and questions and answers."""

    num_train: Count = 2000
    num_test: CountOrZero = 400
    num_frames: Count = 16
    """Number of frames of a video; 1 for images, whose captions name no motion."""
    fps: Count = 8
    size: EvenSize = 64
    max_shapes: Annotated[int, Bounds(min=1, max=3)] = 1
    """Maximum number of shapes in a scene; every number up to it is as likely."""
    in_turn: bool = False
    """Whether the shapes of a scene move one after another instead of at the same time."""
    noise: Share = 0.0
    """Share of the training files with wrong captions: half have another file's, half a generic one."""
    labels: Literal["motion", "form", "colour", "none"] = "motion"
    """Class of a file: a property of its first shape (``motion``: the form of images)."""
    seed: Seed = 0

    def __post_init__(self) -> None:
        check_numbers(self)

    @property
    def visual(self) -> Literal["image", "video"]:
        """What the files are."""
        return "image" if self.num_frames == 1 else "video"

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, in the words of captions."""
        if self.labels == "motion" and self.visual == "video":
            return tuple(MOTIONS.values())
        return {"motion": FORMS, "form": FORMS, "colour": tuple(COLOURS), "none": ()}[self.labels]

    def generate(self, out: Path | None = None) -> Path:
        """Make the files in ``out`` or in the cache, unless they are there; return the folder.

        Raises:
            UserError: ``out`` is not empty and holds something else.
        """
        notes: dict[str, Any] = {"directional": True}
        if self.classes:
            notes["classes"] = list(self.classes)
        return generate_once(self, name="narrated", version=VERSION, notes=notes, write=self._write, out=out)

    def scene(self, rng: np.random.Generator) -> tuple[Shape, ...]:
        """Random shapes of different colours, forms and cells; none leaves the frame."""
        count = int(rng.integers(1, self.max_shapes + 1))
        colours, forms = rng.permutation(list(COLOURS)), rng.permutation(FORMS)
        motions = [str(rng.choice(list(MOTIONS))) if self.num_frames > 1 else "" for _ in range(count)]
        cells: list[int] = []
        for motion in motions:
            free = [cell for cell in range(len(PLACES)) if cell not in cells and _stays(cell, motion)]
            cells.append(int(rng.choice(free)))
        return tuple(
            Shape(
                colour=str(colour),
                form=str(form),
                size=str(rng.choice(list(SIZES))),
                cell=cell,
                motion=motion,
                shift=(float(rng.uniform(-0.03, 0.03)), float(rng.uniform(-0.03, 0.03))),
                turn=float(rng.uniform(-0.06, 0.06)),
            )
            for colour, form, cell, motion in zip(colours, forms, cells, motions)
        )

    def states(self, shapes: tuple[Shape, ...]) -> np.ndarray:
        """x, y, angle (turns) and radius of each shape in each frame, ``N T 4``, lengths in sides of the frame."""
        last = max(self.num_frames - 1, 1)
        found = []
        for i, shape in enumerate(shapes):
            done = np.arange(self.num_frames) / last
            if self.in_turn:
                done = np.clip(done * len(shapes) - i, 0, 1)
            row, column = divmod(shape.cell, 3)
            dx, dy = _WAYS.get(shape.motion, (0, 0))
            turned = {"clockwise": TURN, "counterclockwise": -TURN}.get(shape.motion, 0.0)
            grown = {"grow": GROWTH, "shrink": 1 / GROWTH}.get(shape.motion, 1.0)
            found.append(
                np.stack(
                    [
                        (column + 0.5) / 3 + shape.shift[0] + done * dx * STEP,
                        (row + 0.5) / 3 + shape.shift[1] + done * dy * STEP,
                        shape.turn + done * turned,
                        SIZES[shape.size] * grown**done,
                    ],
                    axis=1,
                )
            )
        return np.stack(found)

    def render(self, shapes: tuple[Shape, ...], rng: np.random.Generator) -> Tensor:
        """Draw a scene: ``T 3 H W`` uint8."""
        side = self.size * SAMPLES
        states, frames = self.states(shapes), []
        for t in range(self.num_frames):
            frame = Image.new("RGB", (side, side), BACKGROUND)
            draw = ImageDraw.Draw(frame)
            for shape, state in zip(shapes, states[:, t]):
                draw_shape(draw, shape, state, side)
            frames.append(np.asarray(frame.resize((self.size, self.size), Image.Resampling.BOX)))
        video = torch.from_numpy(np.stack(frames)).float() * (1 + 0.1 * float(rng.uniform(-1, 1)))
        noise = torch.from_numpy(rng.standard_normal(video.shape, dtype=np.float32))
        return rearrange((video + 3 * noise).round().clamp(0, 255).to(torch.uint8), "t h w c -> t c h w")

    def _write(self, folder: Path) -> None:
        """Every file has a generator of its own, so that it does not matter who draws it, or when."""
        jobs = seeded_paths(folder, {"train": self.num_train, "test": self.num_test}, self.seed)
        if self.visual == "image":
            jobs = [(path.with_suffix(".png"), seed) for path, seed in jobs]
        scenes = [self.scene(np.random.default_rng(seed)) for _, seed in jobs]
        names = [f"{path.parent.name}/{path.name}" for path, _ in jobs]
        sentences = [[text, *paraphrases(text)] for text in map(caption, scenes)]
        rng = np.random.default_rng((self.seed, _MIXED))
        given, wrong = with_wrong_captions(sentences[: self.num_train], self.noise, rng)
        given, wrong = given + sentences[self.num_train :], wrong + [False] * self.num_test
        rows, boxes, asked = [], [], []
        for (path, seed), name, shapes, texts, is_wrong in zip(jobs, names, scenes, given, wrong):
            split = path.parent.name
            label = {"label": self._class_of(shapes[0])} if self.classes else {}
            rows.append({"path": name, "split": split, **label, "captions": json.dumps(texts)})
            boxes.append({"path": name, "split": split, "wrong": is_wrong, "shapes": self.described(shapes)})
            told = questions(shapes, np.random.default_rng((*seed, 1)), in_turn=self.in_turn)
            asked += dialogues(name, split, told, visual=self.visual)
        write_csv(rows, folder / "manifest.csv")
        write_text(_lines(boxes), folder / "shapes.jsonl")
        write_text(_lines(asked), folder / "dialogues.jsonl")
        write_videos(self._write_one, jobs)

    def _write_one(self, path: Path, seed: tuple[int, ...]) -> None:
        rng = np.random.default_rng(seed)
        video = self.render(self.scene(rng), rng)
        if self.visual == "image":
            write_grid(path, [video], gap=0)
        else:
            write_video(path, video, self.fps, crf=14, gop=8, preset="veryfast")

    def _class_of(self, shape: Shape) -> str:
        if self.labels == "motion" and shape.motion:
            return MOTIONS[shape.motion]
        return shape.colour if self.labels == "colour" else shape.form

    def described(self, shapes: tuple[Shape, ...]) -> list[dict[str, Any]]:
        """Each shape with its phrase and its box (left, top, right, bottom, shares of the frame) in every frame."""
        return [
            {
                **{key: value for key, value in asdict(shape).items() if key not in ("shift", "turn")},
                "phrase": f"the {shape.noun}",
                "boxes": [_box(shape, state) for state in states],
            }
            for shape, states in zip(shapes, self.states(shapes))
        ]


def _stays(cell: int, motion: str) -> bool:
    """Whether a shape that starts in a cell stays in the frame."""
    row, column = divmod(cell, 3)
    dx, dy = _WAYS.get(motion, (0, 0))
    return 0 <= column + dx < 3 and 0 <= row + dy < 3


def outline(shape: Shape, state: np.ndarray) -> np.ndarray:
    """The corners of a shape, ``N 2``, in sides of the frame."""
    x, y, turn, radius = state
    match shape.form:
        case "disc":
            angles = np.arange(48) / 48
            corners = np.stack([np.cos(2 * np.pi * angles), np.sin(2 * np.pi * angles)], axis=1)
        case "square":
            corners = np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)]) * 0.9
        case "triangle":
            corners = np.array([(0, -1.15), (1.05, 0.8), (-1.05, 0.8)])
        case _:
            arm = np.array([(-0.38, -0.38), (-0.38, -1.05), (0.38, -1.05)])
            corners = np.concatenate([_turned(arm, quarter / 4) for quarter in range(4)])
    return _turned(corners, turn) * radius + (x, y)


def _turned(points: np.ndarray, turn: float) -> np.ndarray:
    """Points turned clockwise about the origin (y points down)."""
    cos, sin = math.cos(2 * math.pi * turn), math.sin(2 * math.pi * turn)
    return points @ np.array([[cos, sin], [-sin, cos]])


def _box(shape: Shape, state: np.ndarray) -> list[float]:
    corners = outline(shape, state).clip(0, 1)
    return [round(float(value), 4) for value in (*corners.min(axis=0), *corners.max(axis=0))]


def draw_shape(draw: ImageDraw.ImageDraw, shape: Shape, state: np.ndarray, side: int) -> None:
    """The shape, and a darker mark between its middle and its upper edge."""
    colour = COLOURS[shape.colour]
    draw.polygon([(x * side, y * side) for x, y in outline(shape, state)], fill=colour)
    x, y, turn, radius = state
    mark = _turned(np.array([(-0.16, -0.8), (0.16, -0.8), (0.16, 0), (-0.16, 0)]), turn) * radius + (x, y)
    draw.polygon([(a * side, b * side) for a, b in mark], fill=tuple(value // 3 for value in colour))


def _lines(values: Iterable[Any]) -> str:
    """JSON Lines."""
    return "".join(f"{json.dumps(value)}\n" for value in values)
