"""Crops of a clip, in source pixels: cropping precedes scaling, so that only visible pixels are scaled."""

from __future__ import annotations

import math

import numpy as np

from filmstrip.errors import UserError
from filmstrip.video.decoder import Crop

_SCALE_STEP = 1e-5
"""Precision of the factor of :func:`fitting_size`."""


def centre_crop(height: int, width: int, size: tuple[int, int], short_side: int | None = None) -> Crop:
    """The centre crop of ``size`` (height, width) after scaling the short side to ``short_side``.

    ``short_side`` is by default the minimum that covers ``size``.
    """
    box = _covering(height, width, size, short_side)
    return Crop((height - box[0]) // 2, (width - box[1]) // 2, *box)


def three_crops(height: int, width: int, size: tuple[int, int], short_side: int | None = None) -> list[Crop]:
    """Three crops along the longer side, both ends and the centre (multi-view testing, Feichtenhofer et al. 2019)."""
    box = _covering(height, width, size, short_side)
    top, left = height - box[0], width - box[1]
    if top > left:
        return [Crop(offset, left // 2, *box) for offset in (0, top // 2, top)]
    return [Crop(top // 2, offset, *box) for offset in (0, left // 2, left)]


def random_short_side(
    height: int, width: int, size: tuple[int, int], short_side: tuple[int, int], rng: np.random.Generator
) -> Crop:
    """A random crop of ``size`` after scaling the short side to a random length (Simonyan and Zisserman 2015)."""
    length = int(rng.integers(short_side[0], short_side[1] + 1))
    box = _covering(height, width, size, length)
    top, left = int(rng.integers(height - box[0] + 1)), int(rng.integers(width - box[1] + 1))
    return Crop(top, left, *box)


def random_resized(
    height: int, width: int, area: tuple[float, float], aspect: tuple[float, float], rng: np.random.Generator
) -> Crop:
    """A crop with a random share of the frame's area and a random aspect ratio (Szegedy et al. 2015).

    The aspect ratio is log-uniform; after ten failures, the maximum centre crop with a valid aspect ratio.
    """
    for _ in range(10):
        pixels = height * width * rng.uniform(*area)
        shape = math.exp(rng.uniform(math.log(aspect[0]), math.log(aspect[1])))
        box_height, box_width = round(math.sqrt(pixels / shape)), round(math.sqrt(pixels * shape))
        if 0 < box_height <= height and 0 < box_width <= width:
            top, left = int(rng.integers(height - box_height + 1)), int(rng.integers(width - box_width + 1))
            return Crop(top, left, box_height, box_width)
    shape = min(max(width / height, aspect[0]), aspect[1])
    box_height = max(1, min(height, round(width / shape)))
    box_width = max(1, min(width, round(height * shape)))
    return Crop((height - box_height) // 2, (width - box_width) // 2, box_height, box_width)


def _covering(height: int, width: int, size: tuple[int, int], short_side: int | None) -> tuple[int, int]:
    """Height and width in source pixels of a crop of ``size`` after scaling the short side to ``short_side``."""
    scale = max(size[0] / height, size[1] / width)
    if short_side is not None:
        scale = max(scale, short_side / min(height, width))
    return max(1, min(height, round(size[0] / scale))), max(1, min(width, round(size[1] / scale)))


def native_size(
    height: int, width: int, *, multiple: int, min_pixels: int, max_pixels: int, max_aspect: float = 200.0
) -> tuple[int, int]:
    """Height and width at which a frame enters: multiples of ``multiple``, of about its own shape.

    They are the nearest to its own, unless their product is out of the range of pixels: then both are scaled into it,
    and rounded down where there were too many pixels, and up where there were too few.

    Raises:
        UserError: the longer side is more than ``max_aspect`` times the shorter.
    """
    if max(height, width) > max_aspect * min(height, width):
        raise UserError(
            f"frames of {height} x {width} pixels are too long: at most {max_aspect:g} times their shorter side"
        )
    sides = tuple(round(side / multiple) for side in (height, width))
    pixels = math.prod(sides) * multiple**2
    if min_pixels <= pixels <= max_pixels:
        return sides[0] * multiple, sides[1] * multiple
    if pixels > max_pixels:
        scale = math.sqrt(height * width / max_pixels)
        sides = tuple(max(1, math.floor(side / scale / multiple)) for side in (height, width))
    else:
        scale = math.sqrt(min_pixels / (height * width))
        sides = tuple(math.ceil(side * scale / multiple) for side in (height, width))
    return sides[0] * multiple, sides[1] * multiple


def fitting_size(height: int, width: int, *, patch: int, max_patches: int) -> tuple[int, int]:
    """Height and width at which a whole frame has at most so many patches (SigLIP 2's NaFlex, its public code).

    Both are scaled by the largest factor for which their patches, begun ones included, are no more than
    ``max_patches``, and rounded up to whole patches: the aspect ratio changes by no more than that. The factor is
    found by bisection to 1e-5 between zero and 100, as published.
    """

    def sides(scale: float) -> tuple[int, int]:
        return tuple(max(1, math.ceil(side * scale / patch)) for side in (height, width))

    low, high = _SCALE_STEP / 10, 100.0
    while high - low >= _SCALE_STEP:
        middle = (low + high) / 2
        low, high = (middle, high) if math.prod(sides(middle)) <= max_patches else (low, middle)
    rows, columns = sides(low)
    return rows * patch, columns * patch
