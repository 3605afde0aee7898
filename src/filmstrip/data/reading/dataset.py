"""From samples to micro-batches, inside a worker process: decoding, and what to do where that fails."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from itertools import groupby
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils.data import Dataset, default_collate

from filmstrip.data.actions import ActionSpace, check_clip, clip_actions
from filmstrip.data.cached import CachedClip, CachedSample
from filmstrip.data.config import Clip, Data
from filmstrip.data.detection.source import ActorSample, with_equal_room
from filmstrip.data.localisation.source import UntrimmedSample
from filmstrip.data.procedures.source import ProcedureSample
from filmstrip.data.reading.order import Draw, derive_seed
from filmstrip.data.reading.workers import Current
from filmstrip.data.sample import Sample
from filmstrip.data.tools.parallel import CRASHED
from filmstrip.errors import UserError
from filmstrip.protocols import Batch
from filmstrip.video.batched_reading import read_batched
from filmstrip.video.clips import read_clips, read_parts
from filmstrip.video.decode import open_video
from filmstrip.video.decoder import DecodeError, Decoder, Frames

ATTEMPTS = 50
"""Replacements tried for one position. So many bad files in a row are no accident, whatever the limit."""


class Unreadable(NamedTuple):
    """A file that could not be read as it should be, and why."""

    name: str
    reason: str
    used: bool
    """Whether what could be decoded of it was used nevertheless."""


@dataclass
class Report:
    """What a worker tells the main process beside a micro-batch."""

    unreadable: list[Unreadable] = field(default_factory=list)
    refused: str | None = None
    """Something that is wrong with the settings, not with a file: stops the run."""


@dataclass
class ActedFrames(Frames):
    """Decoded frames with what was done before each: ``action`` is ``T`` int64 or ``T A`` float32."""

    action: np.ndarray | None = None


class _Clips(Dataset):
    """What reading for training and for evaluation share: samples, of which some turn out to be bad."""

    def __init__(self, samples: Sequence[Sample], data: Data, actions: ActionSpace | None):
        self.actions = actions
        self.samples = samples
        self.data = data
        self.labelled = all(sample.label is not None for sample in samples)
        self.bad: dict[int, Unreadable] = {}
        self.current: Current | None = None

    def crashed(self, index: int) -> None:
        """Never read a sample again: it killed the process that read it."""
        self.bad[index] = Unreadable(self.samples[index].name, CRASHED, used=False)

    def _cut(self, index: int, report: Report, **settings: Any) -> list[Frames] | None:
        """The clips of one sample; none, and a line in the report, if it cannot be read."""
        sample = self.samples[index]
        if index not in self.bad:
            try:
                with self.current.at(index) if self.current else nullcontext():
                    clips = cut(sample, self.data, actions=self.actions, **settings)
            except (DecodeError, OSError) as error:
                self.bad[index] = _unreadable(sample, error)
            else:
                report.unreadable.extend(_damage(sample, clips))
                return clips
        report.unreadable.append(self.bad[index])
        return None


class TrainingSet(_Clips):
    """Training micro-batches by their draws: a pair of the batch (none if all files failed) and a report."""

    def __init__(self, samples: Sequence[Sample], data: Data, seed: int, actions: ActionSpace | None = None):
        super().__init__(samples, data, actions)
        self.seed = seed

    def __getitem__(self, draws: Sequence[Draw]) -> tuple[Batch | None, Report]:
        """Decode the clips of each draw; a bad file gives way to another that depends on the position alone."""
        report = Report()
        rows = _Rows(self.labelled)
        try:
            for draw in draws:
                for index in self._candidates(draw):
                    if self._read(draw.epoch, index, rows, report):
                        break
                else:
                    return None, report
        except UserError as error:
            return None, Report(refused=str(error))
        return rows.collate(), report

    def _candidates(self, draw: Draw) -> Iterable[int]:
        yield draw.index
        for attempt in range(ATTEMPTS):
            yield derive_seed(self.seed, "replacement", draw.position, attempt) % len(self.samples)

    def _read(self, epoch: int, index: int, rows: _Rows, report: Report) -> bool:
        """Append the clips of one sample; false, and a line in the report, if it cannot be read."""
        seeds = [derive_seed(self.seed, epoch, index, clip) for clip in range(self.data.clips_per_video)]
        clips = self._cut(index, report, rng=np.random.default_rng(seeds[0]), num_clips=len(seeds))
        if clips is None:
            return False
        rows.add(self.samples[index], index, clips, seeds)
        return True


class EvaluationSet(_Clips):
    """Evaluation views of groups of videos, by the videos' places in the split: a pair as in training."""

    def __init__(
        self,
        samples: Sequence[Sample],
        data: Data,
        num_clips: int,
        num_crops: int,
        actions: ActionSpace | None = None,
    ):
        super().__init__(samples, data, actions)
        self.num_clips = num_clips
        self.num_crops = num_crops
        self.shared = {file for file, count in Counter(map(_file, samples)).items() if count > 1}
        """Files of several samples, which are read in turn; one in which that fails is read for each alone."""

    def __getitem__(self, indices: Sequence[int]) -> tuple[Batch | None, Report]:
        """Decode the views of each video; bad files are left out, never replaced."""
        report = Report()
        rows = _Rows(self.labelled)
        try:
            for _, neighbours in groupby(indices, lambda index: _file(self.samples[index])):
                for index, views in self._views(list(neighbours), report):
                    sample = self.samples[index]
                    seeds = [derive_seed("evaluation", sample.split, index, view) for view in range(len(views))]
                    rows.add(sample, index, views, seeds)
        except UserError as error:
            return None, Report(refused=str(error))
        return rows.collate(), report

    def crashed(self, index: int) -> None:
        """Never read a sample again, or no other with it: the first of several that were read in turn is named."""
        if (file := _file(self.samples[index])) in self.shared:
            self.shared.remove(file)
        else:
            super().crashed(index)

    def _views(self, indices: list[int], report: Report) -> Iterator[tuple[int, Sequence[Frames | CachedClip]]]:
        """The views of those of some samples of one file that can be read, and lines in the report."""
        found = self._in_turn([index for index in indices if index not in self.bad])
        for index in indices:
            if index in found:
                yield index, found[index]
            elif (views := self._cut(index, report, num_clips=self.num_clips, num_crops=self.num_crops)) is not None:
                yield index, views

    def _in_turn(self, indices: list[int]) -> dict[int, list[Frames] | list[CachedClip]]:
        """The views of samples of one file, which is opened once; not of those that are to be read each alone.

        That is all of them where one cannot be read, and those that are damaged: what stands in for frames that are
        lost should not depend on what else is read.
        """
        samples = [self.samples[index] for index in indices]
        # What was encoded is read otherwise, and actions need the file's frames.
        readable = self.actions is None and all(type(sample) in (Sample, ActorSample) for sample in samples)
        if len(samples) < 2 or not readable or _file(samples[0]) not in self.shared:
            return {}
        try:
            with self.current.at(indices[0]) if self.current else nullcontext():
                found = cut_in_turn(samples, self.data, self.num_clips, self.num_crops)
        except (DecodeError, OSError):  # of one of them: each is asked for alone, to say which
            return {}
        return {index: clips for index, clips in zip(indices, found) if not _damage(self.samples[index], clips)}


class _Rows:
    """The rows of a batch under construction."""

    def __init__(self, labelled: bool):
        self.labelled = labelled
        self.clips: list[dict[str, torch.Tensor]] = []
        self.seeds: list[int] = []
        self.names: list[str] = []
        self.labels: list[int | None] = []
        self.indices: list[int] = []
        self.spans: list[tuple[float, float]] = []

    def add(self, sample: Sample, index: int, clips: Sequence[Frames | CachedClip], seeds: Sequence[int]) -> None:
        self.clips += [clip.content if isinstance(clip, CachedClip) else _content(clip) for clip in clips]
        self.seeds += seeds
        self.names += [sample.name] * len(clips)
        self.labels += [sample.label] * len(clips)
        self.indices += [index] * len(clips)
        self.spans += [(clip.times[0], clip.times[-1]) for clip in clips]

    def collate(self) -> Batch | None:
        if not self.clips:
            return None
        batch: Batch = {
            # In a worker this stacks straight into shared memory, which the main process then maps.
            **default_collate(with_equal_room(self.clips)),
            "seed": torch.tensor(self.seeds, dtype=torch.int64),
            "name": self.names,
            "index": torch.tensor(self.indices, dtype=torch.int64),
            "span": torch.tensor(self.spans, dtype=torch.float64),
        }
        if self.labelled:
            batch["label"] = torch.tensor(self.labels, dtype=torch.int64)
        return batch


def _content(clip: Frames) -> dict[str, torch.Tensor]:
    """What a batch takes from a decoded clip."""
    content = {"video": clip.video}
    if isinstance(clip, ActedFrames) and clip.action is not None:
        content["action"] = torch.from_numpy(clip.action)
    return content


def _unreadable(sample: Sample, error: DecodeError | OSError) -> Unreadable:
    reason = error.reason if isinstance(error, DecodeError) else error.strerror or str(error)
    return Unreadable(sample.name, reason, used=False)


def _damage(sample: Sample, clips: Sequence[Frames | CachedClip]) -> list[Unreadable]:
    """A line for the report if frames that were used are damaged, or the file is known to end too early."""
    reasons = [clip.truncated for clip in clips if clip.truncated][:1]
    if count := sum(sum(clip.damaged) for clip in clips):
        reasons.append(f"{count} of {sum(len(clip.damaged) for clip in clips)} frames read from it are damaged")
    return [Unreadable(sample.name, "; ".join(reasons), used=True)] if reasons else []


def _file(sample: Sample) -> tuple[str, int | None]:
    return sample.path, sample.offset


def cut_in_turn(
    samples: Sequence[Sample], data: Data, num_clips: int = 1, num_crops: int = 1
) -> list[list[Frames]] | list[list[CachedClip]]:
    """What :func:`cut` cuts for evaluation out of each of several samples, parts or key frames of one file.

    Raises:
        DecodeError, OSError: the video, or the part of one of them, cannot be read.
        UserError: it cannot be cut so often.
    """
    clip = data.clip
    with open_video(samples[0].file(), backend=data.backend) as decoder:
        key_frames = [sample for sample in samples if isinstance(sample, ActorSample)]
        if key_frames:
            views = [
                sample.views(decoder.info, clip, num_clips=num_clips, num_crops=num_crops) for sample in key_frames
            ]
            read = read_batched(decoder, [[view.request for view in ours] for ours in views])
            return [sample.clips(ours, clips) for sample, ours, clips in zip(key_frames, views, read)]
        parts = [(sample.start, sample.end) for sample in samples]
        return list(cut_parts(decoder, clip, parts, num_clips, num_crops))


def cut_parts(
    decoder: Decoder,
    clip: Clip,
    parts: Iterable[tuple[float | None, float | None]],
    num_clips: int = 1,
    num_crops: int = 1,
) -> Iterator[list[Frames]]:
    """The clips of each part of an open video (its first and last second) as evaluation cuts them, in turn.

    Raises:
        DecodeError: (while iterating) nothing could be decoded, or the video has no such part.
    """
    return read_parts(
        decoder,
        parts,
        num_frames=clip.num_frames,
        stride=clip.stride,
        sampling=clip.sampling,
        size=clip.size,
        num_clips=num_clips,
        num_crops=num_crops,
    )


def cut(
    sample: Sample,
    data: Data,
    *,
    rng: np.random.Generator | None = None,
    num_clips: int = 1,
    num_crops: int = 1,
    actions: ActionSpace | None = None,
) -> list[Frames] | list[ActedFrames] | list[CachedClip]:
    """Cut clips out of one video: at random with ``rng``, else evenly spaced, each as ``num_crops`` square crops.

    Of a video that was encoded, clips are chosen instead; a window of a procedure is what it is, and of an untrimmed
    video as many features are taken as a sample holds. A key frame has one moment, around which its clips lie. With
    ``actions`` clips hold theirs too.

    Raises:
        DecodeError, OSError: the video or its actions cannot be read.
        UserError: the clips leave frames out, and the actions do not allow that.
    """
    if isinstance(sample, (ProcedureSample, UntrimmedSample)):
        return sample.cut(rng=rng, num_clips=num_clips, num_crops=num_crops)
    if isinstance(sample, ActorSample):
        return sample.cut(data, rng=rng, num_clips=num_clips, num_crops=num_crops)
    if isinstance(sample, CachedSample):
        return sample.cut(
            data.cached_clips, rng=rng, num_clips=num_clips, num_crops=num_crops, actions=actions is not None
        )
    if actions is not None:
        check_clip(actions, data.clip)
    exact = {"snap": False, "key_starts": False} if rng is None else {}
    with open_video(sample.file(), backend=data.backend) as decoder:
        clips = read_clips(
            decoder,
            **asdict(data.clip) | exact,
            rng=rng,
            num_clips=num_clips,
            num_crops=num_crops,
            start=sample.start,
            end=sample.end,
        )
        if actions is None:
            return clips
        frame_times = decoder.times()
    done = clip_actions(
        sample.actions,
        actions,
        path=sample.path,
        frame_times=frame_times,
        shown=[clip.times for clip in clips],
        truncated=any(clip.truncated for clip in clips),
    )
    return [ActedFrames(**vars(clip), action=action) for clip, action in zip(clips, done)]
