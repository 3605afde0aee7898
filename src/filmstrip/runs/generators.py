"""Trained generators, from a run folder: samples as they are made."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from filmstrip.data.config import DataInfo
from filmstrip.errors import UserError
from filmstrip.inference import device_of, inference, stepwise
from filmstrip.protocols import Completes, Condition, Generator, Objective, StreamingGenerator, as_float
from filmstrip.runs.conditions import read_condition
from filmstrip.runs.config import Run
from filmstrip.runs.loading import load_data_info, load_objective

BATCH_SIZE = 16
"""Number of samples drawn at once, if nothing is said."""


class VideoGenerator(nn.Module):
    """A trained generator, which reads what its samples are to follow from words and files."""

    def __init__(self, objective: Objective, run: Run, info: DataInfo, folder: Path | None = None) -> None:
        super().__init__()
        self.objective = objective
        self.run = run
        self.info = info
        self.folder = folder
        self.eval()

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes that it was trained with; none without."""
        return self.info.classes

    def condition(
        self,
        *texts: str,
        num_samples: int = 4,
        num_frames: int | None = None,
        context_frames: int = 1,
        given: Sequence[int] = (),
        prompts: Sequence[str] = (),
    ) -> tuple[Condition, float]:
        """What samples are to follow, and the frames per second that go with it.

        Each text is a file to continue, a class (several take turns), or actions
        (:func:`~filmstrip.runs.conditions.read_condition`); ``prompts`` are texts that say what is to be seen.

        Raises:
            UserError: a text is nothing that the run knows, or does not fit another.
        """
        return read_condition(
            texts,
            self.run,
            self.info,
            batch_size=num_samples,
            num_frames=num_frames,
            context_frames=context_frames,
            given=given,
            prompts=prompts,
            folder=self.folder,
        )

    def sample(
        self,
        *texts: str,
        num_samples: int = 4,
        num_frames: int | None = None,
        context_frames: int = 1,
        given: Sequence[int] = (),
        seed: int = 0,
        sampling: Any = None,
        batch_size: int = BATCH_SIZE,
        prompts: Sequence[str] = (),
    ) -> Tensor:
        """Samples, ``B T C H W`` in 0..1 on the CPU, beginning with the frames of a file to continue.

        Args:
            texts: What they are to follow, as of :meth:`condition`.
            num_samples: ``B``; sample ``i`` depends on ``seed + i`` alone.
            num_frames: ``T``; by default one per action, or as the generator was trained.
            context_frames: Number of frames taken from the start of a file to continue.
            given: In place of them, numbers of frames that are taken from it, from 0, of a generator that makes the
                rest around them.
            seed: Base seed.
            sampling: :class:`~filmstrip.nn.sampling.SampleSettings`; by default the run's own.
            batch_size: Number of samples drawn at once.
            prompts: Texts that say what is to be seen; several take turns.

        Raises:
            UserError: the run does not support this.
        """
        condition, _ = self.condition(
            *texts,
            num_samples=num_samples,
            num_frames=num_frames,
            context_frames=context_frames,
            given=given,
            prompts=prompts,
        )
        try:
            pieces = list(
                stream_samples(self.objective, condition, seed=seed, sampling=sampling, batch_size=batch_size)
            )
        except ValueError as error:
            raise UserError(f"this generator does not support that: {error}") from error
        return torch.cat(pieces, dim=1)


def load_generator(folder: str | Path, device: torch.device | str | None = None) -> VideoGenerator:
    """A trained generator from its run folder.

    Raises:
        UserError: this is no run folder, or what it holds is no generator.
    """
    objective, run = load_objective(folder, device)
    if not isinstance(objective, Generator):
        raise UserError(
            f"{folder} holds a {type(objective).__name__}, which is not a generator: provide a run of generation.*"
        )
    return VideoGenerator(objective, run, load_data_info(folder), Path(folder))


def stream_samples(
    generator: Objective,
    condition: Condition,
    *,
    seed: int = 0,
    sampling: Any = None,
    batch_size: int = BATCH_SIZE,
) -> Iterator[Tensor]:
    """All samples in pieces along time (``B t C H W`` on the CPU), beginning with the provided frames.

    A generator that cannot stream returns a single piece. An interruption before all samples have their first piece
    yields those that do.

    Raises:
        UserError: other than first frames are given, and the generator goes on from these alone.
    """
    if condition.known is not None and not isinstance(generator, Completes):
        raise UserError(
            f"{type(generator).__name__} goes on from first frames, and others were given: leave out --given, or "
            "give a run of generation.vdt or generation.latent_fdm"
        )
    device = device_of(generator)
    firsts = range(0, condition.batch_size, batch_size)
    streams = [
        _stream(generator, _part(condition, first, batch_size, device), seed + first, sampling) for first in firsts
    ]
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


def _stream(generator: Objective, condition: Condition, seed: int, sampling: Any) -> Iterator[Tensor]:
    """The pieces of one batch of samples, on the CPU, beginning with the provided frames."""
    assert isinstance(generator, Generator), "checked where it was loaded"
    # What is given other than first frames is no beginning that pieces could follow.
    if condition.known is not None or not isinstance(generator, StreamingGenerator):
        with inference(generator):
            whole = generator.sample(condition, seed=seed, sampling=sampling).cpu()
        yield whole
        return
    before = [] if condition.video is None else [as_float(condition.video).cpu()]
    for piece in stepwise(generator, generator.stream(condition, seed=seed, sampling=sampling)):
        yield torch.cat([*before, piece.cpu()], dim=1)
        before = []


def _part(condition: Condition, first: int, size: int, device: torch.device) -> Condition:
    """``size`` samples of a condition, starting at ``first``, on a device."""

    def part(whole: Tensor | None) -> Tensor | None:
        return None if whole is None else whole[first : first + size].to(device)

    return replace(
        condition,
        batch_size=min(size, condition.batch_size - first),
        video=part(condition.video),
        known=part(condition.known),
        label=part(condition.label),
        action=part(condition.action),
        text=tuple({name: part(value) for name, value in batch.items()} for batch in condition.text),
    )
