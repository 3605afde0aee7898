"""Which moments of a video a clip shows: pure functions from its span and rate to times, in seconds.

``start`` and ``end`` bound the span; with a generator the choice is random (training), without it is the middle.
A video that is too short for a clip shows its last frame again.
"""

from __future__ import annotations

import numpy as np


def dense(
    num_frames: int, stride: int, fps: float, start: float, end: float, rng: np.random.Generator | None = None
) -> np.ndarray:
    """``num_frames`` frames ``stride`` apart at the video's own rate, from a random place or around the middle."""
    slack = _slack(num_frames, stride, fps, start, end)
    first = slack // 2 if rng is None else int(rng.integers(slack + 1))
    return dense_from(start + first / fps, num_frames, stride, fps, end)


def dense_from(first: float, num_frames: int, stride: int, fps: float, end: float) -> np.ndarray:
    """``num_frames`` frames ``stride`` apart, beginning with the one that begins at ``first``.

    Times are the middles of frames, so that stamps that were rounded (to milliseconds, in Matroska) do no harm.
    """
    middles = first + (np.arange(num_frames) * stride + 0.5) / fps
    return np.minimum(middles, max(first, end - 0.5 / fps))


def dense_around(moment: float, num_frames: int, stride: int, fps: float, end: float) -> np.ndarray:
    """``num_frames`` frames ``stride`` apart, of which number ``num_frames // 2`` is the one on screen at ``moment``.

    Where the video begins later or ends before (at ``end``), its first and last frames are shown again.
    """
    middles = moment + ((np.arange(num_frames) - num_frames // 2) * stride + 0.5) / fps
    return np.clip(middles, 0.5 / fps, max(0.5 / fps, end - 0.5 / fps))


def dense_views(num_frames: int, stride: int, fps: float, start: float, end: float, views: int) -> np.ndarray:
    """``views`` dense clips (``views T``) spread evenly, the first at the span's start and the last at its end."""
    slack = _slack(num_frames, stride, fps, start, end)
    firsts = np.round(np.linspace(0, slack, views)) if views > 1 else [slack // 2]
    return np.stack([dense_from(start + first / fps, num_frames, stride, fps, end) for first in firsts])


def uniform(num_frames: int, start: float, end: float) -> np.ndarray:
    """The middles of ``num_frames`` equal parts of the span."""
    return start + (np.arange(num_frames) + 0.5) * (end - start) / num_frames


def segments(num_frames: int, start: float, end: float, rng: np.random.Generator | None = None) -> np.ndarray:
    """One moment of each of ``num_frames`` equal parts: a random one, or the middle (TSN, Wang et al. 2016)."""
    if rng is None:
        return uniform(num_frames, start, end)
    return start + (np.arange(num_frames) + rng.random(num_frames)) * (end - start) / num_frames


def shifted_views(num_frames: int, start: float, end: float, views: int) -> np.ndarray:
    """``views`` ways to take one moment from each of ``num_frames`` equal parts, evenly spaced within the part."""
    part = (end - start) / num_frames
    offsets = (np.arange(views) + 0.5) / views
    return start + (np.arange(num_frames)[None] + offsets[:, None]) * part


def to_key_frame(first: float, key_times: np.ndarray, start: float) -> float:
    """The last key frame at or before ``first``, unless that lies before ``start``: decoding begins there anyway."""
    place = int(key_times.searchsorted(first, "right")) - 1
    return float(key_times[place]) if place >= 0 and key_times[place] >= start else first


def _slack(num_frames: int, stride: int, fps: float, start: float, end: float) -> int:
    """How many frames later than the span's first one a clip can begin."""
    return max(0, int((end - start) * fps + 0.01) - (num_frames - 1) * stride - 1)
