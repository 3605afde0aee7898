"""Features along videos for queries: several folders side by side, or stand-ins of what queries are about."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from filmstrip.data.kinds.untrimmed import UntrimmedVideos, resized
from filmstrip.data.localisation.sequences import FeatureSequence, Sequences, open_sequences
from filmstrip.data.moments.text import WordVectors
from filmstrip.data.moments.types import Query
from filmstrip.data.procedures.types import Procedure
from filmstrip.data.reading.order import derive_seed
from filmstrip.errors import UserError

if TYPE_CHECKING:
    from filmstrip.data.kinds.moments import Moments

FAINTEST = 0.3
"""Strength of a clip that all raters found very bad, relative to one that they found very good."""


class VideoSequences(Protocol):
    """Features along each of a set's videos."""

    @property
    def width(self) -> int:
        """The dimension of a feature."""
        ...

    def __contains__(self, video: str) -> bool:
        """Whether there are features of a video."""
        ...

    def of(self, query: Query) -> FeatureSequence:
        """The features of the whole video of a query.

        Raises:
            OSError: they cannot be read, or are not evenly spaced.
        """
        ...


def open_video_features(
    paths: Sequence[Path], config: Moments, clip_seconds: float, queries: Sequence[Query]
) -> VideoSequences:
    """The features at ``paths``, or stand-ins if there are none.

    Raises:
        UserError: a path does not exist, or holds no features.
    """
    if not paths:
        return StandIns(config, clip_seconds, queries)
    # Arrays have a row for each clip.
    spacing = UntrimmedVideos(stride=1, window=1, fps=1 / clip_seconds)
    return SideBySide([open_sequences(path, spacing, 0) for path in paths], config)


class SideBySide:
    """Features of several encoders at the same times, one after the other in each row."""

    def __init__(self, parts: Sequence[Sequences], config: Moments) -> None:
        self._parts = parts
        self._config = config
        self.width = sum(part.width for part in parts)

    @property
    def about(self) -> Mapping[str, str]:
        """Origin of the features, as recorded by ``filmstrip encode``; empty if unknown, or of several encoders."""
        return getattr(self._parts[0], "about", {}) if len(self._parts) == 1 else {}

    def __contains__(self, video: str) -> bool:
        """Whether all have features of a video."""
        return all(video in part for part in self._parts)

    def of(self, query: Query) -> FeatureSequence:
        """As many rows as the shortest has; each encoder's may be scaled to unit length."""
        video = Procedure(video=query.video, split=query.split, steps=(), seconds=query.seconds)
        found = [part.sequence(video) for part in self._parts]
        least = min(len(part.features) for part in found)
        rows = [scaled(part.features[:least]) if self._config.normalised else part.features[:least] for part in found]
        return shortened(found[0]._replace(features=torch.cat(rows, dim=1)), self._config)


class StandIns:
    """Noise along each video, and where a query is true a vector of what it is about, for learning without features.

    Queries of one video with the same subject share its vector; clips that raters liked show it more.
    """

    about: Mapping[str, str] = {}

    def __init__(self, config: Moments, clip_seconds: float, queries: Sequence[Query]) -> None:
        self.width = config.width
        self._config, self._seconds = config, clip_seconds
        self._vectors = WordVectors(config.width, config.seed)
        self._of_video: dict[str, list[Query]] = defaultdict(list)
        for query in queries:
            self._of_video[query.video].append(query)

    def __contains__(self, video: str) -> bool:
        return True

    def of(self, query: Query) -> FeatureSequence:
        """A row for each clip of the video."""
        if query.seconds is None:
            raise OSError(f"how long {query.video} lasts is unknown: provide features (--data FOLDER)")
        count, step = max(1, round(query.seconds / self._seconds)), self._seconds
        generator = torch.Generator().manual_seed(derive_seed(self._config.seed, "sequence", query.video))
        rows = self._config.noise * torch.randn(count, self.width, generator=generator)
        about = {query.subject or query.text: query for query in self._of_video[query.video]}
        for subject, told in about.items():
            shown = self._shown(told, count)[:, None]
            rows += self.width**0.5 * shown * self._vectors.vector(f"subject {subject}")
        found = FeatureSequence(rows, step / 2, step, step / 2)
        if self._config.normalised:
            found = found._replace(features=scaled(rows))
        return shortened(found, self._config)

    def _shown(self, query: Query, count: int) -> Tensor:
        """How strongly each clip shows what a query is about, ``count``."""
        start = self._seconds * torch.arange(count, dtype=torch.float64)
        shown = torch.zeros(count, dtype=torch.float64)
        for first, last in query.moments:
            inside = (start + self._seconds).clamp(max=last) - start.clamp(min=first)
            shown = shown.maximum(inside.clamp(min=0) / self._seconds)
        for clip in query.rated:
            middle, liked = (clip.start + clip.end) / 2, sum(clip.scores) / len(clip.scores) / 4
            at = min(count - 1, int(middle / self._seconds))
            shown[at] *= FAINTEST + (1 - FAINTEST) * liked
        return shown.float()


def scaled(rows: Tensor) -> Tensor:
    """Rows of unit length, as Moment-DETR's code makes them."""
    return rows / (rows.norm(dim=-1, keepdim=True) + 1e-5)


def shortened(sequence: FeatureSequence, config: Moments) -> FeatureSequence:
    """A sequence that is longer than ``max_length``, or any if all are to be, resized to that length."""
    longer = len(sequence.features) > config.max_length
    return resized(sequence, config.max_length) if longer or config.resized else sequence


def padded(rows: Tensor, count: int | None, value: float = 0.0) -> Tensor:
    """Rows ``N ...`` with padding at the end up to ``count``, or as they are.

    Raises:
        UserError: there are more.
    """
    if count is None:
        return rows
    if len(rows) > count:
        raise UserError(f"{len(rows)} rows where {count} have room")
    return F.pad(rows, (*(0, 0) * (rows.ndim - 1), 0, count - len(rows)), value=value)
