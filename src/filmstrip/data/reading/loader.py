"""Batches for training and evaluation, decoded in worker processes and independent of their number."""

from __future__ import annotations

import csv
from collections.abc import Generator, Iterable, Iterator
from pathlib import Path

from filmstrip.data.config import Data
from filmstrip.data.reading.dataset import EvaluationSet, ReadReport, TrainingSet, Unreadable
from filmstrip.data.reading.order import Share
from filmstrip.data.reading.workers import load
from filmstrip.data.sample import Source
from filmstrip.errors import UserError
from filmstrip.files import write_csv
from filmstrip.protocols import Batch

FAIR_SAMPLE = 1000
"""Minimum number of samples (or the whole split) relative to which the fraction of bad files is limited."""

SHOWN = 20
"""Maximum number of bad files listed in an error message."""


class TrainLoader:
    """An endless stream of training micro-batches of one process.

    ``batch_size`` counts clips, or rows that samples share, of one optimiser step over all ``world`` processes and
    ``accumulate`` micro-batches. Batches depend on the seed and the step alone: not on the number of workers, nor on
    where the stream began.
    """

    def __init__(self, source: Source, data: Data, *, seed: int, rank: int = 0, world: int = 1, accumulate: int = 1):
        """Prepare the stream; nothing is read yet.

        Raises:
            UserError: the training split does not exist, or a source of several has none of it, or ``batch_size``
                does not divide as it must, or a sample is longer than the row that it shares with others.
        """
        samples = source.split(data.train_split)
        self._share = Share(
            seed=seed,
            portions=source.portions(data),
            batch_size=data.batch_size,
            clips_per_video=data.clips_per_video,
            rank=rank,
            world=world,
            accumulate=accumulate,
            packing=source.packing(data, seed),
        )
        self._set = TrainingSet(samples, data, self._share, source.actions)
        self._data = data
        self._found: dict[str, Unreadable] = {}
        self._videos_read = 0
        self._active: Generator[Batch, None, None] | None = None

    @property
    def steps_per_epoch(self) -> float:
        """Optimiser steps in one pass over the training videos."""
        return self._share.steps_per_epoch

    @property
    def unreadable(self) -> list[Unreadable]:
        """The files that this process could not read completely so far."""
        return list(self._found.values())

    def stream(self, start: int) -> Iterator[Batch]:
        """Micro-batches from optimiser step ``start`` on, without end; an earlier stream of this loader is closed.

        Raises:
            UserError: (while iterating) more files than ``data.max_unreadable`` cannot be read; lists them.
        """
        self.close()
        self._active = self._batches(start)
        return self._active

    def close(self) -> None:
        """End the stream and its worker processes."""
        if self._active is not None:
            self._active.close()
            self._active = None

    def _batches(self, start: int) -> Generator[Batch, None, None]:
        for batch, report in load(self._set, self._share.micro_batches(start), self._data.num_workers):
            self._take(report, exhausted=batch is None)
            assert batch is not None, "refused by _take"
            self._videos_read += len(batch["name"]) // self._data.clips_per_video
            yield batch

    def _take(self, report: ReadReport, exhausted: bool) -> None:
        """Collect what a worker reported; stop the run if that is too much."""
        if report.refused:
            raise UserError(report.refused)
        self._found.update({entry.name: entry for entry in report.unreadable})
        lost = [entry for entry in self.unreadable if not entry.used]
        seen = min(max(self._videos_read, FAIR_SAMPLE), self._share.num_samples)
        if exhausted or len(lost) > self._data.max_unreadable * seen:
            raise UserError(
                f"{len(lost)} training files could not be read, more than the allowed fraction "
                f"(data.max_unreadable {self._data.max_unreadable:g}); `filmstrip data check` examines all:\n"
                + "\n".join(f"  {entry.name}: {entry.reason}" for entry in lost[:SHOWN])
                + (f"\n  and {len(lost) - SHOWN} more" if len(lost) > SHOWN else "")
            )


class EvalLoader:
    """One pass over a split, in order: every video as ``num_clips`` x ``num_crops`` adjacent rows.

    ``index`` tells which video of the split a row belongs to. Batches hold at most ``batch_size`` rows; with
    ``by_file`` these are of a single file, so that whole frames have one size, and those of a file come together.
    """

    def __init__(
        self,
        source: Source,
        data: Data,
        split: str,
        *,
        num_clips: int = 1,
        num_crops: int = 1,
        batch_size: int = 16,
        by_file: bool = False,
    ):
        samples = source.split(split)
        self._set = EvaluationSet(samples, data, num_clips, num_crops, source.actions)
        videos = max(1, batch_size // (num_clips * num_crops))
        files: dict[tuple[str, int | None] | None, list[int]] = {}
        for i, sample in enumerate(samples):
            files.setdefault((sample.path, sample.offset) if by_file else None, []).append(i)
        self._groups = [mine[i : i + videos] for mine in files.values() for i in range(0, len(mine), videos)]
        self.num_videos = len(samples)
        """Number of videos in a pass."""
        self._batch_size = batch_size
        self._num_workers = data.num_workers
        self.unreadable: list[Unreadable] = []
        """Files of the latest pass that could not be read completely."""

    def __iter__(self) -> Iterator[Batch]:
        """Begin a pass."""
        for batches in self.groups():
            yield from batches

    def groups(self, rank: int = 0, world: int = 1) -> Iterator[list[Batch]]:
        """A pass that ``world`` processes share: this one's batches in each of as many rounds as every process has.

        The batches of a pass are those of round 0 by rank, then those of round 1, and so on. A round may have none.
        """
        self.unreadable = []
        mine = self._groups[rank::world]
        for batch, report in load(self._set, mine, min(self._num_workers, len(mine))):
            if report.refused:
                raise UserError(report.refused)
            self.unreadable += report.unreadable
            yield [] if batch is None else list(_parts(batch, self._batch_size))
        if len(mine) < -(-len(self._groups) // world):
            yield []


def write_unreadable(path: Path, entries: Iterable[Unreadable]) -> None:
    """Write a list of bad files as CSV, replacing it at once; files that the list already holds stay in it."""
    lines = {}
    if path.exists():
        with path.open(newline="", encoding="utf-8") as file:
            lines = {row["name"]: row for row in csv.DictReader(file)}
    for entry in entries:
        lines[entry.name] = {"name": entry.name, "used": "yes" if entry.used else "no", "reason": entry.reason}
    write_csv(list(lines.values()), path, ["name", "used", "reason"])


def _parts(batch: Batch, size: int) -> Iterator[Batch]:
    """A batch in parts of at most ``size`` rows."""
    for i in range(0, len(batch["name"]), size):
        yield {key: value[i : i + size] for key, value in batch.items()}
