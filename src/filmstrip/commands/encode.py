"""``filmstrip encode``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from filmstrip.bounds import Count, Rate
from filmstrip.commands.command import Command, Files

Level = Literal["clip", "frame", "patch", "ids", "latents"]
"""One vector a clip, one for each moment, all tokens of an encoder; ids or latents of a tokenizer."""


@dataclass(frozen=True, kw_only=True)
class Encode(Command):
    """Write the features or tokens of videos as safetensors shards with a Parquet index; resumes where it stopped.

    What it writes can be trained on: --data FOLDER.
    """

    usage = "ENCODER FILE|FOLDER|MANIFEST... --out FOLDER [options]"
    encoder: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="ENCODER")]
    """A run folder; hf:OWNER/NAME, or a short name (siglip, siglip2, clip, dinov2, videomae, timesformer, vjepa2;
    with -base and the like); a local folder in the Hub's layout; for ids and latents, a tokenizer's run folder."""
    files: Files
    """Videos, or folders of them."""
    out: Path
    """Where the features go."""
    level: Level = "clip"
    """One vector a clip, one for each of its frames (or groups of frames), or every token of an encoder; token ids or
    continuous latents of a tokenizer."""
    error: Rate | None = None
    """Of a tokenizer of variable length (ElasticTok): the squared error, a mean over pixels in 0..1, that each block
    meets in as few tokens as that takes; by default the most tokens. OUT/token_use.html then shows the use of tokens
    along the first clips, and token_use.json has every count."""
    clips: Count = 1
    """Clips cut from each video, evenly spaced."""
    frames: Count | None = None
    """Frames of a clip; by default those that the encoder was trained with, 16 for one that sees images."""
    sampling: Literal["dense", "uniform"] | None = None
    """Frames spread over the whole video, or consecutive ones; by default the encoder's own way."""
    batch_size: Count = 8
    """Clips encoded at once."""
    processes: Count = 1
    """How many processes share the videos."""

    def __call__(self) -> int:
        from filmstrip.commands.work.encode import encode_files

        return encode_files(
            self.encoder,
            self.files,
            self.out,
            level=self.level,
            error=self.error,
            num_clips=self.clips,
            num_frames=self.frames,
            sampling=self.sampling,
            batch_size=self.batch_size,
            processes=self.processes,
        )
