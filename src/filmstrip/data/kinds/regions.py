"""Clips with captions, and with regions: boxes of things in them, each with a phrase that names it."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from filmstrip.bounds import Count, Share
from filmstrip.data.actions import ActionSpace
from filmstrip.data.annotations.regions import Region, file_in, read_regions
from filmstrip.data.boxes import mirrored
from filmstrip.data.config import Data
from filmstrip.data.kinds import clips
from filmstrip.data.kinds.captioned import Captioned, CaptionedSample, CaptionedSource, CaptionInfo
from filmstrip.data.kinds.kind import Kind, Row
from filmstrip.data.kinds.specification import Specification, of
from filmstrip.data.texts import tokenised
from filmstrip.errors import UserError
from filmstrip.protocols import Batch

log = logging.getLogger(__name__)

BOXES = of(
    "B M T 4",
    torch.float32,
    "box of each region in each frame: left, top, right, bottom, as fractions of the clip's width and height",
    padding=0,
    mirrored=mirrored,
    unmixed="regions",
)
_DRAWN = {"M": 2, "P": 4}
"""Number of drawn regions and length of their phrases, unless they are given."""


@dataclass(frozen=True, kw_only=True)
class Regions(Captioned):
    """Captioned clips with regions that phrases name, from a file beside the manifest (``regions.jsonl``).

    Boxes are those in each frame of the clip, cut to what it shows; a region that shows too little of itself in the
    middle frame is left out. Of more than ``max_regions`` training draws some, and evaluation takes the first. Clips
    without regions have none.
    """

    specification: ClassVar[Specification] = Specification(
        {
            **Captioned.specification.keys,
            "boxes": BOXES,
            "phrase": of("B M P", torch.int64, "token ids of each region's phrase, then padding", padding=0),
            "phrase_length": of(
                "B M", torch.int64, "number of token ids before the padding; 0: no region", padding=0
            ),
        }
    )

    regions: Path | None = None
    """File of the regions; by default ``regions.jsonl`` beside the manifest."""
    max_regions: Count = 4
    """Maximum number of regions of a clip."""
    phrase_length: Count = 16
    """Number of token ids of a phrase, its end and padding included; longer phrases are cut."""
    kept: Share = 0.5
    """Minimum share of a box that the middle frame shows, for its region to be used."""

    def open(self, data: Data) -> RegionSource:
        """The captioned samples with their regions.

        Raises:
            UserError: there is nothing to read, no sample has a caption, or there are no regions.
        """
        source = self.captioned(data)
        file = Path(self.regions).expanduser() if self.regions is not None else file_in(Path(source.root))
        found = {os.path.normpath(file.parent / path): given for path, given in read_regions(file).items()}
        of_samples = [found.get(os.path.normpath(sample.path), ()) for sample in source.samples]
        if not any(of_samples):
            raise UserError(
                f"{file} has no region of any file of {source.root}: paths there are relative to its own folder"
            )
        if missing := sum(not regions for regions in of_samples):
            log.warning("%s: %d of %d samples have no regions", file, missing, len(of_samples))
        phrases = (
            region.phrase
            for sample, regions in zip(source.samples, of_samples)
            if sample.split == data.train_split
            for region in regions
        )
        told = self.with_tokenizer(source, phrases, data.train_split)
        values = {each.name: getattr(told, each.name) for each in fields(CaptionedSource)}
        samples = (_with_regions(one, regions, self) for one, regions in zip(told.samples, of_samples))
        return RegionSource(**values | {"samples": tuple(samples)})

    def sizes(self, data: Data, network: Any) -> dict[str, int]:
        """Sizes of a captioned clip, with its regions (``M``) and their phrases (``P``)."""
        return {**super().sizes(data, network), "M": self.max_regions, "P": self.phrase_length}

    @staticmethod
    def example_info(sizes: Mapping[str, int], **told: Any) -> RegionInfo:
        """See :meth:`Kind.example_info`."""
        info = Captioned.example_info(sizes, **told)
        values = {each.name: getattr(info, each.name) for each in fields(CaptionInfo)}
        return RegionInfo(**values, phrase_length=sizes.get("P", _DRAWN["P"]))

    @staticmethod
    def example(sizes: Mapping[str, int], generator: torch.Generator) -> Batch:
        """Captioned clips, some of whose quarters are named by their mean colours; see :meth:`Kind.example`."""
        batch = Captioned.example(sizes, generator)
        rows, regions, length = sizes["B"], sizes.get("M", _DRAWN["M"]), sizes.get("P", _DRAWN["P"])
        size = int(batch["text"].max()) + 1
        quarter = torch.randint(0, 4, (rows, regions), generator=generator)
        corner = torch.stack([quarter % 2, quarter // 2], dim=-1) / 2
        boxes = torch.cat([corner, corner + 0.5], dim=-1)[:, :, None].repeat(1, 1, sizes["T"], 1)
        colours = F.adaptive_avg_pool2d(batch["video"].float().mean(dim=1), 2).flatten(2).mT  # B 4 3
        named = colours.gather(1, quarter[..., None].expand(-1, -1, 3)) * (size - 3) / 256
        words = 3 + named.long().repeat(1, 1, -(-length // 3))[..., :length]
        count = torch.full((rows, regions), length)
        count[0, regions - 1] = 0  # one region fewer
        words[..., length - 1] = 2
        there = count[..., None] > 0
        return batch | {"boxes": boxes * there[..., None], "phrase": words * there, "phrase_length": count}


@dataclass(frozen=True, kw_only=True)
class RegionInfo(CaptionInfo):
    """Properties of captioned clips with regions that objectives need."""

    phrase_length: Count
    """Number of token ids of a phrase, padding included."""


@dataclass(frozen=True, kw_only=True)
class RegionSample(CaptionedSample):
    """A captioned sample with regions."""

    kind: ClassVar[type[Kind]] = Regions
    in_turn: ClassVar[bool] = False

    regions: tuple[Region, ...] = field(repr=False, compare=False)
    reads: Regions = field(repr=False)

    def cut(
        self,
        data: Data,
        *,
        rng: np.random.Generator | None = None,
        num_clips: int = 1,
        num_crops: int = 1,
        actions: ActionSpace | None = None,
    ) -> list[Row]:
        """Captioned clips, each with the regions that it shows; training clips are padded to ``max_regions``."""
        rows = clips.cut(self, data, rng=rng, num_clips=num_clips, num_crops=num_crops, numbered=True)
        rows = self.captioned(rows, rng)
        return [replace(row, content={**row.content, **self._regions(row, rng)}) for row in rows]

    def _regions(self, row: Row, rng: np.random.Generator | None) -> dict[str, Tensor]:
        found = [(region.phrase, *_within(region.at(row.numbers), row.shown)) for region in self.regions]
        seen = [(phrase, boxes) for phrase, boxes, share in found if share[len(share) // 2] >= self.reads.kept]
        most = self.reads.max_regions
        if rng is not None and len(seen) > most:
            seen = [seen[i] for i in sorted(rng.choice(len(seen), most, replace=False))]
        seen = seen[:most]
        room = most if rng is not None else max(len(seen), 1)
        boxes = torch.zeros(room, len(row.numbers), 4)
        ids = torch.full((room, self.reads.phrase_length), self.text_tokenizer.pad)
        lengths = torch.zeros(room, dtype=torch.int64)
        if seen:
            boxes[: len(seen)] = torch.from_numpy(np.stack([own for _, own in seen]))
            phrases = [phrase for phrase, _ in seen]
            ids[: len(seen)], lengths[: len(seen)] = tokenised(
                self.text_tokenizer, phrases, self.reads.phrase_length, start=False
            )
        return {"boxes": boxes, "phrase": ids, "phrase_length": lengths}


@dataclass(frozen=True, kw_only=True)
class RegionSource(CaptionedSource):
    """A collection of captioned samples with regions."""

    kind: ClassVar[type[Kind]] = Regions

    def info(self, train_split: str) -> RegionInfo:
        """The properties of the collection that an objective needs before it is built."""
        info = super().info(train_split)
        values = {each.name: getattr(info, each.name) for each in fields(CaptionInfo)}
        assert isinstance(self.reads, Regions)
        return RegionInfo(**values, phrase_length=self.reads.phrase_length)


def _within(boxes: np.ndarray, shown: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    """Boxes ``T 4`` as fractions of the part of the frame that is shown, cut to it, and the visible share of each."""
    left, top, right, bottom = shown
    corner, side = np.array([left, top, left, top]), np.array([right - left, bottom - top] * 2)
    placed = (boxes - corner) / side
    cut = placed.clip(0, 1)
    whole = (placed[:, 2:] - placed[:, :2]).prod(axis=1)
    return cut.astype(np.float32), (cut[:, 2:] - cut[:, :2]).prod(axis=1) / np.maximum(whole, 1e-9)


def _with_regions(sample: Any, regions: tuple[Region, ...], reads: Regions) -> RegionSample:
    values = {each.name: getattr(sample, each.name) for each in fields(CaptionedSample)}
    return RegionSample(**values, regions=regions, reads=reads)
