"""Image files as videos of one frame: read completely or not at all.

Pillow decodes, which turns images as their EXIF orientation says and refuses damaged ones; crops and sizes are those
of videos (:mod:`filmstrip.video.convert`).
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path

import av
import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError

from filmstrip.video.convert import Converter
from filmstrip.video.decoder import Crop, DecodeError, Decoder, Frames, Request, VideoInfo, VideoSource

IMAGE_SUFFIXES = frozenset((".jpg", ".jpeg", ".png", ".webp", ".bmp"))
_FORMATS = ("JPEG", "PNG", "WEBP", "BMP")
"""Formats that Pillow may try, whatever a file is called: others start programs, or parse what nobody sent here."""
_MAX_PIXELS = 2**28
"""Number of pixels above which an image is refused before it is decoded, which would take a gigabyte or more."""
FPS = 25.0
"""Frame rate of images of which none is known, as FFmpeg has it."""
_QUARTER_TURNS = (5, 6, 7, 8)
"""Orientations of EXIF that exchange height and width."""
_ORIENTATION = 0x0112


def is_image(path: str | Path) -> bool:
    """Whether a file has the extension of an image."""
    return os.path.splitext(path)[1].lower() in IMAGE_SUFFIXES


class ImageDecoder(Decoder):
    """See :class:`filmstrip.video.decoder.Decoder`. Of several frames (animations, bursts) it reads the first."""

    def __init__(self, source: VideoSource, *, stream: int = 0):
        self._path = str(source) if isinstance(source, (str, Path)) else str(getattr(source, "name", "<memory>"))
        self._stream = stream
        if stream:
            raise self._error("an image has one video stream")
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # _MAX_PIXELS is the limit here
                self._image: Image.Image | None = Image.open(source, formats=_FORMATS)
        except FileNotFoundError:
            raise self._error("there is no such file") from None
        except IsADirectoryError:
            raise self._error("this is a folder") from None
        except Image.DecompressionBombError:
            raise self._error(f"it has more than {_MAX_PIXELS} pixels") from None
        except UnidentifiedImageError:
            empty = isinstance(source, (str, Path)) and Path(source).stat().st_size == 0
            reason = "the file is empty (0 bytes)" if empty else f"not an image ({', '.join(_FORMATS)})"
            raise self._error(reason) from None
        except (OSError, ValueError, SyntaxError) as error:
            raise self._error(f"not an image that can be opened: {error}") from None
        width, height = self._image.size
        if width * height > _MAX_PIXELS:
            self.close()
            raise self._error(f"it has {width} x {height} pixels, more than {_MAX_PIXELS}")
        self._info = self._describe(self._image)

    def _describe(self, image: Image.Image) -> VideoInfo:
        try:
            turned = image.getexif().get(_ORIENTATION) in _QUARTER_TURNS
        except Exception:  # whatever broken EXIF makes of its parser: the image is shown as it is stored
            turned = False
        width, height = image.size[::-1] if turned else image.size
        return VideoInfo(
            path=self._path,
            stream=0,
            stream_index=0,
            codec=(image.format or "").lower(),
            pixel_format=image.mode,
            width=width,
            height=height,
            rotation=0,
            fps=FPS,
            duration=1 / FPS,
            num_frames=1,
            num_video_streams=1,
            has_audio=False,
        )

    @property
    def info(self) -> VideoInfo:
        """Properties from the header; the size is that after turning."""
        return self._info

    def close(self) -> None:
        """Close the file."""
        if self._image is not None:
            self._image.close()
            self._image = None

    def times(self) -> np.ndarray:
        """The start of the one frame, ``[0]``."""
        return np.zeros(1)

    def key_times(self) -> np.ndarray:
        """The start of the one frame, ``[0]``."""
        return np.zeros(1)

    def read(self, requests: Sequence[Request], *, snap: bool = False) -> list[Frames]:
        """The image at every requested time; see :meth:`Decoder.read`.

        Raises:
            DecodeError: the image is damaged or truncated.
        """
        return [self._repeated(request.crop, request.size, len(request.times)) for request in requests]

    def frames(
        self,
        start: float = 0.0,
        stop: float | None = None,
        *,
        crop: Crop | None = None,
        size: tuple[int, int] | None = None,
        chunk: int = 32,
    ) -> Iterator[Frames]:
        """The image, if time zero is in ``start <= time < stop``.

        Raises:
            DecodeError: the image is damaged or truncated.
        """
        if start <= 0 and (stop is None or stop > 0):
            yield self._repeated(crop, size, 1)

    def _repeated(self, crop: Crop | None, size: tuple[int, int] | None, count: int) -> Frames:
        converter = Converter(self._info, crop, size)
        video = converter.allocate(1)
        converter(self.frame, video[0])
        frames = torch.from_numpy(video).expand(count, -1, -1, -1)
        return Frames(frames.contiguous() if count > 1 else frames, np.zeros(count), (False,) * count)

    @cached_property
    def frame(self) -> av.VideoFrame:
        """The decoded image in RGB; what is transparent shows the colour that is stored there.

        Raises:
            DecodeError: the image is damaged or truncated.
        """
        if self._image is None:
            raise self._error("the decoder is closed")
        try:
            image = self._image
            image.load()
            if image.mode.startswith("I;16"):  # Pillow would cut off at 255, not divide
                image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
            rgb = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
        except (OSError, ValueError, SyntaxError, MemoryError, IndexError, Image.DecompressionBombError) as error:
            raise self._error(f"the image is damaged: {error}") from None
        if rgb.shape[:2] != (self._info.height, self._info.width):
            raise self._error(f"the header has {self._info.width} x {self._info.height} pixels, its data has others")
        return av.VideoFrame.from_ndarray(np.ascontiguousarray(rgb), format="rgb24")

    def _error(self, reason: str) -> DecodeError:
        return DecodeError(self._path, self._stream, reason)
