"""Boxes and times as text, as Qwen-VL has boxes: ``<box>(100,250),(400,900)</box>`` in thousandths of the frame."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

Box = tuple[float, float, float, float]
"""Left, top, right and bottom, shares of the frame."""
MARKS = {
    "<box>": "<|box_start|>",
    "</box>": "<|box_end|>",
    "<ref>": "<|object_ref_start|>",
    "</ref>": "<|object_ref_end|>",
}
"""Qwen-VL's marks around a box and around the phrase that names it, and Qwen2-VL's, which mean the same."""
_SCALE = 1000
_BOX = re.compile(r"\(\s*(\d+)\s*,\s*(\d+)\s*\)\s*,\s*\(\s*(\d+)\s*,\s*(\d+)\s*\)")
_TIME = re.compile(r"(\d+(?:\.\d+)?)\s*s(?:econds?)?\b")


def box_text(box: Sequence[float], size: tuple[float, float] = (1, 1)) -> str:
    """A box as text: whole thousandths of the frame, rounded down, at most 999 (Bai et al. 2023, section 2.2).

    ``size`` is the width and height of the frame in the units of the box: pixels, or 1 for shares.

    Raises:
        ValueError: these are no four numbers, or not within the frame.
    """
    if len(box) != 4 or not all(isinstance(x, (int, float)) and math.isfinite(x) for x in box):
        raise ValueError(f"{box!r} is no left, top, right and bottom")
    left, top, right, bottom = (x / size[i % 2] for i, x in enumerate(box))
    if not (0 <= left <= right <= 1 and 0 <= top <= bottom <= 1):
        raise ValueError(f"{tuple(box)} is no left, top, right and bottom within {size[0]:g} x {size[1]:g}")
    x1, y1, x2, y2 = (min(math.floor(_SCALE * x + 1e-9), _SCALE - 1) for x in (left, top, right, bottom))
    return f"<box>({x1},{y1}),({x2},{y2})</box>"


def boxes_in(text: str) -> list[Box]:
    """The boxes in a text, with or without marks, as shares of the frame; what is none is left out."""
    found = [tuple(int(x) / _SCALE for x in match.groups()) for match in _BOX.finditer(text)]
    return [(a, b, c, d) for a, b, c, d in found if a <= c <= 1 and b <= d <= 1]


def time_text(seconds: float) -> str:
    """A time as text: seconds, to a tenth.

    Raises:
        ValueError: it is no time.
    """
    if not isinstance(seconds, (int, float)) or not math.isfinite(seconds) or seconds < 0:
        raise ValueError(f"{seconds!r} is no number of seconds")
    return f"{seconds:.1f} s"


def times_in(text: str) -> list[float]:
    """The times in a text, in seconds."""
    return [float(match[1]) for match in _TIME.finditer(text)]
