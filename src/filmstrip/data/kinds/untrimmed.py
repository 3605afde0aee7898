"""Untrimmed videos: sequences of features, and the times and classes of actions."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from filmstrip.bounds import Count, PositiveShare, Rate, Seed, Share, Weight
from filmstrip.data.annotations.activitynet import read_activitynet
from filmstrip.data.annotations.own import read_own
from filmstrip.data.annotations.thumos14 import read_thumos14
from filmstrip.data.config import Data, DataInfo
from filmstrip.data.kinds.clips import draw_common
from filmstrip.data.kinds.kind import Kind, Row
from filmstrip.data.kinds.specification import COMMON, Specification, of
from filmstrip.data.localisation.sequences import FeatureSequence, Sequences, open_sequences, write_record
from filmstrip.data.procedures.types import Annotations, Procedure
from filmstrip.data.sample import FeatureSample, Source
from filmstrip.errors import UserError
from filmstrip.protocols import Batch

log = logging.getLogger(__name__)

SPECIFICATION = Specification(
    {
        "sequence": of("B T D", torch.float32, "features, evenly spaced in time", padding=0),
        "length": of("B", torch.int64, "number of features, the rest is padding"),
        "timing": of("B 2", torch.float64, "centre of the first feature and spacing, in seconds"),
        "seconds": of("B", torch.float64, "duration of the video"),
        "segments": of("B M 2", torch.float32, "start and end of each action, in features", padding=0),
        "classes": of("B M", torch.int64, "class of each action", padding=-1),
        **COMMON,
    }
)
TRIALS = 200
"""Maximum number of random parts of a video tried until one contains an action."""


@dataclass(frozen=True, kw_only=True)
class UntrimmedVideos(Kind):
    """Untrimmed videos as sequences of features, with their actions.

    ``data.path`` holds the features: clips along each video that ``filmstrip encode`` wrote, or a folder
    ``VIDEO.npy`` (or npz) as public code uses it. Without a path, actions have random embeddings with noise.
    """

    specification: ClassVar[Specification] = SPECIFICATION

    dataset: Literal["own", "thumos14", "activitynet"] = "own"
    """Dataset of the annotations; ``own``: a ``procedures.json``."""
    annotations: Path | None = None
    """Folder of the annotations; None for a synthetic dataset, which includes them."""
    max_length: Count = 2304
    """Number of features in a training sample: a random part of longer videos; shorter ones are padded."""
    resized: bool = False
    """Whether to resize every video to ``max_length`` features, by linear interpolation."""
    crop: PositiveShare = 1.0
    """Minimum fraction of a shorter video that a random training part keeps; one keeps all of it."""
    kept: Share = 0.5
    """Minimum fraction of an action that must lie within such a part for the action to be used."""
    stride: Count = 4
    """Number of frames from one feature to the next, for arrays and random embeddings."""
    window: Count = 16
    """Number of frames that a feature is computed from, for arrays and random embeddings."""
    fps: Rate = 30.0
    """Frame rate of videos whose annotations do not state it."""
    noise: Weight = 1.0
    """Standard deviation of the noise added to random embeddings, relative to their root mean square."""
    width: Count = 64
    """Dimension of random embeddings."""
    seed: Seed = 0
    """Seed of random embeddings and noise."""

    def open(self, data: Data) -> UntrimmedSource:
        """The videos, with features from ``data.path``.

        Videos without features are skipped with a warning, since copies of public datasets are rarely complete.

        Raises:
            UserError: annotations or features are missing, or a setting is invalid.
        """
        return _open(self, data)

    def sizes(self, data: Data, network: Any) -> dict[str, int]:
        """Sizes of a training sample with one action."""
        return {"T": self.max_length, "D": network.feature_width, "M": 1, "K": network.num_classes}

    def told_sizes(self, data: Data, info: UntrimmedInfo) -> dict[str, int]:
        """As many features as training samples have, with one action."""
        return {"T": self.max_length, "D": info.width, "M": 1, "K": len(info.classes)}

    @staticmethod
    def example_info(sizes: Mapping[str, int], **told: Any) -> UntrimmedInfo:
        """See :meth:`Kind.example_info`."""
        return UntrimmedInfo(**told, width=sizes["D"])

    @staticmethod
    def example(sizes: Mapping[str, int], generator: torch.Generator) -> Batch:
        """Sequences that :func:`draw_sequences` makes; see :meth:`Kind.example`."""
        return draw_sequences(sizes, generator) | draw_common(sizes["B"], generator)


@dataclass(frozen=True, kw_only=True)
class UntrimmedInfo(DataInfo):
    """Properties of untrimmed videos that objectives need."""

    width: int
    """Dimension of a feature."""


@dataclass(frozen=True, kw_only=True)
class UntrimmedSample(FeatureSample):
    """One video."""

    kind: ClassVar[type[Kind]] = UntrimmedVideos

    video: Procedure = field(repr=False)
    config: UntrimmedVideos = field(repr=False)
    sequences: Sequences = field(repr=False, compare=False)
    most_actions: int
    """Maximum number of actions in any video of the collection, to which batches are padded."""

    def select(self, rng: np.random.Generator | None, num_clips: int, *, actions: bool) -> list[Row]:
        """The whole sequence; or with ``rng``, ``num_clips`` random parts, padded to ``max_length``.

        Raises:
            OSError: the features cannot be read.
        """
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
            clips.append(Row(content=content, times=(first + start * step, first + (end - 1) * step)))
        return clips


def resized(sequence: FeatureSequence, length: int) -> FeatureSequence:
    """A sequence resized to ``length`` features that are evenly spaced over the video, by linear interpolation."""
    features, first, step, _ = sequence
    seconds = 2 * first + step * (len(features) - 1)
    stretched = F.interpolate(features.T[None], size=length, mode="linear")[0].T
    return FeatureSequence(stretched, seconds / length / 2, seconds / length, seconds / length / 2)


class Part(NamedTuple):
    """Rows of a sequence, and the actions in them."""

    start: int
    end: int
    segments: Tensor
    """Start and end of each action, ``M 2``, in rows of the whole sequence, clipped to the part."""
    kept: Tensor
    """Whether enough of each action lies within the part, ``M`` bool."""


def _without_what_follows(part: Part, reach: float, least: float) -> Part:
    """A whole sequence with actions clipped to it: some videos of ActivityNet lack annotated frames."""
    segments = part.segments.clamp(max=part.end + reach)
    share = (segments[:, 1] - segments[:, 0]) / (part.segments[:, 1] - part.segments[:, 0])
    return Part(part.start, part.end, segments, share >= least)


def draw_part(whole: Part, reach: float, config: UntrimmedVideos, rng: np.random.Generator) -> Part:
    """A random part of a sequence that contains an action, if one is found; the whole sequence is unchanged.

    Its outermost rows cover ``reach`` rows of video beyond their centres: actions are clipped there, as published.
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
    """Untrimmed videos with their features; classes are those of actions."""

    kind: ClassVar[type[Kind]] = UntrimmedVideos

    width: int

    def info(self, train_split: str) -> UntrimmedInfo:
        """Properties of the collection that an objective needs before it is built."""
        return UntrimmedInfo(**self.told(train_split), width=self.width)

    def record(self, folder: Path) -> None:
        """Record in the run folder how new videos must be encoded."""
        samples = [sample for sample in self.samples if isinstance(sample, UntrimmedSample)]
        write_record(samples[0].sequences, (sample.video for sample in samples), folder)


def _open(config: UntrimmedVideos, data: Data) -> UntrimmedSource:
    if min(config.max_length, config.stride, config.window, config.width) < 1 or config.fps <= 0:
        raise UserError("untrimmed videos: max_length, stride, window and width are one or more, fps is above zero")
    if not (0 < config.crop <= 1 and 0 < config.kept <= 1 and config.noise >= 0):
        raise UserError("untrimmed videos: crop and kept are above 0 and at most 1; noise is zero or more")
    annotations = read_annotations(config, data)
    sequences = open_sequences(data.path, config, len(annotations.steps))
    there = [video for video in annotations.procedures if video.video in sequences]
    if not there:
        raise UserError(
            f"{data.path} has features of none of the {len(annotations.procedures)} annotated videos, such as "
            f"{annotations.procedures[0].video}: files must be named as in the annotations"
        )
    if missing := len(annotations.procedures) - len(there):
        log.warning("%d of %d annotated videos have no features and are skipped", missing, missing + len(there))
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


def read_annotations(config: UntrimmedVideos, data: Data) -> Annotations:
    """The annotations of a dataset.

    Raises:
        UserError: the annotations are missing or cannot be read.
    """
    if config.annotations is None:
        described = getattr(data.synthetic, "annotations", None)
        if described is None:
            raise UserError(
                "untrimmed videos need annotations (--data.reads.annotations FOLDER): the folder of a public "
                "dataset (--data.reads.dataset thumos14), or a procedures.json"
            )
        return described()
    root = Path(config.annotations).expanduser()
    match config.dataset:
        case "thumos14":
            return read_thumos14(root)
        case "activitynet":
            return read_activitynet(root)
    return read_own(root)


def draw_sequences(sizes: Mapping[str, int], generator: torch.Generator) -> Batch:
    """Sequences of noise with two actions, one short and one long; a third action is padding.

    Sequences have at least 45 features.
    """
    rows, length, width, kinds = (sizes[letter] for letter in "BTDK")
    first = torch.randint(2, 6, (rows,), generator=generator).float() + 0.3
    segments = torch.stack([torch.stack([first, first + 7.5]), torch.stack([first + 12, first + 36])])
    segments = torch.cat([segments.permute(2, 0, 1), torch.zeros(rows, 1, 2)], dim=1)
    classes = torch.randint(0, min(kinds, width), (rows, 3), generator=generator)  # features mark their actions
    classes[:, 2] = -1
    place = torch.arange(length)[:, None]
    inside = (place >= segments[:, None, :2, 0]) & (place < segments[:, None, :2, 1])
    marks = F.one_hot(classes[:, :2], width).float()
    noise = torch.randn(rows, length, width, generator=generator)
    return {
        "sequence": inside.float() @ marks + 0.1 * noise,
        "length": torch.full((rows,), length - 2),
        "timing": torch.tensor([0.25, 0.5], dtype=torch.float64).expand(rows, 2),
        "seconds": torch.full((rows,), 0.5 * length, dtype=torch.float64),
        "segments": segments,
        "classes": classes,
    }
