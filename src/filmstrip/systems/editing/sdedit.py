"""SDEdit: a video is noised part of the way, and denoised by the text of the edit.

Text to video by latent diffusion, which edits without being taught to: the more noise, the more of the text and the
less of the source is in the result. Nothing but the noise tells it how things moved.
Meng et al., "SDEdit: Guided Image Synthesis and Editing with Stochastic Differential Equations", ICLR 2022, of
images; of video as Dreamix (Molad et al. 2023) begins, without its tuning on the video.

    filmstrip train editing.sdedit --out runs/sdedit
    filmstrip edit runs/sdedit clip.mp4 --from "a red disc moves left on grass" --to "... on sand" --type background

The network and its loss are in ``objectives/latent_diffusion.py``, the editing in ``objectives/frame_editing.py``;
sizes and noise are those of ``editing.moca``. ``text_to_image_256`` is Stable Diffusion 2's network over images:
what edits first frames, and what a network of video starts from (``--init RUN``).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from filmstrip.data.config import Augment, Clip, Data
from filmstrip.data.edits import FrameEditing
from filmstrip.data.kinds.captioned import Captioned
from filmstrip.data.synthetic.edits import EditedScenes
from filmstrip.models.frozen_text import T5Architecture
from filmstrip.models.video_unet import VideoUNetArchitecture
from filmstrip.objectives.diffusion import ConditionDropout, DiffusionConfig
from filmstrip.objectives.diffusion_sampling import DiffusionSampling
from filmstrip.objectives.frame_editing import sdedit
from filmstrip.objectives.latent_diffusion import LatentDiffusion, LatentDiffusionConfig
from filmstrip.objectives.noised_latents import STABLE_DIFFUSION_SCALE
from filmstrip.protocols import VideoEdit
from filmstrip.runs.config import Run
from filmstrip.systems import find
from filmstrip.train.config import Loop
from filmstrip.train.lengths import Steps
from filmstrip.train.optim import AdamW
from filmstrip.train.schedules import Constant

DROPOUT = ConditionDropout(table=(("text", 0.1),))
ZERO_SNR = DiffusionConfig(prediction="v", zero_terminal_snr=True)


@dataclass(frozen=True, kw_only=True)
class SDEditConfig(LatentDiffusionConfig):
    """Text to video, or to images."""

    def build(self) -> SDEdit:
        """Build everything with fresh weights.

        Raises:
            UserError: nothing is known of texts, or sizes do not fit.
        """
        return SDEdit(self)


class SDEdit(LatentDiffusion):
    """Text to video that edits by noising part of the way."""

    @torch.no_grad()
    def edit(self, edit: VideoEdit) -> Tensor:
        """Edited video ``B T 3 H W`` in 0..1, whatever becomes of its motion."""
        guidance = edit.guidance.get("text", self.config.guidance.text)
        settings = replace(edit.frame_editing or FrameEditing(), guidance=guidance)
        latents = self.latents(edit.video)
        sampling = edit.sampling or self.config.sampling
        return self.pixels(sdedit(self, latents, edit, settings, sampling))


def tiny() -> Run:
    """Synthetic scenes at 32 x 32 pixels; trains in seconds on two CPU cores."""
    return Run(
        data=Data(
            synthetic=EditedScenes(size=32, num_train=200, num_test=8),
            reads=Captioned(max_length=16),
            clip=Clip(num_frames=8, stride=1, size=32, short_side=(32, 32)),
            augment=Augment(mirror=0.0),
            batch_size=8,
        ),
        objective=SDEditConfig(
            tokenizer=find("tokenizers.vae_kl:tiny").objective,
            untrained_tokenizer=True,
            num_frames=8,
            size=32,
            unet=VideoUNetArchitecture(
                widths=(16, 32), depth=1, attention_levels=(1,), head_dim=8, context_width=32, groups=8
            ),
            diffusion=ZERO_SNR,
            dropout=DROPOUT,
            sampling=DiffusionSampling(steps=10),
        ),
        optim=AdamW(lr=2e-3, weight_decay=0.01, schedule=Constant(warmup=0.05)),
        train=Loop(length=Steps(200)),
    )


def _at_256(num_frames: int, batch_size: int, *, temporal: bool) -> Run:
    return Run(
        data=Data(
            reads=Captioned(max_length=77),
            clip=Clip(num_frames=num_frames, stride=6, size=256, short_side=(256, 256)),
            augment=Augment(mirror=0.0),
            batch_size=batch_size,
        ),
        objective=SDEditConfig(
            tokenizer=find("tokenizers.vae_kl:stable_diffusion").objective,
            latent_scale=STABLE_DIFFUSION_SCALE,
            num_frames=num_frames,
            size=256,
            text=T5Architecture(),
            unet=VideoUNetArchitecture(temporal=temporal),
            diffusion=ZERO_SNR,
            dropout=DROPOUT,
        ),
        optim=AdamW(lr=1e-4, weight_decay=0.01, schedule=Constant(warmup=0.01)),
        train=Loop(length=Steps(100_000), precision="bfloat16", ema=0.9999),
    )


def text_to_video_256() -> Run:
    """MoCA's network and clips with the text alone, as its comparators have them."""
    return _at_256(8, 512, temporal=True)


def text_to_image_256() -> Run:
    """The same over single frames, without temporal layers: Stable Diffusion 2's U-Net."""
    return _at_256(1, 2048, temporal=False)
