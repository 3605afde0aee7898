"""``filmstrip export``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from filmstrip.commands.command import Command
from filmstrip.errors import UserError

Format = Literal["torch", "onnx", "transformers", "diffusers", "released", "run"]
Part = Literal["model", "encoder"]


@dataclass(frozen=True, kw_only=True)
class Export(Command):
    """Write a trained network for use elsewhere: as one file that runs without its code, or as a folder.

    What is written is checked against the network itself. A file (torch, onnx) takes uint8 video, B T C H W with any
    B, and normalises for itself. A classifier gives logits, a two-stream one from video and its optical flow,
    B T-1 2 H W in pixels; VideoMAE gives the pixels of hidden cubes, from video and the indices of visible and hidden
    cubes; a detector gives the probabilities of what is done within boxes, B M K, from video of any height and width
    (it is said if the network does not take that) and boxes, B M 4 float32 with any M: left, top, right, bottom,
    shares of the frame; others give their tokens and the clip's vector.

    A folder of transformers is what its `from_pretrained` reads: runs of recognition.vit, timesformer and vivit, and
    pretraining.videomae; one of diffusers: runs of tokenizers.vqgan and vae_kl. Released is a file of weights by the
    names of the method's authors, which their code reads and --init. A run is a copy of the run folder that needs no
    other: frozen parts, such as a prior's tokenizer, are copied into it, and states are left out.
    """

    usage = "RUN --out FILE_OR_FOLDER [options]"
    run: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """A run folder; or an encoder of the Hub, hf:OWNER/NAME."""
    out: Path
    """The file, .pt2 for torch, .onnx for onnx, .safetensors for released; a new folder for the other formats."""
    format: Format = "torch"
    """torch.export's, which torch.export.load reads; ONNX (the extra `export`); a folder of transformers or of
    diffusers; released weights; or a run folder that holds everything."""
    layout: str | None = None
    """Of released weights that come in several layouts, such as PyTorchVideo's and SlowFast's: which; by default the
    first. A wrong name lists them."""
    part: Part = "model"
    """The whole network, or its encoder alone."""

    def __call__(self) -> None:
        if self.layout is not None and self.format != "released":
            raise UserError(f"--layout goes with --format released, not with {self.format}")
        if self.format not in ("torch", "onnx"):
            from filmstrip.commands.work.export_folder import export_folder, export_released

            if self.part != "model":
                raise UserError(
                    f"--part {self.part} goes with --format torch or onnx: other formats hold the whole network"
                )
            if self.format == "released":
                export_released(self.run, self.out, self.layout)
                return
            export_folder(self.run, self.out, self.format)
            return
        from filmstrip.commands.work.export import export

        export(self.run, self.out, format=self.format, part=self.part)
