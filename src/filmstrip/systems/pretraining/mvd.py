"""MVD: two frozen teachers, one of images and one of videos, say what the masked tubelets of a clip are.

Nine tubelets in ten are masked, as in VideoMAE, and two decoders predict there the features of an image transformer,
which sees one frame of each tubelet, and of a video transformer: appearance and motion. Wang et al., "Masked Video
Distillation: Rethinking Masked Feature Modeling for Self-supervised Video Representation Learning", CVPR 2023. The
loss is in :mod:`filmstrip.objectives.masked_tubelets`, its targets in :mod:`filmstrip.objectives.targets`, the
decoder in :mod:`filmstrip.models.tubelet_decoder`.

    filmstrip train pretraining.mvd:base_k400_from_base --data.path PATH \
        --objective.image-teacher-run hf:facebook/vit-mae-base --objective.video-teacher-run hf:MCG-NJU/videomae-base

Both teachers give the output of their last block, before any norm, of the whole clip. A teacher is a run folder or a
model in the Hub's layout (``videomae``, ``vit``, ``vit_mae``); its weights are kept by reference. What MVD has learnt
is fine-tuned by ``filmstrip train recognition.vit:base_k400 --objective.positions axes --init RUN``.

Where we deviate: crops are those of ``pretraining.videomae``; a batch has the paper's 1024 clips for every size, and
fixed learning rates are the published 1.5e-4 per 256 clips times four; teachers of other patch sizes see the
student's clip resized, where the published code resizes the frame that both are cut from.

The paper reports (top-1 on Kinetics-400 and Something-Something V2, student from teachers): S from B 80.6 and 70.7, B
from B 82.7 and 72.5, B from L 83.4 and 73.7, L from L 86.0 and 76.1, with 800 epochs 86.4 and 76.7, H from H 87.2 and
77.3; S from the image teacher alone 80.4 and 69.4, from the video teacher alone 80.1 and 70.0. Pixels beside features
lower 70.1 to 69.0; the student's own average as a teacher gives 80.5 and 70.4 (B, 800 epochs). ``filmstrip claims
mvd_targets`` compares features with pixels as targets, ``mvd_co_teaching`` one teacher with two, ``mvd_similarity``
what teachers make of frames over time.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, replace
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from filmstrip.bounds import Share, ShareBelowOne, Weight
from filmstrip.data.config import Augment, Clip, Data
from filmstrip.data.synthetic.motions import Motions
from filmstrip.errors import UserError
from filmstrip.models.tubelet_decoder import DecoderArchitecture, TubeletDecoder
from filmstrip.models.vit import ViT, ViTArchitecture
from filmstrip.nn.initialisation import init_glorot
from filmstrip.nn.tubelet_masking import Masking
from filmstrip.objectives.config import ObjectiveConfig
from filmstrip.objectives.masked_tubelets import MaskedTubelets, Prediction
from filmstrip.objectives.momentum import follow
from filmstrip.objectives.targets import Pixels, Teacher, TeacherFrames
from filmstrip.objectives.teachers import ImageTransformerConfig, TaughtConfig, VideoTransformerConfig
from filmstrip.protocols import Layout
from filmstrip.runs.config import Run
from filmstrip.systems import find
from filmstrip.train.config import Loop
from filmstrip.train.lengths import Epochs, Steps
from filmstrip.train.optim import AdamW
from filmstrip.train.schedules import Cosine

_FRAMES: dict[str, TeacherFrames] = {"image_teacher": "first", "video_teacher": "all"}
"""Frames that each teacher sees."""


class Student(ViT):
    """VideoMAE's encoder, in the layout of MVD's released weights."""

    def __init__(self, config: MVDConfig) -> None:
        super().__init__(config)
        kinds = {"image": "img", "video": "vid"}
        self.unused = tuple(kind for name, kind in kinds.items() if config.teachers not in ("both", name))

    def layouts(self) -> tuple[Layout, ...]:
        """That of the authors' training: the student and its two decoders."""
        (own,) = (layout for layout in super().layouts() if layout.name == "pretraining")
        spare = (*_SPARE, *(rf"(?:down|mask_token|decoder)_{kind}(?:\..*)?" for kind in self.unused))
        return (replace(own, name="mvd", rules=_PUBLISHED, spare=spare, absent=_ABSENT),)


_PUBLISHED = (
    (r"^encoder\.embed\.", "patch_embed."),
    (r"^encoder\.", ""),
    (r"^image_decoder\.project\.", "down_img."),
    (r"^video_decoder\.project\.", "down_vid."),
    (r"^image_decoder\.mask_token$", "mask_token_img"),
    (r"^video_decoder\.mask_token$", "mask_token_vid"),
    (r"^image_decoder\.", "decoder_img."),
    (r"^video_decoder\.", "decoder_vid."),
    (r"\.attention\.out\.", ".attn.proj."),
    (r"\.attention\.", ".attn."),
)
_SPARE = (r"pos_embed(?:_img|_vid)?",)
_ABSENT = (r"(?:image|video)_teacher\..*", r"pixel_decoder\..*")


class TokenHead(nn.Linear):
    """Predicts features at the positions of encoded tokens from these tokens alone (distillation token by token)."""

    def forward(self, encoded: Tensor, visible: Tensor | None = None, wanted: Tensor | None = None) -> Tensor:
        """Predictions ``B N D`` from ``B N C`` tokens; ``wanted`` are the ``visible`` positions."""
        return super().forward(encoded)


class MVD(MaskedTubelets):
    """A student that predicts its teachers' features at masked tubelets."""

    def __init__(self, config: MVDConfig) -> None:
        encoder = Student(config)
        super().__init__(encoder, config.masking, config.mask_ratio)
        self.per_token = config.teaching == "per_token"
        self.momentum = config.momentum
        predictions = []
        for name in ("image_teacher", "video_teacher"):
            if config.teachers in ("both", name.removesuffix("_teacher")):
                predictions.append(self._taught(name, config))
        if config.regress_pixels:
            self.pixel_decoder = self._decoder(config, 3 * math.prod(config.patch_size))
            predictions.append(Prediction("pixels", self.pixel_decoder, Pixels(encoder.patch_size), F.mse_loss))
        self.predictions = tuple(predictions)

    def _taught(self, name: str, config: MVDConfig) -> Prediction:
        """A teacher, and the decoder that predicts its features."""
        sizes = {"num_frames": config.num_frames, "size": config.size}
        if config.momentum is None:
            teacher = config.build_teacher(name, self.encoder.grid, **sizes, frames=_FRAMES[name])
        else:
            teacher = Teacher(copy.deepcopy(self.encoder), self.encoder.grid, **sizes)
        decoder = self._decoder(config, teacher.width)
        kind = name.removesuffix("_teacher")
        self.add_module(name, teacher)
        self.add_module(f"{kind}_decoder", decoder)
        return Prediction(kind, decoder, teacher, F.smooth_l1_loss, getattr(config, f"{kind}_weight"))

    def _decoder(self, config: MVDConfig, output_width: int) -> TubeletDecoder | TokenHead:
        if self.per_token:
            head = TokenHead(config.width, output_width)
            init_glorot(head)
            return head
        return TubeletDecoder(
            config,
            self.encoder.grid,
            input_width=config.width,
            output_width=output_width,
            positions=config.positions,
            project_bias=True,
            drop_path=config.drop_path,
        )

    def started(self) -> None:
        """A teacher that is the student's average begins as the student."""
        if self.momentum is not None:
            self.video_teacher.encoder.load_state_dict(self.encoder.state_dict())

    def masks(self, seeds: Tensor) -> tuple[Tensor, Tensor]:
        """The visible and the masked tubelets of each clip; where teaching goes by tokens, all are both."""
        if not self.per_token:
            return super().masks(seeds)
        every = torch.arange(self.encoder.positions.shape[0], device=seeds.device).expand(seeds.shape[0], -1)
        return every, every

    @torch.no_grad()
    def after_step(self, step: int) -> None:
        """Move a teacher that is the student's average, which begins as the student after its first step."""
        if self.momentum is not None:
            follow(self.video_teacher.encoder, self.encoder, self.momentum, step)

    def depth_of(self, name: str) -> int:
        """The layer of a parameter: the student's, then the decoders."""
        part, _, rest = name.partition(".")
        return self.encoder.depth_of(rest) if part == "encoder" else self.encoder.depth + 2


@dataclass(frozen=True, kw_only=True)
class MVDConfig(ViTArchitecture, DecoderArchitecture, TaughtConfig):
    """A student, its decoders (of one shape), its teachers, and the masking."""

    masking: Masking = "tube"
    """Masked tubelets: ``tube``, the same positions in all frames; ``random``, any; ``frame``, whole time steps."""
    mask_ratio: ShareBelowOne
    """Share of tubelets that are masked."""
    image_teacher: ObjectiveConfig
    """Network that sees one frame of each tubelet alone; an ``image_teacher_run`` replaces it by its own."""
    image_teacher_run: str | None = None
    """Run folder, or model on the Hub or in its layout, of the image teacher, which stays there."""
    video_teacher: ObjectiveConfig
    """Network that sees the clip; a ``video_teacher_run`` replaces it by its own."""
    video_teacher_run: str | None = None
    """Run folder, or model on the Hub or in its layout, of the video teacher, which stays there."""
    teachers: Literal["image", "video", "both"] = "both"
    """Teachers that are learnt from."""
    image_weight: Weight = 1.0
    """Weight of the image teacher's loss."""
    video_weight: Weight = 1.0
    """Weight of the video teacher's loss."""
    regress_pixels: bool = False
    """Whether a third decoder predicts pixels, as VideoMAE's."""
    teaching: Literal["masked", "per_token"] = "masked"
    """Positions that are learnt: masked ones, by decoders; or all, each from its own token (``per_token``)."""
    momentum: Share | None = None
    """Momentum of a video teacher that is the moving average of the student; by default teachers are frozen."""

    def used_teachers(self) -> tuple[str, ...]:
        """Names of the frozen teachers."""
        if self.momentum is not None:
            return ()
        return tuple(name for name in _FRAMES if self.teachers in ("both", name.removesuffix("_teacher")))

    def build(self) -> MVD:
        """Build the networks with fresh weights.

        Raises:
            UserError: a teacher's grid is not the student's, or settings contradict each other.
        """
        if self.momentum is not None and self.teachers != "video":
            raise UserError(
                f"with momentum the student's average is the video teacher, and teachers is {self.teachers!r}: set "
                "it to 'video'"
            )
        if self.teaching == "per_token" and self.regress_pixels:
            raise UserError("pixels that are seen are nothing to predict: leave out regress_pixels, or teach masked")
        return MVD(self)


def tiny() -> Run:
    """Motions at 64 x 64 pixels, and teachers of random weights: a run for use names trained ones."""
    sizes = {"depth": 2, "num_heads": 3, "size": 64}
    return Run(
        data=Data(
            synthetic=Motions(train_per_class=12, test_per_class=4),
            clip=Clip(num_frames=8, stride=2, size=64, short_side=(64, 64)),
            batch_size=16,
        ),
        objective=MVDConfig(
            **(sizes | {"depth": 4}),
            width=96,
            num_frames=8,
            patch_size=(2, 8, 8),
            positions="axes",
            decoder_width=48,
            decoder_depth=2,
            decoder_num_heads=3,
            mask_ratio=0.9,
            image_teacher=ImageTransformerConfig(**sizes, width=48, num_frames=1, patch_size=8, linear_init="glorot"),
            video_teacher=VideoTransformerConfig(**sizes, width=72, num_frames=8, patch_size=(2, 8, 8)),
            untrained_teachers=True,
        ),
        optim=AdamW(lr=2e-3, betas=(0.9, 0.95)),
        train=Loop(length=Steps(100)),
    )


_SIZES = {
    "small": {"width": 384, "depth": 12, "num_heads": 6},
    "base": {"width": 768, "depth": 12, "num_heads": 12},
    "large": {"width": 1024, "depth": 24, "num_heads": 16},
    "huge": {"width": 1280, "depth": 32, "num_heads": 16},
}
_DECODERS = {
    "small": {"decoder_depth": 2, "decoder_width": 384, "decoder_num_heads": 6},
    "base": {"decoder_depth": 2, "decoder_width": 768, "decoder_num_heads": 12},
    "large": {"decoder_depth": 4, "decoder_width": 512, "decoder_num_heads": 8},
    "huge": {"decoder_depth": 8, "decoder_width": 640, "decoder_num_heads": 8},
}


def _image_teacher(size: str) -> ImageTransformerConfig:
    """MAE's encoder, pretrained on ImageNet-1K; the huge one has patches of 14 pixels."""
    pixels, patch = (196, 14) if size == "huge" else (224, 16)
    return ImageTransformerConfig(**_SIZES[size], num_frames=1, size=pixels, patch_size=patch)


def _k400(student: str, teacher: str, *, epochs: int, final: float) -> Run:
    """Kinetics-400: 16 frames, 4 apart."""
    network = MVDConfig(
        **_SIZES[student],
        **_DECODERS[student],
        num_frames=16,
        size=224,
        patch_size=(2, 16, 16),
        drop_path=0.2 if student == "huge" else 0.1,
        positions="axes",
        mask_ratio=0.9,
        image_teacher=_image_teacher(teacher),
        video_teacher=find(f"pretraining.videomae:{teacher}_k400").objective,
    )
    return Run(
        data=Data(
            clip=Clip(num_frames=16, stride=4, crop="random_resized", area=(0.4, 1.0)),
            augment=Augment(mirror=0.5),
            batch_size=1024,
            num_workers=10,
        ),
        objective=network,
        optim=AdamW(
            lr=1.5e-4 * 1024 / 256,
            betas=(0.9, 0.95),
            weight_decay=0.05,
            schedule=Cosine(warmup=40 / epochs, final=final / 1.5e-4),
        ),
        train=Loop(length=Epochs(epochs), precision="bfloat16", clip_grad=None),
    )


def small_k400_from_base() -> Run:
    """ViT-S from teachers of ViT-B, 400 epochs."""
    return _k400("small", "base", epochs=400, final=1e-4)


def small_k400_from_large() -> Run:
    """ViT-S from teachers of ViT-L, 400 epochs."""
    return _k400("small", "large", epochs=400, final=1e-4)


def base_k400_from_base() -> Run:
    """ViT-B from teachers of ViT-B, 400 epochs."""
    return _k400("base", "base", epochs=400, final=1e-4)


def base_k400_from_large() -> Run:
    """ViT-B from teachers of ViT-L, 400 epochs."""
    return _k400("base", "large", epochs=400, final=1e-4)


def large_k400_from_large() -> Run:
    """ViT-L from teachers of ViT-L, 400 epochs."""
    return _k400("large", "large", epochs=400, final=1e-4)


def large_k400_from_large_800() -> Run:
    """ViT-L from teachers of ViT-L, 800 epochs."""
    return _k400("large", "large", epochs=800, final=1e-5)


def huge_k400_from_huge() -> Run:
    """ViT-H from teachers of ViT-H (the image teacher's frames have 196 pixels a side), 800 epochs."""
    return _k400("huge", "huge", epochs=800, final=1e-5)
