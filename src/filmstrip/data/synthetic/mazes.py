"""Mazes: walks through a textured maze that return to earlier positions, with all actions recorded.

In the spirit of DMLab-40k (Yan et al. 2023, TECO, appendix B.13): 300 frames of 64 x 64 pixels in mazes of 7 x 7
cells whose four quarters have walls and floors of their own; one walks forward or turns by 20 degrees, with some
noise. Unlike there, every other way leads back to a place seen long ago, not to one not seen yet, and pictures hang
on a few walls. What lies behind a corner must be remembered: no frame tells it.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from torch import Tensor

from filmstrip.bounds import Bounds, Count, CountOrZero, EvenSize, Seed, Share, check_numbers
from filmstrip.data.config import Synthetic
from filmstrip.data.synthetic.generated import generate_once, seeded_paths, write_videos
from filmstrip.data.synthetic.raycast import World, render
from filmstrip.data.synthetic.shapes import random_colours, random_shape, random_texture
from filmstrip.video.write import write_video

ACTIONS = ("forward", "left", "right")
FORWARD, LEFT, RIGHT = range(3)
TURN = math.radians(20)
STEP = 0.4
"""Distance walked per frame, in cells."""
ROOM = 0.25
"""Minimum distance to a wall, in cells."""
CENTRED = 0.1
"""Maximum distance from a corridor's middle line at which the walk follows the corridor, in cells."""
LOOPS = 0.25
"""Fraction of the walls between two rooms that are opened although there is another way."""
NUM_PICTURES = 8
TEXTURE = 64
SKY = ((0.28, 0.45, 0.75), (0.70, 0.80, 0.90))
"""Colours of the sky overhead and at the horizon, before each maze's random shift."""
VERSION = 2
STEPS = ((1, 0), (0, 1), (-1, 0), (0, -1))


@dataclass(frozen=True, kw_only=True)
class Mazes(Synthetic):
    """Walks through mazes, each through one of its own.

    Beside each video lies ``NAME.actions.npz``: ``actions`` (``T``, 0 forward, 1 left, 2 right) and ``poses``
    (``T 3``: x and y in cells, heading in radians).
    """

    num_train: Count = 200
    num_test: CountOrZero = 40
    num_frames: Count = 300
    fps: Count = 15
    size: EvenSize = 64
    rooms: Annotated[int, Bounds(min=2)] = 4
    """Number of rooms along a side; with the walls between them a maze has ``2 * rooms - 1`` cells a side."""
    noise: Share = 0.05
    """Probability of a random action."""
    look_round: bool = False
    """Whether to turn on the spot in one direction instead of walking: everything was seen one turn ago."""
    seed: Seed = 0

    def __post_init__(self) -> None:
        check_numbers(self)

    def generate(self, out: Path | None = None) -> Path:
        """Make the set as ``split/*.mp4`` in ``out`` or in the cache, unless it is there; return its folder.

        Raises:
            UserError: ``out`` is not empty and holds something else.
        """
        notes = {"directional": True, "actions": list(ACTIONS)}
        return generate_once(self, name="mazes", version=VERSION, notes=notes, write=self._write, out=out)

    def render(self, rng: np.random.Generator) -> tuple[Tensor, np.ndarray, np.ndarray]:
        """One walk: its frames ``T 3 H W`` uint8, actions ``T`` and poses ``T 3``."""
        solid = random_maze(rng, self.rooms)
        go = look_round if self.look_round else walk
        actions, poses = go(rng, solid, self.num_frames, self.noise)
        return render(furnish(rng, solid), poses, self.size), actions, poses

    def _write(self, folder: Path) -> None:
        counts = {"train": self.num_train, "test": self.num_test}
        write_videos(self._write_one, seeded_paths(folder, counts, self.seed))

    def _write_one(self, path: Path, seed: tuple[int, ...]) -> None:
        video, actions, poses = self.render(np.random.default_rng(seed))
        write_video(path, video, self.fps, crf=14, gop=10, preset="veryfast")
        np.savez(path.with_suffix(".actions.npz"), actions=actions, poses=poses.astype(np.float32))


def random_maze(rng: np.random.Generator, rooms: int) -> np.ndarray:
    """Which cells are solid, ``2 * rooms + 1`` a side, with the border.

    A random spanning tree of the rooms by depth-first search, and then a few walls less: ways round.
    """
    solid = np.ones((2 * rooms + 1, 2 * rooms + 1), bool)
    start = tuple(rng.integers(rooms, size=2) * 2 + 1)
    solid[start], stack = False, [start]
    while stack:
        y, x = stack[-1]
        ways = [(y + 2 * dy, x + 2 * dx) for dx, dy in STEPS]
        ways = [(v, u) for v, u in ways if 0 < v < len(solid) and 0 < u < len(solid) and solid[v, u]]
        if not ways:
            stack.pop()
            continue
        v, u = ways[rng.integers(len(ways))]
        solid[(y + v) // 2, (x + u) // 2] = solid[v, u] = False
        stack.append((v, u))
    inner = [(y, x) for y, x in np.argwhere(solid[1:-1, 1:-1]) + 1 if (y + x) % 2]
    for i in rng.permutation(len(inner))[: round(LOOPS * len(inner))]:
        solid[tuple(inner[i])] = False
    return solid


def walk(rng: np.random.Generator, solid: np.ndarray, num_frames: int, noise: float) -> tuple[np.ndarray, np.ndarray]:
    """Actions ``T`` int64 and the poses ``T 3`` that they lead to.

    The walk goes alternately to the furthest cell not seen yet, and back to the one not seen for longest. When none
    is left that was never seen, all go back to where one was longest ago.
    """
    open_cells, (x, y, heading) = _start(rng, solid)
    last_seen: dict[tuple[int, int], int] = {}
    path: list[tuple[int, int]] = []
    trips = 0
    actions, poses = np.zeros(num_frames, np.int64), np.zeros((num_frames, 3))
    for t in range(num_frames):
        here = int(y), int(x)
        last_seen[here] = t
        if here not in path[:-1]:
            unseen = [cell for cell in open_cells if cell not in last_seen]
            distance = distances(solid, here)
            if unseen and (trips % 2 == 0 or len(last_seen) == 1):
                target = max(unseen, key=lambda cell: distance[cell])
            else:
                target = min((cell for cell in last_seen if cell != here), key=lambda cell: last_seen[cell])
            path, trips = way(distances(solid, target), here), trips + 1
        aim = _aim(path[path.index(here) :], x, y)
        turn = (math.atan2(aim[0] + 0.5 - y, aim[1] + 0.5 - x) - heading + math.pi) % (2 * math.pi) - math.pi
        action = FORWARD if abs(turn) <= TURN / 2 else RIGHT if turn > 0 else LEFT
        if rng.random() < noise:
            action = int(rng.integers(len(ACTIONS)))
        heading += {FORWARD: 0.0, LEFT: -TURN, RIGHT: TURN}[action]
        if action == FORWARD:
            x, y = _forward(solid, x, y, heading)
        actions[t], poses[t] = action, (x, y, heading % (2 * math.pi))
    return actions, poses


def look_round(
    rng: np.random.Generator, solid: np.ndarray, num_frames: int, noise: float
) -> tuple[np.ndarray, np.ndarray]:
    """As :func:`walk`, of one who turns where they stand, to the left or to the right all the time."""
    _, (x, y, heading) = _start(rng, solid)
    actions = np.full(num_frames, rng.choice((LEFT, RIGHT)))
    drawn = rng.random(num_frames) < noise
    actions[drawn] = rng.choice((LEFT, RIGHT), size=drawn.sum())
    headings = heading + TURN * np.where(actions == RIGHT, 1, -1).cumsum()
    return actions, np.stack([np.full(num_frames, x), np.full(num_frames, y), headings % (2 * math.pi)], axis=1)


def _start(rng: np.random.Generator, solid: np.ndarray) -> tuple[list[tuple[int, int]], tuple[float, float, float]]:
    """The open cells, and a pose (x, y, heading) in the middle of one of them."""
    open_cells = [(int(y), int(x)) for y, x in np.argwhere(~solid)]
    y, x = (i + 0.5 for i in open_cells[rng.integers(len(open_cells))])
    return open_cells, (x, y, rng.integers(4) * math.pi / 2 + rng.uniform(-TURN, TURN))


def distances(solid: np.ndarray, start: tuple[int, int]) -> dict[tuple[int, int], int]:
    """Steps from a cell to every open cell."""
    found, queue = {start: 0}, deque([start])
    while queue:
        y, x = queue.popleft()
        for dx, dy in STEPS:
            cell = y + dy, x + dx
            if not solid[cell] and cell not in found:
                found[cell] = found[y, x] + 1
                queue.append(cell)
    return found


def way(distance: dict[tuple[int, int], int], start: tuple[int, int]) -> list[tuple[int, int]]:
    """The cells from ``start`` to the cell that ``distance`` is measured from, both included."""
    path = [start]
    while distance[path[-1]]:
        y, x = path[-1]
        path.append(min(((y + dy, x + dx) for dx, dy in STEPS), key=lambda cell: distance.get(cell, math.inf)))
    return path


def furnish(rng: np.random.Generator, solid: np.ndarray) -> World:
    """Hang up a maze: walls and floors by its quarters, pictures on a few faces that can be seen, and a sky."""
    themes = [(_wall(rng), _ground(rng)) for _ in range(4)]
    textures = [texture for theme in themes for texture in theme]
    south, east = np.indices(solid.shape) > len(solid) // 2
    quarter = 2 * south + east
    faces = np.repeat(2 * quarter[..., None], 4, axis=2)
    seen = [
        (y, x, side)
        for y, x in np.argwhere(solid)
        for side, (dx, dy) in enumerate(((-1, 0), (1, 0), (0, -1), (0, 1)))
        if 0 <= y + dy < len(solid) and 0 <= x + dx < len(solid) and not solid[y + dy, x + dx]
    ]
    for i in rng.permutation(len(seen))[:NUM_PICTURES]:
        y, x, side = seen[i]
        textures.append(_picture(rng, textures[faces[y, x, side]]))
        faces[y, x, side] = len(textures) - 1
    return World(
        solid=solid,
        faces=faces,
        floor=2 * quarter + 1,
        textures=torch.stack(textures),
        sky=torch.tensor([[0.28, 0.45, 0.75], [0.70, 0.80, 0.90]])
        + torch.from_numpy(rng.uniform(-0.1, 0.1, 3)).float(),
    )


def _aim(path: list[tuple[int, int]], x: float, y: float) -> tuple[int, int]:
    """The cell of a path to head for: the last one before it turns, or the next while one is beside its middle line.

    The next one is so near that one turns towards the line, instead of rubbing along a corner.
    """
    if len(path) == 1:
        return path[0]
    down, across = path[1][0] - path[0][0], path[1][1] - path[0][1]
    beside = abs(x - path[0][1] - 0.5) if down else abs(y - path[0][0] - 0.5)
    i = 1
    while beside < CENTRED and path[i + 1 : i + 2] == [(path[i][0] + down, path[i][1] + across)]:
        i += 1
    return path[i]


def _forward(solid: np.ndarray, x: float, y: float, heading: float) -> tuple[float, float]:
    """A step, which slides along walls: one is a square that keeps out of solid cells."""
    for dx, dy in ((STEP * math.cos(heading), 0.0), (0.0, STEP * math.sin(heading))):
        corners = [(x + dx + a, y + dy + b) for a in (-ROOM, ROOM) for b in (-ROOM, ROOM)]
        if not any(solid[int(v), int(u)] for u, v in corners):
            x, y = x + dx, y + dy
    return x, y


def _wall(rng: np.random.Generator) -> Tensor:
    """Bricks, panels, stripes or blotches in two colours, ``3 S S``."""
    colours = random_colours(rng, saturation=(0.35, 0.9), value=(0.45, 0.95))
    grain = random_texture(rng, TEXTURE, colours, frequency=(1, 4))
    kind = rng.integers(4)
    if kind == 3:
        return grain
    v, u = np.indices((TEXTURE, TEXTURE)) / TEXTURE
    if kind == 0:
        rows = int(rng.integers(4, 7))
        shifted = u * rows / 2 + 0.5 * (np.floor(v * rows) % 2)
        lines = np.minimum(_to_line(v * rows), 2 * _to_line(shifted)) < 0.12
    elif kind == 1:
        count = int(rng.integers(2, 4))
        lines = np.minimum(_to_line(u * count), _to_line(v * count)) < 0.1
    else:
        lines = np.sin(2 * math.pi * (u * int(rng.integers(2, 5)) + v * int(rng.integers(0, 2)))) > 0.3
    mask = torch.from_numpy(lines.astype(np.float32))
    base = 0.75 * colours[0, :, None, None] + 0.25 * grain
    return base * (1 - mask) + colours[1, :, None, None] * mask


def _ground(rng: np.random.Generator) -> Tensor:
    """Tiles or soil, less colourful than walls, ``3 S S``."""
    colours = random_colours(rng, saturation=(0.1, 0.5), value=(0.35, 0.75))
    grain = random_texture(rng, TEXTURE, colours, frequency=(1, 4))
    if rng.random() < 0.4:
        return grain
    v, u = np.indices((TEXTURE, TEXTURE)) * 2 // TEXTURE
    checks = torch.from_numpy(((u + v) % 2).astype(np.float32))
    return 0.3 * grain + 0.7 * (colours[0, :, None, None] * checks + colours[1, :, None, None] * (1 - checks))


def _picture(rng: np.random.Generator, wall: Tensor) -> Tensor:
    """A wall with a framed picture of one shape on it."""
    side = TEXTURE // 2
    shape = random_shape(rng, side, contrast=1.0)
    paper = random_colours(rng, saturation=(0.3, 1.0), value=(0.2, 1.0))[int(rng.integers(2)), :, None, None]
    wall, edge = wall.clone(), (TEXTURE - side) // 2
    wall[:, edge - 3 : edge + side + 3, edge - 3 : edge + side + 3] = 0.08
    wall[:, edge : edge + side, edge : edge + side] = shape[:3] + paper * (1 - shape[3:])
    return wall


def _to_line(position: np.ndarray) -> np.ndarray:
    """The distance to the next whole number."""
    return np.abs(position - np.round(position))
