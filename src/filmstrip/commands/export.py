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

    It takes uint8 video, B T C H W with any B, and normalises for itself. A classifier gives logits, a two-stream one
    from video and its optical flow, B T-1 2 H W in pixels; VideoMAE gives the pixels of hidden cubes, from video and
    the indices of visible and hidden cubes; a detector gives the probabilities of what is done within boxes, B M K,
    from video of any height and width (it is said if the network does not take that) and boxes, B M 4 float32 with
    any M: left, top, right, bottom, shares of the frame; others give their tokens and the clip's vector.
    """

    usage = "RUN --out FILE [options]"
    run: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """A run folder; or an encoder of the Hub, hf:OWNER/NAME."""
    out: Path
    """The file: .pt2 for torch, .onnx for onnx."""
    format: Format = "torch"
    """torch.export's, which torch.export.load reads; or ONNX (the extra `export`)."""
    part: Part = "model"
    """The whole network, or its encoder alone."""

    def __call__(self) -> None:
        from filmstrip.commands.work.export import export

        export(self.run, self.out, format=self.format, part=self.part)
