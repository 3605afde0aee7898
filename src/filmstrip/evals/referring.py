"""Referring: the box of what a phrase names (Yu et al. 2016; the protocol of RefCOCO)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from torch import Tensor

from filmstrip.bounds import Bounds, Count
from filmstrip.data.boxes import area, intersection
from filmstrip.errors import UserError
from filmstrip.evals.clips import map_clips
from filmstrip.inference import inference
from filmstrip.nn.patches import NativeFrames
from filmstrip.protocols import Batch, Refers
from filmstrip.runs.evaluation import Evaluation, Subject


@dataclass(frozen=True, kw_only=True)
class Referring(Evaluation):
    """Share of phrases whose box has an IoU of one half or more with what it names, over all frames that show it.

    The blind baseline is the same for boxes that were found in another clip's frames.
    """

    requires: ClassVar[frozenset[str]] = frozenset({"video", "boxes", "phrase"})
    takes_native: ClassVar[bool] = True

    iou: Annotated[float, Bounds(min=0, max=1)] = 0.5
    """Minimum intersection over union of a box that counts as found."""
    max_clips: Count | None = None
    """Maximum number of clips; none for all."""
    batch_size: Count = 16

    def check(self, subject: Subject) -> None:
        """The objective finds what phrases name."""
        if not isinstance(subject.objective, Refers):
            raise UserError(
                f"{type(subject.objective).__name__} finds nothing by phrases: evaluate a model that writes boxes, "
                "as SigLIP 2 with its decoder (language.siglip2); for a language model, take answered_boxes"
            )

    def __call__(self, subject: Subject) -> Iterator[tuple[str, float]]:
        """Yield ``referring/accuracy``, ``referring/mean_iou``, and both of the blind baseline."""

        def find(batch: Batch, before: int) -> tuple[Tensor, Tensor]:
            overlaps = []
            for shift in (0, 1):
                frames = NativeFrames.of(batch)
                native = () if frames is None else (NativeFrames(*(x.roll(shift, 0) for x in frames)),)
                with inference(subject.objective):
                    assert isinstance(subject.objective, Refers)
                    boxes = subject.objective.locate(
                        batch["video"].roll(shift, 0), batch["phrase"], batch["phrase_length"], *native
                    )
                overlaps.append(overlap(boxes, batch["boxes"]))
            there = (batch["phrase_length"] > 0)[..., None] & (area(batch["boxes"]) > 0)
            return overlaps[0][there].cpu(), overlaps[1][there].cpu()

        found = list(map_clips(subject, find, max_clips=self.max_clips, batch_size=self.batch_size))
        for name, parts in zip(("", "blind_"), zip(*found)):
            values = torch.cat(parts)
            yield f"referring/{name}accuracy", (values >= self.iou).float().mean().item()
            yield f"referring/{name}mean_iou", values.mean().item()


def overlap(boxes: Tensor, others: Tensor) -> Tensor:
    """Intersection over union of boxes and others in their order, ``... 4`` each; zero for two without an area."""
    shared = area(intersection(boxes, others))
    either = area(boxes) + area(others) - shared
    return torch.where(either > 0, shared / either, 0)
