"""Reaches: a hand moves towards one of several objects, with boxes in the layout of Ego4D's anticipation of contacts.

The object's shape is the noun. The way in which the hand comes is the verb: straight, in waves, or turning round
itself; and its speed tells the time to contact. One frame has several objects and says neither which of them will be
touched, nor how, nor when.

    folder/reach_train_00000.mp4   the videos
    folder/fho_sta_train.json      annotated frames; fho_sta_val.json those of the test split
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from einops import rearrange
from PIL import Image, ImageDraw
from torch import Tensor

from filmstrip.bounds import Bounds, Count, CountOrZero, EvenSize, Rate, Seed, check_numbers
from filmstrip.data.annotations.ego4d_contacts import FILES
from filmstrip.data.config import Synthetic
from filmstrip.data.reading.order import derive_seed
from filmstrip.data.synthetic.generated import generate_once, write_videos
from filmstrip.files import write_json
from filmstrip.video.write import write_video

NOUNS = ("ball", "box", "tent", "cross")
VERBS = ("take", "shake", "turn")
VERSION = 1
SAMPLES = 4
"""Pixels drawn along each axis for one pixel of a video."""
HAND, GROUND = (238, 205, 170), (70, 74, 80)
COLOURS = ((196, 60, 52), (54, 110, 200), (52, 150, 70), (200, 160, 40), (140, 70, 180), (60, 170, 170))


@dataclass(frozen=True)
class Thing:
    """An object that lies still: its noun, its middle and radius as fractions of the frame, and its colour."""

    noun: int
    x: float
    y: float
    radius: float
    colour: tuple[int, int, int]


@dataclass(frozen=True)
class Reach:
    """A hand that reaches a thing: the verb, and where the hand is in each frame until it touches."""

    thing: Thing
    verb: int
    hand: np.ndarray
    """Middle (fractions of the frame) and angle of the hand, ``T 3``."""
    contact: float
    """Number of the frame of the contact, after the last one."""


@dataclass(frozen=True, kw_only=True)
class Reaches(Synthetic):
    """Videos of ``size`` by ``size`` pixels that end before the contact, with ``keys`` annotated frames each."""

    num_train: Count = 200
    """Number of training videos."""
    num_test: CountOrZero = 60
    """Number of test videos."""
    num_things: Annotated[int, Bounds(min=2, max=8)] = 5
    """Number of objects."""
    num_frames: Annotated[int, Bounds(min=8)] = 16
    keys: Annotated[int, Bounds(min=1, max=4)] = 2
    """Number of annotated frames of a video, the last one among them."""
    fps: Count = 8
    size: EvenSize = 64
    slowest: Rate = 0.1
    """Lowest speed of the hand, in frame sides a second; the highest is three times as much."""
    hand: Rate = 0.06
    """Radius of the hand, in frame sides: a larger one is easier to see."""
    wave: Rate = 0.04
    """Distance by which a hand that comes in waves swings to each side, in frame sides."""
    seed: Seed = 0

    def __post_init__(self) -> None:
        check_numbers(self)

    def generate(self, out: Path | None = None) -> Path:
        """Make the set in ``out`` or in the cache, unless it is there; return its folder.

        Raises:
            UserError: ``out`` is not empty and holds something else.
        """
        notes = {"directional": False}
        return generate_once(self, name="reaches", version=VERSION, notes=notes, write=self._write, out=out)

    def scene(self, rng: np.random.Generator) -> tuple[list[Thing], Reach]:
        """Objects that do not overlap, and the hand's way to one of them."""
        things: list[Thing] = []
        while len(things) < self.num_things:
            radius = rng.uniform(0.075, 0.11)
            x, y = rng.uniform(radius + 0.02, 0.98 - radius, size=2)
            if all(math.hypot(x - t.x, y - t.y) > radius + t.radius + 0.04 for t in things):
                colour = COLOURS[int(rng.integers(len(COLOURS)))]
                things.append(Thing(int(rng.integers(len(NOUNS))), float(x), float(y), float(radius), colour))
        return things, self._reach(things[int(rng.integers(len(things)))], rng)

    def _reach(self, thing: Thing, rng: np.random.Generator) -> Reach:
        """A way to a thing, along which the hand is within the frame for as long as possible."""
        verb, speed = int(rng.integers(len(VERBS))), self.slowest * rng.uniform(1, 3)
        waits = rng.uniform(0.25, 1.25)
        """Seconds from the last frame to the contact."""
        contact = self.num_frames - 1 + waits * self.fps
        rest = (contact - np.arange(self.num_frames)) / self.fps
        away = np.pi + np.arctan2(thing.y - 0.5, thing.x - 0.5) + rng.uniform(-0.9, 0.9)
        distance = thing.radius + 0.05 + speed * rest
        angle = np.full(self.num_frames, away)
        side = np.zeros(self.num_frames)
        if VERBS[verb] == "shake":
            side = self.wave * np.sin(2 * np.pi * 1.5 * rest)
        elif VERBS[verb] == "turn":
            angle = away + 2 * np.pi * 0.5 * rest
        x = thing.x + distance * np.cos(away) - side * np.sin(away)
        y = thing.y + distance * np.sin(away) + side * np.cos(away)
        return Reach(thing, verb, np.stack([x, y, angle], axis=1), float(contact))

    def render(self, things: list[Thing], reach: Reach, rng: np.random.Generator) -> Tensor:
        """Draw a scene: ``T 3 H W`` uint8."""
        side = self.size * SAMPLES
        still = Image.new("RGB", (side, side), GROUND)
        pen = ImageDraw.Draw(still)
        for thing in things:
            _draw(pen, thing, side)
        frames = []
        for x, y, angle in reach.hand:
            frame = still.copy()
            _draw_hand(ImageDraw.Draw(frame), x * side, y * side, angle, self.hand * side)
            frames.append(np.asarray(frame.resize((self.size, self.size), Image.Resampling.BOX)))
        video = torch.from_numpy(np.stack(frames)).float()
        noise = torch.from_numpy(rng.standard_normal(video.shape[:3], dtype=np.float32))[..., None]
        return rearrange((video + 2 * noise).round().clamp(0, 255).to(torch.uint8), "t h w c -> t c h w")

    def _write(self, folder: Path) -> None:
        """Every video has a generator of its own, so that it does not matter who draws it, or when."""
        for split, count in {"train": self.num_train, "test": self.num_test}.items():
            rows: dict[str, list[dict[str, Any]]] = {}
            names = [f"reach_{split}_{k:05d}" for k in range(count)]
            write_videos(self._write_one, [(folder, name, rows) for name in names])
            size = {"frame_height": self.size, "frame_width": self.size}
            content = {
                "info": {"video_metadata": dict.fromkeys(names, size)},
                "noun_categories": [{"id": i, "name": name} for i, name in enumerate(NOUNS)],
                "verb_categories": [{"id": i, "name": name} for i, name in enumerate(VERBS)],
                "annotations": [row for name in names for row in rows[name]],
            }
            write_json(content, folder / FILES[split])

    def _write_one(self, folder: Path, name: str, rows: dict[str, list[dict[str, Any]]]) -> None:
        rng = np.random.default_rng(derive_seed(self.seed, "reaches", name))
        things, reach = self.scene(rng)
        write_video(folder / f"{name}.mp4", self.render(things, reach, rng), self.fps, crf=14, gop=8)
        rows[name] = [self._annotated(name, reach, self.num_frames - 1 - 3 * k) for k in range(self.keys)]

    def _annotated(self, name: str, reach: Reach, frame: int) -> dict[str, Any]:
        thing, side = reach.thing, self.size
        box = [thing.x - thing.radius, thing.y - thing.radius, thing.x + thing.radius, thing.y + thing.radius]
        touched = {
            "box": [round(value * side, 2) for value in box],
            "noun_category_id": thing.noun,
            "verb_category_id": reach.verb,
            "time_to_contact": round((reach.contact - frame) / self.fps, 4),
        }
        return {"uid": f"{name}_{frame:03d}", "video_id": name, "frame": frame, "objects": [touched]}


def _draw(pen: ImageDraw.ImageDraw, thing: Thing, side: int) -> None:
    """An object, which fills the square around its middle."""
    x, y, r = thing.x * side, thing.y * side, thing.radius * side
    match NOUNS[thing.noun]:
        case "ball":
            pen.ellipse((x - r, y - r, x + r, y + r), fill=thing.colour)
        case "box":
            pen.rectangle((x - r, y - r, x + r, y + r), fill=thing.colour)
        case "tent":
            pen.polygon([(x - r, y + r), (x + r, y + r), (x, y - r)], fill=thing.colour)
        case _:
            pen.rectangle((x - r, y - r / 3, x + r, y + r / 3), fill=thing.colour)
            pen.rectangle((x - r / 3, y - r, x + r / 3, y + r), fill=thing.colour)


def _draw_hand(pen: ImageDraw.ImageDraw, x: float, y: float, angle: float, r: float) -> None:
    """A disc with three fingers, which point against its angle."""
    for turn in (-0.6, 0.0, 0.6):
        tip = (x - 1.9 * r * math.cos(angle + turn), y - 1.9 * r * math.sin(angle + turn))
        pen.line((x, y, *tip), fill=HAND, width=max(1, round(0.55 * r)))
    pen.ellipse((x - r, y - r, x + r, y + r), fill=HAND)
