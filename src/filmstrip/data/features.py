"""Features and tokens on disk: safetensors shards, and one Parquet index with their locations.

Each shard holds a tensor ``features`` (``rows D``; ids of ``D`` codebooks are integers). Each row of the index
is one clip: its video's ``name``, ``label``, ``split``, the clip's ``start`` and ``end`` (seconds), and its
``n = t * h * w`` tokens as rows ``offset`` to ``offset + n`` of ``shard``. For tokens of variable length, ``lengths``
is the number of used tokens of each block; only these are written, and the others are read as zeros. If clips have
actions, the shard also holds ``action`` (``clips T``, or ``clips T A``), its clips in the order of the index.
"""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from filelock import FileLock
from safetensors import SafetensorError, safe_open
from torch import Tensor

from filmstrip.errors import UserError
from filmstrip.files import remove_parts, replacing, write_tensors
from filmstrip.protocols import Grid, Tokens

INDEX = "index.parquet"
WHERE = "encoder"
"""Metadata key of the encoder's path; not compared when a folder is resumed, so that the encoder may be moved."""
POOLED = Grid(1, 1, 1)

_SCHEMA = pa.schema(
    [
        ("name", pa.string()),
        ("label", pa.int64()),
        ("split", pa.string()),
        ("start", pa.float64()),
        ("end", pa.float64()),
        ("shard", pa.string()),
        ("offset", pa.int64()),
        ("n", pa.int64()),
        ("t", pa.int32()),
        ("h", pa.int32()),
        ("w", pa.int32()),
        ("lengths", pa.list_(pa.int32())),
    ]
)


@dataclass(frozen=True, kw_only=True)
class FeatureRow:
    """Index row of one clip: which clip it is, and the location of its features."""

    name: str
    """Name of the clip, unique in the folder."""
    label: int | None
    """Number of the class; none without labels."""
    split: str
    """Name of the split."""
    start: float | None
    """Start of the clip, in seconds, if it is known."""
    end: float | None
    """End of the clip, in seconds, if it is known."""
    shard: str
    """Name of the safetensors file."""
    offset: int
    """Row of that file at which the clip's tokens begin."""
    n: int
    """Number of rows that are stored for the clip."""
    t: int
    """Number of time steps of the grid."""
    h: int
    """Height of the grid."""
    w: int
    """Width of the grid."""
    lengths: tuple[int, ...] | None = None
    """Number of used tokens of each block, for variable length; None if all are used."""

    @property
    def places(self) -> int:
        """Number of token positions of the clip."""
        return self.t * self.h * self.w

    @property
    def grid(self) -> Grid:
        """The grid of the tokens; ``(1, 1, 1)`` for a pooled feature."""
        return Grid(self.t, self.h, self.w)


class _PendingClip(NamedTuple):
    """A clip that is not written yet."""

    row: FeatureRow
    features: Tensor
    action: Tensor | None

    @property
    def kind(self) -> tuple[Any, ...]:
        """Properties that the clips of a shard share: width and dtype, and shape and dtype of the actions."""
        action = None if self.action is None else (tuple(self.action.shape), self.action.dtype)
        return self.features.shape[1], self.features.dtype, action


class FeatureWriter:
    """Writes features shard by shard; as a context manager, it writes everything added so far even on an exception.

    An existing folder is continued: ``name in writer`` tells whether it holds a video. A shard appears together with
    its rows in the index or not at all. Several processes may write into one folder; if two of them add the same
    video, the first one is kept.
    """

    def __init__(self, folder: Path, *, about: Mapping[str, str], shard_bytes: int = 256 * 2**20):
        """Begin or continue a folder; ``about`` describes the origin of the features (encoder, layer, clip).

        Raises:
            UserError: the folder holds features of another origin.
        """
        self.folder = Path(folder)
        self.about = dict(about)
        self._shard_bytes = shard_bytes
        self._rows: list[FeatureRow] = []
        self._pending: list[_PendingClip] = []
        self._pending_bytes = 0
        self.folder.mkdir(parents=True, exist_ok=True)
        if (self.folder / INDEX).exists():
            self._rows, found = _read_index(self.folder)
            if _without_place(found) != _without_place(self.about):
                raise UserError(
                    f"{self.folder} holds features made by {found}, not by {self.about}: use another folder, or "
                    "remove this one first"
                )
        self._names = {row.name for row in self._rows}

    def __contains__(self, name: str) -> bool:
        """Whether the features of a video are written, or waiting to be written."""
        return name in self._names

    def __enter__(self) -> FeatureWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.flush()

    def add(
        self,
        name: str,
        features: Tensor,
        *,
        grid: Grid = POOLED,
        spans: Sequence[tuple[float | None, float | None]] = ((None, None),),
        label: int | None = None,
        split: str = "",
        action: Tensor | None = None,
        lengths: Tensor | None = None,
    ) -> None:
        """Add all clips of a video at once: ``features`` are ``C N D`` (clips, tokens, width), ``spans`` are C.

        ``action`` holds the actions of each clip, ``C T`` or ``C T A``; ``lengths`` (``C b``) the number of used
        tokens of each of ``b`` blocks, if not all are used.

        Raises:
            ValueError: the shapes disagree with each other or with earlier features, or ``name`` was added already.
        """
        clips, n = len(spans), grid.t * grid.h * grid.w
        if features.ndim != 3 or features.shape[:2] != (clips, n):
            raise ValueError(
                f"expected features of shape ({clips}, {n}, D) for {clips} clips on a grid {tuple(grid)}, "
                f"got {tuple(features.shape)}"
            )
        if name in self:
            raise ValueError(f"the features of {name} were added already")
        if action is not None and len(action) != clips:
            raise ValueError(f"expected actions for {clips} clips, got {tuple(action.shape)}")
        # Copies, so that a view does not keep its whole batch alive (or change with it) until the shard is written.
        stored: Sequence[Tensor] = list(features.detach().to("cpu", copy=True))
        actions = [None] * clips if action is None else action.detach().to("cpu", copy=True)
        counts = [None] * clips if lengths is None else lengths.tolist()
        if lengths is not None:
            stored = [tokens[used] for tokens, used in zip(stored, _used(grid, lengths.cpu()))]
        for tokens, done, count, (start, end) in zip(stored, actions, counts, spans):
            place = {"shard": "", "offset": 0, "n": len(tokens), **grid._asdict()}
            spent = None if count is None else tuple(count)
            row = FeatureRow(name=name, label=label, split=split, start=start, end=end, lengths=spent, **place)
            clip = _PendingClip(row, tokens, done)
            if self._pending and clip.kind != self._pending[0].kind:
                raise ValueError(f"expected features like the earlier {self._pending[0].kind}, got {clip.kind}")
            self._pending.append(clip)
        self._names.add(name)
        self._pending_bytes += sum(tokens.nbytes for tokens in stored)
        if self._pending_bytes >= self._shard_bytes:
            self.flush()

    def flush(self) -> None:
        """Write the features added since the last shard."""
        if not self._pending:
            return
        with self.alone():
            self._write_shard()
        self._pending.clear()
        self._pending_bytes = 0

    def alone(self) -> FileLock:
        """A lock that keeps other processes from writing to the folder."""
        return FileLock(self.folder / ".lock")

    def _write_shard(self) -> None:
        remove_parts(self.folder)
        if (self.folder / INDEX).exists():
            self._rows, _ = _read_index(self.folder)
            here = {row.name for row in self._rows}
            self._pending = [clip for clip in self._pending if clip.row.name not in here]
            if not self._pending:
                return
        # Numbered by the index: a shard interrupted before its rows reached the index is overwritten.
        shard = f"features-{len({row.shard for row in self._rows}):05d}.safetensors"
        offset, rows = 0, []
        for row, _, _ in self._pending:
            rows.append(dataclasses.replace(row, shard=shard, offset=offset))
            offset += row.n
        tensors = {"features": torch.cat([clip.features for clip in self._pending])}
        actions = [clip.action for clip in self._pending if clip.action is not None]
        if actions:  # of all clips or of none: they are of one kind
            tensors["action"] = torch.stack(actions)
        write_tensors(tensors, self.folder / shard)
        _write_index(self.folder, self._rows + rows, self.about)
        self._rows += rows


class FeatureSource:
    """Stored features, read on request."""

    def __init__(self, folder: Path):
        """Open a folder of features.

        Raises:
            UserError: there is no index, or it is not an index of features.
        """
        self.folder = Path(folder)
        rows, self.about = _read_index(self.folder)
        self.rows = tuple(rows)
        self._shards: dict[str, safe_open] = {}
        seen: Counter[str] = Counter()
        self._places: list[int] = []
        for row in rows:
            self._places.append(seen[row.shard])
            seen[row.shard] += 1

    def __getstate__(self) -> dict[str, Any]:
        """State for another process, which opens the shards itself."""
        return {**self.__dict__, "_shards": {}}

    def __len__(self) -> int:
        """Number of clips."""
        return len(self.rows)

    def __getitem__(self, i: int) -> Tensor:
        """The features of clip ``i``, ``N D``, read from its shard; zero for unused tokens.

        Raises:
            UserError: the shard is missing or damaged.
        """
        row = self.rows[i]
        stored = self._read(row.shard, "features", slice(row.offset, row.offset + row.n))
        if row.lengths is None:
            return stored
        features = stored.new_zeros(row.places, stored.shape[1])
        features[_used(row.grid, torch.tensor([row.lengths]))[0]] = stored
        return features

    def lengths(self, indices: Iterable[int]) -> Tensor | None:
        """Number of used tokens of each block of several clips, ``B b`` int64; None if all are used."""
        lengths = [self.rows[i].lengths for i in indices]
        return None if None in lengths else torch.tensor(lengths)

    def action(self, i: int) -> Tensor | None:
        """The actions of clip ``i``, ``T`` or ``T A``; None if they were not recorded.

        Raises:
            UserError: the shard is missing or damaged.
        """
        shard = self.rows[i].shard
        if "action" not in self._open(shard).keys():  # noqa: SIM118 (a shard is not a mapping)
            return None
        return self._read(shard, "action", self._places[i])

    def _read(self, shard: str, name: str, part: slice | int) -> Tensor:
        try:
            return self._open(shard).get_slice(name)[part]
        except (OSError, SafetensorError) as error:
            raise UserError(f"the features in {self.folder / shard} cannot be read: {error}") from None

    def _open(self, shard: str) -> safe_open:
        try:
            if shard not in self._shards:
                self._shards[shard] = safe_open(self.folder / shard, framework="pt")
        except (OSError, SafetensorError) as error:
            raise UserError(f"the features in {self.folder / shard} cannot be read: {error}") from None
        return self._shards[shard]

    def read(self, indices: Iterable[int]) -> Tensor:
        """The features of several clips on one grid, ``B N D``."""
        return torch.stack([self[i] for i in indices])

    def split(self, name: str) -> tuple[int, ...]:
        """Indices of the clips of a split.

        Raises:
            UserError: the split does not exist; the message lists the splits.
        """
        found = tuple(i for i, row in enumerate(self.rows) if row.split == name)
        if not found:
            known = ", ".join(map(repr, sorted({row.split for row in self.rows}))) or "none"
            raise UserError(f"{self.folder} has no features of a split {name!r}; it has {known}")
        return found


def _used(grid: Grid, lengths: Tensor) -> Tensor:
    """Mask of the used tokens of several clips, ``C N``, from the number in each block, ``C b``."""
    used = Tokens(grid, lengths=lengths).kept()
    assert used is not None, "there are lengths"
    return used


def _without_place(about: Mapping[str, str]) -> dict[str, str]:
    return {key: value for key, value in about.items() if key != WHERE}


def names_in(folder: Path) -> set[str]:
    """Names of the videos with features in a folder; empty if the folder does not exist."""
    return {row.name for row in _read_index(folder)[0]} if (folder / INDEX).exists() else set()


def sort_index(folder: Path, names: Sequence[str]) -> None:
    """Sort the videos of a folder, if it holds any, in the order of ``names``, others after them in their old
    order."""
    if not (folder / INDEX).exists():
        return
    rows, about = _read_index(folder)
    place = {name: i for i, name in enumerate(names)}
    # A stable sort: clips of a shard keep their order, which locates their actions.
    _write_index(folder, sorted(rows, key=lambda row: place.get(row.name, len(place))), about)


def _write_index(folder: Path, rows: Sequence[FeatureRow], about: Mapping[str, str]) -> None:
    schema = _SCHEMA.with_metadata({"filmstrip": json.dumps(dict(about))})
    table = pa.Table.from_pylist([dataclasses.asdict(row) for row in rows], schema=schema)
    with replacing(folder / INDEX) as part:
        pq.write_table(table, part)


def _read_index(folder: Path) -> tuple[list[FeatureRow], dict[str, str]]:
    path = folder / INDEX
    try:
        table = pq.read_table(path)
        about = json.loads(table.schema.metadata[b"filmstrip"])
        rows = table.to_pylist()
        return [FeatureRow(**row | {"lengths": row.get("lengths") and tuple(row["lengths"])}) for row in rows], about
    except FileNotFoundError:
        raise UserError(f"{folder} holds no features: it has no {INDEX}") from None
    except (pa.ArrowException, OSError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path} is not an index of features: {error}") from None
