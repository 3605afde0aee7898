"""Crops of a clip, in source pixels: cropping precedes scaling, so that only visible pixels are scaled."""

from __future__ import annotations

import math

import numpy as np

from filmstrip.video.decoder import Crop


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
