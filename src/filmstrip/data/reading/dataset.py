"""From samples to micro-batches inside a worker process: decoding, and the handling of bad files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils.data import Dataset

from filmstrip.data.actions import ActionSpace
from filmstrip.data.blanking import Rectangle, blank
from filmstrip.data.config import Data
from filmstrip.data.kinds.kind import Row
from filmstrip.data.kinds.specification import Specification
from filmstrip.data.reading.order import Draw, Pick, Share, derive_seed
from filmstrip.data.reading.workers import Current
from filmstrip.data.sample import Sample
from filmstrip.data.tools.parallel import CRASHED
from filmstrip.errors import UserError
from filmstrip.protocols import Batch
from filmstrip.video.decoder import DecodeError

ATTEMPTS = 50
"""Maximum number of replacements tried for one sample; that many bad files in a row are not chance."""


class Unreadable(NamedTuple):
    """A file that could not be read completely, and the reason."""

    name: str
    reason: str
    used: bool
    """Whether its decodable frames were used nevertheless."""


@dataclass
class ReadReport:
    """A worker's report to the main process with a micro-batch."""

    unreadable: list[Unreadable] = field(default_factory=list)
    refused: str | None = None
    """Error in the settings instead of a file, which stops the run."""


class _Read(NamedTuple):
    """What was read of one sample: its clips, and a seed for each."""

    sample: Sample
    index: int  # type: ignore[assignment]  # in place of a tuple's method of that name
    clips: Sequence[Row]
    seeds: Sequence[int]


class _SampleSet(Dataset):
    """The common part of training and evaluation sets: samples, some of which turn out to be bad."""

    def __init__(self, samples: Sequence[Sample], data: Data, actions: ActionSpace | None):
        self.actions = actions
        self.samples = samples
        self.data = data
        self.labelled = all(sample.is_labelled for sample in samples)
        self.specification = samples[0].specification
        self.bad: dict[int, Unreadable] = {}
        self.current: Current | None = None

    def crashed(self, index: int) -> None:
        """Never read a sample again: it killed the process that read it."""
        self.bad[index] = Unreadable(self.samples[index].name, CRASHED, used=False)

    def _cut(self, index: int, report: ReadReport, data: Data | None = None, **settings: Any) -> list[Row] | None:
        """The clips of one sample; none, and a line in the report, if it cannot be read."""
        sample = self.samples[index]
        if index not in self.bad:
            try:
                with self.current.at(index) if self.current else nullcontext():
                    clips = sample.cut(data or self.data, actions=self.actions, **settings)
            except (DecodeError, OSError) as error:
                self.bad[index] = _unreadable(sample, error)
            else:
                report.unreadable.extend(_damage(sample, clips))
                return _blanked(clips, self.data.blanked)
        report.unreadable.append(self.bad[index])
        return None


def _blanked(clips: list[Row], rectangles: Sequence[Rectangle]) -> list[Row]:
    """The same rows with parts of their frames blanked."""
    if not rectangles:
        return clips
    return [
        replace(row, content=row.content | {"video": blank(row.content["video"], rectangles, row.shown)})
        if "video" in row.content
        else row
        for row in clips
    ]


class TrainingSet(_SampleSet):
    """Training micro-batches by their draws: a pair of the batch (none if all files failed) and a report."""

    def __init__(
        self,
        samples: Sequence[Sample],
        data: Data,
        share: Share,
        actions: ActionSpace | None = None,
    ):
        super().__init__(samples, data, actions)
        self.share = share
        self.seed = share.seed
        self.portions = share.portions
        self.of_one_frame = replace(data, clip=replace(data.clip, num_frames=1))
        if any(portion.together > 1 for portion in self.portions):
            self.labelled = False  # samples of one row each have their own

    def __getitem__(self, draws: Sequence[Draw]) -> tuple[Batch | None, ReadReport]:
        """Decode the clips of each draw; a bad file gives way to another that depends on the position alone.

        Where samples share rows, the other one is no longer, and a sample is left out if there is none.
        """
        report = ReadReport()
        rows = _Rows(self.labelled, self.specification)
        shared: list[list[int]] = []
        data = _of_batch(self.data, derive_seed(self.seed, "native", draws[0].position))
        try:
            for draw in draws:
                found = [self._read(data, draw, i, pick, report) for i, pick in enumerate(_picks(draw))]
                reads = [one for one in found if one is not None]
                if self.share.packing is None and len(reads) < len(found):
                    return None, report
                for one in reads if self.share.packing else [_joined(reads)]:
                    rows.add(*one)
                shared.append([one.index for one in reads])
        except UserError as error:
            return None, ReadReport(refused=str(error))
        batch = rows.collate()
        if batch is not None and self.share.packing is not None:
            means = self.share.means(draws[0].position // self.share.videos)
            batch |= {"document": self.share.packing.documents(shared), "step_means": torch.tensor(means)}
        return batch, report

    def _candidates(self, draw: Draw, number: int, index: int) -> Iterable[int]:
        """A sample, and others of its source that may stand in for it."""
        yield index
        packing = self.share.packing
        first = sum(portion.num_samples for portion in self.portions[: draw.source])
        own = (number,) if number else ()
        for attempt in range(ATTEMPTS):
            seed = derive_seed(self.seed, "replacement", draw.position, attempt, *own)
            other = first + seed % self.portions[draw.source].num_samples
            if packing is None or packing.lengths[other] <= packing.lengths[index]:  # it takes the same place
                yield other

    def _read(self, data: Data, draw: Draw, number: int, pick: Pick, report: ReadReport) -> _Read | None:
        """The clips of a row's sample of this number, or of what stands in for it; bad ones are in the report."""
        together = self.portions[draw.source].together > 1
        for index in self._candidates(draw, number, pick.index):
            seeds = [derive_seed(self.seed, pick.epoch, index, clip) for clip in range(self.data.clips_per_video)]
            own = self.of_one_frame if together else data
            clips = self._cut(index, report, own, rng=np.random.default_rng(seeds[0]), num_clips=len(seeds))
            if clips is not None:
                return _Read(self.samples[index], index, clips, seeds)
        return None


class EvaluationSet(_SampleSet):
    """Evaluation views of groups of videos, by the videos' places in the split: a pair as in training."""

    def __init__(
        self,
        samples: Sequence[Sample],
        data: Data,
        num_clips: int,
        num_crops: int,
        actions: ActionSpace | None = None,
    ):
        native = data.clip.native
        if native is not None:
            data = replace(data, clip=replace(data.clip, native=native.evaluated()))
        super().__init__(samples, data, actions)
        self.num_clips = num_clips
        self.num_crops = num_crops
        self.shared = {file for file, count in Counter(map(_file, samples)).items() if count > 1}
        """Files of several samples, which are read in turn; one in which that fails is read for each alone."""

    def __getitem__(self, indices: Sequence[int]) -> tuple[Batch | None, ReadReport]:
        """Decode the views of each video; bad files are left out, never replaced."""
        report = ReadReport()
        rows = _Rows(self.labelled, self.specification)
        try:
            for _, neighbours in groupby(indices, lambda index: _file(self.samples[index])):
                for index, views in self._views(list(neighbours), report):
                    sample = self.samples[index]
                    seeds = [derive_seed("evaluation", sample.split, index, view) for view in range(len(views))]
                    rows.add(sample, index, views, seeds)
        except UserError as error:
            return None, ReadReport(refused=str(error))
        return rows.collate(), report

    def crashed(self, index: int) -> None:
        """Never read a sample again, or no other with it: the first of several that were read in turn is named."""
        if (file := _file(self.samples[index])) in self.shared:
            self.shared.remove(file)
        else:
            super().crashed(index)

    def _views(self, indices: list[int], report: ReadReport) -> Iterator[tuple[int, Sequence[Row]]]:
        """The views of those of some samples of one file that can be read, and lines in the report."""
        found = self._in_turn([index for index in indices if index not in self.bad])
        for index in indices:
            if index in found:
                yield index, found[index]
            elif (views := self._cut(index, report, num_clips=self.num_clips, num_crops=self.num_crops)) is not None:
                yield index, views

    def _in_turn(self, indices: list[int]) -> dict[int, list[Row]]:
        """The views of samples of one file, which is opened once; not of those that are to be read each alone.

        That is all of them where one cannot be read, and those that are damaged: what stands in for frames that are
        lost should not depend on what else is read.
        """
        samples = [self.samples[index] for index in indices]
        # Actions need the file's frames.
        readable = self.actions is None and all(sample.in_turn for sample in samples)
        if len(samples) < 2 or not readable or _file(samples[0]) not in self.shared:
            return {}
        try:
            with self.current.at(indices[0]) if self.current else nullcontext():
                found = samples[0].cut_in_turn(samples, self.data, self.num_clips, self.num_crops)
        except (DecodeError, OSError):  # of one of them: each is asked for alone, to say which
            return {}
        found = [_blanked(clips, self.data.blanked) for clips in found]
        return {index: clips for index, clips in zip(indices, found) if not _damage(self.samples[index], clips)}


class _Rows:
    """The rows of a batch under construction."""

    def __init__(self, labelled: bool, specification: Specification):
        self.labelled = labelled
        self.specification = specification
        self.clips: list[dict[str, torch.Tensor]] = []
        self.seeds: list[int] = []
        self.names: list[str] = []
        self.labels: list[int | torch.Tensor | None] = []
        self.indices: list[int] = []
        self.spans: list[tuple[float, float]] = []

    def add(
        self, sample: Sample, index: int, clips: Sequence[Row], seeds: Sequence[int], name: str | None = None
    ) -> None:
        self.clips += [clip.content for clip in clips]
        self.seeds += seeds
        self.names += [name or sample.name] * len(clips)
        label = sample.label if sample.target is None else sample.target.tensor()
        self.labels += [label] * len(clips)
        self.indices += [index] * len(clips)
        self.spans += [(clip.times[0], clip.times[-1]) for clip in clips]

    def collate(self) -> Batch | None:
        if not self.clips:
            return None
        batch: Batch = {
            **self.specification.collate(self.clips),
            "seed": torch.tensor(self.seeds, dtype=torch.int64),
            "name": self.names,
            "index": torch.tensor(self.indices, dtype=torch.int64),
            "span": torch.tensor(self.spans, dtype=torch.float64),
        }
        if self.labelled:
            targets = [label for label in self.labels if isinstance(label, torch.Tensor)]
            batch["label"] = torch.stack(targets) if targets else torch.tensor(self.labels, dtype=torch.int64)
        return batch


def _of_batch(data: Data, seed: int) -> Data:
    """The data with the sizes of one batch, where frames have their own."""
    if (native := data.clip.native) is None:
        return data
    return replace(data, clip=replace(data.clip, native=native.of_batch(seed)))


def _picks(draw: Draw) -> tuple[Pick, ...]:
    """All samples of a row."""
    return (Pick(draw.epoch, draw.index), *draw.others)


def _joined(found: Sequence[_Read]) -> tuple[Sample, int, Sequence[Row], Sequence[int], str]:
    """The samples of one row, one after another in time; it is named, numbered and seeded after the first."""
    first = found[0]
    if len(found) == 1:
        return (*first, first.sample.name)
    clips = [
        Row(
            content={
                key: torch.cat([row.content[key] for row in rows]) if value.ndim else value
                for key, value in rows[0].content.items()
            },
            times=rows[0].times,
            damaged=tuple(flag for row in rows for flag in row.damaged),
        )
        for rows in zip(*(one.clips for one in found))
    ]
    return first.sample, first.index, clips, first.seeds, f"{first.sample.name} and {len(found) - 1} others"


def _unreadable(sample: Sample, error: DecodeError | OSError) -> Unreadable:
    reason = error.reason if isinstance(error, DecodeError) else error.strerror or str(error)
    return Unreadable(sample.name, reason, used=False)


def _damage(sample: Sample, clips: Sequence[Row]) -> list[Unreadable]:
    """A line for the report if frames that were used are damaged, or the file is known to end too early."""
    reasons = [clip.truncated for clip in clips if clip.truncated][:1]
    if count := sum(sum(clip.damaged) for clip in clips):
        reasons.append(f"{count} of {sum(len(clip.damaged) for clip in clips)} frames read from it are damaged")
    return [Unreadable(sample.name, "; ".join(reasons), used=True)] if reasons else []


def _file(sample: Sample) -> tuple[str, int | None]:
    return sample.path, sample.offset
