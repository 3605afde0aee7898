"""Temporal sampling of clips: pure functions from a video's span and frame rate to times, in seconds.

``start`` and ``end`` bound the span; with a generator sampling is random (training), without it is centred. A video
shorter than a clip is padded with its last frame.
"""

from __future__ import annotations

import numpy as np


def dense(
    num_frames: int, stride: int, fps: float, start: float, end: float, rng: np.random.Generator | None = None
) -> np.ndarray:
    """``num_frames`` frames ``stride`` apart at the video's own rate, at a random offset or centred."""
    slack = _slack(num_frames, stride, fps, start, end)
    first = slack // 2 if rng is None else int(rng.integers(slack + 1))
    return dense_from(start + first / fps, num_frames, stride, fps, end)


def dense_from(first: float, num_frames: int, stride: int, fps: float, end: float) -> np.ndarray:
    """``num_frames`` frames ``stride`` apart, starting with the one at ``first``.

    Times are the middles of frames, to be robust to rounded timestamps (to milliseconds, in Matroska).
    """
    middles = first + (np.arange(num_frames) * stride + 0.5) / fps
    return np.minimum(middles, max(first, end - 0.5 / fps))


def dense_around(moment: float, num_frames: int, stride: int, fps: float, end: float) -> np.ndarray:
    """``num_frames`` frames ``stride`` apart, of which number ``num_frames // 2`` is displayed at ``moment``.

    Beyond the start or end (``end``) of the video, its first or last frame is repeated.
    """
    middles = moment + ((np.arange(num_frames) - num_frames // 2) * stride + 0.5) / fps
    return np.clip(middles, 0.5 / fps, max(0.5 / fps, end - 0.5 / fps))


def dense_until(moment: float, num_frames: int, stride: int, fps: float, end: float) -> np.ndarray:
    """``num_frames`` frames ``stride`` apart, of which the last is displayed at ``moment``.

    Before the start of the video its first frame is repeated.
    """
    middles = moment + (np.arange(1 - num_frames, 1) * stride + 0.5) / fps
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
    """One time in each of ``num_frames`` equal parts: a random one, or the middle (TSN, Wang et al. 2016)."""
    if rng is None:
        return uniform(num_frames, start, end)
    return start + (np.arange(num_frames) + rng.random(num_frames)) * (end - start) / num_frames


def shifted_views(num_frames: int, start: float, end: float, views: int) -> np.ndarray:
    """``views`` clips of one time from each of ``num_frames`` equal parts, evenly spaced within the part."""
    part = (end - start) / num_frames
    offsets = (np.arange(views) + 0.5) / views
    return start + (np.arange(num_frames)[None] + offsets[:, None]) * part


def to_key_frame(first: float, key_times: np.ndarray, start: float) -> float:
    """The last key frame at or before ``first``, unless that lies before ``start``: decoding starts there anyway."""
    index = int(key_times.searchsorted(first, "right")) - 1
    return float(key_times[index]) if index >= 0 and key_times[index] >= start else first


def _slack(num_frames: int, stride: int, fps: float, start: float, end: float) -> int:
    """Maximum offset of a clip from the span's first frame, frames."""
    return max(0, int((end - start) * fps + 0.01) - (num_frames - 1) * stride - 1)
