"""Moments that queries in words describe: features along videos, features of queries, when they are true."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from filmstrip.bounds import Count, Rate, Seed, Weight
from filmstrip.data.annotations.activitynet_captions import read_activitynet_captions
from filmstrip.data.annotations.charades_sta import read_charades_sta
from filmstrip.data.annotations.qvhighlights import CLIP_SECONDS, read_qvhighlights
from filmstrip.data.config import Data, DataInfo
from filmstrip.data.feature_records import SequenceRecord, known_of_sequences, read_feature_record
from filmstrip.data.kinds.clips import draw_common
from filmstrip.data.kinds.kind import Kind, Row
from filmstrip.data.kinds.specification import COMMON, Specification, of
from filmstrip.data.localisation.sequences import FeatureSequence
from filmstrip.data.moments.text import QueryArrays, QueryFeatures, TextEncoder, WordVectors, sentence
from filmstrip.data.moments.types import Queries, Query
from filmstrip.data.moments.video import VideoSequences, open_video_features, padded, scaled
from filmstrip.data.sample import FeatureSample, Source
from filmstrip.errors import UserError
from filmstrip.files import write_json
from filmstrip.protocols import Batch

log = logging.getLogger(__name__)

SPECIFICATION = Specification(
    {
        "sequence": of("B T D", torch.float32, "features, evenly spaced in time", padding=0),
        "length": of("B", torch.int64, "number of features, the rest is padding"),
        "timing": of("B 2", torch.float64, "centre of the first feature and spacing, in seconds"),
        "seconds": of("B", torch.float64, "duration of the video"),
        "query": of(
            "B L E", torch.float32, "features of the query's words, or of several queries, one each", padding=0
        ),
        "query_length": of("B", torch.int64, "number of words or queries, the rest is padding"),
        "moments": of("B M 2", torch.float32, "start and end, as shares of the video's duration", padding=0),
        "query_of": of(
            "B M", torch.int64, "which of several queries a moment answers, 0 for the only one", padding=-1
        ),
        "saliency": of("B T R", torch.float32, "each rater's score of each feature's clip, from 0 to 4", padding=0),
        "relevant": of("B T", torch.bool, "which features lie within a moment", padding=0),
        **COMMON,
    }
)
RECORD = "moments.json"
"""File in a run folder that describes its features."""
MEASURED = 50
"""Maximum number of samples whose features' spacing is recorded, by its median."""


@dataclass(frozen=True, kw_only=True)
class Moments(Kind):
    """Queries about videos, with the moments that answer them.

    ``data.path`` holds the features of the videos: clips along each that ``filmstrip encode`` wrote, or a folder
    ``VIDEO.npz`` (or npy) with a row for each clip, as public code uses it. Without a path, features are noise, and
    in moments a random vector of what is described.
    """

    specification: ClassVar[Specification] = SPECIFICATION

    dataset: Literal["qvhighlights", "charades_sta", "activitynet_captions"] = "qvhighlights"
    """Format of the annotations; one's own are of the form of QVHighlights."""
    annotations: Path | None = None
    """Folder of the annotations; None for a synthetic dataset, which includes them."""
    more_features: tuple[Path, ...] = ()
    """Folders of further features of the videos, which stand beside those of ``data.path``."""
    text: tuple[Path, ...] = ()
    """Folders with features of each query's words (``qid7803.npz``), which stand side by side."""
    text_encoder: Path | None = None
    """Local folder of a frozen text encoder of the Hub, such as MiniLM or CLIP, which computes them; without ``text``
    and this, each word has a random vector."""
    by: Literal["query", "video"] = "query"
    """Contents of a sample: one ``query`` with features of its words, or all queries of a ``video``, one vector each
    and one moment each (the longest)."""
    in_order: bool = False
    """Whether the queries of a video come in the order of their moments, in evaluation too."""
    max_length: Count = 75
    """Maximum number of features of a video; longer ones are resized to it, by linear interpolation."""
    resized: bool = False
    """Whether to resize shorter videos, too."""
    max_words: Count = 32
    """Maximum number of words of a query; what follows is dropped."""
    max_queries: Count = 4
    """Maximum number of queries of a video in training, a random choice of them; evaluation reads all."""
    max_moments: Count = 5
    """Maximum number of moments of a query in training, a random choice of them; evaluation reads all."""
    normalised: bool = True
    """Whether features of videos and of words are scaled to unit length."""
    clip_seconds: Rate | None = None
    """Spacing of the features in a folder of arrays, in seconds; by default the duration of a rated clip, or 2."""
    noise: Weight = 1.0
    """Standard deviation of the noise of stand-in features, relative to the root mean square of what they show."""
    width: Count = 64
    """Dimension of stand-in features of videos."""
    text_width: Count = 64
    """Dimension of random vectors of words."""
    seed: Seed = 0
    """Seed of stand-in features and of the vectors of words."""

    def open(self, data: Data) -> MomentSource:
        """The queries, with features from ``data.path``.

        Queries of videos without features are skipped with a warning, since copies of public datasets are rarely
        complete.

        Raises:
            UserError: annotations or features are missing.
        """
        return _open(self, data)

    def query_features(self) -> QueryFeatures:
        """The features of queries' words.

        Raises:
            UserError: a folder holds none.
        """
        if self.text and self.text_encoder:
            raise UserError("features of queries are read (data.reads.text) or computed (text_encoder), not both")
        if self.text:
            return QueryArrays(self.text)
        return TextEncoder(self.text_encoder) if self.text_encoder else WordVectors(self.text_width, self.seed)

    def rows(self, words: Tensor) -> Tensor:
        """Features of a query as a network is to see them: of its first words, scaled if all are."""
        return (scaled(words) if self.normalised else words)[: self.max_words]

    def sizes(self, data: Data, network: Any) -> dict[str, int]:
        """Sizes of a training sample."""
        several = self.by == "video"
        return {
            "T": self.max_length,
            "D": network.feature_width,
            "L": self.max_queries if several else self.max_words,
            "E": network.text_width,
            "M": self.max_queries if several else self.max_moments,
            "R": 1,
            "K": 8,
        }

    def told_sizes(self, data: Data, info: MomentInfo) -> dict[str, int]:
        """As a training sample has."""
        own = self.sizes(data, _Widths(info.width, info.text_width))
        return own | {"R": max(1, info.raters)}

    @staticmethod
    def example_info(sizes: Mapping[str, int], **told: Any) -> MomentInfo:
        """See :meth:`Kind.example_info`."""
        return MomentInfo(**told, width=sizes["D"], text_width=sizes.get("E", sizes["D"]), raters=3)

    @staticmethod
    def example(sizes: Mapping[str, int], generator: torch.Generator) -> Batch:
        """Videos that :func:`draw_videos` makes; see :meth:`Kind.example`."""
        return draw_videos(sizes, generator) | draw_common(sizes["B"], generator)


@dataclass(frozen=True)
class _Widths:
    feature_width: int
    text_width: int


@dataclass(frozen=True, kw_only=True)
class MomentInfo(DataInfo):
    """Properties of queries that objectives need."""

    width: int
    """Dimension of a feature of a video."""
    text_width: int
    """Dimension of a feature of a query."""
    raters: int
    """Number of raters of the clips; zero if none were rated."""


@dataclass(frozen=True, kw_only=True)
class MomentSample(FeatureSample):
    """One query, or all queries of one video."""

    kind: ClassVar[type[Kind]] = Moments

    queries: tuple[Query, ...] = field(repr=False)
    config: Moments = field(repr=False)
    video: VideoSequences = field(repr=False, compare=False)
    words: QueryFeatures = field(repr=False, compare=False)
    raters: int

    def select(self, rng: np.random.Generator | None, num_clips: int, *, actions: bool) -> list[Row]:
        """The whole video; with ``rng``, a random choice of many queries or moments, and padding up to a fixed size.

        Raises:
            OSError: features cannot be read.
        """
        found = self.video.of(self.queries[0])
        length, config = len(found.features), self.config
        seconds = self.queries[0].seconds or 2 * found.first + found.step * (length - 1)
        rows = []
        for _ in range(num_clips):
            query, moments, query_of = self._asked(rng)
            ratings, relevant = self._rated(found)
            fixed = None if rng is None else (config.max_queries if config.by == "video" else config.max_moments)
            words = config.max_queries if config.by == "video" else config.max_words
            places = None if rng is None else config.max_length
            content = {
                "sequence": padded(found.features, places),
                "length": torch.tensor(length),
                "timing": torch.tensor([found.first, found.step], dtype=torch.float64),
                "seconds": torch.tensor(seconds, dtype=torch.float64),
                "query": padded(query, None if rng is None else words),
                "query_length": torch.tensor(len(query)),
                "moments": padded((moments / seconds).clamp(0.0, 1.0).float(), fixed),
                "query_of": padded(query_of, fixed, -1),
                "saliency": padded(ratings, places),
                "relevant": padded(relevant, places),
            }
            rows.append(Row(content=content, times=(found.first, found.first + found.step * (length - 1))))
        return rows

    def _asked(self, rng: np.random.Generator | None) -> tuple[Tensor, Tensor, Tensor]:
        """Features of the query or queries, moments in seconds, and which query each answers."""
        config = self.config
        if config.by == "query":
            (query,) = self.queries
            moments = torch.tensor(query.moments, dtype=torch.float64)
            kept = _choice(rng, len(moments), config.max_moments)
            words = config.rows(self.words.words(query.name, query.text))
            return words, moments[kept], torch.zeros(len(kept), dtype=torch.int64)
        asked = [self.queries[i] for i in _choice(rng, len(self.queries), config.max_queries)]
        vectors = torch.stack([sentence(self.words.words(query.name, query.text)) for query in asked])
        moments = torch.tensor([query.longest for query in asked], dtype=torch.float64)
        return scaled(vectors) if config.normalised else vectors, moments, torch.arange(len(asked))

    def _rated(self, found: FeatureSequence) -> tuple[Tensor, Tensor]:
        """Ratings of each feature's clip, ``T R``, or one within moments without ratings; and which are relevant."""
        centre = found.first + found.step * torch.arange(len(found.features), dtype=torch.float64)
        ratings = torch.zeros(len(centre), max(1, self.raters))
        relevant = torch.zeros(len(centre), dtype=torch.bool)
        for query in self.queries:
            for start, end in query.moments:
                inside = (centre >= start) & (centre < end)
                inside[(centre - (start + end) / 2).abs().argmin()] = True  # of a moment between two features
                relevant |= inside
            for clip in query.rated if self.raters else ():
                at = (centre >= clip.start) & (centre < clip.end)
                ratings[at] = torch.tensor(clip.scores)
        return ratings if self.raters else relevant[:, None].float(), relevant


def _choice(rng: np.random.Generator | None, count: int, most: int) -> list[int]:
    """Indices in order: all, or in training at most so many of them."""
    if rng is None or count <= most:
        return list(range(count))
    return sorted(rng.choice(count, most, replace=False).tolist())


@dataclass(frozen=True, kw_only=True)
class MomentSource(Source):
    """Queries about videos, with features of both."""

    kind: ClassVar[type[Kind]] = Moments

    samples: tuple[MomentSample, ...]
    config: Moments = field(repr=False)
    video: VideoSequences = field(repr=False)
    words: QueryFeatures = field(repr=False)
    raters: int
    clip_seconds: float

    def info(self, train_split: str) -> MomentInfo:
        """Properties of the collection that an objective needs before it is built."""
        told = self.told(train_split)
        return MomentInfo(**told, width=self.video.width, text_width=self.words.width, raters=self.raters)

    def record(self, folder: Path) -> None:
        """Record in the run folder how new videos and queries must be encoded."""
        some = [self.video.of(sample.queries[0]) for sample in self.samples[:MEASURED]]
        text = self.words.fingerprint if isinstance(self.words, TextEncoder) else None
        record = MomentRecord(**known_of_sequences(self.video, some), text_weights=text)
        write_json(asdict(record), folder / RECORD)


@dataclass(frozen=True, kw_only=True)
class MomentRecord(SequenceRecord):
    """How features of videos and of queries were made."""

    text_weights: str | None = None
    """Fingerprint of the text encoder's weights; None if queries' features were computed otherwise."""


def recorded_moments(folder: Path) -> MomentRecord:
    """The record that :meth:`MomentSource.record` wrote.

    Raises:
        UserError: the run was not trained on moments.
    """
    missing = f"{folder} was not trained to find moments: it has no {RECORD}"
    return read_feature_record(MomentRecord, folder / RECORD, missing)


def _open(config: Moments, data: Data) -> MomentSource:
    annotated = read_queries(config, data)
    clip_seconds = config.clip_seconds or annotated.clip_seconds or CLIP_SECONDS
    if data.path is None and config.more_features:
        raise UserError("data.reads.more_features stand beside those of data.path: provide a path (--data)")
    paths = [] if data.path is None else [Path(data.path), *config.more_features]
    video = open_video_features(paths, config, clip_seconds, annotated.queries)
    there = [query for query in annotated.queries if query.video in video]
    if not there:
        raise UserError(
            f"{data.path} has features of none of the videos of {len(annotated.queries)} queries, such as "
            f"{annotated.queries[0].video}: files must be named as in the annotations"
        )
    if missing := len(annotated.queries) - len(there):
        log.warning(
            "%d of %d queries are about videos without features and are skipped", missing, missing + len(there)
        )
    words = config.query_features()
    if isinstance(words, TextEncoder):
        words.learn([query.text for query in there])
    raters = 0 if config.by == "video" else annotated.raters
    root = Path(data.path or annotated.root)
    samples = tuple(
        MomentSample(
            path=str(root),
            name=queries[0].video if config.by == "video" else queries[0].name,
            split=queries[0].split,
            queries=queries,
            config=config,
            video=video,
            words=words,
            raters=raters,
        )
        for queries in _grouped(config, there)
    )
    return MomentSource(
        root=root,
        classes=(),
        samples=samples,
        config=config,
        video=video,
        words=words,
        raters=raters,
        clip_seconds=clip_seconds,
    )


def _grouped(config: Moments, queries: list[Query]) -> list[tuple[Query, ...]]:
    """The queries of each sample."""
    if config.by == "query":
        return [(query,) for query in queries]
    groups: dict[tuple[str, str], list[Query]] = {}
    for query in queries:
        groups.setdefault((query.split, query.video), []).append(query)
    if config.in_order:
        for group in groups.values():
            group.sort(key=lambda query: sum(query.longest))
    return [tuple(group) for group in groups.values()]


def read_queries(config: Moments, data: Data) -> Queries:
    """The annotations of a dataset.

    Raises:
        UserError: the annotations are missing or cannot be read.
    """
    if config.annotations is None:
        described = getattr(data.synthetic, "queries", None)
        if described is None:
            raise UserError(
                "moments need annotations (--data.reads.annotations FOLDER): the folder of a public dataset "
                "(--data.reads.dataset charades_sta), or lines of JSON like those of QVHighlights"
            )
        return described()
    root = Path(config.annotations).expanduser()
    match config.dataset:
        case "charades_sta":
            return read_charades_sta(root)
        case "activitynet_captions":
            return read_activitynet_captions(root)
    return read_qvhighlights(root)


def draw_videos(sizes: Mapping[str, int], generator: torch.Generator) -> Batch:
    """Noise with three moments, each of which shows what one row of the query says; of every second video two.

    Videos have at least 45 features.
    """
    rows, length, width = (sizes[letter] for letter in "BTD")
    text, kinds = sizes.get("E", width), sizes.get("K", 8)
    kinds = min(kinds, width, text)
    first = torch.randint(1, 4, (rows,), generator=generator)
    about = torch.rand(rows, kinds, generator=generator).argsort(dim=1)[:, :3]
    start = torch.stack([first, first + 10, first + 26], dim=1)
    end = torch.stack([first + 7, first + 22, first + 36], dim=1)
    there = torch.ones(rows, 3, dtype=torch.bool)
    there[1::2, 2] = False
    place = torch.arange(length)
    inside = (place >= start[..., None]) & (place < end[..., None]) & there[..., None]
    shown = inside.float().transpose(1, 2) @ F.one_hot(about, width).float()
    good = torch.randint(1, 5, (rows, length, 3), generator=generator).float() * inside.any(dim=1)[..., None]
    noise = torch.randn(rows, length, width, generator=generator)
    says = F.one_hot(about, text).float() * there[..., None]
    return {
        "sequence": shown + 0.1 * noise,
        "length": torch.full((rows,), length - 2),
        "timing": torch.tensor([0.25, 0.5], dtype=torch.float64).expand(rows, 2),
        "seconds": torch.full((rows,), 0.5 * (length - 2), dtype=torch.float64),
        "query": says,
        "query_length": there.sum(dim=1),
        "moments": torch.stack([start, end], dim=-1).float() / (length - 2) * there[..., None],
        "query_of": torch.arange(3).expand(rows, 3).masked_fill(~there, -1),
        "saliency": good,
        "relevant": inside.any(dim=1),
    }
