"""Features and tokens that ``filmstrip encode`` wrote, as a collection to train on in the videos' place."""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from filmstrip.data.actions import ActionSpace
from filmstrip.data.config import DataInfo
from filmstrip.data.features import INDEX, FeatureSource
from filmstrip.data.sample import Sample, Source, hold_out
from filmstrip.errors import UserError
from filmstrip.protocols import Grid

IDS = "ids"
"""The level of token ids; every other one is of features."""
TOKENIZER_LEVELS = (IDS, "latents")
"""What a tokenizer makes, and can make video of again."""


@dataclass(frozen=True, kw_only=True)
class CachedClip:
    """What a batch takes from one clip, and the times of its first and last frame, seconds."""

    content: dict[str, Tensor]
    times: tuple[float, float]
    damaged: tuple[bool, ...] = ()
    truncated: str = ""


@dataclass(frozen=True, kw_only=True)
class CachedSample(Sample):
    """A video whose clips were encoded; ``rows`` are their places in the index, in the order of time."""

    features: FeatureSource = field(repr=False, compare=False)
    rows: tuple[int, ...]

    def cut(
        self,
        length: int,
        *,
        rng: np.random.Generator | None = None,
        num_clips: int = 1,
        num_crops: int = 1,
        actions: bool = False,
    ) -> list[CachedClip]:
        """Choose among the clips: at random with ``rng``, else evenly spaced; with their ``actions`` if asked.

        With a ``length`` each is a run of so many clips (``length N D``), otherwise a single one (``N D``).

        Raises:
            UserError: there are fewer clips than that, crops were asked for, or ids are outside the codebook.
        """
        if num_crops != 1:
            raise UserError(f"{self.path} holds features, which have no crops: set num_crops to 1 or give videos")
        starts = len(self.rows) - max(length, 1) + 1
        if starts < 1:
            raise UserError(
                f"{self.path} holds {len(self.rows)} clips of {self.name}, and data.cached_clips asks for {length}: "
                "encode more (--clips)"
            )
        if rng is not None:
            chosen = rng.integers(starts, size=num_clips)
        else:
            chosen = (2 * np.arange(num_clips) + 1) * starts // (2 * num_clips)
        return [self._clip(int(start), length, actions) for start in chosen]

    def _clip(self, start: int, length: int, actions: bool) -> CachedClip:
        rows = self.rows[start : start + max(length, 1)]
        content = {"features": self.features.read(rows)}
        if self.features.about.get("level") == IDS:
            ids = content["features"].flatten(1).long()
            known = int(self.features.about.get("codebook_size", 0))
            if known and ids.numel() and not 0 <= ids.min() <= ids.max() < known:
                raise UserError(f"{self.path}: the ids of {self.name} are not all in 0..{known - 1}: encode it anew")
            content = {"tokens": ids}
        lengths = self.features.lengths(rows)
        if lengths is not None:
            content["lengths"] = lengths
        if actions:
            content["action"] = torch.stack([self.features.action(row) for row in rows])
        if not length:
            content = {key: value[0] for key, value in content.items()}
        first, last = self.features.rows[rows[0]].start, self.features.rows[rows[-1]].end
        return CachedClip(content=content, times=tuple(np.nan if t is None else t for t in (first, last)))


@dataclass(frozen=True, kw_only=True)
class CachedSource(Source):
    """A collection of encoded videos: all clips on one grid, from one encoder or tokenizer."""

    grid: Grid
    codebook_size: int
    """How many ids there are; zero where the features are continuous."""
    width: int
    """Size of a feature; of ids, how many codebooks there are."""
    made_by: str
    """The fingerprint of what encoded them."""

    @property
    def gives(self) -> frozenset[str]:
        """What batches hold of a clip."""
        return frozenset({"tokens" if self.codebook_size else "features"} | ({"action"} if self.actions else set()))

    def info(self, train_split: str) -> DataInfo:
        """What an objective may want to know of the collection before it is built."""
        about = {"grid": tuple(self.grid), "codebook_size": self.codebook_size, "width": self.width}
        return replace(super().info(train_split), **about)


def is_cached(path: Path) -> bool:
    """Whether ``filmstrip encode`` wrote this folder."""
    return (path / INDEX).is_file()


def open_cached(folder: Path) -> CachedSource:
    """The videos whose features are in ``folder``, in the order of its index.

    Raises:
        UserError: the index cannot be used, is empty, or its clips do not lie on one grid.
    """
    features = FeatureSource(folder)
    grids = {row.grid for row in features.rows}
    if len(grids) != 1:
        raise UserError(f"training needs features on one grid, and those in {folder} lie on {len(grids)}")
    rows = defaultdict(list)
    for i, row in enumerate(features.rows):
        rows[row.name].append(i)
    samples = []
    for name, places in rows.items():
        first = features.rows[places[0]]
        samples.append(
            CachedSample(
                path=str(folder),
                name=name,
                label=first.label,
                split=first.split,
                features=features,
                rows=tuple(places),
            )
        )
    if not any(sample.split for sample in samples):
        samples = hold_out(samples)
    classes, actions = (json.loads(features.about.get(key, "null")) for key in ("classes", "actions"))
    return CachedSource(
        root=folder,
        classes=tuple(classes or _numbered(samples)),
        samples=tuple(samples),
        actions=actions and ActionSpace(**actions | {"names": tuple(actions["names"])}),
        grid=grids.pop(),
        codebook_size=int(features.about.get("codebook_size", 0)),
        width=features[0].shape[-1],
        made_by=features.about.get("weights", ""),
    )


def _numbered(samples: list[Sample]) -> tuple[str, ...]:
    """Names of classes where the features do not tell: their numbers."""
    return tuple(str(i) for i in range(1 + max((s.label for s in samples if s.label is not None), default=-1)))
