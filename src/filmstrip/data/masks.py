"""Films as images, and masks of their objects: the number of an object in each pixel, and a palette of numbers."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from filmstrip.errors import UserError
from filmstrip.files import replacing

VOID = 255
"""Number of pixels that belong to no object and are not evaluated, in a mask that has other numbers."""
MAX_COLOURS = 32
"""Maximum number of colours of a painted mask: more come from smoothed edges or lossy compression."""
Palette = tuple[int, ...]
"""Red, green and blue of each number from 0 on, 0 to 255, one after the other."""


@dataclass(frozen=True, eq=False)
class Mask:
    """The objects of one frame."""

    numbers: np.ndarray
    """Number of the object in each pixel, ``H W`` uint8; 0 is the background."""
    palette: Palette
    """Colours of the numbers."""

    @property
    def objects(self) -> tuple[int, ...]:
        """The numbers of the objects, ascending."""
        return tuple(int(number) for number in np.unique(self.numbers) if number)


def read_mask(path: str | Path) -> Mask:
    """Read a mask: with a palette, in grey levels, or painted in colours (black is the background).

    Grey levels are numbers. 255 is an object where it is the only one, as in DAVIS 2016, and otherwise void, which
    counts as background, as in the public evaluation of DAVIS 2017. Colours are numbered in the order of their
    values, and become the palette.

    Raises:
        UserError: the file cannot be read, or it has too many colours for a mask.
    """
    try:
        with Image.open(path) as image:
            image.load()
    except OSError as error:
        raise UserError(f"{path} cannot be read as a mask: {error.strerror or error}") from None
    if image.mode == "P":
        numbers, palette = np.array(image), tuple(image.getpalette("RGB") or default_palette())
    elif image.mode in ("1", "L", "I", "I;16"):
        numbers, palette = np.array(image.convert("L") if image.mode == "1" else image), default_palette()
        if numbers.max() > VOID:
            raise UserError(f"{path} has the object {numbers.max()}: numbers go up to {VOID}")
    else:
        return _painted(np.array(image.convert("RGB")), path)
    numbers = numbers.astype(np.uint8)
    if len(np.unique(numbers[(numbers > 0) & (numbers < VOID)])):
        numbers[numbers == VOID] = 0
    return Mask(numbers, palette)


def write_mask(mask: Mask, path: Path) -> None:
    """Write a mask as a PNG with its palette, atomically."""
    image = Image.fromarray(mask.numbers)  # of mode L, which becomes P with a palette
    image.putpalette(list(mask.palette))
    with replacing(path, durable=False) as part:
        image.save(part, format="png")


def size_of_image(path: str | Path) -> tuple[int, int]:
    """Height and width of an image, from its header.

    Raises:
        UserError: the file cannot be read.
    """
    try:
        with Image.open(path) as image:
            return image.height, image.width
    except OSError as error:
        raise UserError(f"{path} cannot be read as an image: {error.strerror or error}") from None


def read_image(path: str | Path) -> np.ndarray:
    """An image as ``H W 3`` uint8.

    Raises:
        UserError: the file cannot be read.
    """
    try:
        with Image.open(path) as image:
            return np.array(image.convert("RGB"))
    except OSError as error:
        raise UserError(f"{path} cannot be read as an image: {error.strerror or error}") from None


def chunks_of(paths: Sequence[str], length: int = 8) -> Iterator[Tensor]:
    """Images in order, ``T C H W`` uint8, up to ``length`` at a time.

    Raises:
        UserError: an image cannot be read, or has another size than the first one.
    """
    size: tuple[int, ...] | None = None
    for start in range(0, len(paths), length):
        images = []
        for path in paths[start : start + length]:
            images.append(read_image(path))
            size = size or images[0].shape
            if images[-1].shape != size:
                raise UserError(f"{path} has {images[-1].shape[:2]} pixels, and {paths[0]} has {size[:2]}")
        yield torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)


@functools.cache
def default_palette() -> Palette:
    """The colours of 256 numbers in PASCAL VOC and DAVIS: each bit of a number goes to a bit of one channel."""
    number = np.arange(256)
    colours = np.zeros((256, 3), int)
    for bit in range(8):
        colours[:, bit % 3] |= ((number >> bit) & 1) << (7 - bit // 3)
    return tuple(colours.flatten().tolist())


def _painted(pixels: np.ndarray, path: str | Path) -> Mask:
    """The mask in an ``H W 3`` image whose colours are objects."""
    values = (pixels.astype(np.int64) * np.array([65536, 256, 1])).sum(axis=2)
    colours = np.unique(np.append(values, 0))
    if len(colours) > MAX_COLOURS:
        raise UserError(
            f"{path} has {len(colours)} colours, and a painted mask has one for each object, {MAX_COLOURS} at most: "
            "save it as PNG, without smoothed edges"
        )
    numbers = np.searchsorted(colours, values).astype(np.uint8)
    palette = [part for value in colours.tolist() for part in (value >> 16, value >> 8 & 255, value & 255)]
    return Mask(numbers, tuple(palette) + default_palette()[len(palette) :])
