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


Engine = Literal["local", "ray"]
"""Engine that computes features: processes of this machine, or actors of a Ray cluster."""


@dataclass(frozen=True, kw_only=True)
class Encode(Command):
    """Write the features or tokens of videos as safetensors shards with a Parquet index; resumes where it stopped.

    Training reads the folder it writes: --data FOLDER.
    """

    usage = "ENCODER FILE|FOLDER|MANIFEST... --out FOLDER [options]"
    encoder: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="ENCODER")]
    """Encoder: a run folder; hf:OWNER/NAME, or a short name (siglip, siglip2, clip, dinov2, videomae, timesformer,
    vjepa2, optionally with a size such as -base); a local folder in the Hub's layout; for ids and latents, a
    tokenizer's run folder."""
    files: Files
    """Videos, folders of videos, or manifests."""
    out: Path
    """Output folder of the features or tokens."""
    level: Level = "clip"
    """Level of what is stored: of an encoder, one vector (clip), one for each frame or group of frames (frame),
    or all tokens (patch); of a tokenizer, token ids (ids) or continuous latents (latents)."""
    error: Rate | None = None
    """Reconstruction error for a tokenizer of variable length (ElasticTok): each block gets the minimum number of
    tokens whose mean squared error (pixels in 0..1) is at most this; by default the maximum number of tokens.
    OUT/token_use.html then shows the tokens used along the first clips, token_use.json all counts."""
    clips: Count = 1
    """Number of evenly spaced clips of each video."""
    frames: Count | None = None
    """Number of frames in a clip; by default as the encoder was trained, or 16 for an image encoder."""
    sampling: Literal["dense", "uniform"] | None = None
    """Frames spread over the whole video (uniform) or at a fixed stride (dense); by default as the encoder was
    trained."""
    batch_size: Count = 8
    """Number of clips encoded at once."""
    processes: Count = 1
    """Number of processes that share the videos, or of Ray's actors."""
    engine: Engine = "local"
    """Engine: processes of this machine (local), or actors of a Ray cluster (ray; needs the extra "scale"). That is
    the cluster of RAY_ADDRESS, or one that runs here, or a new one of this machine. What is written is the same."""
    fps: Rate | None = None
    """Frames per second of films that are folders of images; given, every folder of images is a film, otherwise those
    whose images are numbered without gaps are, of 25 frames per second."""

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
            fps=self.fps,
            engine=self.engine,
        )
