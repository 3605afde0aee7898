"""Textures and textured shapes, drawn at random: what the synthetic videos are painted with."""

from __future__ import annotations

import colorsys
import math

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F


def random_colours(rng: np.random.Generator, saturation: tuple[float, float], value: tuple[float, float]) -> Tensor:
    """Two colours that differ in hue and in lightness, ``2 3``, in 0..1."""
    hue = rng.uniform()
    hues = hue, hue + rng.uniform(0.15, 0.5)
    values = rng.permutation([value[0], value[1]])
    rgb = [colorsys.hsv_to_rgb(h % 1, rng.uniform(*saturation), v) for h, v in zip(hues, values)]
    return torch.tensor(rgb, dtype=torch.float32)


def random_texture(
    rng: np.random.Generator, size: int, colours: Tensor, *, waves: int = 6, frequency: tuple[int, int] = (1, 5)
) -> Tensor:
    """A texture of two colours that continues across its edges, ``3 size size``.

    A sum of plane waves of whole frequencies (cycles per side), squashed towards the two colours by a random amount:
    from soft clouds to crisp blotches and stripes.
    """
    low, high = frequency
    wave = rng.integers(-high, high + 1, size=(waves, 2))
    wave[:, 0] = np.where(np.abs(wave).max(axis=1) < low, high, wave[:, 0])
    phase = rng.uniform(0, 2 * math.pi, size=waves)
    ticks = (np.arange(size) + 0.5) / size * 2 * math.pi
    angle = wave[:, 0, None, None] * ticks[:, None] + wave[:, 1, None, None] * ticks + phase[:, None, None]
    height = np.cos(angle).sum(axis=0)
    height = np.tanh(height / height.std() * rng.uniform(0.8, 3.0))
    mix = torch.from_numpy((height * 0.5 + 0.5).astype(np.float32))
    return colours[0, :, None, None] * mix + colours[1, :, None, None] * (1 - mix)


def random_shape(rng: np.random.Generator, size: int, contrast: float, *, plain: bool = False) -> Tensor:
    """A textured shape on a transparent square, ``4 size size``: red, green, blue (premultiplied), opacity.

    The outline is a closed curve about the centre: a polygon, a star, a flower or a blob. ``contrast`` below one
    greys its colours. A ``plain`` one has one of six bright colours instead of a texture.
    """
    colours = random_colours(rng, saturation=(0.6, 1.0), value=(0.25, 1.0))
    if plain:
        colours = torch.tensor([colorsys.hsv_to_rgb(rng.integers(6) / 6, 0.75, 1.0)] * 2, dtype=torch.float32)
    colours = (colours - 0.5) * contrast + 0.5
    texture = random_texture(rng, size, colours, waves=4, frequency=(1, 3))
    ticks = (np.arange(size) + 0.5) / size * 2 - 1
    y, x = np.meshgrid(ticks, ticks, indexing="ij")
    distance = np.hypot(x, y)
    outline = _random_outline(rng, np.arctan2(y, x))
    opacity = np.clip((outline - distance) * size / 2 + 0.5, 0, 1).astype(np.float32)
    alpha = torch.from_numpy(opacity)[None]
    return torch.cat([texture * alpha, alpha])


def _random_outline(rng: np.random.Generator, angle: np.ndarray) -> np.ndarray:
    """The distance of the outline from the centre in each direction, at most 0.98."""
    angle = angle + rng.uniform(0, 2 * math.pi)
    corners = int(rng.integers(3, 7))
    match rng.integers(4):
        case 0:
            sector = 2 * math.pi / corners
            radius = math.cos(sector / 2) / np.cos(angle % sector - sector / 2)
        case 1:
            sector = 2 * math.pi / corners
            radius = 1 - 0.55 * np.abs((angle % sector) / sector * 2 - 1)
        case 2:
            radius = 1 + 0.3 * np.cos(corners * angle)
        case _:
            amplitude, phase = rng.uniform(-0.25, 0.25, 3), rng.uniform(0, 2 * math.pi, 3)
            radius = 1 + sum(a * np.cos((k + 1) * angle + p) for k, (a, p) in enumerate(zip(amplitude, phase)))
    return 0.98 * radius / radius.max()


def wrapped_sample(texture: Tensor, points: Tensor) -> Tensor:
    """Read a texture (``C S S``) that repeats for ever at ``points`` (``T H W 2``: x, y in sides): ``T C H W``."""
    size = texture.shape[-1]
    padded = F.pad(texture[None], (1, 1, 1, 1), mode="circular").expand(len(points), -1, -1, -1)
    grid = (points.remainder(1.0) * size + 1) / (size + 2) * 2 - 1
    return F.grid_sample(padded, grid, align_corners=False)
