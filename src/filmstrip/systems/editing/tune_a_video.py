"""Tune-A-Video: a network of images becomes one of a single video, which a new text then edits.

Layers over time are added to a text-to-image network, and each frame attends to the first one and the one before it
(sparse causal attention). What asks, the queries of its attention within frames and to the text, and attention over
time, is trained on the one video and its text; the edit begins at the noise that the video is inverted to by DDIM,
and is denoised by the new text.
Wu et al., "Tune-A-Video: One-Shot Tuning of Image Diffusion Models for Text-to-Video Generation", ICCV 2023.

    filmstrip train editing.tune_a_video --out runs/images
    filmstrip edit runs/images clip.mp4 --from "a red disc moves left" --to "a blue disc moves left" --type object

Training learns images, the frames of captioned clips, and leaves the layers over time as the identity that they
begin as; editing trains on the video (``--tuning.steps``, ``--tuning.lr``). ``--init FILE`` begins with a U-Net of
images of ``diffusers``; ``filmstrip edit RUN ... --by editing.tune_a_video`` edits with the network of any other
editor's run, whose layers over time may be trained. The network is in ``models/video_unet.py``, the training on one
video in ``objectives/film_tuning.py``.

Where we deviate: attention over time is the U-Net's, a transformer of its own behind each one of a frame (the paper:
one attention at the end of that), and one before all levels; norms of the residual blocks see one frame (the
published code: all of them together); nothing decays in training on a video.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Self

import torch
from einops import rearrange
from torch import Tensor

from filmstrip.models.video_unet import AttentionControl, Place
from filmstrip.nn.attention import attend
from filmstrip.objectives.diffusion_sampling import DiffusionSampling
from filmstrip.objectives.film_tuning import FilmTuned, FilmTunedConfig, Tuning
from filmstrip.objectives.latent_diffusion import Guidance, Known, LatentDiffusionConfig
from filmstrip.protocols import Batch, Loss, VideoEdit
from filmstrip.runs.config import Run
from filmstrip.systems import find


@dataclass(frozen=True, kw_only=True)
class TuneAVideoConfig(FilmTunedConfig):
    """A network of images, with layers over time."""

    def build(self) -> TuneAVideo:
        """Build everything with fresh weights.

        Raises:
            UserError: nothing is known of texts, or sizes do not fit.
        """
        return TuneAVideo(self)

    def with_network_of(self, other: LatentDiffusionConfig) -> Self:
        """See :meth:`LatentDiffusionConfig.with_network_of`; a network of images is given layers over time."""
        config = super().with_network_of(other)
        return replace(config, unet=replace(config.unet, temporal=True))


def sparse_causal(place: Place, q: Tensor, k: Tensor, v: Tensor) -> Tensor | None:
    """Each frame attends to the first one and the one before it, the first one to itself; see
    :class:`~filmstrip.models.video_unet.AttentionControl`."""
    if place.kind != "self":
        return None

    def seen(x: Tensor) -> Tensor:
        x = rearrange(x, "(b t) h n d -> b t h n d", t=place.num_frames)
        before = torch.cat([x[:, :1], x[:, :-1]], dim=1)
        return torch.cat([x[:, :1].expand_as(x), before], dim=3).flatten(0, 1)

    return attend(q, seen(k), seen(v))


class TuneAVideo(FilmTuned):
    """Images by text; edits after training on the video."""

    config: TuneAVideoConfig

    def __init__(self, config: TuneAVideoConfig) -> None:
        super().__init__(config)
        for name, parameter in self.unet.named_parameters():
            if self.unet.is_temporal(name):
                parameter.requires_grad_(False)

    def forward(self, batch: Batch, phase: str = "main") -> Loss:
        """Squared error of what is predicted of noised images: the frames of clips, each with a seed of its own."""
        count = batch["video"].shape[1]
        each = {name: batch[name].repeat_interleave(count, dim=0) for name in ("text", "text_length", "seed")}
        number = torch.arange(count, device=batch["seed"].device).repeat(len(batch["seed"]))
        each["seed"] = each["seed"] * count + number
        return super().forward({**each, "video": rearrange(batch["video"], "b t c h w -> (b t) 1 c h w")}, phase)

    def run(
        self, known: Known, x: Tensor, time: Tensor, absent: Mapping[str, Tensor], control: AttentionControl | None
    ) -> Tensor:
        """See :meth:`LatentDiffusion.run`; frames attend to earlier ones."""
        return super().run(known, x, time, absent, control or sparse_causal)

    def tuned_rows(self) -> dict[str, int]:
        """Queries of both kinds of attention of the frames, which are the first third of fused ones, and the layers
        over time but their norms, as published."""
        # Torch 2.13 crashes on a CPU where a group norm learns and nothing before it does.
        rows = {}
        for name, p in self.unet.named_parameters():
            over_time = name.startswith("first.") or ".temporal_attention." in name
            if (over_time and ".norm" not in name) or name.endswith("attention2.q.weight"):
                rows[name] = len(p)
            elif name.endswith("attention1.qkv.weight"):
                rows[name] = len(p) // 3
        return rows

    def edit_tuned(self, edit: VideoEdit, latents: Tensor) -> Tensor:
        """The new text's way back from the noise that the video is inverted to under the empty text."""
        sampling = replace(edit.sampling or self.config.sampling, solver="ddim", eta=0.0)
        guidance = edit.guidance.get("text", self.config.guidance.text)
        path = self.invert(self.told(self.read_empty()), latents, sampling)
        known = self.told(self.read(edit.text, edit.text_length))
        return self.denoise(known, path[0], {"text": guidance}, sampling)


def tiny() -> Run:
    """``editing.sdedit:tiny``, whose clips' frames are learnt one by one."""
    run = find("editing.sdedit:tiny")
    tuning = Tuning(steps=100, lr=1e-3)
    return replace(run, objective=TuneAVideoConfig(**vars(run.objective) | {"tuning": tuning}))


def text_to_image_256() -> Run:
    """MoCA's comparator: ``editing.sdedit:text_to_image_256`` with the published training on a video and sampling.

    Frames of 256 clips make its 2,048 images.
    """
    run = find("editing.sdedit:text_to_image_256")
    video = find("editing.sdedit:text_to_video_256")
    changed = {
        "num_frames": 8,
        "unet": video.objective.unet,
        "guidance": Guidance(text=12.5),
        "sampling": DiffusionSampling(steps=50),
        "tuning": Tuning(steps=500, lr=3e-5),
    }
    data = replace(run.data, clip=video.data.clip, batch_size=256)
    return replace(run, data=data, objective=TuneAVideoConfig(**vars(run.objective) | changed))
