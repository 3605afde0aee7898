"""Drawing in numpy: a few smooth shapes on a small picture, each in microseconds."""

from __future__ import annotations

import math

import numpy as np

Colour = tuple[int, int, int]
SEGMENTS = (0x77, 0x24, 0x5D, 0x6D, 0x2E, 0x6B, 0x7B, 0x25, 0x7F, 0x6F)
"""Bars of each digit, of seven: top, top left, top right, middle, bottom left, bottom right, bottom."""


class Canvas:
    """A picture of ``size`` x ``size`` pixels; places and lengths are in its sides, from the top left."""

    def __init__(self, size: int, background: np.ndarray | Colour) -> None:
        self.size = size
        self._centres = ((np.arange(size) + 0.5) / size).astype(np.float32)
        self._background = np.empty((size, size, 3), np.float32)
        self._background[:] = background
        self._pixels = self._background.copy()

    def clear(self) -> None:
        """Begin with the background again."""
        np.copyto(self._pixels, self._background)

    def keep(self) -> None:
        """What is drawn so far becomes the background."""
        np.copyto(self._background, self._pixels)

    def picture(self) -> np.ndarray:
        """What is drawn, ``H W 3`` uint8."""
        return (self._pixels + 0.5).astype(np.uint8)

    def disc(self, x: float, y: float, radius: float, colour: Colour) -> None:
        """A disc."""
        rows, columns = self._within(y - radius, y + radius), self._within(x - radius, x + radius)
        dx, dy = self._centres[columns] - x, self._centres[rows] - y
        distance = np.sqrt(dx * dx + (dy * dy)[:, None])
        self._cover(rows, columns, (radius - distance) * self.size + 0.5, colour)

    def ring(self, x: float, y: float, radius: float, width: float, colour: Colour) -> None:
        """A circle's line."""
        outer = radius + width / 2
        rows, columns = self._within(y - outer, y + outer), self._within(x - outer, x + outer)
        dx, dy = self._centres[columns] - x, self._centres[rows] - y
        off = np.abs(np.sqrt(dx * dx + (dy * dy)[:, None]) - radius)
        self._cover(rows, columns, (width / 2 - off) * self.size + 0.5, colour)

    def line(self, start: tuple[float, float], end: tuple[float, float], width: float, colour: Colour) -> None:
        """A line with round ends."""
        (x0, y0), (x1, y1), half = start, end, width / 2
        rows = self._within(min(y0, y1) - half, max(y0, y1) + half)
        columns = self._within(min(x0, x1) - half, max(x0, x1) + half)
        dx, dy = self._centres[columns] - x0, (self._centres[rows] - y0)[:, None]
        ux, uy = x1 - x0, y1 - y0
        along = np.minimum(np.maximum((dx * ux + dy * uy) / max(ux * ux + uy * uy, 1e-9), 0), 1)
        distance = np.sqrt((dx - along * ux) ** 2 + (dy - along * uy) ** 2)
        self._cover(rows, columns, (half - distance) * self.size + 0.5, colour)

    def bar(self, left: float, top: float, right: float, bottom: float, colour: Colour) -> None:
        """A rectangle."""
        rows, columns = self._within(top, bottom), self._within(left, right)
        x, y = self._centres[columns] * self.size, self._centres[rows] * self.size
        across = np.minimum(np.maximum(np.minimum(x - left * self.size, right * self.size - x) + 0.5, 0), 1)
        down = np.minimum(np.maximum(np.minimum(y - top * self.size, bottom * self.size - y) + 0.5, 0), 1)
        self._cover(rows, columns, down[:, None] * across, colour)

    def digit(self, number: int, left: float, top: float, height: float, colour: Colour) -> None:
        """A digit of seven bars, 0 to 9, half as wide as it is high."""
        pixel = 1 / self.size
        right, bottom, middle = left + height / 2, top + height, top + height / 2
        bars = (
            (left, top, right, top + pixel),
            (left, top, left + pixel, middle),
            (right - pixel, top, right, middle),
            (left, middle, right, middle + pixel),
            (left, middle, left + pixel, bottom),
            (right - pixel, middle, right, bottom),
            (left, bottom - pixel, right, bottom),
        )
        for place, bar in enumerate(bars):
            if SEGMENTS[number] >> place & 1:
                self.bar(*bar, colour)

    def _within(self, low: float, high: float) -> slice:
        """The pixels that a range may touch."""
        return slice(max(0, math.floor(low * self.size - 1)), max(0, min(self.size, math.ceil(high * self.size + 1))))

    def _cover(self, rows: slice, columns: slice, cover: np.ndarray, colour: Colour) -> None:
        part = self._pixels[rows, columns]
        part += np.minimum(np.maximum(cover, 0), 1)[..., None] * (np.asarray(colour, np.float32) - part)
