"""Features of clips: encoded videos, public folders of arrays, or stand-in embeddings."""

from __future__ import annotations

import math
import re
import zipfile
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
from torch import Tensor

from filmstrip.data.features import POOLED, FeatureSource
from filmstrip.data.kinds.encoded import is_encoded
from filmstrip.data.procedures.windows import Part
from filmstrip.data.reading.order import derive_seed
from filmstrip.errors import UserError
from filmstrip.protocols import Grid

if TYPE_CHECKING:
    from filmstrip.data.kinds.procedures import Procedures

ARRAYS = (".npy", ".npz")
FEATURES = ("frames_features", "features")
"""Names that features have among a video's arrays, in public planners and in moment retrieval."""
LONGEST_CLIP, LONGEST_SECONDS = 1.5, 3.0
"""Maximum duration of a clip that represents a step: relative to the step, and in excess of it in seconds."""
_PART = re.compile(r" \[[\d.]*-[\d.]*\]$")
"""Suffix of a manifest's name for a part of a video."""


class ClipFeatures(Protocol):
    """Features of any part of a dataset's videos."""

    @property
    def grid(self) -> Grid:
        """The grid of a clip's features."""
        ...

    @property
    def width(self) -> int:
        """The dimension of a feature."""
        ...

    @property
    def about(self) -> Mapping[str, str]:
        """Origin of the features, as recorded by ``filmstrip encode``; empty if unknown."""
        ...

    def __contains__(self, video: str) -> bool:
        """Whether there are features of a video."""
        ...

    def read(self, video: str, given: Part) -> Tensor:
        """The features of a part of a video, ``N D`` float32.

        Raises:
            OSError: they cannot be read, have another width, or do not cover that part.
        """
        ...


def open_clips(path: Path | None, config: Procedures, num_steps: int) -> ClipFeatures:
    """The features at ``path``, see :class:`~filmstrip.data.kinds.procedures.Procedures`.

    Raises:
        UserError: the path does not exist or holds no features, or embeddings are of another number of steps.
    """
    if path is None:
        return StepEmbeddings(embeddings=random_embeddings(num_steps, config.width, config.seed), config=config)
    path = Path(path).expanduser()
    if not path.exists():
        raise UserError(f"{path} does not exist: use a folder of `filmstrip encode`, or one of VIDEO.npy")
    if path.suffix == ".npy" and path.is_file():
        return StepEmbeddings(embeddings=read_embeddings(path, num_steps), config=config)
    if is_encoded(path):
        return EncodedClips(path)
    files = {file.stem: file for file in sorted(path.rglob("*")) if file.suffix in ARRAYS} if path.is_dir() else {}
    if not files:
        raise UserError(f"{path} holds neither features of `filmstrip encode` (index.parquet) nor arrays VIDEO.npy")
    return ArrayFolder(files, config.rate)


class EncodedClips:
    """Features of whole videos or of their steps from ``filmstrip encode``, located by the video's name and time."""

    def __init__(self, folder: Path):
        """Open a folder.

        Raises:
            UserError: its index is invalid, or its clips have different grids.
        """
        self.folder = folder
        self._source = FeatureSource(folder)
        self.about = self._source.about
        rows = self._source.rows
        grids = {row.grid for row in rows}
        if len(grids) != 1:
            raise UserError(f"training needs features on one grid, and those in {folder} lie on {len(grids)}")
        if "codebook_size" in self.about:
            raise UserError(f"{folder} holds token ids: procedures need features (filmstrip encode --level clip)")
        self.grid = grids.pop()
        self.width = self._source[0].shape[-1]
        self._rows: dict[str, list[int]] = defaultdict(list)
        self._names: dict[str, set[str]] = defaultdict(set)
        for i, row in enumerate(rows):
            name = _PART.sub("", row.name)
            self._rows[name].append(i)
            parts = _parts(name)
            for k in range(len(parts)):
                self._names["/".join(parts[k:])].add(name)

    def __contains__(self, video: str) -> bool:
        """Whether clips of a video were encoded.

        Raises:
            UserError: several videos have that name.
        """
        return bool(self._found(video))

    def _found(self, video: str) -> list[int]:
        names = self._names.get("/".join(_parts(video)), ())
        if len(names) > 1:
            raise UserError(
                f"{self.folder} holds several videos that could be {video}: {', '.join(sorted(names)[:3])}; in the "
                "annotations refer to them by their path"
            )
        return [i for name in names for i in self._rows[name]]

    def read(self, video: str, given: Part) -> Tensor:
        """The features of the clip with the largest overlap with a part of a video, ``N D``."""
        best, overlap = -1, -math.inf
        for i in self._found(video):
            row = self._source.rows[i]
            start, end = row.start or 0.0, math.inf if row.end is None else row.end
            shared = min(end, given.end) - max(start, given.start)
            # Of clips that lie within the part, the one nearest to its middle.
            key = shared - 1e-6 * abs((start + min(end, given.end)) - (given.start + given.end))
            if shared >= 0 and key > overlap:
                best, overlap = i, key
        if best < 0:
            raise OSError(
                f"{self.folder} has no clip of {video} from {given.start:.1f} to {given.end:.1f} s: encode its steps "
                "(filmstrip data steps) or more clips of it (--clips)"
            )
        row = self._source.rows[best]
        if (
            row.start is None
            or row.end is None
            or row.end - row.start > LONGEST_CLIP * given.step_seconds + LONGEST_SECONDS
        ):
            raise OSError(
                f"the clips of {video} in {self.folder} spread over far more than the step from {given.start:.1f} to "
                f"{given.end:.1f} s: encode its steps (filmstrip data steps) or dense clips (--sampling dense)"
            )
        return self._source[best].float()


class ArrayFolder:
    """A folder with an array of each video, ``T D``, as PDPP and SCHEMA read them: ``rate`` rows a second.

    An npz (whatever its ending) has it under ``frames_features`` or ``features``. A part's feature is the mean of its
    rows.
    """

    grid = POOLED

    def __init__(self, files: Mapping[str, Path], rate: float):
        """Look at the first file for the width.

        Raises:
            UserError: it cannot be read.
        """
        self._files = dict(files)
        self._rate = rate
        self.about: Mapping[str, str] = {}
        self._latest: tuple[Path | None, np.ndarray] = None, np.empty((0, 0))
        first = next(iter(self._files.values()))
        try:
            self.width = read_array(first).shape[1]
        except OSError as error:
            raise UserError(str(error)) from None

    def _file(self, video: str) -> Path | None:
        """SCHEMA's files of CrossTask begin with the task's number."""
        name = _parts(video)[-1]
        if name not in self._files:
            name = next((stem for stem in self._files if re.fullmatch(rf"\d+_{re.escape(name)}", stem)), name)
        return self._files.get(name)

    def _known_file(self, video: str) -> Path:
        """The file of a video.

        Raises:
            OSError: there is none.
        """
        path = self._file(video)
        if path is None:
            raise OSError(f"there is no array of {video}")
        return path

    def __contains__(self, video: str) -> bool:
        """Whether there is a file of a video."""
        return self._file(video) is not None

    def read(self, video: str, given: Part) -> Tensor:
        """The mean of the rows from ``start`` to ``end``, ``1 D``."""
        path = self._known_file(video)
        if self._latest[0] != path:  # the places of a window are parts of one video
            self._latest = path, read_array(path)
        rows = self._latest[1]
        if rows.shape[1] != self.width:
            raise OSError(f"{path} has features of width {rows.shape[1]}, and the others have {self.width}")
        first = int(given.start * self._rate)
        part = rows[first : max(first + 1, math.ceil(given.end * self._rate))]
        if not len(part):
            raise OSError(
                f"{path} has {len(rows) / self._rate:g} s of features, and a step begins at {given.start:g} s"
            )
        return torch.from_numpy(part.astype(np.float32).mean(axis=0, keepdims=True))


def read_array(path: Path, keys: Sequence[str] = FEATURES) -> np.ndarray:
    """Features, ``T D``, of an npz under the first of ``keys`` that it has; nothing in the file is run, as unpickling
    would.

    Raises:
        OSError: it cannot be read, or holds something else.
    """
    try:
        found = np.load(path)
        if isinstance(found, np.lib.npyio.NpzFile):
            with found:
                found = found[next((key for key in keys if key in found), keys[0])]
    except (OSError, KeyError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise OSError(f"{path} holds no features: {error}") from None
    if found.ndim != 2 or not np.issubdtype(found.dtype, np.floating):
        raise OSError(f"{path} holds an array {found.shape} of {found.dtype}, and features are numbers T x D")
    return found


@dataclass(frozen=True, kw_only=True)
class StepEmbeddings:
    """Stand-in embeddings: an embedding of each step plus Gaussian noise, for learning from step sequences alone.

    A part of a video has the same noise whenever it is read, as a real clip has the same features.
    """

    embeddings: Tensor = field(repr=False)
    """Embeddings, ``steps D`` float32, each of root mean square one."""
    config: Procedures
    about: Mapping[str, str] = field(default_factory=dict)

    @property
    def grid(self) -> Grid:
        """The grid, with all tokens along time."""
        return Grid(self.config.tokens, 1, 1)

    @property
    def width(self) -> int:
        """The dimension D."""
        return self.embeddings.shape[1]

    def __contains__(self, video: str) -> bool:
        return True

    def read(self, video: str, given: Part) -> Tensor:
        """The step's embedding with the noise of that part, ``tokens D``."""
        generator = torch.Generator().manual_seed(derive_seed(self.config.seed, "clip", video, given.part))
        noise = torch.randn(self.config.tokens, self.width, generator=generator)
        return self.embeddings[given.step] + self.config.noise * noise


def random_embeddings(num_steps: int, width: int, seed: int) -> Tensor:
    """A fixed embedding of each step, ``steps width``, of root mean square one."""
    generator = torch.Generator().manual_seed(derive_seed(seed, "embeddings"))
    return _normed(torch.randn(num_steps, width, generator=generator))


def read_embeddings(path: Path, num_steps: int) -> Tensor:
    """An embedding of each step, ``steps D``, from an array ``steps D`` or ``steps prompts D`` (their mean).

    Raises:
        UserError: it cannot be read, or is of another number of steps.
    """
    try:
        found = np.load(path)
    except (OSError, ValueError, EOFError) as error:
        raise UserError(f"{path} is no array: {error}") from None
    if found.ndim not in (2, 3) or len(found) != num_steps:
        raise UserError(
            f"{path} holds an array {found.shape}, and {num_steps} steps need one of {num_steps} x (prompts x) D"
        )
    embeddings = torch.from_numpy(found.astype(np.float32))
    return _normed(embeddings.mean(dim=1) if embeddings.ndim == 3 else embeddings)


def _normed(embeddings: Tensor) -> Tensor:
    return embeddings / embeddings.square().mean(dim=1, keepdim=True).sqrt()


def _parts(name: str) -> tuple[str, ...]:
    """A video's path without its ending, which is short and not a number: ``a/b.mp4`` is ``a, b``."""
    *folders, last = Path(name).parts
    return *folders, re.sub(r"\.[A-Za-z]\w{1,4}$", "", last)
