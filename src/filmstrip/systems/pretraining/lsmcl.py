"""LSMCL: what is seen of half the tokens of a short clip must tell its long video from all others.

Long-short masked contrastive learning of the network that :mod:`filmstrip.systems.recognition.s5` classifies with. A
student reads a short clip, a slowly moving teacher frames spread over the whole long one, each only the tokens that
its mask generator draws. The student's vector must be closer to the teacher's of the same video than to those of the
other videos of the batch. Wang et al., "Selective Structured State-Spaces for Long-Form Video Understanding", CVPR
2023.

    filmstrip train pretraining.lsmcl:large_coin --init hf:google/vit-large-patch16-224-in21k --data.path PATH
    filmstrip train recognition.s5:large_coin --init RUN --data.path PATH

What is ours: of the paper its abstract is among our sources, and no code of it is public. It says that a longer
context is predicted from shorter input, by masked contrastive learning. The heads, the loss over the batch and the
teacher are those of MoCo v3 (Chen et al. 2021: hidden layers of 4096, vectors of 256, temperature 0.2, momentum
0.99), the network is that of :mod:`filmstrip.models.selective_s4`, and a long video is four times as long as a short
clip. Both are read in as many frames: those of the long one lie four times as far apart.

The abstract gives no figure of this part: with the selection together, up to 9.6% more accuracy than S4.
``filmstrip claims lsmcl_selection`` re-runs it small.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from filmstrip.bounds import Count, Rate, Share
from filmstrip.data.config import Augment, Clip, Data
from filmstrip.data.synthetic.motions import Motions
from filmstrip.evals.knn import KNN
from filmstrip.models.selective_s4 import SelectiveS4Architecture, SelectiveS4Encoder, is_dynamics
from filmstrip.objectives.config import ObjectiveConfig
from filmstrip.objectives.momentum import follow
from filmstrip.protocols import Batch, Loss, Objective
from filmstrip.randomness import uniform
from filmstrip.runs.config import Run
from filmstrip.train.config import Loop
from filmstrip.train.lengths import Epochs, Steps
from filmstrip.train.optim import AdamW


def _head(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    """A feed-forward network with a layer norm after each layer but the last, ``B inputs -> B outputs``.

    MoCo v3 normalises over the batch, which makes a sample's vector depend on the others'.
    """
    return nn.Sequential(nn.Linear(inputs, hidden), nn.LayerNorm(hidden), nn.GELU(), nn.Linear(hidden, outputs))


class LSMCL(Objective):
    """A student of short clips, a momentum teacher of long videos, and a contrastive loss between their vectors."""

    requires = ("video", "seed")
    starts_rest = True  # projector and predictor, of a run of its own kind

    def __init__(self, config: LSMCLConfig) -> None:
        super().__init__()
        self.encoder = SelectiveS4Encoder(config)
        self.projector = _head(self.encoder.width, config.head_hidden, config.head_width)
        self.teacher = copy.deepcopy(nn.ModuleList([self.encoder, self.projector])).requires_grad_(False)
        self.predictor = _head(config.head_width, config.head_hidden, config.head_width)
        self.num_frames = config.num_frames
        self.ratio = config.long_short
        self.temperature = config.temperature
        self.momentum = config.teacher_momentum

    def forward(self, batch: Batch, phase: str = "main") -> Loss:
        """Cross-entropy over the videos of the batch.

        Also logs how often the nearest of them is the right one, and the standard deviation of the teacher's vectors
        over the batch, mean over channels, which goes to zero in a collapse.
        """
        video, seeds = batch["video"], batch["seed"]
        predicted = F.normalize(self.predict(self.short(video, seeds), seeds).float(), dim=1)
        target = F.normalize(self.targets(video, seeds).float(), dim=1)
        logits = predicted @ target.T / self.temperature
        right = torch.arange(logits.shape[0], device=logits.device)
        with torch.no_grad():
            top1 = (logits.argmax(dim=1) == right).float().mean()
            spread = target.std(dim=0, correction=0).mean()
        return Loss(F.cross_entropy(logits, right), {"top1": top1, "target_std": spread})

    def short(self, video: Tensor, seeds: Tensor) -> Tensor:
        """Consecutive frames from a random place of each long clip, drawn from its seed: ``B T/ratio C H W``.

        Raises:
            ValueError: long clips are not ``ratio`` times as long as short ones.
        """
        if video.shape[1] != self.ratio * self.num_frames:
            raise ValueError(
                f"long clips have {self.ratio} x {self.num_frames} frames (long_short x num_frames), got "
                f"{video.shape[1]}: set data.clip.num_frames to {self.ratio * self.num_frames}"
            )
        starts = video.shape[1] - self.num_frames + 1
        first = (uniform(seeds, 1, "lsmcl.short") * starts).long()
        index = first + torch.arange(self.num_frames, device=video.device)
        return video[torch.arange(video.shape[0], device=video.device)[:, None], index]

    def predict(self, short: Tensor, seeds: Tensor) -> Tensor:
        """The student's vectors of short clips, ``B head_width``."""
        return self.predictor(self.projector(self.encoder(short, seeds=seeds).pooled()))

    def started(self) -> None:
        """The teacher begins as the student."""
        self.teacher.load_state_dict(nn.ModuleList([self.encoder, self.projector]).state_dict())

    @torch.no_grad()
    def targets(self, video: Tensor, seeds: Tensor) -> Tensor:
        """The teacher's vectors of long clips, ``B head_width``; its selection is drawn apart from the student's."""
        encoder, projector = self.teacher
        return projector(encoder(video, seeds=~seeds).pooled())

    @torch.no_grad()
    def after_step(self, step: int) -> None:
        """Move the copy that the mask generator reads, and the teacher."""
        self.encoder.video.move()
        follow(self.teacher, nn.ModuleList([self.encoder, self.projector]), self.momentum, step)

    def no_decay(self, name: str, param: nn.Parameter) -> bool:
        """Biases and scales, as everywhere, and the dynamics of state spaces."""
        return super().no_decay(name, param) or is_dynamics(name)

    def depth_of(self, name: str) -> int:
        """The encoder's own layers; the heads come after its last."""
        part, _, rest = name.partition(".")
        return self.encoder.depth_of(rest) if part == "encoder" else self.encoder.depth + 1


@dataclass(frozen=True, kw_only=True)
class LSMCLConfig(SelectiveS4Architecture, ObjectiveConfig):
    """A network of short clips, its heads, and the contrast."""

    long_short: Count = 4
    """Length of a long clip, in short ones of ``num_frames``."""
    head_hidden: Count
    """Width of the hidden layer of projector and predictor."""
    head_width: Count
    """Channels of the vectors that are compared."""
    temperature: Rate = 0.2
    """Temperature of the softmax over the videos of a batch."""
    teacher_momentum: Share = 0.99
    """Momentum of the teacher."""

    def for_clip(self, clip: Clip) -> Self:
        """This method for long clips of another length and size: short ones are ``long_short`` times shorter."""
        return replace(self, num_frames=max(1, clip.num_frames // self.long_short), size=clip.size)

    def build(self) -> LSMCL:
        """Build the networks with fresh weights.

        Raises:
            UserError: sizes do not go together.
        """
        return LSMCL(self)


def tiny() -> Run:
    """Motions at 64 x 64 pixels: 4 of 16 frames; trains in seconds on two CPU cores."""
    return Run(
        data=Data(
            synthetic=Motions(train_per_class=12, test_per_class=4),
            clip=Clip(num_frames=16, stride=1, size=64, short_side=(64, 64)),
            augment=Augment(mirror=0.0),
            batch_size=16,
        ),
        objective=LSMCLConfig(
            width=64,
            depth=1,
            num_heads=2,
            video_depth=2,
            state=16,
            num_frames=4,
            size=64,
            patch_size=16,
            linear_init="glorot",
            head_hidden=64,
            head_width=32,
        ),
        optim=AdamW(lr=1e-3),
        train=Loop(length=Steps(100)),
        evals=(KNN(),),
    )


LARGE = LSMCLConfig(
    width=1024,
    depth=24,
    num_heads=16,
    frame_pool=2,
    video_depth=3,
    s4_dropout=0.2,
    num_frames=64,
    size=224,
    patch_size=16,
    mean=(0.5, 0.5, 0.5),
    std=(0.5, 0.5, 0.5),
    head_hidden=4096,
    head_width=256,
)


def large_coin() -> Run:
    """The network of ``recognition.s5:large_coin``, of COIN's videos without labels: 64 of 256 frames."""
    return Run(
        data=Data(
            clip=Clip(num_frames=256, sampling="uniform", crop="random_resized", area=(0.5, 1.0)),
            augment=Augment(mirror=0.5),
            batch_size=64,
            num_workers=16,
        ),
        objective=LARGE,
        optim=AdamW(lr=1e-3, weight_decay=0.01, rates=((r"encoder\.frames", 0.0),)),
        train=Loop(length=Epochs(100), precision="bfloat16"),
        evals=(KNN(),),
    )
