"""Editing by a text-to-image model: Prompt-to-Prompt on an inverted frame, SDEdit, and an edit beside its source.

Any :class:`~filmstrip.objectives.latent_diffusion.LatentDiffusion` that learnt single frames does it: a run of
images, or one of video that learns its clips' first frames alone, too.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from filmstrip.data.edits import FrameEditing
from filmstrip.models.video_unet import AttentionControl
from filmstrip.objectives.attention_editing import PromptToPrompt, Steps
from filmstrip.objectives.diffusion import Conditions
from filmstrip.objectives.diffusion_sampling import DiffusionSampling
from filmstrip.objectives.latent_diffusion import LatentDiffusion
from filmstrip.protocols import VideoEdit, as_float


@torch.no_grad()
def edit_frame(model: LatentDiffusion, edit: VideoEdit) -> Tensor:
    """First frames ``B C H W`` in 0..1 as an edit wants them."""
    frames = as_float(edit.video[:, :1])
    if edit.frame_by == "source":
        return frames[:, 0]
    settings = edit.frame_editing or FrameEditing()
    sampling = replace(edit.sampling or model.config.sampling, solver="ddim", eta=0.0)
    latents = model.latents(frames)
    by = prompt_to_prompt if edit.frame_by == "prompt_to_prompt" else sdedit
    return model.pixels(by(model, latents, edit, settings, sampling))[:, 0]


def sdedit(
    model: LatentDiffusion, latents: Tensor, edit: VideoEdit, settings: FrameEditing, sampling: DiffusionSampling
) -> Tensor:
    """Meng et al. 2022: latents ``B T D h w`` are noised part of the way and denoised by the edit's text."""
    known = model.told(model.read(edit.text, edit.text_length))
    first = min(round((1 - settings.strength) * sampling.steps), sampling.steps - 1)
    times = model.diffusion.times(sampling.steps, sampling.spacing)
    noise = model.noise(edit.seeds, latents.shape[1], (latents.shape[3], latents.shape[4]))
    time = torch.full((len(latents),), times[first], device=latents.device)
    noisy = model.diffusion.noised(latents, noise, time)
    return model.denoise(known, noisy, {"text": settings.guidance}, sampling, first=first, order=("text",))


def prompt_to_prompt(
    model: LatentDiffusion, latents: Tensor, edit: VideoEdit, settings: FrameEditing, sampling: DiffusionSampling
) -> Tensor:
    """Hertz et al. 2023 on latents ``B T D h w`` of real frames, beside which the edit is denoised."""
    steps = Steps(sampling)
    exchange = PromptToPrompt(
        steps, edit.source_text, edit.text, cross_share=settings.cross_share, self_share=settings.self_share
    )
    return beside_source(
        model,
        latents,
        edit,
        steps,
        sampling,
        guidance=settings.guidance,
        control=lambda given: exchange if "text" in given else None,
    )


@torch.no_grad()
def edit_beside_source(
    model: LatentDiffusion, edit: VideoEdit, control_of: Callable[[Steps], AttentionControl]
) -> Tensor:
    """Edited video ``B T 3 H W`` in 0..1, denoised by DDIM beside its source; ``control_of`` makes what says of
    attention, and is given the steps that this is told of."""
    sampling = replace(edit.sampling or model.config.sampling, solver="ddim", eta=0.0)
    steps = Steps(sampling)
    control, guidance = control_of(steps), edit.guidance.get("text", model.config.guidance.text)
    latents = model.latents(edit.video)
    return model.pixels(
        beside_source(model, latents, edit, steps, sampling, guidance=guidance, control=lambda given: control)
    )


def beside_source(
    model: LatentDiffusion,
    latents: Tensor,
    edit: VideoEdit,
    steps: Steps,
    sampling: DiffusionSampling,
    *,
    guidance: float,
    control: Callable[[Conditions], AttentionControl | None],
) -> Tensor:
    """Edits of latents ``B T D h w``, which begin at the noise that the source's text inverts these to.

    Source and edit are denoised side by side, each by its text, and ``control`` says what attention lends from one to
    the other; it is told of ``steps``. The source is put back on its own path after every step (Ju et al. 2024,
    "direct inversion"), so that what it lends is that of the real frames, whatever guidance would make of them.
    """
    source = model.read(edit.source_text, edit.source_length)
    context = torch.cat([source, model.read(edit.text, edit.text_length)])
    path = model.invert(model.told(source), latents, sampling)

    def on_step(number: int, x: Tensor) -> Tensor:
        steps.done = number + 1
        return torch.cat([path[number + 1], x[len(latents) :]])

    both = model.denoise(
        model.told(context),
        torch.cat([path[0], path[0]]),
        {"text": guidance},
        sampling,
        order=("text",),
        control=control,
        on_step=on_step,
    )
    return both[len(latents) :]
