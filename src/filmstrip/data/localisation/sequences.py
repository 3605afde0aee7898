"""Sequences of features along whole videos: encoded clips, public folders of arrays, or stand-in embeddings."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from filmstrip.data.feature_records import SequenceRecord, known_of_sequences, read_feature_record
from filmstrip.data.kinds.encoded import is_encoded
from filmstrip.data.procedures.clips import ARRAYS, ArrayFolder, EncodedClips, random_embeddings, read_array
from filmstrip.data.procedures.types import Procedure
from filmstrip.data.reading.order import derive_seed
from filmstrip.errors import UserError
from filmstrip.files import write_json

if TYPE_CHECKING:
    from filmstrip.data.kinds.untrimmed import UntrimmedVideos

RECORD = "sequences.json"
"""The record in a run folder of how its features were made."""
MEASURED = 20
"""Number of videos whose features' spacing is measured for the record."""
UNEVEN = 0.5
"""Maximum deviation of a clip from even spacing, relative to the spacing: clips begin at frames, which may be
sparse."""


class FeatureSequence(NamedTuple):
    """The features of one video, evenly spaced."""

    features: Tensor
    """Features, ``T D`` float32."""
    first: float
    """Centre of the first feature, in seconds."""
    step: float
    """Spacing of the features, in seconds."""
    reach: float
    """Half the duration of video that a feature covers, in seconds."""


class Sequences(Protocol):
    """Features along each of a set's videos."""

    @property
    def width(self) -> int:
        """The dimension of a feature."""
        ...

    def __contains__(self, video: str) -> bool:
        """Whether there are features of a video."""
        ...

    def sequence(self, procedure: Procedure) -> FeatureSequence:
        """The features of a whole video.

        Raises:
            OSError: they cannot be read, or are not evenly spaced.
        """
        ...


def write_record(sequences: Sequences, videos: Iterable[Procedure], folder: Path) -> None:
    """Record in a run folder how new videos must be encoded; nothing if no feature can be read."""
    found = []
    for video in islice(videos, MEASURED):
        with suppress(OSError):
            found.append(sequences.sequence(video))
    if found:
        write_json(asdict(SequenceRecord(**known_of_sequences(sequences, found))), folder / RECORD)


def read_record(folder: Path) -> SequenceRecord:
    """The record that :func:`write_record` wrote.

    Raises:
        UserError: the run was not trained on features along untrimmed videos.
    """
    missing = f"{folder} does not record how its features were made: it has no {RECORD}"
    return read_feature_record(SequenceRecord, folder / RECORD, missing)


def open_sequences(path: Path | None, config: UntrimmedVideos, num_classes: int) -> Sequences:
    """The sequences at ``path``, see :class:`~filmstrip.data.kinds.untrimmed.UntrimmedVideos`.

    Raises:
        UserError: the path does not exist, or holds no features.
    """
    if path is None:
        embeddings = random_embeddings(num_classes, config.width, config.seed)
        return EmbeddedSequences(embeddings=embeddings, config=config)
    path = Path(path).expanduser()
    if not path.exists():
        raise UserError(f"{path} does not exist: use a folder of `filmstrip encode`, or one of VIDEO.npy")
    if is_encoded(path):
        return EncodedSequences(path)
    files = {file.stem: file for file in sorted(path.rglob("*")) if file.suffix in ARRAYS} if path.is_dir() else {}
    if not files:
        raise UserError(f"{path} holds neither features of `filmstrip encode` (index.parquet) nor arrays VIDEO.npy")
    return ArraySequences(files, config)


class EncodedSequences(EncodedClips):
    """Clips along each video that ``filmstrip encode`` wrote; a clip's feature is the mean of its tokens."""

    def sequence(self, procedure: Procedure) -> FeatureSequence:
        """The clips of a video in temporal order."""
        rows = sorted(self._found(procedure.video), key=lambda i: self._source.rows[i].start or 0.0)
        spans = np.array([(self._source.rows[i].start, self._source.rows[i].end) for i in rows], dtype=np.float64)
        if len(rows) < 2 or np.isnan(spans).any():
            raise OSError(
                f"{self.folder} has {len(rows)} clips of {procedure.video}, and a sequence takes two or more whose "
                "times are known (filmstrip encode --sampling dense --clips N)"
            )
        centres = spans.mean(axis=1)
        step = (centres[-1] - centres[0]) / (len(rows) - 1)
        even = centres[0] + step * np.arange(len(rows))
        if step <= 0 or np.abs(centres - even).max() > UNEVEN * step:
            raise OSError(f"the clips of {procedure.video} in {self.folder} are not evenly spaced over the video")
        reach = float((spans[:, 1] - spans[:, 0]).mean() / 2)
        return FeatureSequence(self._source.read(rows).float().mean(dim=1), float(centres[0]), float(step), reach)


class ArraySequences(ArrayFolder):
    """A folder with an array of each video, ``T D``: one row every ``stride`` frames, made of ``window`` frames."""

    def __init__(self, files: Mapping[str, Path], config: UntrimmedVideos):
        """Look at the first file for the width.

        Raises:
            UserError: it cannot be read.
        """
        super().__init__(files, rate=config.fps / config.stride)
        self._config = config

    def sequence(self, procedure: Procedure) -> FeatureSequence:
        """All rows of a video's array."""
        rows = read_array(self._known_file(procedure.video))
        if rows.shape[1] != self.width or not len(rows):
            raise OSError(f"the features of {procedure.video} are {rows.shape}, and others are of width {self.width}")
        first, step = _spacing(procedure, self._config)
        return FeatureSequence(torch.from_numpy(rows.astype(np.float32)), first, step, reach=first)


@dataclass(frozen=True, kw_only=True)
class EmbeddedSequences:
    """Noise along each video, and in its actions an embedding of what is done, for learning without features.

    A row that only partly lies in an action has that share of its embedding. A video's noise is always the same.
    """

    embeddings: Tensor = field(repr=False)
    """``classes D`` float32, each of root mean square one."""
    config: UntrimmedVideos

    @property
    def width(self) -> int:
        """D."""
        return self.embeddings.shape[1]

    def __contains__(self, video: str) -> bool:
        return True

    def sequence(self, procedure: Procedure) -> FeatureSequence:
        """As many rows as an encoder that slides over the video would give."""
        first, step = _spacing(procedure, self.config)
        if procedure.seconds is None:
            raise OSError(f"how long {procedure.video} lasts is unknown: provide features (--data FOLDER)")
        count = max(1, round((procedure.seconds - 2 * first) / step) + 1)
        generator = torch.Generator().manual_seed(derive_seed(self.config.seed, "sequence", procedure.video))
        features = self.config.noise * torch.randn(count, self.width, generator=generator)
        centre = first + step * torch.arange(count)
        for action in procedure.steps:
            left, right = (centre - first).clamp(min=action.start), (centre + first).clamp(max=action.end)
            features += ((right - left) / (2 * first)).clamp(min=0)[:, None] * self.embeddings[action.step]
        return FeatureSequence(features, first, step, reach=first)


def _spacing(procedure: Procedure, config: UntrimmedVideos) -> tuple[float, float]:
    """The centre of the first row and the seconds to the next, of a window that slides over frames."""
    fps = procedure.fps or config.fps
    return config.window / 2 / fps, config.stride / fps
