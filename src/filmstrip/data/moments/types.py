"""Types of annotated queries, common to all datasets."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple


class Rated(NamedTuple):
    """A clip that is relevant to a query, with what raters think of it."""

    start: float
    end: float
    """End of the clip, in seconds from the video's first frame."""
    scores: tuple[float, ...]
    """Score of each rater, from 0 (very bad) to 4 (very good)."""


@dataclass(frozen=True, kw_only=True)
class Query:
    """One sentence about a video, and when it is true."""

    name: str
    """Name that is unique in the dataset, such as its number."""
    video: str
    """Name of the file, or its path below the folder of videos, with or without extension."""
    text: str
    split: str
    moments: tuple[tuple[float, float], ...]
    """Start and end of each moment, in seconds."""
    rated: tuple[Rated, ...] = ()
    """Relevant clips, if they were rated."""
    seconds: float | None = None
    """Duration of the video in seconds, if annotated."""
    subject: str = ""
    """Name of what happens in a generated video: sentences with the same subject mean the same."""

    @property
    def longest(self) -> tuple[float, float]:
        """The longest of the moments."""
        return max(self.moments, key=lambda moment: moment[1] - moment[0])


@dataclass(frozen=True, kw_only=True)
class Queries:
    """A dataset of annotated queries."""

    root: Path
    queries: tuple[Query, ...]
    clip_seconds: float | None = None
    """Duration of a rated clip, in seconds; none if the dataset has no such clips."""

    @property
    def raters(self) -> int:
        """Number of raters; zero if no clips are rated."""
        return max((len(clip.scores) for query in self.queries for clip in query.rated), default=0)


def proper(moments: Iterable[Iterable[float]], seconds: float | None) -> tuple[tuple[float, float], ...]:
    """Moments in temporal order, within the video, without those of no duration; some annotations swap their ends."""
    limit = float("inf") if seconds is None else seconds
    pairs = (sorted(min(max(0.0, float(end)), limit) for end in moment) for moment in moments)
    return tuple(sorted((start, end) for start, end in pairs if end > start))
