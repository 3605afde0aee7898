"""InternVideo2, stage 1: a few tokens of a clip, those that a teacher looks at, learn two frozen teachers' features.

One token in five is kept in every frame, drawn in proportion to how much an image teacher attends to it. The student
encodes these alone, and small heads on its last layers turn them into the features that the image teacher (one frame
of two) and a video teacher (all frames) have at their positions, and its pooled output into the image teacher's; the
loss is the cosine. Nothing masked is predicted. Wang et al., "InternVideo2: Scaling Foundation Models for Multimodal
Video Understanding", ECCV 2024, after its code; after Li et al., "Unmasked Teacher", ICCV 2023. The encoder is
:mod:`filmstrip.models.aligned_encoder`, teachers are in :mod:`filmstrip.objectives.teachers` and ``targets``; the
second stage is ``language.internvideo2``.

    filmstrip train pretraining.internvideo2:one_b --data.path PATH \
        --objective.image-teacher-run RUN --objective.video-teacher-run RUN

Image teachers are networks of this file (``FrameEncoderConfig``, InternVL's form) or image transformers with a class
token (``vit``, ``vit_mae`` on the Hub), whose class token's attention in the last block then says where it looks.

Where we deviate: a clip has the video teacher's frames, of which student and image teacher see the first of each pair
(``patch_size``); random resized crops stand for multi-scale ones. The lecture on which this project builds lacks the
section on stage 1; its sizes and rates are those of the code.

The paper's evaluations of this stage are of networks of one and six billion weights: temporal localisation, average
mAP, THUMOS14 69.8 and 72.0, HACS 42.4 and 43.3. ``filmstrip claims internvideo2_saliency`` asks what it is
worth to look, ``internvideo2_alignment`` how alignment compares with masked prediction.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from filmstrip.bounds import Count, ShareBelowOne, Weight
from filmstrip.data.config import Augment, Clip, Data
from filmstrip.data.synthetic.motions import Motions
from filmstrip.errors import UserError
from filmstrip.models.aligned_encoder import (
    AlignedArchitecture,
    AlignedEncoder,
    FrameEncoder,
    start_positions,
)
from filmstrip.models.video_transformer import FrameTransformer
from filmstrip.nn.initialisation import init_linear
from filmstrip.nn.patches import take
from filmstrip.objectives.config import ObjectiveConfig
from filmstrip.objectives.targets import Teacher
from filmstrip.objectives.teachers import EncoderOnly, TaughtConfig, VideoTransformerConfig
from filmstrip.protocols import Batch, Loss, Objective
from filmstrip.randomness import uniform
from filmstrip.runs.config import Run
from filmstrip.systems import find
from filmstrip.train.config import Loop
from filmstrip.train.lengths import Epochs, Steps
from filmstrip.train.optim import AdamW
from filmstrip.train.schedules import Cosine


class Head(nn.Module):
    """Features of unit length from a layer's tokens, ``B N C -> B N D``: by a linear layer, or by a small MLP."""

    def __init__(self, width: int, output_width: int, *, mlp: bool = False) -> None:
        super().__init__()
        hidden = [nn.Linear(width, width), nn.GELU()] if mlp else []
        last = nn.Linear(width, output_width)
        self.head = nn.Sequential(*hidden, last) if mlp else last
        self.norm = nn.LayerNorm(output_width)

    def forward(self, tokens: Tensor) -> Tensor:
        """Predict features."""
        return F.normalize(self.norm(self.head(tokens)).float(), dim=-1)


class Looked(NamedTuple):
    """What an image teacher makes of a clip; features are of unit length, float32."""

    layers: list[Tensor]
    """Each of its last layers, ``B 1+N D``, the class token first: that of all frames, on average."""
    pooled: Tensor
    """``B F``."""
    saliency: Tensor
    """How much it attends to each position, ``B t p``, positive; each frame's add up to less than one."""


@torch.no_grad()
def look(teacher: Teacher, video: Tensor, count: int) -> Looked:
    """What an image teacher makes of ``B T C H W`` video, in its last ``count`` layers."""
    encoder, frames = teacher.encoder, teacher.seen(video)
    b, t = frames.shape[:2]
    if isinstance(encoder, FrameEncoder):
        seen = encoder.steps(frames, count=count)
        pooled = rearrange(encoder.pool(seen[-1]), "(b t) f -> b t f", t=t).mean(dim=1)
        saliency = encoder.pool.weights(seen[-1])[:, 1:]
    else:
        _, every = encoder.steps(frames, layers=True)
        seen, last = every[-count:], encoder.blocks[-1]
        pooled = encoder.norm(rearrange(seen[-1][:, 0], "(b t) d -> b t d", t=t).mean(dim=1))
        saliency = last.attention.weights(last.norm1(every[-2]), 1).mean(dim=1)[:, 0, 1:]
    layers = []
    for tokens in seen:
        cls = rearrange(tokens[:, 0], "(b t) d -> b t d", t=t).mean(dim=1, keepdim=True)
        patches = rearrange(tokens[:, 1:], "(b t) p d -> b (t p) d", t=t)
        layers.append(F.normalize(torch.cat([cls, patches], dim=1).float(), dim=-1))
    return Looked(layers, F.normalize(pooled.float(), dim=-1), rearrange(saliency.float(), "(b t) p -> b t p", b=b))


def choose_by_weight(seeds: Tensor, weights: Tensor, count: int) -> Tensor:
    """``count`` positions of each frame, drawn without replacement in proportion to ``weights`` (``B t p``).

    Returns indices into the grid, ascending, ``B t*count``; drawn from each clip's seed (``B``) by perturbing the
    logarithms of weights with Gumbel noise.
    """
    b, t, p = weights.shape
    draws = uniform(seeds, t * p, "internvideo2.kept").view(b, t, p).clamp(min=2.0**-25)
    keys = weights.log() - (-draws.log()).log()
    kept = keys.topk(count, dim=-1).indices.sort(dim=-1).values
    return (kept + torch.arange(t, device=kept.device)[:, None] * p).flatten(1)


def misalignment(predicted: Sequence[Tensor], targets: Sequence[Tensor]) -> Tensor:
    """``2 - 2 cos`` of vectors of unit length, the mean over layers, clips and positions."""
    each = [2 - 2 * (x * y).sum(dim=-1).mean() for x, y in zip(predicted, targets, strict=True)]
    return torch.stack(each).mean()


class InternVideo2(Objective):
    """A student whose kept tokens are aligned with those of an image and a video teacher."""

    requires = ("video", "seed")
    starts_whole = True

    def __init__(self, config: InternVideo2Config) -> None:
        super().__init__()
        self.encoder = AlignedEncoder(config)
        self.config = config
        grid, width, depth = self.encoder.grid, config.width, config.depth
        sizes = {"num_frames": config.num_frames, "size": config.size, "normalise": "l2"}
        self.image_teacher = config.build_teacher("image_teacher", grid, **sizes, frames="first")
        self.video_teacher = config.build_teacher("video_teacher", grid, **sizes, frames="all")
        image = self.image_teacher.encoder
        if not isinstance(image, FrameEncoder | FrameTransformer):
            raise UserError(
                f"image_teacher: a {type(image).__name__} does not say what it attends to: give a FrameEncoder, or "
                "an image transformer with a class token"
            )
        # Of an image transformer the last block's input is needed too.
        layers = {
            "image_layers": min(depth, image.depth - isinstance(image, FrameTransformer)),
            "video_layers": min(depth, getattr(self.video_teacher.encoder, "depth", depth)),
        }
        for name, most in layers.items():
            if getattr(config, name) > most:
                raise UserError(f"{name} is {getattr(config, name)}, and student and teacher have {most} that align")
        pooled = self._pooled_width(image)
        self.image_heads = nn.ModuleList(Head(width, self.image_teacher.width) for _ in range(config.image_layers))
        self.video_heads = nn.ModuleList(
            Head(width, self.video_teacher.width, mlp=True) for _ in range(config.video_layers)
        )
        self.pooled_head = Head(config.pool_width, pooled)
        self.image_positions = nn.Parameter(start_positions(grid, width))
        self.video_positions = nn.Parameter(start_positions(grid, width)[1:].clone())
        for part in (self.image_heads, self.video_heads, self.pooled_head):
            init_linear(part, config.linear_init)

    @staticmethod
    def _pooled_width(image: nn.Module) -> int:
        return image.pool.out.out_features if isinstance(image, FrameEncoder) else image.width

    def forward(self, batch: Batch, phase: str = "main") -> Loss:
        """The weighted misalignment with the image teacher's layers, its pooled output, and the video teacher's."""
        video, config = batch["video"], self.config
        looked = look(self.image_teacher, video, config.image_layers)
        kept = self.kept(batch["seed"], looked.saliency)
        losses = self.losses(video, kept, looked)
        total = config.image_weight * losses["image"] + config.pooled_weight * losses["pooled"]
        total = total + config.video_weight * losses["video"]
        return Loss(total, {f"loss_{name}": loss.detach() for name, loss in losses.items()})

    def kept(self, seeds: Tensor, saliency: Tensor) -> Tensor:
        """The positions that the student sees, ``B K`` ascending, as many in each frame."""
        weights = saliency if self.config.keep == "salient" else torch.ones_like(saliency)
        places = saliency.shape[-1]
        return choose_by_weight(seeds, weights, places - int(places * self.config.mask_ratio))

    def losses(self, video: Tensor, kept: Tensor, looked: Looked) -> dict[str, Tensor]:
        """The three misalignments, of a student that sees the positions ``kept``."""
        config = self.config
        seen = self.encoder.layers(video, kept, count=max(config.image_layers, config.video_layers))
        image, pooled, motion = self.predict(seen, kept)
        with torch.no_grad():
            wanted = [torch.cat([layer[:, :1], take(layer[:, 1:], kept)], dim=1) for layer in looked.layers]
            moving = [take(layer, kept) for layer in self.video_teacher.last_layers(video, config.video_layers)]
        return {
            "image": misalignment(image, wanted),
            "pooled": misalignment([pooled], [looked.pooled]),
            "video": misalignment(motion, moving),
        }

    def predict(self, seen: list[Tensor], kept: Tensor) -> tuple[list[Tensor], Tensor, list[Tensor]]:
        """Features of the image teacher's layers (``B 1+K D`` each), its pooled output, and the video teacher's
        layers (``B K D`` each), from the student's last layers."""
        where = self.image_positions
        positions = torch.cat([where[:1].expand(kept.shape[0], 1, -1), F.embedding(kept, where[1:])], dim=1)
        layers = seen[-len(self.image_heads) :]
        image = [head(tokens + positions.to(tokens.dtype)) for head, tokens in zip(self.image_heads, layers)]
        positions, layers = F.embedding(kept, self.video_positions), seen[-len(self.video_heads) :]
        motion = [head(tokens[:, 1:] + positions.to(tokens.dtype)) for head, tokens in zip(self.video_heads, layers)]
        return image, self.pooled_head(self.encoder.pool(seen[-1])), motion

    def depth_of(self, name: str) -> int:
        """The layer of a parameter: the student's, then the heads."""
        part, _, rest = name.partition(".")
        return self.encoder.depth_of(rest) if part == "encoder" else self.encoder.depth + 2


@dataclass(frozen=True, kw_only=True)
class FrameEncoderConfig(AlignedArchitecture, ObjectiveConfig):
    """An image teacher of InternVL's form."""

    num_frames: Count = 1
    patch_size: tuple[Count, Count, Count]
    """One frame, height and width of a patch."""

    def build(self) -> EncoderOnly:
        """Build the network with fresh weights."""
        return EncoderOnly(FrameEncoder(self))


@dataclass(frozen=True, kw_only=True)
class InternVideo2Config(AlignedArchitecture, TaughtConfig):
    """A student, its teachers, what is kept of a clip, and how many layers are aligned."""

    mask_ratio: ShareBelowOne = 0.8
    """Share of a frame's positions that the student does not see."""
    keep: Literal["salient", "random"] = "salient"
    """Positions that it sees: drawn in proportion to the image teacher's attention, or any."""
    image_teacher: ObjectiveConfig
    """Network that sees one frame of each pair alone; an ``image_teacher_run`` replaces it by its own."""
    image_teacher_run: str | None = None
    """Run folder, or model on the Hub or in its layout, of the image teacher, which stays there."""
    image_layers: Count = 6
    """Number of last layers that are aligned with the image teacher's."""
    video_teacher: ObjectiveConfig
    """Network that sees the clip; a ``video_teacher_run`` replaces it by its own."""
    video_teacher_run: str | None = None
    """Run folder, or model on the Hub or in its layout, of the video teacher, which stays there."""
    video_layers: Count = 4
    """Number of last layers that are aligned with the video teacher's."""
    image_weight: Weight = 1.0
    """Weight of the image teacher's layers."""
    pooled_weight: Weight = 1.0
    """Weight of the image teacher's pooled output."""
    video_weight: Weight = 1.0
    """Weight of the video teacher's layers."""

    def used_teachers(self) -> tuple[str, ...]:
        """Both."""
        return ("image_teacher", "video_teacher")

    def build(self) -> InternVideo2:
        """Build the networks with fresh weights.

        Raises:
            UserError: a teacher's grid is not the student's, it has too few layers, or says nothing of attention.
        """
        return InternVideo2(self)


def tiny() -> Run:
    """Motions at 64 x 64 pixels, and teachers of random weights: a run for use names trained ones."""
    sizes = {"num_heads": 3, "size": 64}
    own = {"pool_width": 32, "pool_num_heads": 2, "linear_init": "glorot", "layer_scale": 0.1}
    return Run(
        data=Data(
            synthetic=Motions(train_per_class=12, test_per_class=4),
            clip=Clip(num_frames=8, stride=2, size=64, short_side=(64, 64)),
            batch_size=16,
        ),
        objective=InternVideo2Config(
            **sizes,
            **own,
            width=96,
            depth=4,
            num_frames=8,
            patch_size=(2, 8, 8),
            image_teacher=FrameEncoderConfig(**sizes, **own, width=48, depth=2, patch_size=(1, 8, 8)),
            image_layers=2,
            video_teacher=VideoTransformerConfig(**sizes, width=72, depth=2, num_frames=8, patch_size=(2, 8, 8)),
            video_layers=2,
            untrained_teachers=True,
        ),
        optim=AdamW(lr=2e-3, betas=(0.9, 0.98)),
        train=Loop(length=Steps(100)),
    )


_SIX_B = {"width": 3200, "depth": 48, "num_heads": 25, "mlp_ratio": 4.0}
_INTERNVL = FrameEncoderConfig(**_SIX_B, size=224, patch_size=(1, 14, 14), layer_scale=0.1)


def _pretrain(network: InternVideo2Config, *, batch_size: int) -> Run:
    """300 epochs on clips of 16 frames over the whole video."""
    return Run(
        data=Data(
            clip=Clip(num_frames=16, sampling="segments", crop="random_resized", area=(0.4, 1.0)),
            augment=Augment(mirror=0.5),
            batch_size=batch_size,
            num_workers=12,
        ),
        objective=network,
        optim=AdamW(
            lr=1.5e-4 * batch_size / 256,
            betas=(0.9, 0.98),
            weight_decay=0.05,
            schedule=Cosine(warmup=40 / 300, final=1e-5 / 1.5e-4),
        ),
        train=Loop(length=Epochs(300), precision="bfloat16", clip_grad=3.0),
    )


def one_b() -> Run:
    """The student of 1B weights, from InternVL's image encoder of 6B and VideoMAE V2's ViT-g, on 1.1M clips."""
    network = InternVideo2Config(
        width=1408,
        depth=40,
        num_heads=16,
        mlp_ratio=48 / 11,
        num_frames=16,
        size=224,
        patch_size=(2, 14, 14),
        drop_path=0.25,
        image_teacher=_INTERNVL,
        video_teacher=find("pretraining.videomae:v2_giant_hybrid").objective,
    )
    return _pretrain(network, batch_size=4096)


def six_b() -> Run:
    """The student of 6B weights, from the same teachers, on 2M clips."""
    run = one_b()
    return _pretrain(replace(run.objective, **_SIX_B, drop_path=0.3), batch_size=2048)
