"""Samples of a trained generator, written to one file."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, Self

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from filmstrip.bounds import Count, CountOrZero, Rate, Seed, check_numbers
from filmstrip.commands.stopping import NOTHING_KEPT, keeping
from filmstrip.errors import UserError
from filmstrip.nn.sampling import SampleSettings, Sampling
from filmstrip.progress import counted
from filmstrip.runs.config import read_config
from filmstrip.runs.generators import BATCH_SIZE, load_generator, stream_samples
from filmstrip.video import Mp4File, write_grid, write_video

MOVING = (".mp4", ".gif", ".webp")
MAX_COLUMNS = 16
"""Maximum number of frames of a sample that a png shows, evenly spaced."""
SEAM = 2
"""Gap between samples in pixels; even, so that the video's size stays even."""


@dataclass(frozen=True, kw_only=True)
class SamplingRequest:
    """The options of ``filmstrip generate``: which samples to draw, and where to write them."""

    frames: Count | None = None
    """Number of frames of each sample, including provided ones; by default one per action, or as the generator was
    trained."""
    condition: tuple[str, ...] = ()
    """Conditions of the samples: a video to continue; a class, by name or number (several are used in turn); actions,
    one per frame: a .npy, .npz, .json or .csv file, or numbers separated by commas."""
    text: tuple[str, ...] = ()
    """Texts that say what is to be seen, for a generator that reads texts (language.lwm, generation.vdt:tiny_text);
    several are used in turn."""
    context_frames: Count = 1
    """Number of frames taken from the start of a video to continue."""
    given: tuple[CountOrZero, ...] = ()
    """Numbers of frames, from 0, that are taken from the video in place of its first ones, for a generator that makes
    the rest around them (generation.vdt)."""
    out: Path = Path("sample.mp4")
    """File to write: mp4, gif or webp with all samples side by side, or png with a row of frames per sample."""
    num_samples: Count = 4
    """Number of samples."""
    seed: Seed = 0
    """Base seed; sample i depends on seed + i only, not on the number of samples."""
    batch_size: Count = BATCH_SIZE
    """Number of samples drawn at once."""
    fps: Rate | None = None
    """Frames per second of the file; by default as the video to continue, or 8."""
    sampling: SampleSettings = field(default_factory=Sampling)
    """Settings of sampling."""

    def __post_init__(self) -> None:
        check_numbers(self)
        if self.out.suffix.lower() not in (*MOVING, ".png"):
            raise UserError(f"cannot write {self.out}: name it .mp4, .gif, .webp or .png")


def continues_text(folder: Path) -> bool:
    """Whether a run folder holds a language model of text alone, and no generator of video.

    Raises:
        UserError: the folder is not a run folder.
    """
    return read_config(folder / "config.json").objective.continues_text


def default_request(folder: Path) -> SamplingRequest:
    """The request with a run's own sampling settings.

    Raises:
        UserError: the folder is not a run folder.
    """
    own = getattr(read_config(folder / "config.json").objective, "sampling", None)
    return SamplingRequest(sampling=own) if isinstance(own, SampleSettings) else SamplingRequest()


def generate(folder: Path, request: SamplingRequest) -> int:
    """Draw samples and write them as they are generated, and print the frames per second; returns 0.

    An interruption keeps the frames generated so far, and adds a note about them to its exception.

    Raises:
        UserError: the run is not a generator, or does not support the request.
    """
    generator = load_generator(folder)
    condition, fps = generator.condition(
        *request.condition,
        num_samples=request.num_samples,
        num_frames=request.frames,
        context_frames=request.context_frames,
        given=request.given,
        prompts=request.text,
    )
    context = len(request.given) or (0 if condition.video is None else condition.video.shape[1])
    made, start = 0, time.monotonic()

    def kept() -> str:
        whole = made and request.out.exists()
        return f"{request.out} keeps {made} of {condition.num_frames} frames" if whole else NOTHING_KEPT

    try:
        with (
            keeping(kept, at=(KeyboardInterrupt,)),  # after a full disk there is no file
            _sink(request.out, request.fps or fps) as sink,
            counted("sampling", condition.num_frames) as done,
        ):
            for piece in stream_samples(
                generator.objective,
                condition,
                seed=request.seed,
                sampling=request.sampling,
                batch_size=request.batch_size,
            ):
                sink.add(piece)
                made += piece.shape[1]
                done(made)
    except ValueError as error:
        raise UserError(f"{folder} does not support this request: {error}") from error
    speed = request.num_samples * (made - context) / (time.monotonic() - start)
    print(f"{request.out}: {request.num_samples} x {made} frames, {speed:.1f} frames/s")
    return 0


class _Sink(Protocol):
    """Destination of pieces ``B t C H W``; leaving the context writes the file, also after an exception."""

    def add(self, piece: Tensor) -> None: ...

    def __enter__(self) -> Self: ...

    def __exit__(self, *exception: object) -> None: ...


def _sink(path: Path, fps: float) -> _Sink:
    return _Streamed(path, fps) if path.suffix.lower() == ".mp4" else _Collected(path, fps)


class _Streamed(Mp4File):
    """An mp4 of samples side by side, written piece by piece."""

    def add(self, piece: Tensor) -> None:
        super().add(tiled(piece))


class _Collected:
    """An animation or a grid of frames, which can only be written as a whole."""

    def __init__(self, path: Path, fps: float) -> None:
        self.path, self.fps = path, fps
        self.pieces: list[Tensor] = []

    def add(self, piece: Tensor) -> None:
        self.pieces.append(piece)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        if not self.pieces:
            return
        video = torch.cat(self.pieces, dim=1)
        if self.path.suffix.lower() == ".png":
            shown = torch.linspace(0, video.shape[1] - 1, min(MAX_COLUMNS, video.shape[1])).round().long()
            write_grid(self.path, list(video[:, shown]))
        else:
            write_video(self.path, tiled(video), self.fps)


def tiled(video: Tensor) -> Tensor:
    """Clips ``B T C H W`` in 0..1 tiled into one (``T C H' W'``), as square as possible, with white gaps."""
    columns = math.ceil(math.sqrt(len(video)))
    rows = math.ceil(len(video) / columns)
    empty = video.new_ones(rows * columns - len(video), *video.shape[1:])
    padded = F.pad(torch.cat([video, empty]), (0, SEAM, 0, SEAM), value=1.0)
    grid = rearrange(padded, "(r k) t c h w -> t c (r h) (k w)", k=columns)
    return grid[..., :-SEAM, :-SEAM]
