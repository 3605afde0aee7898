"""MoCA: a video is edited by editing its first frame and animating that with the motion of the source.

A latent diffusion model of video, conditioned on a first frame, a caption and, unless the motion itself is to change,
on the optical flow of the source, drawn as a picture; a vector of the flow's mean magnitude tells what pictures that
are normalised cannot. Every convolution and every attention over space is followed by one over time.
Yan et al., "Motion-Conditioned Image Animation for Video Editing", 2023 (chapter 7 of the thesis that this follows).

    filmstrip train editing.moca --out runs/moca
    filmstrip edit runs/moca clip.mp4 --from "a red disc moves left on grass" --to "... on sand" --type background

``--init FILE`` begins with a U-Net of ``diffusers``, of images (Stable Diffusion 2.1's fits ``latent_256``) or of
video; ``--init RUN`` with a run of ``text_to_image_256``. The U-Net is in ``models/video_unet.py``, the process in
``objectives/diffusion.py``, what it shares with other editors in ``objectives/latent_diffusion.py``, and the editing
of the first frame in ``objectives/attention_editing.py``.

The paper's text gives neither the sizes of its U-Net nor its noise, rates, steps, autoencoder and scales of guidance:
the U-Net has the sizes of ``UNet3DConditionModel`` (ModelScope's text-to-video network), whose 1,411 million
parameters are its 1.4 billion, behind a linear layer from T5's 4,096 to 1,024; the autoencoder is Stable Diffusion's;
noise is Stable Diffusion's, rescaled to a zero terminal signal; rates and scales are ours.

Where we deviate: flow is estimated by OpenCV's dense inverse search unless RAFT's weights, the paper's estimator, are
named (``--objective.flow raft --objective.flow-weights FILE``), and must be the same in training and editing, so a
run keeps it; a picture of flow is normalised by its clip's largest magnitude, not over a batch, and the flow after
the last frame repeats the one before; all three conditions are dropped together as well, which a table of single ones
and pairs alone would never do but guidance asks for; the temporal convolutions have no dropout. What is edited is the
first two seconds of a video.

The paper reports that people prefer it to six other editors in 63 to 82% of 271 edits, and its edits with the motion
condition to those without in 58%.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from filmstrip.bounds import AnyNumber
from filmstrip.data.config import Augment, Clip, Data
from filmstrip.data.kinds.captioned import Captioned
from filmstrip.data.synthetic.edits import EditedScenes
from filmstrip.models.frozen_text import T5Architecture
from filmstrip.models.video_unet import VideoUNetArchitecture
from filmstrip.nn.time_embedding import TimeEmbedding
from filmstrip.objectives.diffusion import ConditionDropout, DiffusionConfig
from filmstrip.objectives.diffusion_sampling import DiffusionSampling
from filmstrip.objectives.frame_editing import edit_frame
from filmstrip.objectives.latent_diffusion import Guidance, Known, LatentDiffusion, LatentDiffusionConfig
from filmstrip.objectives.noised_latents import STABLE_DIFFUSION_SCALE
from filmstrip.objectives.optical_flow import FlowConfig, FlowEstimator
from filmstrip.protocols import Batch, VideoEdit, as_float
from filmstrip.runs.config import Run
from filmstrip.settings import FREE
from filmstrip.systems import find
from filmstrip.train.config import Loop
from filmstrip.train.lengths import Steps
from filmstrip.train.optim import AdamW
from filmstrip.train.schedules import Constant, Cosine
from filmstrip.video.flow import flow_picture

_MAGNITUDES = 100.0
"""Factor that spreads the logarithm of magnitudes over the range of times that their embedding is made for."""
_PIXELS = 256
"""Height of frames in whose pixels magnitudes are told, whatever the clip's size."""

DROPOUT = ConditionDropout(
    table=tuple((row, 0.1) for row in ("text", "image", "motion", "text+image", "text+motion", "image+motion")),
    also=(("motion", 0.5),),
)
"""Each condition and each pair in a tenth of the examples, and the motion in half of them besides."""


@dataclass(frozen=True, kw_only=True)
class MoCAGuidance(Guidance):
    """Scales of the three conditions, in the order image, text, motion."""

    image: AnyNumber = 1.5
    motion: AnyNumber = 1.5
    """Scale of the source's motion; edits of the motion itself take 0."""


@dataclass(frozen=True, kw_only=True)
class MoCAConfig(FlowConfig, LatentDiffusionConfig):
    """The conditions beside the text."""

    guidance: MoCAGuidance = field(default_factory=MoCAGuidance, metadata=FREE)
    """Scales of guidance, unless it is said otherwise."""
    magnitude: bool = True
    """Whether the network is told the mean magnitude of the flow, which its picture does not show."""

    def build(self) -> MoCA:
        """Build everything with fresh weights.

        Raises:
            UserError: nothing is known of texts, or sizes do not fit.
        """
        return MoCA(self)


@dataclass
class MoCAKnown(Known):
    """Also the first frame and the motion."""

    image: Tensor | None = None
    """Latents of the first frame, ``B 1 D h w``, if it is known."""
    motion: Tensor | None = None
    """Latents of the flow's pictures, ``B T D h w``, if the motion is known."""
    magnitude: Tensor | None = None
    """Mean magnitude of the flow in pixels a frame, of frames of 256 pixels: ``B``."""


class MoCA(LatentDiffusion):
    """Text to video with a first frame, and with the motion of another clip."""

    order = ("image", "text", "motion")
    edits_first_frame = True
    config: MoCAConfig

    def __init__(self, config: MoCAConfig) -> None:
        super().__init__(config, condition_maps=2)
        self.flow_estimator = FlowEstimator(config.flow, config.flow_weights)
        width = self.unet.time_width
        self.magnitude = TimeEmbedding(width, frequencies=self.unet.conv_in.out_channels // 2)
        self.no_magnitude = nn.Parameter(torch.zeros(width))
        if not config.magnitude:
            self.magnitude.requires_grad_(False)
            self.no_magnitude.requires_grad_(False)

    @property
    def name(self) -> str:
        """Prefix of the names under which random numbers are drawn."""
        return "moca"

    # Conditions

    @torch.no_grad()
    def motion_of(self, video: Tensor) -> tuple[Tensor, Tensor]:
        """Pictures of the flow, ``B T 3 H W`` uint8, and its mean magnitude ``B``, of ``B T 3 H W`` video.

        Frame ``t`` shows the flow from it to the next one, the last frame the same as the one before. Magnitudes are
        in pixels a frame, as if frames were 256 pixels high.
        """
        flow = self.flow_estimator(video)
        flow = torch.cat([flow, flow[:, -1:]], dim=1)
        pictures = torch.stack([flow_picture(clip) for clip in flow])  # each by its own largest magnitude
        mean = torch.linalg.vector_norm(flow, dim=2).mean(dim=(1, 2, 3))
        return pictures, mean * (_PIXELS / video.shape[-2])

    def told(self, context: Tensor) -> MoCAKnown:
        """Texts alone: neither a first frame nor motion are known."""
        return MoCAKnown(context, self.read_empty())

    def known(self, batch: Batch, latents: Tensor) -> MoCAKnown:
        """The text, the first frame, and the motion of the batch's own video."""
        pictures, magnitude = self.motion_of(batch["video"])
        told = self.told(self.read(batch["text"], batch["text_length"]))
        motion = self.encode(pictures) * self._scale()
        return replace(told, image=latents[:, :1], motion=motion, magnitude=magnitude)

    def inputs(self, known: Known, x: Tensor, absent: Mapping[str, Tensor]) -> tuple[Tensor, Tensor, Tensor | None]:
        """Noised latents, those of the first frame for every frame, and those of the flow; zeros where absent."""
        assert isinstance(known, MoCAKnown)
        _, context, _ = super().inputs(known, x, absent)
        maps = [x]
        for name, given in (("image", known.image), ("motion", known.motion)):
            if given is None:
                maps.append(torch.zeros_like(x))
            else:
                maps.append(given.expand_as(x).masked_fill(_like(absent[name], x), 0.0).to(x.dtype))
        added = None
        if self.config.magnitude:
            none = self.no_magnitude.expand(len(x), -1)
            added = none if known.magnitude is None else self._magnitude(known.magnitude, absent["motion"], none)
        return torch.cat(maps, dim=2), context, added

    def _magnitude(self, pixels: Tensor, absent: Tensor, none: Tensor) -> Tensor:
        told = self.magnitude(_MAGNITUDES * torch.log1p(pixels))
        return torch.where(absent[:, None], none.to(told.dtype), told)

    def of_text_alone(self) -> dict[str, Tensor]:
        """Without the channels of first frame and motion, and with the vector of no magnitude among the biases."""
        state = super().of_text_alone()
        state["unet.conv_in.weight"] = state["unet.conv_in.weight"][:, : self.latent_dim]
        if self.config.magnitude:
            state["unet.time.fc2.bias"] = state["unet.time.fc2.bias"] + self.no_magnitude.detach()
        return state

    # Editing

    @torch.no_grad()
    def edit(self, edit: VideoEdit) -> Tensor:
        """Edited video ``B T 3 H W`` in 0..1; see :class:`~filmstrip.protocols.VideoEditor`."""
        frame = edit_frame(self, edit) if edit.frame is None else edit.frame
        known = self.told(self.read(edit.text, edit.text_length))
        known = replace(known, image=self.latents(as_float(frame)[:, None]))
        scales = vars(self.config.guidance) | dict(edit.guidance)
        if edit.keeps_motion:
            pictures, magnitude = self.motion_of(edit.video)
            known = replace(known, motion=self.encode(pictures) * self._scale(), magnitude=magnitude)
        else:
            scales["motion"] = 0.0
        noise = self.noise(edit.seeds, edit.video.shape[1], self.latent_size(*edit.video.shape[-2:]))
        return self.pixels(self.denoise(known, noise, scales, edit.sampling, seeds=edit.seeds))


def _like(rows: Tensor, x: Tensor) -> Tensor:
    return rows.view(-1, *(1,) * (x.ndim - 1))


def tiny() -> Run:
    """Synthetic scenes at 32 x 32 pixels, words as embeddings; trains in seconds on two CPU cores.

    It learns first frames alone as well, so that it edits them by itself; its tokenizer is untrained unless
    ``--objective.tokenizer-run`` names one.
    """
    return Run(
        data=Data(
            synthetic=EditedScenes(size=32, num_train=200, num_test=8),
            reads=Captioned(max_length=16),
            clip=Clip(num_frames=8, stride=1, size=32, short_side=(32, 32)),
            augment=Augment(mirror=0.0),
            batch_size=8,
        ),
        objective=MoCAConfig(
            tokenizer=find("tokenizers.vae_kl:tiny").objective,
            untrained_tokenizer=True,
            num_frames=8,
            size=32,
            unet=VideoUNetArchitecture(
                widths=(16, 32), depth=1, attention_levels=(1,), head_dim=8, context_width=32, groups=8
            ),
            diffusion=DiffusionConfig(prediction="v", zero_terminal_snr=True),
            dropout=DROPOUT,
            still_weight=0.5,
            sampling=DiffusionSampling(steps=10),
        ),
        optim=AdamW(lr=2e-3, weight_decay=0.01, schedule=Constant(warmup=0.05)),
        train=Loop(length=Steps(200)),
    )


def scenes() -> Run:
    """Edited scenes on the latents of a run of ``tokenizers.vae_kl:scenes``: a small editor for a laptop.

    It predicts the clean latents in place of ``v``, of which so small a network learns next to nothing where noise is
    little (``docs/log.md``).
    """
    run = tiny()
    return replace(
        run,
        data=replace(run.data, synthetic=EditedScenes(), batch_size=4),
        objective=replace(
            run.objective,
            tokenizer=find("tokenizers.vae_kl:scenes").objective,
            untrained_tokenizer=False,
            unet=replace(run.objective.unet, widths=(64, 64), head_dim=16),
            diffusion=DiffusionConfig(prediction="clean", zero_terminal_snr=True),
            guidance=MoCAGuidance(image=1.0, text=2.0, motion=1.0),
        ),
        optim=AdamW(lr=2e-3, weight_decay=0.01, schedule=Cosine(warmup=0.1)),
        train=Loop(length=Steps(800)),
    )


def _latent_256(**objective: object) -> MoCAConfig:
    return MoCAConfig(
        tokenizer=find("tokenizers.vae_kl:stable_diffusion").objective,
        latent_scale=STABLE_DIFFUSION_SCALE,
        num_frames=8,
        size=256,
        text=T5Architecture(),
        diffusion=DiffusionConfig(prediction="v", zero_terminal_snr=True),
        dropout=DROPOUT,
        **objective,
    )


def latent_256() -> Run:
    """Two seconds at 4 frames a second and 256 x 256 pixels: the paper's clips, batch and sampling.

    Its steps, rates and averaging of weights are ours: the paper does not say.
    """
    return Run(
        data=Data(
            reads=Captioned(max_length=77),
            clip=Clip(num_frames=8, stride=6, size=256, short_side=(256, 256)),
            augment=Augment(mirror=0.0),
            batch_size=512,
        ),
        objective=_latent_256(),
        optim=AdamW(lr=1e-4, weight_decay=0.01, schedule=Constant(warmup=0.01)),
        train=Loop(length=Steps(100_000), precision="bfloat16", ema=0.9999),
    )
