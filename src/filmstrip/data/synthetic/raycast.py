"""First-person views in a world of square cells: walls, floor and sky by ray casting, all frames at once.

The plane is ``x`` to the east and ``y`` to the south, in cells. A pose is ``x, y, heading``: heading 0 looks east and
grows clockwise, so that the right hand is at ``heading + pi / 2``. Walls are one cell high and eyes half of that.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from einops import rearrange
from torch import Tensor
from torch.nn import functional as F

FRAMES_AT_ONCE = 8
"""Number of frames rendered at once: supersampled frames of 64 pixels then fit into the processor's cache."""
FOG = 0.06
"""Decay rate of light with the square of the distance in cells."""
SHADED = (1.0, 0.78)
"""Light on walls that face along ``x``, and along ``y``."""


@dataclass(frozen=True, eq=False)
class World:
    """Cells, and which texture shows where."""

    solid: np.ndarray
    """``Y X`` bool; the border is solid."""
    faces: np.ndarray
    """``Y X 4``: the texture of a wall cell's west, east, north and south side."""
    floor: np.ndarray
    """``Y X``: the texture of the ground."""
    textures: Tensor
    """``K 3 S S`` in 0..1; ``S`` is a power of two."""
    sky: Tensor
    """``2 3``: the colour overhead and at the horizon."""


def render(world: World, poses: np.ndarray, size: int, *, field_of_view: float = 90.0) -> Tensor:
    """The views from poses ``T 3``: ``T 3 size size`` uint8; ``field_of_view`` in degrees across."""
    tiles, parts = _Tiles(world.textures), []
    for start in range(0, len(poses), FRAMES_AT_ONCE):
        part = _render(world, tiles, poses[start : start + FRAMES_AT_ONCE], 2 * size, field_of_view)
        parts.append(_smaller(part).mul_(255).round_().to(torch.uint8))
    return rearrange(torch.cat(parts), "t h w c -> t c h w").contiguous()


def cast(world: World, x: np.ndarray, y: np.ndarray, dx: np.ndarray, dy: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How many times its direction each ray goes until a wall, and which face it hits (an index into ``faces``).

    From cell to cell, always over the nearer of the next two grid lines (Amanatides & Woo 1987), all rays together.
    """
    column, row = np.floor(x).astype(np.int64), np.floor(y).astype(np.int64)
    with np.errstate(divide="ignore"):
        step_x, step_y = np.abs(1 / dx), np.abs(1 / dy)
    east, south = dx > 0, dy > 0
    to_x = np.where(east, column + 1 - x, x - column) * step_x
    to_y = np.where(south, row + 1 - y, y - row) * step_y
    distance, side = np.zeros_like(x), np.zeros_like(row)
    free = np.arange(x.size)
    while free.size:
        along_x = to_x[free] < to_y[free]
        a, b = free[along_x], free[~along_x]
        distance[a], distance[b] = to_x[a], to_y[b]
        to_x[a] += step_x[a]
        to_y[b] += step_y[b]
        column[a] += np.where(east[a], 1, -1)
        row[b] += np.where(south[b], 1, -1)
        side[a], side[b] = np.where(east[a], 0, 1), np.where(south[b], 2, 3)
        free = free[~world.solid[row[free], column[free]]]
    return distance, (row * world.solid.shape[1] + column) * 4 + side


class _Tiles:
    """Textures at every scale, in one flat table."""

    def __init__(self, textures: Tensor):
        self.size = textures.shape[-1]
        self.levels = int(math.log2(self.size)) + 1
        scales = [F.avg_pool2d(textures, 2**level) for level in range(self.levels)]
        sizes = [t.shape[0] * t.shape[-1] ** 2 for t in scales]
        self.starts = torch.tensor([0, *np.cumsum(sizes)[:-1]], dtype=torch.int32)
        self.table = torch.cat([rearrange(t, "k c h w -> (k h w) c") for t in scales])

    def at(self, texture: Tensor, u: Tensor, v: Tensor, blur: Tensor) -> Tensor:
        """Colours ``... 3`` at ``u, v`` in [0, 1), where a pixel covers ``blur`` sides of the texture.

        All broadcast: what is the same along a row or a column is computed once.
        """
        level = (blur * self.size).clamp_(min=1).log2_().int().clamp_(max=self.levels - 1)
        side = torch.bitwise_right_shift(torch.full_like(level, self.size), level)
        first = self.starts[level] + texture * side * side
        return F.embedding((v * side).int() * side + ((u * side).int() + first), self.table)


def _render(world: World, tiles: _Tiles, poses: np.ndarray, size: int, field_of_view: float) -> Tensor:
    """``T size size 3`` in 0..1, channels last."""
    half_width = math.tan(math.radians(field_of_view) / 2)
    focal = size / 2 / half_width
    across = ((np.arange(size) + 0.5) / size * 2 - 1) * half_width
    x, y, heading = (np.repeat(poses[:, i], size) for i in range(3))
    offset = np.tile(across, len(poses))
    dx, dy = np.cos(heading) - offset * np.sin(heading), np.sin(heading) + offset * np.cos(heading)
    distance, face = cast(world, x, y, dx, dy)
    hit_x, hit_y = x + distance * dx, y + distance * dy
    along = np.where(face % 4 < 2, hit_y, hit_x)

    def columns(values: np.ndarray) -> Tensor:
        return rearrange(torch.from_numpy(values), "(t w) -> t 1 w", w=size)

    eye_x, eye_y, ray_x, ray_y, far = (columns(v.astype(np.float32)) for v in (x, y, dx, dy, distance))
    down = (torch.arange(size) + 0.5 - size / 2)[:, None] / focal
    wall = _walls(world, tiles, columns(face), columns((along % 1).astype(np.float32)), far, down, 1 / focal)
    ground = _floor(world, tiles, eye_x, eye_y, ray_x, ray_y, down[size // 2 :], 1 / focal)
    above = (-down[: size // 2] / half_width).expand(-1, size)[..., None]
    sky = (world.sky[0] * above + world.sky[1] * (1 - above)).expand(len(poses), -1, -1, -1)
    return torch.where((down.abs() * far < 0.5)[..., None], wall, torch.cat([sky, ground], dim=1))


def _smaller(picture: Tensor) -> Tensor:
    """Half the size: the mean of squares of four pixels. Rows first, which lie together in memory."""
    rows = rearrange(picture, "t (h a) w c -> t a h w c", a=2)
    picture = rearrange(rows[:, 0] + rows[:, 1], "t h (w b) c -> t b h w c", b=2)
    return (picture[:, 0] + picture[:, 1]).mul_(0.25)


def _walls(
    world: World, tiles: _Tiles, face: Tensor, along: Tensor, distance: Tensor, down: Tensor, pixel: float
) -> Tensor:
    texture = torch.from_numpy(world.faces.reshape(-1))[face].int()
    height = (down * distance).add_(0.5).clamp_(0, 1 - 1e-6)
    light = torch.tensor(SHADED)[face % 4 // 2] / (1 + FOG * distance.square())
    return tiles.at(texture, along, height, distance * pixel).mul_(light[..., None])


def _floor(
    world: World, tiles: _Tiles, x: Tensor, y: Tensor, dx: Tensor, dy: Tensor, down: Tensor, pixel: float
) -> Tensor:
    """The lower half of the picture, as if there were no walls: beyond the world, its last cell goes on."""
    distance = 0.5 / down
    rows, cols = world.floor.shape
    u, v = x + distance * dx, y + distance * dy
    cell = v.int().clamp_(0, rows - 1) * cols + u.int().clamp_(0, cols - 1)
    texture = F.embedding(cell, torch.from_numpy(world.floor.reshape(-1, 1)).int())[..., 0]
    light = 0.9 / (1 + FOG * distance.square())
    # Seen at a slant, a pixel covers more along the ground than across it: blur by the mean of the two.
    blur = distance * pixel * (1 + 2 * distance) / 2
    return tiles.at(texture, u - u.floor(), v - v.floor(), blur).mul_(light[..., None])
