"""Parts of frames that are blanked, such as a scoreboard, wherever a model sees them."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

Rectangle = tuple[float, float, float, float]
"""Left, top, right and bottom edge, as fractions of a frame's width and height."""
WHOLE: Rectangle = (0.0, 0.0, 1.0, 1.0)


def blank(video: Tensor, rectangles: Sequence[Rectangle], shown: Rectangle = WHOLE) -> Tensor:
    """Video ``... H W`` with rectangles set to zero: every pixel that a rectangle covers at least half of.

    ``shown`` is the part of the frames that the video shows.
    """
    if not rectangles:
        return video
    video = video.clone()
    height, width = video.shape[-2:]
    x0, y0, x1, y1 = shown
    for left, top, right, bottom in rectangles:
        columns = [round((x - x0) / (x1 - x0) * width) for x in (left, right)]
        rows = [round((y - y0) / (y1 - y0) * height) for y in (top, bottom)]
        video[..., max(0, rows[0]) : max(0, rows[1]), max(0, columns[0]) : max(0, columns[1])] = 0
    return video
