"""``filmstrip export``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from filmstrip.commands.command import Command

Format = Literal["torch", "onnx"]
Part = Literal["model", "encoder"]


@dataclass(frozen=True, kw_only=True)
class Export(Command):
    """Write a trained network as one file that runs without its code, checked against the network itself.

    The file takes uint8 video, B T C H W with any B, and includes normalisation. A classifier returns logits, a
    two-stream classifier from video and its optical flow, B T-1 2 H W in pixels; VideoMAE returns the pixels of
    masked tubelets, from video and the indices of visible and masked tubelets; a detector returns class probabilities
    for boxes, B M K, from video of any height and width (a message says so if the network does not support that) and
    boxes, B M 4 float32 with any M: left, top, right, bottom, fractions of the frame; others return their tokens and
    the clip's vector.
    """

    usage = "RUN --out FILE [options]"
    run: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Run folder, or an encoder of the Hub, hf:OWNER/NAME."""
    out: Path
    """File to write: .pt2 for torch, .onnx for onnx."""
    format: Format = "torch"
    """File format: torch.export (read by torch.export.load), or ONNX (needs the extra `export`)."""
    part: Part = "model"
    """Part to export: the whole network, or only its encoder."""

    def __call__(self) -> None:
        from filmstrip.commands.work.export import export

        export(self.run, self.out, format=self.format, part=self.part)
