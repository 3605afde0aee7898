"""Captioned clips with depth maps, from a file beside each video (``clip.depth.npz``)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from filmstrip.data.actions import ActionSpace
from filmstrip.data.config import Data
from filmstrip.data.depth import depth_file, read_depth, shown_depth
from filmstrip.data.kinds import clips
from filmstrip.data.kinds.captioned import Captioned, CaptionedSample, CaptionedSource
from filmstrip.data.kinds.kind import Row
from filmstrip.data.kinds.specification import Specification, of
from filmstrip.errors import UserError
from filmstrip.protocols import Batch
from filmstrip.video.decoder import DecodeError

DEPTH = of(
    "B T 1 H W",
    torch.float32,
    "depth maps of the frames, larger where things are nearer, in any unit",
    mirrored=lambda maps: maps.flip(-1),
    unmixed="depth maps",
)


@dataclass(frozen=True, kw_only=True)
class CaptionedDepth(Captioned):
    """Captioned clips with depth maps, cut as the clips are.

    The maps of ``clip.mp4`` are in ``clip.depth.npz`` beside it: the array ``depth``, ``T H W``, a map for each frame
    of the file, of any size. Videos without are not read.
    """

    mixes: ClassVar[bool] = False
    specification: ClassVar[Specification] = Specification({**Captioned.specification.keys, "depth": DEPTH})

    def open(self, data: Data) -> CaptionedDepthSource:
        """The captioned samples that have depth maps.

        Raises:
            UserError: there is nothing to read, no sample has a caption, or none has depth maps.
        """
        source = self.captioned(data)
        found = [sample for sample in source.samples if depth_file(sample.path).is_file()]
        if not found:
            example = depth_file(source.samples[0].path).name
            raise UserError(
                f"{source.root} has no depth maps: expected a file such as {example} beside each video, with an "
                "array 'depth' (a map for each frame, larger where things are nearer)"
            )
        if missing := len(source.samples) - len(found):
            clips_without = f"{missing} of {len(source.samples)} samples have no depth maps"
            raise UserError(f"{source.root}: {clips_without}: make them, or list the others alone in a manifest")
        told = self.with_tokenizer(replace(source, samples=tuple(found)), (), data.train_split)
        values = {each.name: getattr(told, each.name) for each in fields(CaptionedSource)}
        samples = (_with_depth(sample) for sample in told.samples)
        return CaptionedDepthSource(**values | {"samples": tuple(samples)})

    @staticmethod
    def example(sizes: Mapping[str, int], generator: torch.Generator) -> Batch:
        """Captioned clips as drawn, whose bright parts are near; see :meth:`Kind.example`."""
        batch = Captioned.example(sizes, generator)
        return batch | {"depth": batch["video"].float().mean(dim=2, keepdim=True)}


@dataclass(frozen=True, kw_only=True)
class CaptionedDepthSample(CaptionedSample):
    """A captioned sample with depth maps."""

    kind: ClassVar[type[CaptionedDepth]] = CaptionedDepth
    in_turn: ClassVar[bool] = False

    def cut(
        self,
        data: Data,
        *,
        rng: np.random.Generator | None = None,
        num_clips: int = 1,
        num_crops: int = 1,
        actions: ActionSpace | None = None,
    ) -> list[Row]:
        """Captioned clips, each with the maps of its frames.

        Raises:
            DecodeError: the video or its maps cannot be read.
        """
        rows = clips.cut(self, data, rng=rng, num_clips=num_clips, num_crops=num_crops, numbered=True)
        try:
            maps = read_depth(depth_file(self.path))
            return [self._deep(row, maps) for row in self.captioned(rows, rng)]
        except UserError as error:
            raise DecodeError(self.path, 0, str(error)) from None

    @staticmethod
    def _deep(row: Row, maps: Tensor) -> Row:
        depth = shown_depth(maps, row.numbers, row.shown, row.content["video"].shape[-1])
        return replace(row, content={**row.content, "depth": depth})


@dataclass(frozen=True, kw_only=True)
class CaptionedDepthSource(CaptionedSource):
    """A collection of captioned samples with depth maps."""

    kind: ClassVar[type[CaptionedDepth]] = CaptionedDepth


def _with_depth(sample: Any) -> CaptionedDepthSample:
    values = {each.name: getattr(sample, each.name) for each in fields(CaptionedSample)}
    return CaptionedDepthSample(**values)
