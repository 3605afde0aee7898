"""One video, encoded anew as H.264 that decodes fast, with the same frame times, and compared with its source."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import torch
from av.video.reformatter import ColorRange, Colorspace
from einops import rearrange
from torch import Tensor

from filmstrip.bounds import Count, CountOrZero, Quality, check_numbers
from filmstrip.data.augment.colour import GREY
from filmstrip.data.tools.sound import Sound
from filmstrip.errors import NO_ROOM
from filmstrip.files import replacing
from filmstrip.video.decode import open_video
from filmstrip.video.decoder import DecodeError, Decoder, Frames, VideoSource
from filmstrip.video.write import REPEATABLE

TICKS = 90_000
"""Number of time stamps per second: exact for all common frame rates."""
TIME_ERROR = 2 / TICKS
LOWEST_PSNR = 20.0
"""Minimum PSNR of a valid copy, in decibels."""
COMPARED = 8
"""Number of frames of each video that are compared, besides the last one."""


@dataclass(frozen=True)
class Recipe:
    """How videos are encoded."""

    short_side: Count = 256
    gop: Count = 8
    crf: Quality = 20
    b_frames: CountOrZero = 3
    """Number of B frames between two reference frames; a reader with a stride skips them, as nothing depends on
    them."""
    sound: bool = True
    """Whether the sound is kept."""

    def __post_init__(self) -> None:
        check_numbers(self)

    def size(self, height: int, width: int) -> tuple[int, int]:
        """The new size of a video: even, of the same shape, and never larger."""
        scale = min(1.0, self.short_side / min(height, width))
        return max(2, round(height * scale / 2) * 2), max(2, round(width * scale / 2) * 2)


@dataclass(frozen=True)
class Result:
    """The result of re-encoding one video."""

    num_frames: int
    psnr: float
    flaw: str


@dataclass
class _EncodedFrames:
    """The frames that passed while a video was encoded."""

    times: list[float] = field(default_factory=list)
    kept: list[tuple[int, Tensor]] = field(default_factory=list)
    """Some frames (``C H W``) and their positions."""
    last: Tensor | None = None
    damaged: int = 0
    truncated: str = ""

    def note(self, frames: Frames) -> None:
        if len(self.kept) < COMPARED:
            self.kept.append((len(self.times), frames.video[0].clone()))
        self.last = frames.video[-1].clone()
        self.times += frames.times.tolist()
        self.damaged += sum(frames.damaged)
        self.truncated = frames.truncated or self.truncated

    @property
    def compared(self) -> tuple[list[int], Tensor]:
        """Positions and content (``N C H W``) of the frames to compare."""
        assert self.last is not None, "asked for before any frame was noted"
        chosen = [*self.kept, (len(self.times) - 1, self.last)]
        return [place for place, _ in chosen], torch.stack([frame for _, frame in chosen])

    @property
    def flaw(self) -> str:
        damage = f"{self.damaged} of {len(self.times)} frames are damaged" if self.damaged else ""
        return "; ".join(filter(None, [self.truncated, damage]))


def reencode(source: VideoSource, target: Path, recipe: Recipe) -> Result:
    """Write a copy of a video, which appears under its name once its picture was verified.

    Sound that cannot be written is left out, and the copy's flaw says so.

    Raises:
        DecodeError: the source cannot be read, or the copy does not show the same frames at the same times.
        OSError: the copy cannot be written.
    """
    encoded, lost = _EncodedFrames(), ""
    with replacing(target) as part:
        with open_video(source) as decoder:
            name, heard = decoder.info.path, recipe.sound and decoder.info.has_audio
            try:
                _encode(decoder, part, recipe, encoded, source if heard else None)
            except (av.FFmpegError, ValueError, IndexError) as error:
                if not heard or getattr(error, "errno", None) in NO_ROOM:
                    raise
                encoded, lost = _EncodedFrames(), f"its sound cannot be kept: {error}"
                _encode(decoder, part, recipe, encoded, None)
        psnr = _verify(name, part, encoded)
    return Result(len(encoded.times), psnr, "; ".join(filter(None, (encoded.flaw, lost))))


def _encode(decoder: Decoder, part: Path, recipe: Recipe, encoded: _EncodedFrames, heard: VideoSource | None) -> None:
    """Encode the picture, and the sound of ``heard`` beside it."""
    info = decoder.info
    size = recipe.size(info.height, info.width)
    rate = Fraction(info.fps).limit_denominator(1001 * 120)
    with contextlib.ExitStack() as open_files:
        sound = None if heard is None else open_files.enter_context(Sound(heard))
        container, stream = open_files.enter_context(_writer(part, size, rate, recipe))
        if sound is not None:
            sound.add_to(container)
        for frames in decoder.frames(size=size):
            encoded.note(frames)
            images = rearrange(frames.video, "t c h w -> t h w c").contiguous().numpy()
            for image, time in zip(images, frames.times):
                frame = av.VideoFrame.from_ndarray(image, format="rgb24")
                frame = frame.reformat(
                    format="yuv420p", dst_colorspace=Colorspace.ITU601, dst_color_range=ColorRange.MPEG
                )
                frame.pts, frame.time_base = round(time * TICKS), Fraction(1, TICKS)
                container.mux(stream.encode(frame))
            if sound is not None:
                sound.write_until(container, float(frames.times[-1]))
        container.mux(stream.encode(None))
        if sound is not None:
            sound.write_until(container)


@contextlib.contextmanager
def _writer(
    path: Path, size: tuple[int, int], rate: Fraction, recipe: Recipe
) -> Iterator[tuple[av.container.OutputContainer, av.VideoStream]]:
    """An mp4 file with an H.264 stream of GOPs of one length: a key frame, B frames, a reference, B frames ..."""
    params = {
        **{"keyint": recipe.gop, "min-keyint": recipe.gop, "scenecut": 0, "open-gop": 0},
        **{"bframes": min(recipe.b_frames, recipe.gop - 1), "b-adapt": 0, "b-pyramid": "none"},
    }
    options = {
        **{"preset": "fast", "tune": "fastdecode", "crf": str(recipe.crf), **REPEATABLE},
        "x264-params": ":".join(f"{key}={value}" for key, value in params.items()),
    }
    with av.open(str(path), "w", format="mp4", options={"movflags": "faststart"}) as container:
        stream = container.add_stream("libx264", rate=rate, options=options)
        stream.height, stream.width = size
        stream.pix_fmt = "yuv420p"
        stream.time_base = stream.codec_context.time_base = Fraction(1, TICKS)
        stream.codec_context.colorspace, stream.codec_context.color_range = 6, ColorRange.MPEG
        stream.codec_context.thread_count = 1
        yield container, stream


def _verify(name: str, part: Path, encoded: _EncodedFrames) -> float:
    """The PSNR of the compared frames of a copy, in brightness, decibels.

    Raises:
        DecodeError: it differs from its source in number, times or content of its frames.
    """
    with open_video(part) as copy:
        times = copy.times()
        if len(times) != len(encoded.times):
            raise DecodeError(name, 0, f"its copy has {len(times)} frames instead of {len(encoded.times)}")
        late = float(np.abs(times - (np.array(encoded.times) - encoded.times[0])).max())
        if late > TIME_ERROR:
            raise DecodeError(name, 0, f"the times of its copy are wrong by up to {late:.4f} s")
        places, expected = encoded.compared
        shown = copy.frames_at(times[places])
    # Of brightness alone: small saturated details lose their colour to 4:2:0, as everywhere.
    weights = torch.tensor(GREY, dtype=torch.float64).view(3, 1, 1)
    error = ((shown.video.double() - expected.double()) * weights).sum(dim=1).square().mean().item()
    psnr = 10 * math.log10(255**2 / max(error, 1e-2))
    if any(shown.damaged) or psnr < LOWEST_PSNR:
        raise DecodeError(name, 0, f"its copy does not look like it (PSNR {psnr:.1f} dB)")
    return psnr
