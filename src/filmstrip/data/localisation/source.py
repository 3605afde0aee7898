"""Untrimmed videos as a collection: read by the same loader, in the same order, as clips of videos."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from filmstrip.data.annotations.activitynet import read_activitynet
from filmstrip.data.annotations.own import read_own
from filmstrip.data.annotations.thumos14 import read_thumos14
from filmstrip.data.cached import CachedClip
from filmstrip.data.config import Data, DataInfo, Localisation
from filmstrip.data.localisation.sequences import FeatureSequence, Sequences, open_sequences
from filmstrip.data.procedures.types import Annotations, Procedure
from filmstrip.data.sample import Sample, Source
from filmstrip.errors import UserError

log = logging.getLogger(__name__)

KEYS = frozenset({"sequence", "length", "timing", "seconds", "segments", "classes"})
TRIALS = 200
"""Draws of a part of a video until one has an action in it."""


@dataclass(frozen=True, kw_only=True)
class UntrimmedSample(Sample):
    """One video."""

    video: Procedure = field(repr=False)
    config: Localisation = field(repr=False)
    sequences: Sequences = field(repr=False, compare=False)
    most_actions: int
    """Of any video of the collection: room for actions in a batch."""

    def cut(
        self, *, rng: np.random.Generator | None = None, num_clips: int = 1, num_crops: int = 1
    ) -> list[CachedClip]:
        """The whole sequence; or with ``rng`` ``num_clips`` random parts, padded to ``max_length``.

        Raises:
            OSError: the features cannot be read.
            UserError: crops were asked for.
        """
        if num_crops != 1:
            raise UserError("untrimmed videos have features, which have no crops: set num_crops to 1")
        found = self.sequences.sequence(self.video)
        if self.config.resized:
            found = resized(found, self.config.max_length)
        features, first, step, reach = found
        times = torch.tensor([(action.start, action.end) for action in self.video.steps], dtype=torch.float64)
        segments = ((times.view(-1, 2) - first) / step).float()
        seconds = self.video.seconds or 2 * first + step * (len(features) - 1)
        part = Part(0, len(features), segments, torch.ones(len(segments), dtype=torch.bool))
        parts = [part] * num_clips
        if rng is not None:
            if self.config.resized:
                part = _without_what_follows(part, reach / step, self.config.kept)
            parts = [draw_part(part, reach / step, self.config, rng) for _ in range(num_clips)]
        clips = []
        for start, end, inside, kept in parts:
            room = len(features) if rng is None else self.config.max_length
            free = self.most_actions - int(kept.sum())
            classes = torch.tensor([action.step for action in self.video.steps])[kept]
            content = {
                "sequence": F.pad(features[start:end], (0, 0, 0, room - (end - start))),
                "length": torch.tensor(end - start),
                "timing": torch.tensor([first + start * step, step], dtype=torch.float64),
                "seconds": torch.tensor(seconds, dtype=torch.float64),
                "segments": F.pad(inside[kept] - start, (0, 0, 0, free)),
                "classes": F.pad(classes, (0, free), value=-1),
            }
            clips.append(CachedClip(content=content, times=(first + start * step, first + (end - 1) * step)))
        return clips


def resized(sequence: FeatureSequence, length: int) -> FeatureSequence:
    """A sequence brought to ``length`` features, linearly interpolated, that lie evenly over the video."""
    features, first, step, _ = sequence
    seconds = 2 * first + step * (len(features) - 1)
    stretched = F.interpolate(features.T[None], size=length, mode="linear")[0].T
    return FeatureSequence(stretched, seconds / length / 2, seconds / length, seconds / length / 2)


class Part(NamedTuple):
    """Rows of a sequence, and what is done in them."""

    start: int
    end: int
    segments: Tensor
    """``M 2``, rows of the whole sequence, cut at the part's ends."""
    kept: Tensor
    """``M``, bool: whether enough of an action lies within to count."""


def _without_what_follows(part: Part, reach: float, least: float) -> Part:
    """A whole sequence whose actions end with it: some videos of ActivityNet lack frames that were annotated."""
    segments = part.segments.clamp(max=part.end + reach)
    share = (segments[:, 1] - segments[:, 0]) / (part.segments[:, 1] - part.segments[:, 0])
    return Part(part.start, part.end, segments, share >= least)


def draw_part(whole: Part, reach: float, config: Localisation, rng: np.random.Generator) -> Part:
    """A random part of a sequence that holds an action, if one can be found; the whole one is as it is.

    Its outermost rows show ``reach`` rows of video beyond their centres: actions are cut there, as published.
    """
    size, length = config.max_length, whole.end
    if length <= size:
        size = int(rng.integers(max(1, round(config.crop * length)), length + 1))
        if size == length:
            return whole
    for _ in range(TRIALS):
        start = int(rng.integers(length - size + 1))
        segments = whole.segments.clamp(start - reach, start + size + reach)
        share = (segments[:, 1] - segments[:, 0]) / (whole.segments[:, 1] - whole.segments[:, 0])
        kept = whole.kept & (share >= config.kept)
        if kept.any():
            break
    return Part(start, start + size, segments, kept)


@dataclass(frozen=True, kw_only=True)
class UntrimmedSource(Source):
    """Untrimmed videos, with features along them; classes are those of the actions."""

    width: int

    @property
    def gives(self) -> frozenset[str]:
        """What batches hold of a video."""
        return KEYS

    def info(self, train_split: str) -> DataInfo:
        """What an objective may want to know of the collection before it is built."""
        return replace(super().info(train_split), width=self.width)


def open_localisation(data: Data) -> UntrimmedSource:
    """The videos that ``data.localisation`` describes, with features from ``data.path``.

    Videos without features are left out, with a warning; public sets are rarely complete.

    Raises:
        UserError: annotations or features are missing, or a number is wrong.
    """
    config = data.localisation
    if min(config.max_length, config.stride, config.window, config.width) < 1 or config.fps <= 0:
        raise UserError("localisation: max_length, stride, window and width are one or more, fps is more than zero")
    if not (0 < config.crop <= 1 and 0 < config.kept <= 1 and config.noise >= 0):
        raise UserError("localisation: crop and kept are shares, more than 0 and up to 1; noise is zero or more")
    annotations = read_annotations(config, data)
    sequences = open_sequences(data.path, config, len(annotations.steps))
    there = [video for video in annotations.procedures if video.video in sequences]
    if not there:
        raise UserError(
            f"{data.path} has features of none of the {len(annotations.procedures)} annotated videos, such as "
            f"{annotations.procedures[0].video}: files are called as the videos are"
        )
    if missing := len(annotations.procedures) - len(there):
        log.warning("%d of %d annotated videos have no features and are left out", missing, missing + len(there))
    most = max(1, *(len(video.steps) for video in there))
    samples = tuple(
        UntrimmedSample(
            path=str(data.path or annotations.root),
            name=video.video,
            split=video.split,
            video=video,
            config=config,
            sequences=sequences,
            most_actions=most,
        )
        for video in there
    )
    root = Path(data.path or annotations.root)
    return UntrimmedSource(root=root, classes=annotations.steps, samples=samples, width=sequences.width)


def read_annotations(config: Localisation, data: Data) -> Annotations:
    """The annotations of a set.

    Raises:
        UserError: there are none, or they cannot be read.
    """
    if config.annotations is None:
        described = getattr(data.synthetic, "annotations", None)
        if described is None:
            raise UserError(
                "localisation needs annotations (--data.localisation.annotations FOLDER): the folder of a public "
                "set (--data.localisation.dataset thumos14), or a procedures.json"
            )
        return described()
    root = Path(config.annotations).expanduser()
    match config.dataset:
        case "thumos14":
            return read_thumos14(root)
        case "activitynet":
            return read_activitynet(root)
    return read_own(root)
