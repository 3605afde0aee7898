"""``filmstrip export``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from filmstrip.commands.command import Command, Source
from filmstrip.errors import UserError

Format = Literal["torch", "onnx", "transformers", "diffusers", "peft", "released", "run"]
Part = Literal["model", "encoder"]


@dataclass(frozen=True, kw_only=True)
class Export(Command):
    """Write a trained network for use elsewhere: as one file that runs without its code, or as a folder.

    Outputs are compared with the network's before anything is written. A file (torch, onnx) takes uint8 video,
    B T C H W with any B, and includes normalisation. A classifier returns logits, a two-stream classifier from video
    and its optical flow, B T-1 2 H W in pixels; VideoMAE returns the pixels of masked tubelets, from video and the
    indices of visible and masked tubelets; a detector returns class probabilities for boxes, B M K, from video of any
    height and width (a message says so if the network does not support that) and boxes, B M 4 float32 with any M:
    left, top, right, bottom, fractions of the frame; others return their tokens and the clip's vector.

    A folder for transformers is what its `from_pretrained` reads: runs of recognition.vit, timesformer and vivit, of
    recognition.finetuned with V-JEPA 2's head, of pretraining.videomae, of language.blip (which sees one frame
    there), of language models of text (language.lwm_text), and of those that see (language.llava, blip2,
    instructblip, qwen2_vl) with their adaptation merged; peft: their adaptation alone, which peft adds to the model
    that it began with, or that of a run with --lora by the names of its network; one for diffusers: runs of
    tokenizers.vqgan and vae_kl, and the whole pipeline of a run of generation.vdt that began with one (Latte's, Wan's
    or LTX-Video's), its adaptation merged. Released weights are a file with the tensor names of the method's
    authors, which --init reads, too. A run is a copy of the run folder that needs no other: frozen parts, such as a
    prior's tokenizer, are copied into it, and states are left out.
    """

    usage = "RUN --out FILE_OR_FOLDER [options]"
    run: Source
    """Run folder, or an encoder of the Hub, hf:OWNER/NAME."""
    out: Path
    """File to write: .pt2 for torch, .onnx for onnx, .safetensors for released; or a new folder for other formats."""
    format: Format = "torch"
    """File of torch.export (read by torch.export.load), ONNX (needs the extra `export`) or released weights; or a
    folder for transformers, for peft, for diffusers, or of the run itself."""
    layout: str | None = None
    """Layout of released weights that have several, such as PyTorchVideo and SlowFast, or model of transformers where
    that has several of a method; by default the first. An unknown name lists them."""
    part: Part = "model"
    """Part to export: the whole network, or only its encoder."""

    def __call__(self) -> None:
        if self.layout is not None and self.format not in ("released", "transformers"):
            raise UserError(f"--layout goes with --format released or transformers, not with {self.format}")
        if self.format not in ("torch", "onnx"):
            from filmstrip.commands.work.export_folder import export_folder, export_released

            if self.part != "model":
                raise UserError(
                    f"--part {self.part} goes with --format torch or onnx: other formats hold the whole network"
                )
            if self.format == "released":
                export_released(self.run, self.out, self.layout)
                return
            export_folder(self.run, self.out, self.format, self.layout)
            return
        from filmstrip.commands.work.export import export

        export(self.run, self.out, format=self.format, part=self.part)
