"""Dreamix: a network of video is trained on the video to edit, as a clip and as single frames, and denoises it anew.

What an edit keeps is what is left of the video after its pixels were averaged and part of the noise was added; what
that loses of its look, the network knows from training on it. Were it trained on the clip alone, it would know its
motion by heart as well, and follow no text that asks for another: so it also learns the frames without their order,
which leaves the layers over time alone.
Molad et al., "Dreamix: Video Diffusion Models are General Video Editors", 2023.

    filmstrip train editing.dreamix --out runs/dreamix
    filmstrip edit runs/dreamix clip.mp4 --from "a red disc moves left" --to "a red disc moves up" --type motion

Network, training and sizes are those of ``editing.sdedit`` (``filmstrip edit RUN ... --by editing.dreamix`` edits
with the network of any other editor's run); ``--frame-editing.strength`` says how much noise, ``--tuning.steps`` how
long the video is learnt. The training on one video is in ``objectives/film_tuning.py``, the noise that is taken away
again in ``objectives/frame_editing.py``.

Where we deviate: one network of latents (the paper: a cascade of networks of pixels, the first of which makes 24 x 40
of them; its weights are not public), so pixels are averaged over squares of ``squares`` and spread again; a frame is
a clip of one, in which attention over time sees that frame (the paper masks the others). Steps, rates and shares of
the presets are ours: the specification that this follows has none. MoCA's authors, too, compare with a network of
their own.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from filmstrip.bounds import Count, Share
from filmstrip.data.edits import FrameEditing
from filmstrip.errors import UserError
from filmstrip.objectives.film_tuning import FilmTuned, FilmTunedConfig, Tuning
from filmstrip.objectives.frame_editing import sdedit
from filmstrip.objectives.latent_diffusion import Known
from filmstrip.protocols import VideoEdit, as_float
from filmstrip.runs.config import Run
from filmstrip.settings import FREE
from filmstrip.systems import find


@dataclass(frozen=True, kw_only=True)
class DreamixConfig(FilmTunedConfig):
    """Text to video, how it is trained on the video to edit, and what an edit begins with."""

    clip_share: Share = field(default=0.5, metadata=FREE)
    """Weight of the loss of the whole clip; the rest is that of its frames."""
    squares: Count = field(default=2, metadata=FREE)
    """Side of the squares of pixels of which an edit begins with the mean; 1 keeps the pixels."""

    def build(self) -> Dreamix:
        """Build everything with fresh weights.

        Raises:
            UserError: nothing is known of texts, sizes do not fit, or squares do not tile the frames.
        """
        return Dreamix(self)


class Dreamix(FilmTuned):
    """Text to video that edits after training on the video."""

    config: DreamixConfig

    def __init__(self, config: DreamixConfig) -> None:
        if config.size % config.squares:
            raise UserError(f"frames of {config.size} pixels are not tiled by squares of {config.squares}")
        super().__init__(config)

    def tune(self, latents: Tensor, known: Known, seeds: Tensor) -> None:
        """The gradients of the clip's loss, and of its frames' for what is not over time."""
        self.add_loss(latents, known, seeds, "clip", self.config.clip_share)
        over_time = [p for name, p in self.unet.named_parameters() if self.unet.is_temporal(name)]
        for parameter in over_time:
            parameter.requires_grad_(False)
        frames = rearrange(latents, "1 t d h w -> t 1 d h w")
        each = seeds * len(frames) + torch.arange(len(frames), device=seeds.device)
        of_each = replace(known, context=known.context.expand(len(frames), -1, -1))
        self.add_loss(frames, of_each, each, "frames", 1 - self.config.clip_share)
        for parameter in over_time:
            parameter.requires_grad_(True)

    def edit_tuned(self, edit: VideoEdit, latents: Tensor) -> Tensor:
        """The coarse video noised part of the way, denoised by the new text."""
        guidance = edit.guidance.get("text", self.config.guidance.text)
        settings = replace(edit.frame_editing or FrameEditing(), guidance=guidance)
        coarse = self.latents(coarser(as_float(edit.video), self.config.squares))
        return sdedit(self, coarse, edit, settings, edit.sampling or self.config.sampling)


def coarser(video: Tensor, squares: int) -> Tensor:
    """Video ``B T C H W`` whose pixels are averaged over squares, and spread again bilinearly."""
    if squares == 1:
        return video
    frames = video.flatten(0, 1)
    means = F.avg_pool2d(frames, squares)
    return F.interpolate(means, frames.shape[-2:], mode="bilinear").unflatten(0, video.shape[:2])


def tiny() -> Run:
    """``editing.sdedit:tiny``, trained on a video for 40 steps."""
    run = find("editing.sdedit:tiny")
    return replace(run, objective=DreamixConfig(**vars(run.objective), tuning=Tuning(steps=40, lr=1e-3)))


def text_to_video_256() -> Run:
    """MoCA's comparator: ``editing.sdedit:text_to_video_256``, trained on each video; for how long is ours."""
    run = find("editing.sdedit:text_to_video_256")
    tuning = Tuning(steps=200, lr=1e-5)
    return replace(run, objective=DreamixConfig(**vars(run.objective), tuning=tuning, squares=8))
