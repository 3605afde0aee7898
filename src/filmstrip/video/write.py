"""Writing video as mp4, gif or animated webp, and grids of frames as png."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO, Self

import av
import numpy as np
import torch
from einops import rearrange
from PIL import Image
from torch import Tensor

from filmstrip.errors import UserError
from filmstrip.files import replacing

Target = str | Path | BinaryIO

LOSSLESS = "libx264rgb"
"""The lossless codec, with ``crf=0``; few players support it."""

REPEATABLE = {"mbtree": "0"}
"""Options of x264 for reproducible output: with AVX-512 and B frames, its macroblock tree reads uninitialised memory
for small frames."""


def write_video(
    target: Target,
    video: Tensor,
    fps: float,
    *,
    format: str | None = None,
    codec: str = "libx264",
    crf: int = 18,
    gop: int | None = None,
    preset: str = "medium",
    fast_decode: bool = False,
) -> None:
    """Write ``video`` (``T C H W``; uint8, or floating point in 0..1) as mp4, gif or animated webp.

    The ``format`` defaults to the file's extension. For mp4: lower ``crf`` is better, ``gop`` is the maximum key
    frame interval, ``fast_decode`` disables features that decode slowly. A file appears only when it is complete.

    Raises:
        UserError: the format is not one of the three, or the video is not ``T C H W`` with 1 or 3 channels.
    """
    frames = _packed(video)
    format = (format or Path(str(getattr(target, "name", target))).suffix.lstrip(".")).lower()
    if format not in ("mp4", "gif", "webp"):
        raise UserError(f"cannot write video as {format or 'a file without an extension'!r}: use mp4, gif or webp")
    if format != "mp4":
        _write(target, lambda file: _write_animation(file, frames, fps, format))
        return
    options = {"crf": str(crf), "preset": preset}
    if gop is not None:
        options["g"] = str(gop)
    if fast_decode:
        options["tune"] = "fastdecode"

    def write(file: str | BinaryIO) -> None:
        mp4 = _Mp4(file, frames.shape[1:3], fps, codec, options)
        with mp4.container:
            mp4.add(frames)
            mp4.close()

    _write(target, write)


class Mp4File:
    """An mp4 written incrementally; a context manager.

    However the body ends, the frames added by then form a complete video.
    """

    def __init__(self, path: str | Path, fps: float, *, crf: int = 18) -> None:
        self.path = Path(path)
        self.fps = fps
        self.num_frames = 0
        self._options = {"crf": str(crf)}
        self._file = ExitStack()
        self._mp4: _Mp4 | None = None

    def add(self, piece: Tensor) -> None:
        """Add frames (``T C H W``; uint8, or floating point in 0..1), all of the size of the first ones.

        Raises:
            UserError: they are not ``T C H W`` with 1 or 3 channels.
        """
        frames = _packed(piece)
        if self._mp4 is None:
            part = self._file.enter_context(replacing(self.path))
            self._mp4 = _Mp4(str(part), frames.shape[1:3], self.fps, "libx264", self._options)
        self._mp4.add(frames)
        self.num_frames += len(frames)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        with self._file:
            if self._mp4 is not None:
                self._mp4.close()


def write_grid(target: Target, rows: Sequence[Tensor], *, gap: int = 2) -> None:
    """Write a png in which each of ``rows`` (``T C H W``: frames, or a clip) is a row of images on white.

    Raises:
        UserError: a row is not ``T C H W``, or there is none.
    """
    lines = [_packed(row) for row in rows]
    if not lines:
        raise UserError("a grid needs at least one row of images")
    height = sum(line.shape[1] + gap for line in lines) - gap
    width = max(line.shape[0] * (line.shape[2] + gap) - gap for line in lines)
    canvas = np.full((height, width, 3), 255, np.uint8)
    top = 0
    for line in lines:
        for column, image in enumerate(line):
            left = column * (line.shape[2] + gap)
            canvas[top : top + line.shape[1], left : left + line.shape[2]] = image
        top += line.shape[1] + gap
    _write(target, lambda file: Image.fromarray(canvas).save(file, format="png"))


def _packed(video: Tensor) -> np.ndarray:
    """``T H W 3`` uint8, contiguous."""
    if video.ndim != 4 or video.shape[1] not in (1, 3) or 0 in video.shape:
        raise UserError(f"expected video of shape (T, C, H, W) with 1 or 3 channels, got {tuple(video.shape)}")
    video = video.detach().cpu()
    if video.dtype != torch.uint8:
        video = video.float().mul(255).round().clamp(0, 255).to(torch.uint8)
    return rearrange(video.expand(-1, 3, -1, -1), "t c h w -> t h w c").contiguous().numpy()


class _Mp4:
    """An mp4 under construction: 4:2:0 chroma if the size is even, which all players support, 4:4:4 if it is odd.

    In a file the header comes first, so that playback can start before all of it is read.
    """

    def __init__(
        self, file: str | BinaryIO, size: tuple[int, int], fps: float, codec: str, options: dict[str, str]
    ) -> None:
        layout = {"movflags": "faststart"} if isinstance(file, str) else {}
        self.container = av.open(file, "w", format="mp4", options=layout)
        rate = Fraction(fps).limit_denominator(1001 * 120)
        self.stream = self.container.add_stream(codec, rate=rate, options={**options, **REPEATABLE})
        self.stream.height, self.stream.width = size
        even = size[0] % 2 == 0 and size[1] % 2 == 0
        self.stream.pix_fmt = "rgb24" if codec == LOSSLESS else "yuv420p" if even else "yuv444p"
        self.stream.codec_context.thread_count = 1

    def add(self, frames: np.ndarray) -> None:
        """Encode ``T H W 3`` uint8."""
        for image in frames:
            self.container.mux(self.stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))

    def close(self) -> None:
        """Flush the encoder and write the index."""
        self.container.mux(self.stream.encode())
        self.container.close()


def _write_animation(file: str | BinaryIO, frames: np.ndarray, fps: float, format: str) -> None:
    """Write by Pillow; frame durations are whole hundredths of a second in gif, thousandths in webp."""
    images = [Image.fromarray(frame) for frame in frames]
    step = 10 if format == "gif" else 1
    ends = np.round(np.arange(1, len(images) + 1) * 1000 / fps / step).astype(int) * step
    durations = np.diff(ends, prepend=0).tolist()
    options = {"disposal": 2} if format == "gif" else {"quality": 85, "method": 4}
    images[0].save(
        file, format=format, save_all=True, append_images=images[1:], duration=durations, loop=0, **options
    )


def _write(target: Target, write: Callable[[str | BinaryIO], None]) -> None:
    """Call ``write`` on a buffer directly, or on a file that is renamed into place when complete."""
    if not isinstance(target, (str, Path)):
        write(target)
        return
    # Without sync to disk: sets of thousands of videos are generated, and can be generated again.
    with replacing(Path(target), durable=False) as part:
        write(str(part))
