"""Samples of a trained generator, in one file."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol, Self

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from filmstrip.bounds import Count, Rate, Seed, check_numbers
from filmstrip.commands.stopping import NOTHING_KEPT, keeping
from filmstrip.errors import UserError
from filmstrip.inference import device_of, inference, stepwise
from filmstrip.nn.sampling import Sampling
from filmstrip.progress import counted
from filmstrip.protocols import Condition, Generator, StreamingGenerator, as_float
from filmstrip.runs.conditions import read_condition
from filmstrip.runs.config import read_config
from filmstrip.runs.loading import load_data_info, load_objective
from filmstrip.video import Mp4File, write_grid, write_video

MOVING = (".mp4", ".gif", ".webp")
MOST_COLUMNS = 16
"""Frames of a sample that a png shows, evenly spaced."""
SEAM = 2
"""Pixels between samples; even, so that the picture's size stays even."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """What to make."""

    frames: Count | None = None
    """Frames of each sample, the given ones included; by default as many as there are actions, or as the generator
    was trained on."""
    condition: tuple[str, ...] = ()
    """What samples follow: a video to continue; a class, by name or number (several take turns); actions, one for
    each frame: a .npy, .npz, .json or .csv file, or numbers with commas between them."""
    context_frames: Count = 1
    """Frames taken from the start of a video to continue."""
    out: Path = Path("sample.mp4")
    """mp4, gif or webp: all samples side by side; png: a row of frames for each sample."""
    num_samples: Count = 4
    seed: Seed = 0
    """Sample i depends on seed + i alone, not on how many there are."""
    batch_size: Count = 16
    """Samples drawn at once."""
    fps: Rate | None = None
    """Frames per second of the file; by default as the video that is continued, or 8."""
    sampling: Sampling = field(default_factory=Sampling)
    """How codes are drawn."""

    def __post_init__(self) -> None:
        check_numbers(self)
        if self.out.suffix.lower() not in (*MOVING, ".png"):
            raise UserError(f"cannot write {self.out}: name it .mp4, .gif, .webp or .png")


def default_request(folder: Path) -> Request:
    """The request that a run's own settings of sampling make.

    Raises:
        UserError: this is no run folder.
    """
    own = getattr(read_config(folder / "config.json").objective, "sampling", None)
    return Request(sampling=own) if isinstance(own, Sampling) else Request()


def generate(folder: Path, request: Request) -> int:
    """Draw samples and write them as they are made, with the frames per second; returns 0.

    An interruption keeps what was drawn by then, and says so in a note of its exception.

    Raises:
        UserError: the run is no generator, or cannot make what is asked for.
    """
    objective, run = load_objective(folder)
    if not isinstance(objective, Generator):
        raise UserError(
            f"{folder} holds a {type(objective).__name__}, which does not generate: give a run of generation.*"
        )
    condition, fps = read_condition(
        request.condition,
        run,
        load_data_info(folder),
        batch_size=request.num_samples,
        num_frames=request.frames,
        context_frames=request.context_frames,
    )
    context = 0 if condition.video is None else condition.video.shape[1]
    made, start = 0, time.monotonic()

    def kept() -> str:
        whole = made and request.out.exists()
        return f"{request.out} keeps {made} of {condition.num_frames} frames" if whole else NOTHING_KEPT

    try:
        with (
            keeping(kept, at=(KeyboardInterrupt,)),  # what a full disk stops is not there at all
            _sink(request.out, request.fps or fps) as sink,
            counted("sampling", condition.num_frames) as done,
        ):
            for piece in samples(objective, condition, request):
                sink.add(piece)
                made += piece.shape[1]
                done(made)
    except ValueError as error:
        raise UserError(f"{folder} cannot make this: {error}") from error
    speed = request.num_samples * (made - context) / (time.monotonic() - start)
    print(f"{request.out}: {request.num_samples} x {made} frames, {speed:.1f} frames/s")
    return 0


def samples(generator: Generator, condition: Condition, request: Request) -> Iterator[Tensor]:
    """All samples, in pieces along time (``B t C H W`` on the CPU), the frames that are given first.

    A generator that cannot stream gives a single piece. An interruption before the first piece of all samples is
    whole leaves the samples that have theirs.
    """
    device = device_of(generator)
    parts = [
        _part(condition, i, request.batch_size, device) for i in range(0, condition.batch_size, request.batch_size)
    ]
    seeds = range(request.seed, request.seed + condition.batch_size, request.batch_size)
    streams = [_stream(generator, part, seed, request.sampling) for part, seed in zip(parts, seeds)]
    begun = False
    while True:
        pieces: list[Tensor] = []
        try:
            for stream in streams:
                if (piece := next(stream, None)) is None:
                    return
                pieces.append(piece)
        except KeyboardInterrupt:
            if pieces and not begun:
                yield torch.cat(pieces)
            raise
        yield torch.cat(pieces)
        begun = True


def _stream(generator: Generator, condition: Condition, seed: int, sampling: Sampling | None) -> Iterator[Tensor]:
    """The pieces of one batch of samples, on the CPU, the frames that are given first."""
    if not isinstance(generator, StreamingGenerator):
        with inference(generator):
            whole = generator.sample(condition, seed=seed, sampling=sampling).cpu()
        yield whole
        return
    before = [] if condition.video is None else [as_float(condition.video).cpu()]
    for piece in stepwise(generator, generator.stream(condition, seed=seed, sampling=sampling)):
        yield torch.cat([*before, piece.cpu()], dim=1)
        before = []


def _part(condition: Condition, first: int, size: int, device: torch.device) -> Condition:
    """``size`` samples of a condition from the ``first`` on, on a device."""
    given = {key: getattr(condition, key) for key in ("video", "label", "action")}
    return replace(
        condition,
        batch_size=min(size, condition.batch_size - first),
        **{key: v if v is None else v[first : first + size].to(device) for key, v in given.items()},
    )


class _Sink(Protocol):
    """Where pieces ``B t C H W`` go; leaving it writes the file, also when that is because of an exception."""

    def add(self, piece: Tensor) -> None: ...

    def __enter__(self) -> Self: ...

    def __exit__(self, *exception: object) -> None: ...


def _sink(path: Path, fps: float) -> _Sink:
    return _Streamed(path, fps) if path.suffix.lower() == ".mp4" else _Collected(path, fps)


class _Streamed(Mp4File):
    """Side by side into an mp4, piece by piece."""

    def add(self, piece: Tensor) -> None:
        super().add(tiled(piece))


class _Collected:
    """A moving picture or a grid of frames, which can only be written as a whole."""

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
            shown = torch.linspace(0, video.shape[1] - 1, min(MOST_COLUMNS, video.shape[1])).round().long()
            write_grid(self.path, list(video[:, shown]))
        else:
            write_video(self.path, tiled(video), self.fps)


def tiled(video: Tensor) -> Tensor:
    """Clips ``B T C H W`` in 0..1 as one (``T C H' W'``), as square as can be, with white seams."""
    columns = math.ceil(math.sqrt(len(video)))
    rows = math.ceil(len(video) / columns)
    empty = video.new_ones(rows * columns - len(video), *video.shape[1:])
    padded = F.pad(torch.cat([video, empty]), (0, SEAM, 0, SEAM), value=1.0)
    grid = rearrange(padded, "(r k) t c h w -> t c (r h) (k w)", k=columns)
    return grid[..., :-SEAM, :-SEAM]
