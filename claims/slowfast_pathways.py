"""A fast, narrow pathway tells a slow, wide one of the motions between its frames."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from claims.ledger import Claim, Figure, above, below
from claims.moving import clips, shifted
from claims.training import answers, cost, learn, percent
from filmstrip.data.synthetic.motions import MOTIONS, Motions
from filmstrip.models.resnet3d import DEPTHS
from filmstrip.objectives.classification import Classification, ClassificationConfig
from filmstrip.systems.recognition.nonlocal_net import NonLocalNetConfig, ResNet3D
from filmstrip.systems.recognition.slowfast import SlowFastConfig

FRAMES, STRIDE, SIZE = 16, 6, 32
STEPS, VIDEOS, TESTS = 300, 40, 25
SLOW_TIME = (1, 1, 3, 3)
"""Frames that the stages of the slow pathway convolve over."""
PAPER_CLIP = 32, 256


@dataclass(frozen=True, kw_only=True)
class SlowOnlyConfig(ClassificationConfig):
    """SlowFast's slow pathway alone."""

    stem_width: int
    depths: tuple[int, ...]
    frames: int
    """How many of a clip's frames it sees, spread from the first to the last."""

    def build(self) -> SlowOnly:
        stages = len(self.depths)
        config = NonLocalNetConfig(
            stem_width=self.stem_width,
            depths=self.depths,
            stem_frames=1,
            frames=tuple((n,) for n in SLOW_TIME[:stages]),
            nonlocal_after=((),) * stages,
            num_classes=self.num_classes,
        )
        return SlowOnly(ResNet3D(config), self)


class SlowOnly(Classification):
    def __init__(self, encoder: ResNet3D, config: SlowOnlyConfig) -> None:
        super().__init__(encoder, config)
        self.frames = config.frames

    def classify(self, video: Tensor) -> Tensor:
        index = [i * (video.shape[1] - 1) // (self.frames - 1) for i in range(self.frames)]
        return super().classify(video[:, index])


LARGE = {"stem_width": 64, "depths": DEPTHS[50], "num_classes": 400}
FAST = {"speed_ratio": 8, "narrower": 8, "fusion_frames": 5}
SMALL = {"stem_width": 32, "depths": (1, 1, 1), "num_classes": len(MOTIONS)}
NETWORKS = {
    "slow": (SlowOnlyConfig(frames=4, **LARGE), "72.7", SlowOnlyConfig(frames=2, **SMALL)),
    "twice the frames": (SlowOnlyConfig(frames=8, **LARGE), "74.8", SlowOnlyConfig(frames=4, **SMALL)),
    "slow and fast": (SlowFastConfig(**FAST, **LARGE), "75.6", SlowFastConfig(**FAST, **SMALL)),
}
"""As large as the paper's, its released weights' top-1 on Kinetics-400, and here."""

CLAIM = Claim(
    systems=("recognition.slowfast",),
    finding=__doc__.strip(),
    paper="Feichtenhofer et al. 2019, the released ResNet-50s on Kinetics-400 (top-1): the slow pathway alone 72.7 "
    "with 4 frames and 74.8 with 8; 75.6 with 4 and a fast pathway of 32 frames and an eighth of the channels, for "
    "a third more multiply-adds instead of twice as many.",
    here="Small networks see motions whose slow frames are so far apart that things go around once or "
    "twice between 2 of them (90 frames of the video) and half-way around between 4 (30 frames), from which the "
    "way cannot be told, or hardly: 300 steps on 40 videos of each of eight motions, shifted by chance around "
    "the torus that they live on, 200 unseen videos, chance 12.5. Costs of the paper's networks are counted in "
    "crops of 256 pixels.",
    baseline="The slow pathway alone, and with twice the frames.",
    figures={
        **{
            name: Figure(says=f"{name}: top-1, %", paper=f"{paper} (K400)")
            for name, (_, paper, _) in NETWORKS.items()
        },
        **{f"{name}, G": Figure(says=f"{name}, paper's size: G multiply-adds") for name in NETWORKS},
        **{f"{name}, M": Figure(says=f"{name}, here: M multiply-adds") for name in NETWORKS},
    },
    expected=(
        above("slow and fast", "slow", "a fast pathway tells what slow frames miss, by 25 points", by=25.0),
        above("slow and fast", "twice the frames", "and more than twice the slow frames do"),
        below("slow and fast, G", "twice the frames, G", "at the paper's size it costs less than twice the frames"),
    ),
    analysis="With slow frames half as far apart (45 and 15 frames of the video) 4 of them tell the motions as "
    "well as 2 and a fast pathway do (75.5 and 72.5, one seed): what a fast pathway is for is motion too fast "
    "for slow frames. Both cost the same in so small a network, where half of all work is the fast pathway's "
    "first convolution; of a ResNet-50's work that is little.",
    minutes=3.5,
)


def measure(seed: int, folder: Path) -> dict[str, float]:
    drawn = Motions(num_frames=FRAMES * STRIDE, size=SIZE, difficulty=0.0)
    train, (videos, labels) = (clips(count, (seed, i), drawn, STRIDE) for i, count in enumerate((VIDEOS, TESTS)))
    found = {}
    for name, (large, _, small) in NETWORKS.items():
        found[name] = percent(answers(trained(small, *train, seed), videos), labels)
        found[f"{name}, G"] = cost(large, *PAPER_CLIP)[1]
        found[f"{name}, M"] = 1000 * cost(small, FRAMES, SIZE)[1]
    return found


def trained(config: ClassificationConfig, videos: Tensor, labels: Tensor, seed: int) -> Classification:
    """A network after its steps; each clip is shifted around the torus that the motions live on."""
    torch.manual_seed(seed)
    return learn(config.build(), shifted(videos, labels, 16, seed), steps=STEPS, lr=3e-3)
