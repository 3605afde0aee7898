"""MasaCtrl: an edit reads the look of its source, by attending to the source's keys and values.

Source and edit are denoised side by side from the noise that the source is inverted to. After the first steps, which
lay out the edit by its own text, the queries of its self-attention find keys and values of the source's in the
decoder's layers: the same things, elsewhere.
Cao et al., "MasaCtrl: Tuning-Free Mutual Self-Attention Control for Consistent Image Synthesis and Editing", ICCV
2023, of images; of video as MoCA's authors compare with it, frame by frame in a network of video.

    filmstrip train editing.masactrl --out runs/masactrl
    filmstrip edit runs/masactrl clip.mp4 --from "a red disc moves left" --to "a red disc moves up" --type motion

Network, training and sizes are those of ``editing.sdedit`` (``--init RUN`` begins with one of its runs), the loss is
in ``objectives/latent_diffusion.py``, and the two clips side by side are in ``objectives/frame_editing.py``.

Where we deviate: the source is inverted by its own text (the published notebook: by an empty one), and each of its
steps is put back on the inverted path, which the published code has as an option.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from torch import Tensor

from filmstrip.bounds import CountOrZero
from filmstrip.models.video_unet import Place
from filmstrip.nn.attention import attend
from filmstrip.objectives.attention_editing import Steps
from filmstrip.objectives.diffusion_sampling import DiffusionSampling
from filmstrip.objectives.frame_editing import edit_beside_source
from filmstrip.objectives.latent_diffusion import LatentDiffusion, LatentDiffusionConfig
from filmstrip.protocols import VideoEdit
from filmstrip.runs.config import Run
from filmstrip.settings import FREE
from filmstrip.systems import find

Kind = Literal["self", "time"]


@dataclass(frozen=True, kw_only=True)
class MasaCtrlConfig(LatentDiffusionConfig):
    """Text to video, and where the edit reads from the source."""

    first_step: CountOrZero = field(default=4, metadata=FREE)
    """Number of steps in which the edit is laid out by itself."""
    first_layer: CountOrZero = field(default=10, metadata=FREE)
    """Number of the U-Net's first transformer that reads from the source, counted from 0: 10 of Stable Diffusion's
    16 is where its decoder begins."""
    reads: tuple[Kind, ...] = field(default=("self",), metadata=FREE)
    """Attention that reads from the source: among positions of a frame; with ``time``, too, videos break, as MoCA's
    authors say."""

    def build(self) -> MasaCtrl:
        """Build everything with fresh weights.

        Raises:
            UserError: nothing is known of texts, or sizes do not fit.
        """
        return MasaCtrl(self)


class MutualSelfAttention:
    """The edit's queries with the source's keys and values; a batch holds sources, then edits."""

    def __init__(
        self, steps: Steps, *, first_step: int, first_layer: int, reads: tuple[Kind, ...] = ("self",)
    ) -> None:
        self.steps, self.first_step, self.first_layer, self.reads = steps, first_step, first_layer, reads

    def __call__(self, place: Place, q: Tensor, k: Tensor, v: Tensor) -> Tensor | None:
        """See :class:`~filmstrip.models.video_unet.AttentionControl`."""
        if place.kind not in self.reads or place.layer < self.first_layer or self.steps.done < self.first_step:
            return None
        source_k, source_v = k.chunk(2)[0], v.chunk(2)[0]
        return attend(q, torch.cat([source_k, source_k]), torch.cat([source_v, source_v]))


class MasaCtrl(LatentDiffusion):
    """Text to video that edits by what self-attention reads."""

    reads_source_text = True
    config: MasaCtrlConfig

    def edit(self, edit: VideoEdit) -> Tensor:
        """Edited video ``B T 3 H W`` in 0..1; see :class:`~filmstrip.protocols.VideoEditor`."""
        return edit_beside_source(
            self,
            edit,
            lambda steps: MutualSelfAttention(
                steps,
                first_step=self.config.first_step,
                first_layer=self.config.first_layer,
                reads=self.config.reads,
            ),
        )


def tiny() -> Run:
    """``editing.sdedit:tiny``, whose last two of four transformers read from the source."""
    run = find("editing.sdedit:tiny")
    return replace(run, objective=MasaCtrlConfig(**vars(run.objective), first_step=1, first_layer=2))


def text_to_video_256() -> Run:
    """MoCA's comparator: ``editing.sdedit:text_to_video_256`` with the published steps, layers and sampling."""
    run = find("editing.sdedit:text_to_video_256")
    return replace(run, objective=MasaCtrlConfig(**vars(run.objective) | {"sampling": DiffusionSampling(steps=50)}))
