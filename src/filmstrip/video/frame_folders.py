"""Films that are folders of images, a frame each: ``img_00001.jpg``, ``img_00002.jpg``, ...

Frames are in the order of the numbers in their names (9 before 10). Where numbers are left out, the frame before is
shown for longer. An image that cannot be read, or has another size than most, is a damaged frame: its neighbour
stands in for it.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path

import av
import numpy as np
import torch

from filmstrip.video.convert import Converter
from filmstrip.video.decoder import ROUNDING, Crop, DecodeError, Decoder, FrameFolder, Frames, Request, VideoInfo
from filmstrip.video.images import FPS, IMAGE_SUFFIXES, ImageDecoder, is_image

_NUMBER = re.compile(r"(\d+)")
_OF_COLOUR = re.compile(r"^(img|image|im|frame|rgb)[^a-z]", re.IGNORECASE)
"""Beginning of the names of frames in colour, where other pictures lie beside them, such as optical flow."""
_LEAST = 8
"""Minimum number of images of a folder that is recognised as a film by the names in it."""
_SPARSEST = 4
"""Maximum number of numbers for each frame that is there, above which numbers are not taken for times."""
_TRIED = 16
"""Number of images that are opened to find the size of a film."""

log = logging.getLogger(__name__)


def by_number(name: str) -> tuple[tuple[int, int | str], ...]:
    """The key of the natural order of names: numbers in them are compared as numbers."""
    parts = _NUMBER.split(name)
    return tuple((0, int(part)) if i % 2 else (1, part.lower()) for i, part in enumerate(parts))


def numbers_frames(names: Collection[str]) -> bool:
    """Whether the names of a folder's files are those of a film's frames: images of one name, numbered without
    gaps."""
    images = [name for name in names if is_image(name) and not name.startswith(".")]
    if len(images) < _LEAST or len(_sequences(images)) > 1:
        return False
    numbers = _numbers(images)  # all different
    return numbers is not None and int(numbers.max() - numbers.min()) == len(images) - 1


def _sequences(names: Iterable[str]) -> dict[str, list[str]]:
    """Images that belong together, by their names with a sign in place of each number."""
    found: dict[str, list[str]] = {}
    for name in names:
        stem, suffix = os.path.splitext(name)
        found.setdefault(_NUMBER.sub("#", stem) + suffix.lower().replace("jpeg", "jpg"), []).append(name)
    return found


def _numbers(names: Sequence[str]) -> np.ndarray | None:
    """The number in each name, where there is one that differs from name to name; else None."""
    table = np.array(
        [[int(part) for part in _NUMBER.findall(os.path.splitext(name)[0])] for name in names], dtype=object
    )
    if table.ndim != 2 or not table.size:
        return None
    varying = [column for column in table.T if len(set(column)) > 1]
    if len(varying) != 1 or len(set(varying[0])) < len(names) or max(varying[0]) >= 2**53:
        return None
    return varying[0].astype(np.int64)


class FrameFolderDecoder(Decoder):
    """See :class:`filmstrip.video.decoder.Decoder`. Every frame is a key frame."""

    def __init__(self, source: str | Path | FrameFolder, *, stream: int = 0):
        folder = source if isinstance(source, FrameFolder) else FrameFolder(str(source))
        self._path, self._unusable = folder.path, dict[str, str]()
        self._closed = False
        if stream:
            raise self._error("a folder of frames has one video stream")
        self._names = self._find()
        if folder.fps is None:
            say_rate(os.path.dirname(os.path.abspath(self._path)))
        fps = folder.fps or FPS
        self._times = _times(self._names, fps)
        self._info = self._describe(fps)

    def _find(self) -> list[str]:
        """The names of the frames, in order."""
        try:
            with os.scandir(self._path) as entries:
                names = [entry.name for entry in entries if is_image(entry.name) and not entry.name.startswith(".")]
        except FileNotFoundError:
            raise self._error("there is no such folder") from None
        except OSError as error:
            raise self._error(f"the folder cannot be read: {error.strerror or error}") from None
        if not names:
            raise self._error(f"this is a folder without images ({', '.join(sorted(IMAGE_SUFFIXES))})")
        found = _sequences(names)
        if len(found) > 1:
            in_colour = [names for pattern, names in found.items() if _OF_COLOUR.match(pattern)]
            if len(in_colour) != 1:
                kinds = ", ".join(sorted(found)[:4]) + (", ..." if len(found) > 4 else "")
                raise self._error(
                    f"its images are of {len(found)} kinds of names ({kinds}; # is a number), and the frames of a "
                    "film are of one, or of one that begins with img, image, frame or rgb: move the others elsewhere"
                )
            names = in_colour[0]
        return sorted(names, key=by_number)

    def _describe(self, fps: float) -> VideoInfo:
        """What the headers of the first images say; the size is that of most of them.

        Raises:
            DecodeError: none of the images can be opened.
        """
        found: list[VideoInfo] = []
        for name in self._names:
            try:
                with ImageDecoder(os.path.join(self._path, name)) as image:
                    found.append(image.info)
            except DecodeError as error:
                self._unusable[name] = error.reason
            if len(found) == _TRIED:
                break
        if not found:
            name, reason = next(iter(self._unusable.items()))
            raise self._error(f"none of its {len(self._names)} images can be opened; {name}: {reason}")
        (width, height), _ = Counter((info.width, info.height) for info in found).most_common(1)[0]
        first = next(info for info in found if (info.width, info.height) == (width, height))
        return VideoInfo(
            path=self._path,
            stream=0,
            stream_index=0,
            codec=first.codec,
            pixel_format=first.pixel_format,
            width=width,
            height=height,
            rotation=0,
            fps=fps,
            duration=float(self._times[-1]) + 1 / fps,
            num_frames=len(self._names),
            num_video_streams=1,
            has_audio=False,
        )

    @property
    def info(self) -> VideoInfo:
        """Properties; the size is that after turning."""
        return self._info

    @property
    def unusable(self) -> Mapping[str, str]:
        """Images that cannot be read, or have another size than most, so far, with the reason."""
        return self._unusable

    def close(self) -> None:
        """Refuse to read from now on; no file is open in between."""
        self._closed = True

    def times(self) -> np.ndarray:
        """Start time of each frame, ascending float64 seconds."""
        return self._times

    def key_times(self) -> np.ndarray:
        """Start time of each frame: all are key frames."""
        return self._times

    def read(self, requests: Sequence[Request], *, snap: bool = False) -> list[Frames]:
        """The frames at the requested times, each image read once; see :meth:`Decoder.read`.

        Raises:
            DecodeError: no image of the folder can be read.
        """
        shown = [self._shown_at(request.times) for request in requests]
        converters = [Converter(self._info, request.crop, request.size) for request in requests]
        videos = [converter.allocate(len(places)) for converter, places in zip(converters, shown)]
        damaged = [np.zeros(len(places), bool) for places in shown]
        for place in sorted({int(place) for places in shown for place in places}):
            frame, is_own = self._frame_or_neighbour(place)
            for places, converter, video, flags in zip(shown, converters, videos, damaged):
                (where,) = np.nonzero(places == place)
                for position in where[:1]:
                    converter(frame, video[position])
                    video[where[1:]] = video[position]
                flags[where] = not is_own
        return [
            Frames(torch.from_numpy(video), self._times[places], tuple(flags.tolist()))
            for places, video, flags in zip(shown, videos, damaged)
        ]

    def frames(
        self,
        start: float = 0.0,
        stop: float | None = None,
        *,
        crop: Crop | None = None,
        size: tuple[int, int] | None = None,
        chunk: int = 32,
    ) -> Iterator[Frames]:
        """All frames that begin in ``start <= time < stop``, in order, up to ``chunk`` at a time.

        Raises:
            DecodeError: no image of the folder can be read.
        """
        inside = (self._times >= start) & (self._times < (np.inf if stop is None else stop))
        times = self._times[inside]
        for first in range(0, len(times), chunk):
            yield self.read([Request(times[first : first + chunk], crop, size)])[0]

    def _shown_at(self, times: Sequence[float] | np.ndarray) -> np.ndarray:
        """The place of the frame that is displayed at each time."""
        places = self._times.searchsorted(np.asarray(times, np.float64) + ROUNDING, "right") - 1
        return np.maximum(places, 0)

    def _frame_or_neighbour(self, place: int) -> tuple[av.VideoFrame, bool]:
        """The frame at a place, or the nearest one before it that can be read, else after it; and whether it is
        its own."""
        for other in (*range(place, -1, -1), *range(place + 1, len(self._names))):
            if (frame := self._frame(self._names[other])) is not None:
                return frame, other == place
        raise self._error(f"none of its {len(self._names)} images can be read")

    def _frame(self, name: str) -> av.VideoFrame | None:
        """An image; None if it cannot be read or has another size."""
        if self._closed:
            raise self._error("the decoder is closed")
        if name in self._unusable:
            return None
        try:
            with ImageDecoder(os.path.join(self._path, name)) as image:
                width, height = image.info.width, image.info.height
                if (width, height) == (self._info.width, self._info.height):
                    return image.frame
                self._unusable[name] = (
                    f"it has {width} x {height} pixels, and the film {self._info.width} x {self._info.height}"
                )
        except DecodeError as error:
            self._unusable[name] = error.reason
        return None

    def _error(self, reason: str) -> DecodeError:
        return DecodeError(self._path, 0, reason)


def _times(names: Sequence[str], fps: float) -> np.ndarray:
    """When each frame begins, seconds: by the numbers in their names where most follow each other at one distance."""
    numbers = _numbers(names)
    places = np.arange(len(names), dtype=np.int64)
    if numbers is not None and len(names) > 2:
        steps = np.diff(numbers)
        common, count = Counter(steps.tolist()).most_common(1)[0]
        last = (numbers[-1] - numbers[0]) // common
        if 2 * count > len(steps) and not (steps % common).any() and last < _SPARSEST * len(names):
            places = (numbers - numbers[0]) // common
    return places / fps


@cache
def say_rate(folder: str | Path) -> None:
    """Say once for each collection at which rate folders of frames are read of which none is known."""
    if multiprocessing.parent_process() is None:  # workers open what was opened before
        log.warning(
            "films in %s are folders of frames, read at %g frames per second: say another by the option fps, a "
            "manifest's column fps, or dataset.json",
            folder,
            FPS,
        )
