"""Cups: where is the ball now? Scenes after CATER (Girdhar & Ramanan 2020), drawn as real video files.

On a ground of 6 x 6 cells, seen obliquely, lie a golden ball, boxes and cylinders, and cups that cover other
objects, nested ones too. In each of ten slots of time some of them act: they slide to another cell, turn, are
lifted to another cell, or, if they are cups, are lifted over an object that fits. What is covered moves with its
cup. The class is the ball's cell in the last frame. In most videos the ball is then out of sight, so that no last
frame tells its cell; and in many of those it was moved since it was seen, so that the place where it disappeared
does not tell it either.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from einops import rearrange
from PIL import Image, ImageDraw
from torch import Tensor

from filmstrip.bounds import Bounds, Count, CountOrZero, EvenSize, Seed, Share, check_numbers
from filmstrip.data.config import Synthetic
from filmstrip.data.layouts.cater import CELLS
from filmstrip.data.synthetic.generated import generate_once, seeded_paths, write_videos
from filmstrip.files import write_csv
from filmstrip.video.write import write_video

VERSION = 1
SLOTS = 10
"""Slots of time, in each of which an object acts at most once."""
SIDE = 6
"""Cells along one side of the ground, which reaches from -3 to 3."""
COLOURS = ((87, 87, 87), (173, 35, 35), (42, 75, 215), (29, 105, 20), (129, 38, 192), (41, 208, 208), (214, 96, 150))
GOLD, STRIPE, GROUND, LINES, SKY = (
    (242, 190, 40),
    (235, 235, 235),
    (122, 120, 117),
    (106, 104, 101),
    (150, 152, 158),
)
CAMERA, FOCAL = np.array([0.0, -10.5, 8.2]), 2.85
"""Position of the camera, which looks at the middle of the ground, and its focal length in half frames."""
SAMPLES = 2
"""Pixels drawn along each axis for one pixel of a video."""


@dataclass
class Thing:
    """An object of a scene, with its state at every frame."""

    shape: str
    """``ball``, ``box``, ``cylinder`` or ``cup``."""
    radius: float
    height: float
    colour: tuple[int, int, int]
    at: np.ndarray
    """Position on the ground at the start of the current slot, ``2``."""
    turn: float = 0.0
    """Its angle then, in radians."""
    under: Thing | None = None
    """The cup that covers it."""
    track: list[tuple[float, float, float, float]] = field(default_factory=list)
    """x, y, height above the ground and angle of every frame."""
    covered: list[bool] = field(default_factory=list)
    """Whether a cup covers it, at every frame."""

    @property
    def outermost(self) -> Thing:
        """The cup that carries it, or itself."""
        return self if self.under is None else self.under.outermost


@dataclass(frozen=True, kw_only=True)
class Cups(Synthetic):
    """Videos of ``size`` by ``size`` pixels, with ``cups.csv``: where the ball was last seen, and if it is hidden.

    CATER's videos have 300 frames; use ``uniform`` sampling of 16 or 32 frames (``--data.clip.sampling uniform``).
    """

    num_train: Count = 1000
    num_test: CountOrZero = 300
    num_frames: Annotated[int, Bounds(min=SLOTS, multiple=SLOTS)] = 300
    fps: Count = 24
    size: EvenSize = 96
    num_cups: Annotated[int, Bounds(min=1, max=6)] = 3
    """Number of cups, of different sizes."""
    num_others: Annotated[int, Bounds(min=0, max=6)] = 3
    """Number of boxes and cylinders."""
    hidden: Share = 0.65
    """Fraction of the videos in whose last frame a cup covers the ball."""
    moved: Share = 0.6
    """Fraction of those in which the ball ends in another cell than where it was seen last."""
    seed: Seed = 0

    def __post_init__(self) -> None:
        check_numbers(self)

    def generate(self, out: Path | None = None) -> Path:
        """Make ``split/*.mp4``, ``manifest.csv`` and ``cups.csv`` in ``out`` or in the cache, unless they are there;
        return the folder.

        Raises:
            UserError: ``out`` is not empty and holds something else.
        """
        notes = {"directional": True, "classes": list(CELLS)}
        return generate_once(self, name="cups", version=VERSION, notes=notes, write=self._write, out=out)

    def scene(self, rng: np.random.Generator) -> list[Thing]:
        """The objects of a random scene, the ball first, with their states at every frame."""
        hidden = rng.random() < self.hidden
        moved = hidden and rng.random() < self.moved
        while True:
            things = self._simulate(rng)
            if things[0].covered[-1] == hidden and (cell_of(things[0], -1) != last_seen(things[0])) == moved:
                return things

    def render(self, things: list[Thing], rng: np.random.Generator) -> Tensor:
        """Draw a scene: ``T 3 H W`` uint8."""
        view = View(self.size * SAMPLES)
        ground = view.ground()
        frames = []
        for t in range(self.num_frames):
            frame = ground.copy()
            draw = ImageDraw.Draw(frame)
            for thing in sorted(things, key=lambda thing: (-thing.track[t][1], thing.shape == "cup", thing.radius)):
                if not thing.covered[t]:
                    view.draw(draw, thing, t)
            frames.append(np.asarray(frame.resize((self.size, self.size), Image.Resampling.BOX)))
        video = torch.from_numpy(np.stack(frames)).float()
        light = 1 + 0.08 * float(rng.uniform(-1, 1))
        noise = torch.from_numpy(rng.standard_normal(video.shape[:3], dtype=np.float32))[..., None]
        return rearrange((video * light + 1.5 * noise).round().clamp(0, 255).to(torch.uint8), "t h w c -> t c h w")

    def _write(self, folder: Path) -> None:
        """Every video has a generator of its own, so that it does not matter who draws it, or when."""
        jobs = seeded_paths(folder, {"train": self.num_train, "test": self.num_test}, self.seed)
        videos, balls = [], []
        for path, seed in jobs:
            ball = self.scene(np.random.default_rng(seed))[0]
            name = f"{path.parent.name}/{path.name}"
            videos.append({"path": name, "label": CELLS[cell_of(ball, -1)], "split": path.parent.name})
            balls.append({"path": name, "hidden": int(ball.covered[-1]), "last_seen": CELLS[last_seen(ball)]})
        write_csv(videos, folder / "manifest.csv")
        write_csv(balls, folder / "cups.csv")
        write_videos(self._write_one, jobs)

    def _write_one(self, path: Path, seed: tuple[int, ...]) -> None:
        rng = np.random.default_rng(seed)
        video = self.render(self.scene(rng), rng)
        write_video(path, video, self.fps, crf=16, gop=12, preset="veryfast")

    def _simulate(self, rng: np.random.Generator) -> list[Thing]:
        """Objects on cells of their own that have acted in every slot."""
        count = 1 + self.num_cups + self.num_others
        cells = rng.permutation(SIDE * SIDE)[:count]
        things = []
        for i, cell in enumerate(cells):
            colour = COLOURS[int(rng.integers(len(COLOURS)))]
            if i == 0:
                shape, radius, height, colour = "ball", 0.24, 0.48, GOLD
            elif i <= self.num_cups:
                radius = 0.36 + 0.09 * (i - 1) * 3 / max(self.num_cups, 3)
                shape, height = "cup", 2.2 * radius
            else:
                shape = ("box", "cylinder")[int(rng.integers(2))]
                radius, height = 0.28, 0.5
            things.append(Thing(shape, radius, height, colour, _middle(int(cell)) + rng.uniform(-0.15, 0.15, 2)))
        for _ in range(SLOTS):
            _act(things, rng, self.num_frames // SLOTS)
        return things


def cell_of(thing: Thing, frame: int) -> int:
    """The number of an object's cell at a frame, as CATER counts them."""
    x, y = (min(max(math.floor(value) + SIDE // 2, 0), SIDE - 1) for value in thing.track[frame][:2])
    return SIDE * y + x


def last_seen(thing: Thing) -> int:
    """The cell in which an object was seen last; where it started if it never was."""
    seen = [t for t, covered in enumerate(thing.covered) if not covered]
    return cell_of(thing, seen[-1] if seen else 0)


def _middle(cell: int) -> np.ndarray:
    """The middle of a cell on the ground."""
    return np.array([cell % SIDE, cell // SIDE]) - SIDE / 2 + 0.5


def _act(things: list[Thing], rng: np.random.Generator, length: int) -> None:
    """One slot: some objects that nothing covers act, and all get their states of ``length`` frames."""
    plans: dict[int, tuple[str, np.ndarray, float]] = {}
    taken = [thing.at for thing in things if thing.under is None]
    covering: list[tuple[Thing, Thing]] = []
    free = [thing for thing in things if thing.under is None]
    for thing in rng.permutation(np.array(free, dtype=object)):
        if id(thing) in plans or rng.random() > (0.75 if _carries(thing, things) else 0.5):
            continue
        targets = [
            other
            for other in free
            if thing.shape == "cup"
            and other is not thing
            and id(other) not in plans
            and other.radius < thing.radius - 0.05
            and not _carries(thing, things)
        ]
        ball = [other for other in targets if other.shape == "ball"]
        if targets and rng.random() < 0.6:
            target = ball[0] if ball and rng.random() < 0.7 else targets[int(rng.integers(len(targets)))]
            plans[id(thing)], plans[id(target)] = ("lift", target.at, 0.0), ("stay", target.at, 0.0)
            covering.append((target, thing))
            continue
        goal = _free_cell(taken, rng)
        way = ("slide", "slide", "lift", "turn")[int(rng.integers(4))] if thing.shape != "ball" else "slide"
        if way == "slide" and not _clear(thing, goal, taken):
            way = "lift"
        if way == "turn":
            plans[id(thing)] = ("turn", thing.at, float(rng.choice([-1, 1])) * math.pi / 2)
            continue
        if way == "lift":  # what it carries stays where it is
            for other in things:
                if other.under is thing:
                    other.under = None
                    plans[id(other)] = ("stay", other.at, 0.0)
        taken.append(goal)
        plans[id(thing)] = (way, goal, 0.0)
    _move(things, plans, length)
    for target, cup in covering:
        target.under = cup


def _carries(thing: Thing, things: list[Thing]) -> bool:
    return any(other.under is thing for other in things)


def _free_cell(taken: list[np.ndarray], rng: np.random.Generator) -> np.ndarray:
    """A place, about the middle of a cell, away from all others."""
    for cell in rng.permutation(SIDE * SIDE):
        place = _middle(int(cell)) + rng.uniform(-0.15, 0.15, 2)
        if all(np.linalg.norm(place - other) > 1.0 for other in taken):
            return place
    raise AssertionError(f"{len(taken)} objects leave a cell of {SIDE * SIDE} free")


def _clear(thing: Thing, goal: np.ndarray, taken: list[np.ndarray]) -> bool:
    """Whether a straight way to ``goal`` keeps its distance from everything else."""
    step = goal - thing.at
    for other in taken:
        if other is thing.at:
            continue
        along = float(np.clip((other - thing.at) @ step / (step @ step), 0, 1))
        if np.linalg.norm(thing.at + along * step - other) < 0.85:
            return False
    return True


def _move(things: list[Thing], plans: dict[int, tuple[str, np.ndarray, float]], length: int) -> None:
    """Write down every frame of a slot, and put objects where they end."""
    start = {id(thing): (thing.at, thing.turn) for thing in things}
    for thing in things:
        mover = thing.outermost
        way, goal, turn = plans.get(id(mover), ("stay", mover.at, 0.0))
        at, angle = start[id(thing)]
        for t in range(1, length + 1):
            share = t / length
            eased = share * share * (3 - 2 * share)
            if way == "lift":  # up, across, down, each a third of the time
                across = min(max(3 * share - 1, 0.0), 1.0)
                height = 1.6 * min(3 * share, 1.0, 3 * (1 - share))
                place = at + across * (goal - start[id(mover)][0])
            else:
                place, height = at + eased * (goal - start[id(mover)][0]), 0.0
            thing.track.append((float(place[0]), float(place[1]), float(height), angle + eased * turn))
            thing.covered.append(thing.under is not None)
        thing.at, thing.turn = at + (goal - start[id(mover)][0]), angle + turn


class View:
    """A camera that draws the ground and objects on a square of ``size`` pixels."""

    def __init__(self, size: int) -> None:
        self.size = size
        forward = -CAMERA / np.linalg.norm(CAMERA)
        right = np.array([1.0, 0.0, 0.0])
        self.axes = np.stack([right, -np.cross(right, forward), forward])

    def points(self, points: np.ndarray) -> list[tuple[float, float]]:
        """Pixels ``(x, y)`` of points of space, ``N 3``."""
        x, y, depth = self.axes @ (np.atleast_2d(points) - CAMERA).T
        scale = FOCAL * self.size / 2 / depth
        return [(self.size / 2 + a, self.size / 2 + b) for a, b in zip(x * scale, y * scale)]

    def ground(self) -> Image.Image:
        """The empty ground, with its cells."""
        image = Image.new("RGB", (self.size, self.size), SKY)
        draw = ImageDraw.Draw(image)
        corners = np.array([[-40, -8, 0], [40, -8, 0], [40, 40, 0], [-40, 40, 0]], dtype=float)
        draw.polygon(self.points(corners), fill=GROUND)
        for i in range(-SIDE // 2, SIDE // 2 + 1):
            for ends in ([[i, -3, 0], [i, 3, 0]], [[-3, i, 0], [3, i, 0]]):
                draw.line(self.points(np.array(ends, dtype=float)), fill=LINES, width=max(1, self.size // 128))
        return image

    def draw(self, draw: ImageDraw.ImageDraw, thing: Thing, frame: int) -> None:
        """Draw an object at a frame, with its shadow on the ground."""
        x, y, height, turn = thing.track[frame]
        shadow = np.array([[x, y, 0.0]]) + thing.radius * 1.05 * _ring(0.0)
        draw.polygon(self.points(shadow), fill=tuple(value * 3 // 4 for value in GROUND))
        base = np.array([[x, y, height]])
        match thing.shape:
            case "ball":
                self._ball(draw, base + _up(thing.radius), thing)
            case "box":
                self._box(draw, base, thing, turn)
            case "cylinder":
                self._round(draw, base, thing, thing.radius, turn)
            case _:
                self._round(draw, base, thing, 0.62 * thing.radius, turn)

    def _ball(self, draw: ImageDraw.ImageDraw, middle: np.ndarray, thing: Thing) -> None:
        rim = self.points(middle + np.array([thing.radius, 0, 0]))[0][0]
        x, y = self.points(middle)[0]
        for share, light in ((1.0, 0.75), (0.8, 1.0), (0.45, 1.15), (0.2, 1.4)):
            r, shift = share * (rim - x), (1 - share) * (rim - x) * 0.45
            draw.ellipse((x - shift - r, y - shift - r, x - shift + r, y - shift + r), fill=_lit(thing.colour, light))

    def _box(self, draw: ImageDraw.ImageDraw, base: np.ndarray, thing: Thing, turn: float) -> None:
        corners = thing.radius * math.sqrt(2) * _ring(turn + math.pi / 4, 4)
        low, high = base + corners, base + corners + _up(thing.height)
        sides = sorted(range(4), key=lambda i: -(low[i][1] + low[(i + 1) % 4][1]))[2:]
        for i in sides:
            j = (i + 1) % 4
            facing = (low[i] + low[j])[0] / 2 - base[0][0]
            quad = np.array([low[i], low[j], high[j], high[i]])
            draw.polygon(self.points(quad), fill=_lit(thing.colour, 0.8 - 0.5 * facing))
        draw.polygon(self.points(high), fill=_lit(thing.colour, 1.25))

    def _round(self, draw: ImageDraw.ImageDraw, base: np.ndarray, thing: Thing, upper: float, turn: float) -> None:
        """A cylinder, or a cup that narrows to ``upper``; a stripe shows how it is turned."""
        ring = _ring(turn)
        low, high = self.points(base + thing.radius * ring), self.points(base + upper * ring + _up(thing.height))
        for i, (x, y, _) in enumerate(ring):
            if y < 0.3:  # the side that faces the camera
                j = (i + 1) % len(ring)
                colour = _lit(thing.colour if i else STRIPE, 0.85 - 0.3 * x)
                draw.polygon([low[i], low[j], high[j], high[i]], fill=colour)
        draw.polygon(high, fill=_lit(thing.colour, 1.25))


def _ring(turn: float, count: int = 16) -> np.ndarray:
    """Points of a unit circle on the ground, ``N 3``."""
    angles = turn + np.arange(count) * 2 * math.pi / count
    return np.stack([np.cos(angles), np.sin(angles), np.zeros(count)], axis=1)


def _up(height: float) -> np.ndarray:
    return np.array([0.0, 0.0, height])


def _lit(colour: tuple[int, int, int], light: float) -> tuple[int, ...]:
    return tuple(min(255, max(0, round(value * light))) for value in colour)
