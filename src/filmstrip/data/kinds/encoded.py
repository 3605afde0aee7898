"""Encoded clips: features or tokens that ``filmstrip encode`` wrote, in place of videos."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from filmstrip.bounds import CountOrZero
from filmstrip.data.actions import ActionSpace
from filmstrip.data.config import Data
from filmstrip.data.features import INDEX, FeatureSource
from filmstrip.data.kinds.clips import LABEL, ClipInfo, draw_common
from filmstrip.data.kinds.kind import Kind, Row
from filmstrip.data.kinds.specification import COMMON, Form, Key, Specification
from filmstrip.data.sample import FeatureSample, Source, hold_out
from filmstrip.errors import UserError
from filmstrip.protocols import Batch, Grid

IDS = "ids"
"""Level of token ids; all other levels are features."""
TOKENIZER_LEVELS = (IDS, "latents")
"""Levels that a tokenizer encodes and decodes."""


SPECIFICATION = Specification(
    {
        "tokens": Key(
            "token ids at the positions of a clip, or of `L` successive clips",
            (Form("B L N", torch.int64), Form("B N", torch.int64)),
            when="videos encoded as ids",
        ),
        "features": Key(
            "features at the positions of a clip, or of `L` successive clips",
            tuple(
                Form(shape, dtype)
                for dtype in (torch.float32, torch.float16, torch.bfloat16)
                for shape in ("B L N D", "B N D")
            ),
            when="videos encoded as features",
        ),
        "lengths": Key(
            "number of used tokens of each of the clip's `b` blocks",
            (Form("B L b", torch.int64), Form("B b", torch.int64)),
            when="tokenizers of variable length",
        ),
        "label": LABEL,
        "action": Key(
            "actions of the encoded frames, as in clips of videos",
            (
                Form("B L T A", torch.float32),
                Form("B T A", torch.float32),
                Form("B L T", torch.int64),
                Form("B T", torch.int64),
            ),
            when="videos with actions",
            unmixed="actions",
        ),
        **COMMON,
    }
)


@dataclass(frozen=True, kw_only=True)
class Encoded(Kind):
    """Features or tokens that ``filmstrip encode`` wrote."""

    mixes: ClassVar[bool] = True
    specification: ClassVar[Specification] = SPECIFICATION

    length: CountOrZero = 0
    """Number of successive clips in one sample, ``B length N D``; zero for single clips, ``B N D``."""
    actions: bool = True
    """Whether to read the actions of videos that have them."""

    def open(self, data: Data) -> EncodedSource:
        """The videos whose features are in the folder ``data.path``, in the order of its index.

        Raises:
            UserError: see :func:`open_encoded`; or the folder does not exist.
        """
        folder = data.path and Path(data.path).expanduser()
        if folder is None or not is_encoded(folder):
            raise UserError(f"data.path is {folder}: use a folder that `filmstrip encode` wrote (--data FOLDER)")
        source = open_encoded(folder, self.length)
        return source if self.actions else replace(source, actions=None)

    def sizes(self, data: Data, network: Any) -> None:
        """None: the shapes of features depend on their encoder."""
        return None

    def told_sizes(self, data: Data, info: EncodedInfo) -> dict[str, int]:
        """Those of the features, or of the ids of all codebooks side by side."""
        t, h, w = info.grid
        classes = len(info.classes) or info.codebook_size or 1
        if not info.codebook_size:
            return {"N": t * h * w, "D": info.width, "K": classes}
        return {"N": t * h * w * info.width, "K": min(classes, info.codebook_size)}

    @staticmethod
    def example_info(sizes: Mapping[str, int], **told: Any) -> EncodedInfo:
        """See :meth:`Kind.example_info`."""
        return EncodedInfo(
            **told,
            grid=(sizes["N"], 1, 1),
            codebook_size=0 if "D" in sizes else sizes["K"],
            width=sizes.get("D", 1),
        )

    @staticmethod
    def example(sizes: Mapping[str, int], generator: torch.Generator) -> Batch:
        """Ids below ``K`` if there is no ``D``, otherwise features around the centre of their label, one of ``K``."""
        rows, places, classes = (sizes[letter] for letter in "BNK")
        label = torch.randint(0, classes, (rows,), generator=generator)
        if "D" not in sizes:
            drawn = {"tokens": (label[:, None] + torch.arange(places)) % classes}
        else:
            centres = torch.randn(classes, 1, sizes["D"], generator=generator)
            drawn = {"features": centres[label] + 0.1 * torch.randn(rows, places, sizes["D"], generator=generator)}
        return {**drawn, "label": label, **draw_common(rows, generator)}


@dataclass(frozen=True, kw_only=True)
class EncodedInfo(ClipInfo):
    """Properties of encoded clips that objectives need."""

    grid: tuple[int, int, int]
    """Grid of a clip's features or tokens: numbers of positions along time, height and width."""
    codebook_size: int
    """Number of token ids; zero for features."""
    width: int
    """Dimension of a feature; for token ids, the number of codebooks."""


@dataclass(frozen=True, kw_only=True)
class EncodedSample(FeatureSample):
    """A video with encoded clips; ``rows`` are their rows of the index in temporal order."""

    kind: ClassVar[type[Kind]] = Encoded

    features: FeatureSource = field(repr=False, compare=False)
    rows: tuple[int, ...]
    length: int = 0
    """Number of successive clips in one sample (``length N D``); zero for single clips (``N D``)."""

    def select(self, rng: np.random.Generator | None, num_clips: int, *, actions: bool) -> list[Row]:
        """Choose among the clips: at random with ``rng``, else evenly spaced; with their ``actions`` if requested.

        Raises:
            UserError: there are too few clips for a sample, ids are outside the codebook, or actions are missing.
        """
        starts = len(self.rows) - max(self.length, 1) + 1
        if starts < 1:
            raise UserError(
                f"{self.path} holds {len(self.rows)} clips of {self.name}, but data.reads.length requires "
                f"{self.length}: encode more (--clips)"
            )
        if rng is not None:
            chosen = rng.integers(starts, size=num_clips)
        else:
            chosen = (2 * np.arange(num_clips) + 1) * starts // (2 * num_clips)
        return [self._clip(int(start), actions) for start in chosen]

    def _clip(self, start: int, actions: bool) -> Row:
        rows = self.rows[start : start + max(self.length, 1)]
        content = {"features": self.features.read(rows)}
        if self.features.about.get("level") == IDS:
            ids = content["features"].flatten(1).long()
            known = int(self.features.about.get("codebook_size", 0))
            if known and ids.numel() and not 0 <= ids.min() <= ids.max() < known:
                raise UserError(f"{self.path}: the ids of {self.name} are not all in 0..{known - 1}: encode it again")
            content = {"tokens": ids}
        lengths = self.features.lengths(rows)
        if lengths is not None:
            content["lengths"] = lengths
        if actions:
            content["action"] = torch.stack([self._action(row) for row in rows])
        if not self.length:
            content = {key: value[0] for key, value in content.items()}
        first, last = self.features.rows[rows[0]].start, self.features.rows[rows[-1]].end
        return Row(content=content, times=(np.nan if first is None else first, np.nan if last is None else last))

    def _action(self, row: int) -> torch.Tensor:
        action = self.features.action(row)
        if action is None:
            raise UserError(f"{self.path} has an action space, but no actions of {self.name}: encode it again")
        return action


@dataclass(frozen=True, kw_only=True)
class EncodedSource(Source):
    """A collection of encoded videos: all clips on one grid, from one encoder or tokenizer."""

    kind: ClassVar[type[Kind]] = Encoded

    grid: Grid
    codebook_size: int
    """Number of token ids; zero if the features are continuous."""
    width: int
    """Dimension of a feature; for ids, the number of codebooks."""
    made_by: str
    """Fingerprint of the encoder."""

    @property
    def gives(self) -> frozenset[str]:
        """Keys that batches have: ids or features."""
        return super().gives - {"features" if self.codebook_size else "tokens"}

    @property
    def tokenizer(self) -> str | None:
        """The fingerprint of the tokenizer whose ids these are."""
        return self.made_by if self.codebook_size else None

    def info(self, train_split: str) -> EncodedInfo:
        """Properties of the collection that an objective needs before it is built."""
        t, h, w = self.grid
        return EncodedInfo(
            **vars(super().info(train_split)), grid=(t, h, w), codebook_size=self.codebook_size, width=self.width
        )


def is_encoded(path: Path) -> bool:
    """Whether ``filmstrip encode`` wrote this folder."""
    return (path / INDEX).is_file()


def open_encoded(folder: Path, length: int = 0) -> EncodedSource:
    """The videos whose features are in ``folder``, in the order of its index; ``length`` clips form a sample.

    Raises:
        UserError: the index is invalid or empty, or its clips have different grids.
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
            EncodedSample(
                path=str(folder),
                name=name,
                label=first.label,
                split=first.split,
                features=features,
                rows=tuple(places),
                length=length,
            )
        )
    if not any(sample.split for sample in samples):
        samples = hold_out(samples)
    classes, actions = (json.loads(features.about.get(key, "null")) for key in ("classes", "actions"))
    return EncodedSource(
        root=folder,
        classes=tuple(classes or _numbered(samples)),
        samples=tuple(samples),
        actions=actions and ActionSpace(**actions | {"names": tuple(actions["names"])}),
        grid=grids.pop(),
        codebook_size=int(features.about.get("codebook_size", 0)),
        width=features[0].shape[-1],
        made_by=features.about.get("weights", ""),
    )


def _numbered(samples: list[EncodedSample]) -> tuple[str, ...]:
    """Class names for features without recorded names: the class numbers."""
    return tuple(str(i) for i in range(1 + max((s.label for s in samples if s.label is not None), default=-1)))
