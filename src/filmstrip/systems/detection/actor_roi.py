"""SlowFast for AVA: a video network whose features within each actor's box say everything that the actor does.

Boxes are given: annotated ones, or those of a detector of persons. The last stage of both networks keeps its height
and width and is dilated, so that a position of its map covers 16 pixels. Feichtenhofer et al., "SlowFast Networks for
Video Recognition", ICCV 2019; after Gu et al., "AVA", CVPR 2018.

    filmstrip train detection.actor_roi:slowfast_r50_8x8_ava --data VIDEOS \\
        --data.reads.annotations ANNOTATIONS --init SLOWFAST_8x8_R50.pyth
    filmstrip eval RUN --protocol detection --proposals BOXES.csv
    filmstrip detect RUN video.mp4 --boxes boxes.csv --out boxes.mp4

Hyper-parameters are those of the released configuration of the ResNet-50, 8 x 8 (64 clips a step, 20 epochs, 5 of
warm-up, ``AVA/SLOWFAST_32x2_R50_SHORT``); none is released for training the others, which take them over. Start from
a network that was trained on Kinetics (``--init``). Where we deviate: the rate follows a cosine, where theirs drops
in three steps; training takes annotated boxes alone unless ``train_boxes`` names a detector's, and leaves out whoever
is not in the crop; frames are taken at the film's own rate, theirs at 30 a second; the ResNet-101 comes without
nonlocal blocks; evaluation sees whole frames whose sides are a multiple of 32. The backbone is an option: any
recognition network's configuration, of which the encoder is taken.

Released, by the authors' model zoo and their evaluation (which counts every row of a key frame), on AVA 2.2 with a
detector's boxes: ResNet-101 with nonlocal blocks, 8 x 8, from Kinetics-600, 29.1 mAP; by MMAction2's, from
Kinetics-400: ResNet-50, 4 x 16, 24.3 and 8 x 8, 25.8 (both AVA 2.1).

Measured here, ``filmstrip claims detection_motion`` (60 synthetic videos of moving actors after 250 steps on 250
others, annotated boxes, mean of three seeds): 47.1 mAP in key frames at an overlap of 0.5, where ``tiny_one_frame``
reaches 18.7, and scores drawn at random 17.5 (standard deviation 0.7): what is done is told by motion alone. Over
tubes it is 26.0 and 11.1; perfect scores would reach 59.2, since shapes that move fast are not linked from one second
to the next. After 500 steps on 400 videos it is 68 to 75 in key frames (docs/performance.md).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self

import torch
import torch.nn.functional as F
from einops import reduce
from torch import Tensor, nn

from filmstrip.bounds import Count, ShareBelowOne
from filmstrip.data.config import Augment, Clip, Data, DataInfo
from filmstrip.data.kinds.actors import ActorClips
from filmstrip.data.synthetic.actors import Actors
from filmstrip.errors import UserError
from filmstrip.evals.detection import DetectionMAP
from filmstrip.nn.roi_align import roi_align
from filmstrip.objectives.config import ObjectiveConfig
from filmstrip.protocols import Batch, Encoder, Loss, Objective, find_encoder
from filmstrip.runs.config import Run
from filmstrip.systems import find
from filmstrip.train.config import Loop
from filmstrip.train.lengths import Epochs, Steps
from filmstrip.train.optim import SGD, AdamW
from filmstrip.train.schedules import Cosine


class ActorRoI(Objective):
    """An encoder with a head for the boxes of a key frame; a :class:`~filmstrip.protocols.Detector`.

    The encoder's tokens are averaged over time, RoIAlign reads ``size x size`` cells of each box, of which the
    largest value of each channel goes through a linear layer (Feichtenhofer et al. 2019). Classes are independent of
    each other. Any encoder will do whose tokens lie on a grid in space.
    """

    requires = ("video", "boxes", "is_actor", "box_labels")

    def __init__(self, encoder: Encoder, config: ActorRoIConfig) -> None:
        super().__init__()
        self.encoder = encoder
        self.size = config.size
        self.aligned = config.aligned
        self.dropout = nn.Dropout(config.dropout)
        self.head = nn.Linear(encoder.width, config.num_classes)
        nn.init.normal_(self.head.weight, std=0.01)
        nn.init.zeros_(self.head.bias)

    def logits(self, video: Tensor, boxes: Tensor) -> Tensor:
        """``B M K`` of ``B T C H W`` video and ``boxes`` (``B M 4``, shares of its width and height)."""
        features = self.encoder(video)
        t, h, w = features.grid
        feature_map = reduce(features.tokens, "b (t h w) d -> b d h w", "mean", t=t, h=h)
        left, top, right, bottom = boxes.unbind(dim=-1)
        on_map = torch.stack([left * w, top * h, right * w, bottom * h], dim=-1)
        cells = roi_align(feature_map, on_map, size=self.size, aligned=self.aligned)
        return self.head(self.dropout(reduce(cells, "b m d p q -> b m d", "max")))

    def forward(self, batch: Batch, phase: str = "main") -> Loss:
        """Binary cross-entropy, the mean over actors and classes; also logs the share of both that is right."""
        labels, there = batch["box_labels"], batch["is_actor"]
        logits = self.logits(batch["video"], batch["boxes"]).float()
        count = there.sum().clamp(min=1)
        wrong = F.binary_cross_entropy_with_logits(logits, labels, reduction="none").mean(dim=-1)
        total = (wrong * there).sum() / count
        with torch.no_grad():
            right = (((logits > 0) == (labels > 0)).float().mean(dim=-1) * there).sum() / count
        return Loss(total, {"right": right, "actors": there.sum(dim=1).float().mean()})

    def detect(self, video: Tensor, boxes: Tensor) -> Tensor:
        """Probabilities ``B M K`` of each class within boxes."""
        return self.logits(video, boxes).float().sigmoid()

    def depth_of(self, name: str) -> int:
        """The encoder's own layers; the head comes after its last."""
        prefix = "encoder."
        if name.startswith(prefix):
            return self.encoder.depth_of(name.removeprefix(prefix))
        return self.encoder.depth + 1


@dataclass(frozen=True, kw_only=True)
class ActorRoIConfig(ObjectiveConfig):
    """A network and its head for boxes."""

    backbone: ObjectiveConfig
    """Configuration of a recognition system, of which the encoder is taken."""
    num_classes: Count
    """Number of classes. In training it comes from the data; a preset states its paper's."""
    size: Count
    """Cells along each side of a box."""
    aligned: bool = True
    """Whether positions of the map are centred at halves; some released networks were trained without."""
    dropout: ShareBelowOne = 0.0
    """Dropout rate before the head."""

    def bind(self, info: DataInfo) -> Self:
        """Take the number of classes from the data, if it has any."""
        return replace(self, num_classes=len(info.classes)) if info.classes else self

    def build(self) -> ActorRoI:
        """Build the network with fresh weights.

        Raises:
            UserError: the backbone has no encoder.
        """
        encoder = find_encoder(self.backbone.build())
        if encoder is None:
            raise UserError(
                f"{type(self.backbone).__name__} builds no encoder, of which boxes could be read: name a recognition "
                "system's"
            )
        return ActorRoI(encoder, self)


def tiny() -> Run:
    """Narrow networks on two or three moving shapes in frames of 64 x 64 pixels; two minutes on two CPU cores."""
    backbone = find("recognition.slowfast:tiny").objective
    return Run(
        data=Data(
            synthetic=Actors(num_train=48, num_test=12),
            reads=ActorClips(max_actors=3),
            clip=Clip(num_frames=8, stride=1, size=64, short_side=(64, 72)),
            augment=Augment(brightness=0.3, contrast=0.3, saturation=0.3, hue=0.1),
            batch_size=16,
            num_workers=0,
        ),
        objective=ActorRoIConfig(backbone=replace(backbone, dilated=True), num_classes=8, size=7),
        optim=AdamW(lr=4e-3),
        train=Loop(length=Steps(300)),
        evals=(DetectionMAP(video_thresholds=(0.5,)),),
    )


def tiny_one_frame() -> Run:
    """The same with a network that sees the key frame alone: boxes and looks without motion."""
    run = tiny()
    backbone = find("recognition.single_frame:tiny").objective
    return replace(
        run,
        data=replace(run.data, clip=replace(run.data.clip, num_frames=1)),
        objective=replace(run.objective, backbone=backbone),
    )


def slowfast_r50_4x16_ava() -> Run:
    """ResNet-50, 4 slow and 32 fast frames, on AVA 2.2."""
    return _ava("r50_4x16_k400")


def slowfast_r50_8x8_ava() -> Run:
    """ResNet-50, 8 slow and 32 fast frames."""
    return _ava("r50_8x8_k400")


def slowfast_r101_8x8_ava() -> Run:
    """ResNet-101, 8 slow and 32 fast frames, without nonlocal blocks."""
    run = _ava("r101_8x8_k400")
    return replace(run, objective=replace(run.objective, backbone=replace(run.objective.backbone, fusion_frames=5)))


def _ava(backbone: str) -> Run:
    """AVA with the network of a preset that was trained on Kinetics-400."""
    network = find(f"recognition.slowfast:{backbone}").objective
    return Run(
        data=Data(
            reads=ActorClips(dataset="ava_v2.2"),
            clip=Clip(num_frames=32, stride=2, size=224, short_side=(256, 320)),
            augment=Augment(),
            batch_size=64,
            num_workers=8,
        ),
        objective=ActorRoIConfig(
            backbone=replace(network, dilated=True), num_classes=80, size=7, aligned=True, dropout=0.5
        ),
        optim=SGD(lr=0.1, weight_decay=1e-7, schedule=Cosine(warmup=5 / 20, start=0.000125 / 0.1)),
        train=Loop(length=Epochs(20), precision="bfloat16", clip_grad=None),
        evals=(DetectionMAP(),),
    )
