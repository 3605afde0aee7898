"""Pushing: an arm pushes things about on a table, seen from above, with every action noted.

In the spirit of BAIR robot pushing (Ebert et al. 2017): 30 frames of 64 x 64 pixels, several things, and an arm that
moves at random, though often towards one of them. An action is where the gripper is told to go: two numbers.
Things move when something moves them, and stop at once, as on a table with much friction.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from einops import rearrange, repeat
from torch import Tensor
from torch.nn import functional as F

from filmstrip.bounds import Bounds, Count, CountOrZero, EvenSize, Rate, Seed, check_numbers
from filmstrip.data.config import Synthetic
from filmstrip.data.synthetic.generated import generate_once, seeded_paths, write_videos
from filmstrip.data.synthetic.shapes import random_colours, random_shape, random_texture
from filmstrip.video.write import write_video

SPEED = 0.06
"""Sides of the frame that the gripper moves for an action of length 1."""
GRIPPER = 0.055
RADII = (0.08, 0.125)
"""Radius of the gripper and range of the radii of things, sides of the frame."""
MARGIN = 0.06
"""Width of the table's rim, which nothing passes."""
SUBSTEPS, ROUNDS = 4, 4
"""Parts of a frame's motion, and how often overlaps are undone in each."""
GRIP = 0.6
"""Rotation of an object by contact that slides along its edge, from 0 to 1."""
ROUND = 0.85
"""Radius of the disc that stands for a thing of any outline, as a share of its own radius."""
BASE, LINKS = (0.5, -0.25), (0.72, 0.72)
"""Position of the arm's base, and the lengths of its two links."""
SHADOW = (0.012, 0.018)
VERSION = 2


@dataclass(frozen=True, kw_only=True)
class Pushing(Synthetic):
    """Videos of an arm that pushes things.

    Beside each video lies ``NAME.actions.npz``: ``actions`` (``T 2``, right and down, each -1 to 1), ``gripper``
    (``T 2``) and ``things`` (``T N 3``: x, y in sides of the frame, angle in radians).
    """

    num_train: Count = 500
    num_test: CountOrZero = 100
    num_frames: Count = 30
    fps: Count = 10
    size: EvenSize = 64
    num_things: Annotated[int, Bounds(min=1, max=8)] = 5
    look: Seed | None = None
    """Seed of how table and things look in all videos; by default each video has a look of its own."""
    arm_width: Rate = 1.0
    """Width of the arm, as a multiple of the usual one: on few pixels a wider arm is easier to see."""
    seed: Seed = 0

    def __post_init__(self) -> None:
        check_numbers(self)

    def generate(self, out: Path | None = None) -> Path:
        """Make the set as ``split/*.mp4`` in ``out`` or in the cache, unless it is there; return its folder.

        Raises:
            UserError: ``out`` is not empty and holds something else.
        """
        notes = {"directional": True, "action_dim": 2}
        return generate_once(self, name="pushing", version=VERSION, notes=notes, write=self._write, out=out)

    def render(self, rng: np.random.Generator) -> tuple[Tensor, dict[str, np.ndarray]]:
        """One video: its frames ``T 3 H W`` uint8, and the arrays of its sidecar."""
        radii = rng.uniform(*RADII, size=self.num_things)
        motion = simulate(rng, radii, self.num_frames)
        look = rng if self.look is None else np.random.default_rng(self.look)
        return draw(look, radii, motion["gripper"], motion["things"], self.size, self.arm_width), motion

    def _write(self, folder: Path) -> None:
        counts = {"train": self.num_train, "test": self.num_test}
        write_videos(self._write_one, seeded_paths(folder, counts, self.seed))

    def _write_one(self, path: Path, seed: tuple[int, ...]) -> None:
        video, motion = self.render(np.random.default_rng(seed))
        write_video(path, video, self.fps, crf=12, gop=8, preset="veryfast")
        arrays: dict[str, Any] = {key: value.astype(np.float32) for key, value in motion.items()}
        np.savez(path.with_suffix(".actions.npz"), **arrays)


def simulate(rng: np.random.Generator, radii: np.ndarray, num_frames: int) -> dict[str, np.ndarray]:
    """The ``actions`` (``T 2``) and the states that they lead to: ``gripper`` (``T 2``), ``things`` (``T N 3``).

    The gripper does as it is told, but for the rim of the table.
    """
    things, gripper = _set_out(rng, radii)
    kept: dict[str, list[np.ndarray]] = {"actions": [], "gripper": [], "things": []}
    goal, left = gripper, 0
    for _ in range(num_frames):
        if not left:
            goal = things[rng.integers(len(things)), :2] if rng.random() < 0.7 else rng.uniform(MARGIN, 1 - MARGIN, 2)
            direction = (goal - gripper) / max(1e-6, float(np.linalg.norm(goal - gripper)))
            pace, left = rng.uniform(0.4, 1.0), int(rng.integers(4, 10))
        action = np.clip(pace * direction + rng.normal(0, 0.12, 2), -1, 1)
        left -= 1
        gripper = _moved(things, radii, gripper, action)
        for key, value in (("actions", action), ("gripper", gripper), ("things", things)):
            kept[key].append(value.copy())
    return {key: np.stack(value) for key, value in kept.items()}


class Table:
    """One table with things and an arm, to act on step by step: it depends on its seeds alone.

    Frames are those that :class:`Pushing` draws, and so are its motions. ``look`` is a seed of how table and things
    look; None for another look with each ``seed``. ``arm_width`` multiplies the width of the arm.
    """

    def __init__(
        self,
        seed: int | tuple[int, ...],
        *,
        num_things: int = 5,
        size: int = 64,
        look: int | None = None,
        arm_width: float = 1.0,
    ) -> None:
        rng = np.random.default_rng(seed)
        self.size = size
        self.arm_width = arm_width
        self.radii = rng.uniform(*RADII, size=num_things)
        self.things, self.gripper = _set_out(rng, self.radii)
        drawn = int(rng.integers(2**62))
        self._look = drawn if look is None else look
        self._drawn: tuple[Tensor, list[Tensor]] | None = None

    def step(self, action: np.ndarray) -> None:
        """Move the gripper by an action (right and down, each -1 to 1), and what it meets."""
        self.gripper = _moved(self.things, self.radii, self.gripper, np.clip(action, -1, 1))

    def frame(self) -> Tensor:
        """What is seen, ``3 H W`` uint8."""
        return self.film(self.gripper[None], self.things[None])[0]

    def film(self, gripper: np.ndarray, things: np.ndarray) -> Tensor:
        """What would be seen in other states, ``T 3 H W`` uint8: the gripper's ``T 2``, the things' ``T N 3``."""
        if self._drawn is None:
            self._drawn = look_of(np.random.default_rng(self._look), self.radii, self.size)
        return _painted(*self._drawn, self.radii, gripper, things, self.arm_width)

    def state_dict(self) -> dict[str, Any]:
        """All that changes: the gripper (x, y) and the things (x, y, angle each)."""
        return {"gripper": self.gripper.copy(), "things": self.things.copy()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go back to a state of this table."""
        self.gripper, self.things = state["gripper"].copy(), state["things"].copy()


def _set_out(rng: np.random.Generator, radii: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Things (``N 3``) and a gripper (``2``) anywhere on a table, not on top of each other."""
    places, angles = rng.uniform(0.2, 0.8, (len(radii), 2)), rng.uniform(-math.pi, math.pi, len(radii))
    things, gripper = np.column_stack([places, angles]), rng.uniform(0.2, 0.8, 2)
    for _ in range(10):
        _settle(things, radii, gripper, np.zeros(2))
    return things, gripper


def _moved(things: np.ndarray, radii: np.ndarray, gripper: np.ndarray, action: np.ndarray) -> np.ndarray:
    """Where an action leads the gripper; things are moved in place."""
    for _ in range(SUBSTEPS):
        before = gripper
        gripper = np.minimum(np.maximum(gripper + SPEED / SUBSTEPS * action, MARGIN), 1 - MARGIN)
        _settle(things, radii, gripper, gripper - before)
    return gripper


def draw(
    rng: np.random.Generator,
    radii: np.ndarray,
    gripper: np.ndarray,
    things: np.ndarray,
    size: int,
    arm_width: float = 1.0,
) -> Tensor:
    """The frames ``T 3 H W`` uint8 of states: the gripper's ``T 2``, the things' ``T N 3``.

    ``arm_width`` multiplies the width of the arm, which on few pixels is a thin line.
    """
    return _painted(*look_of(rng, radii, size), radii, gripper, things, arm_width)


def look_of(rng: np.random.Generator, radii: np.ndarray, size: int) -> tuple[Tensor, list[Tensor]]:
    """The empty table, ``3 H W``, and a picture of each thing, ``4 h w`` premultiplied."""
    table = _table(rng, _points(size))
    return table, [random_shape(rng, max(8, round(2 * radius * size * 1.5)), 0.95) for radius in radii]


def _points(size: int) -> Tensor:
    """Place of each pixel's middle, ``H W 2``."""
    ticks = (torch.arange(size) + 0.5) / size
    return torch.stack(torch.meshgrid(ticks, ticks, indexing="xy"), dim=-1)


def _painted(
    table: Tensor,
    sprites: list[Tensor],
    radii: np.ndarray,
    gripper: np.ndarray,
    things: np.ndarray,
    arm_width: float,
) -> Tensor:
    """The table with things and arm on it, ``T 3 H W`` uint8."""
    size = table.shape[-1]
    points = _points(size)
    video = repeat(table, "c h w -> t c h w", t=len(things)).clone()
    states = torch.from_numpy(things).float()
    hands = torch.from_numpy(gripper).float()
    shadow = torch.tensor(SHADOW)
    for layer in ("shadows", "things"):
        for i, (sprite, radius) in enumerate(zip(sprites, radii)):
            moved = states[:, i, :2] + (shadow if layer == "shadows" else 0)
            painted = _placed(sprite, moved, states[:, i, 2], float(radius), points)
            if layer == "shadows":
                video.mul_(1 - 0.4 * painted[:, 3:])
            else:
                video.mul_(1 - painted[:, 3:]).add_(painted[:, :3])
    for _, cover in _arm(hands + 2 * shadow, points, 1 / size, arm_width):
        video.mul_(1 - 0.3 * cover)
    for colour, cover in _arm(hands, points, 1 / size, arm_width):
        video.mul_(1 - cover).add_(colour * cover)
    return video.mul_(255).round_().clamp_(0, 255).to(torch.uint8)


def _settle(things: np.ndarray, radii: np.ndarray, gripper: np.ndarray, motion: np.ndarray) -> None:
    """Push things out of the gripper, out of each other and back onto the table, in place."""
    solid = ROUND * radii
    for _ in range(ROUNDS):
        if not _touching(things, solid, gripper):
            break
        for i, thing in enumerate(things):
            away, overlap = _overlap(thing, gripper, solid[i] + GRIPPER)
            if overlap > 0:
                thing[:2] += overlap * away
                slide = away[0] * motion[1] - away[1] * motion[0]
                thing[2] -= GRIP / ROUNDS * slide / solid[i]
            for j in range(i):
                away, overlap = _overlap(thing, things[j], solid[i] + solid[j])
                if overlap > 0:
                    thing[:2] += overlap / 2 * away
                    things[j, :2] -= overlap / 2 * away
        np.clip(things[:, :2], (MARGIN + solid)[:, None], (1 - MARGIN - solid)[:, None], out=things[:, :2])


def _touching(things: np.ndarray, solid: np.ndarray, gripper: np.ndarray) -> bool:
    """Whether any two of things and gripper overlap; by plain numbers, which for so few are faster than arrays."""
    bodies = [(*gripper.tolist(), GRIPPER)]
    for (x, y, _), radius in zip(things.tolist(), solid.tolist()):
        for other_x, other_y, other in bodies:
            reach = radius + other
            if (x - other_x) * (x - other_x) + (y - other_y) * (y - other_y) < reach * reach:
                return True
        bodies.append((x, y, radius))
    return False


def _overlap(a: np.ndarray, b: np.ndarray, reach: float) -> tuple[np.ndarray, float]:
    """The direction from ``b`` to ``a`` (x, y, ...), and how much nearer than ``reach`` they are."""
    x, y = a[0] - b[0], a[1] - b[1]
    distance = math.hypot(x, y)
    if distance >= reach:
        return np.zeros(2), 0.0
    return (np.array([x, y]) / distance, reach - distance) if distance > 1e-9 else (np.array([1.0, 0.0]), reach)


def _table(rng: np.random.Generator, points: Tensor) -> Tensor:
    """The table with its rim, ``3 H W``."""
    size = len(points)
    colours = random_colours(rng, saturation=(0.1, 0.35), value=(0.5, 0.75))
    colours[1] = 0.8 * colours[0] + 0.2 * colours[1]
    table = random_texture(rng, size, colours, frequency=(1, 6))
    inside = (points - 0.5).abs().amax(dim=-1)
    rim = ((inside - (0.5 - MARGIN * 0.7)) * size).clamp(0, 1)
    bevel = 0.55 + 0.25 * (points[..., 1] < 0.5 * MARGIN) + 0.1 * (points[..., 0] < 0.5 * MARGIN)
    return table * (1 - rim) + bevel * colours.mean(dim=0)[:, None, None] * rim


def _placed(sprite: Tensor, places: Tensor, angles: Tensor, radius: float, points: Tensor) -> Tensor:
    """A thing in every frame, ``T 4 H W`` premultiplied, at ``places`` ``T 2`` and ``angles`` ``T``."""
    offset = (points - rearrange(places, "t c -> t 1 1 c")) / radius
    cos, sin = (rearrange(f(angles), "t -> t 1 1") for f in (torch.cos, torch.sin))
    x, y = offset.unbind(dim=-1)
    grid = torch.stack([cos * x + sin * y, cos * y - sin * x], dim=-1)
    return F.grid_sample(sprite.expand(len(places), -1, -1, -1), grid, align_corners=False)


def _arm(hands: Tensor, points: Tensor, pixel: float, width: float) -> list[tuple[Tensor, Tensor]]:
    """The arm's parts from the table up: a colour (``T 3 H W``) and how much of each pixel it covers (``T 1 H W``).

    The elbow is where two links of fixed length meet (law of cosines), always on the same side.
    """
    base = torch.tensor(BASE).expand_as(hands)
    reach = (hands - base).norm(dim=-1, keepdim=True)
    along = (hands - base) / reach
    first, second = LINKS
    part = (reach.square() + first**2 - second**2) / (2 * reach)
    height = (first**2 - part.square()).clamp(min=0).sqrt()
    elbow = base + part * along + height * torch.stack([along[:, 1], -along[:, 0]], dim=-1)
    forearm = (hands - elbow) / (hands - elbow).norm(dim=-1, keepdim=True)
    across = torch.stack([-forearm[:, 1], forearm[:, 0]], dim=-1)
    steel, dark, orange = torch.tensor([[0.72, 0.74, 0.78], [0.16, 0.17, 0.20], [0.90, 0.45, 0.12]])
    wrist = hands - 0.045 * forearm
    fingers = [
        (wrist + side * across, hands + 0.012 * forearm + 0.9 * side * across, 0.014, dark)
        for side in (-0.035, 0.035)
    ]
    parts = [
        *fingers,
        (wrist - 0.037 * across, wrist + 0.037 * across, 0.016, dark),
        (elbow, wrist, 0.024, steel),
        (base, elbow, 0.036, steel),
        (elbow, elbow + 1e-4, 0.030, orange),
    ]
    return [_capsule(start, end, width * radius, colour, points, pixel) for start, end, radius, colour in parts]


def _capsule(
    start: Tensor, end: Tensor, radius: float, colour: Tensor, points: Tensor, pixel: float
) -> tuple[Tensor, Tensor]:
    """A line with round ends, lit from one side."""
    start, end = (rearrange(point, "t c -> t 1 1 c") for point in (start, end))
    line, offset = end - start, points - start
    share = ((offset * line).sum(dim=-1, keepdim=True) / line.square().sum(dim=-1, keepdim=True)).clamp(0, 1)
    beside = offset - share * line
    distance = beside.norm(dim=-1)
    cover = ((radius - distance) / pixel + 0.5).clamp(0, 1)[:, None]
    light = 0.85 - 0.35 * (beside.sum(dim=-1) / (1.5 * radius)).clamp(-1, 1)
    return colour[:, None, None] * light[:, None], cover
