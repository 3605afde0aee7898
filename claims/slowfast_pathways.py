"""A fast, narrow pathway tells a slow, wide one of the motions between its frames.

    python claims/slowfast_pathways.py

SlowFast on Kinetics-400 (Feichtenhofer et al. 2019, the released ResNet-50s): the slow pathway alone has 72.7 with 4
frames and 74.8 with 8; with a fast pathway of 32 frames and an eighth of the channels beside it, 4 frames have 75.6,
for a third more multiply-adds instead of twice as many. Those are counted here at the paper's size, in its crops of
256 pixels. The small networks see motions whose slow frames are so far apart (45 frames of the video for 2, 15 for 4)
that things go most of the way around between them. Top-1 on unseen videos; chance is 12.5.

That the fast pathway tells what the slow frames miss shows clearly. That it is better than twice the slow frames does
not: the two are as good as each other here, within the error of 200 videos, and cost the same, for most of a fast
pathway's work is its first convolution: half of everything in so small a network, and little in a ResNet-50.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from filmstrip.data.config import Clip
from filmstrip.data.synthetic.motions import MOTIONS, Motions
from filmstrip.measure import complexity
from filmstrip.models.resnet3d import DEPTHS
from filmstrip.objectives.classification import Classification, ClassificationConfig
from filmstrip.systems.recognition.nonlocal_net import NonLocalNetConfig, ResNet3D
from filmstrip.systems.recognition.slowfast import SlowFastConfig

FRAMES, STRIDE, SIZE = 16, 3, 32
SLOW_TIME = (1, 1, 3, 3)
"""Frames that the stages of the slow pathway convolve over."""
PAPER_CLIP = 32, 256


@dataclass(frozen=True, kw_only=True)
class SlowOnlyConfig(ClassificationConfig):
    """SlowFast's slow pathway alone."""

    stem_width: int = 64
    depths: tuple[int, ...] = DEPTHS[50]
    frames: int = 4
    """How many of a clip's frames it sees, spread from the first to the last."""

    def build(self) -> SlowOnly:
        stages = len(self.depths)
        config = NonLocalNetConfig(
            stem_width=self.stem_width,
            depths=self.depths,
            stem_frames=1,
            frames=tuple((n,) for n in SLOW_TIME[:stages]),
            pool_frames=False,
            nonlocal_after=((),) * stages,
        )
        return SlowOnly(ResNet3D(config), self.num_classes, self.frames)


class SlowOnly(Classification):
    def __init__(self, encoder: ResNet3D, num_classes: int, frames: int) -> None:
        super().__init__(encoder, num_classes)
        self.frames = frames

    def classify(self, video: Tensor) -> Tensor:
        index = [i * (video.shape[1] - 1) // (self.frames - 1) for i in range(self.frames)]
        return super().classify(video[:, index])


SMALL = {"stem_width": 32, "depths": (1, 1, 1), "num_classes": len(MOTIONS)}
NETWORKS = {
    "slow": (SlowOnlyConfig(frames=4), 72.7, SlowOnlyConfig(frames=2, **SMALL)),
    "slow, twice the frames": (SlowOnlyConfig(frames=8), 74.8, SlowOnlyConfig(frames=4, **SMALL)),
    "slow and fast": (SlowFastConfig(), 75.6, SlowFastConfig(speed_ratio=8, dropout=0.0, **SMALL)),
}
"""As large as the paper's, its released weights' top-1, and here."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--videos", type=int, default=80, help="training videos of each of the eight classes")
    parser.add_argument("--tests", type=int, default=25)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    drawn = Motions(num_frames=FRAMES * STRIDE, size=SIZE, difficulty=0.0)
    train, test = (clips(count, (args.seed, i), drawn) for i, count in enumerate((args.videos, args.tests)))
    print("| pathways | G, paper's size | top-1, Kinetics-400 (released) | G, here | top-1 here |")
    print("|---|---:|---:|---:|---:|")
    for name, (large, paper, small) in NETWORKS.items():
        network = trained(small, train, steps=args.steps, lr=3e-3, seed=args.seed)
        costs = cost(large, *PAPER_CLIP)[1], cost(small, FRAMES, SIZE)[1]
        print(f"| {name} | {costs[0]:.1f} | {paper} | {costs[1]:.4f} | {top1(network, *test):.1f} |", flush=True)


def clips(count: int, seed: tuple[int, ...], drawn: Motions) -> tuple[Tensor, Tensor]:
    """``count`` clips ``T 3 H W`` uint8 of each motion, of every third frame, and their labels."""
    videos = [
        drawn.render(way, np.random.default_rng((*seed, i, k)))[::STRIDE]
        for i, way in enumerate(MOTIONS)
        for k in range(count)
    ]
    return torch.stack(videos), torch.arange(len(MOTIONS)).repeat_interleave(count)


def trained(
    config: ClassificationConfig, data: tuple[Tensor, Tensor], *, steps: int, lr: float, seed: int
) -> Classification:
    """A network after so many steps; each clip is moved around the torus that the motions live on."""
    torch.manual_seed(seed)
    network = config.build()
    generator = torch.Generator().manual_seed(seed)
    optimiser = torch.optim.AdamW(network.parameters(), lr=lr, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=lr, total_steps=steps)
    videos, labels = data
    for _ in range(steps):
        chosen = torch.randint(len(videos), (16,), generator=generator)
        moved = torch.randint(SIZE, (16, 2), generator=generator).tolist()
        video = torch.stack([videos[i].roll(by, dims=(2, 3)) for i, by in zip(chosen.tolist(), moved)])
        optimiser.zero_grad()
        network({"video": video.float() / 255, "label": labels[chosen]}).total.backward()
        optimiser.step()
        schedule.step()
    return network.eval()


@torch.no_grad()
def top1(network: Classification, videos: Tensor, label: Tensor) -> float:
    """The percentage that is named rightly."""
    said = torch.cat([network.classify(part.float() / 255).argmax(dim=1) for part in videos.split(32)])
    return 100 * (said == label).float().mean().item()


def cost(config: ClassificationConfig, frames: int, size: int) -> tuple[float, float]:
    """Millions of parameters, and giga multiply-adds for a clip."""
    with torch.device("meta"):
        network = config.build().eval()
    counted = complexity.measure(network, Clip(num_frames=frames, size=size))
    return counted.parameters / 1e6, counted.multiply_adds / 1e9


if __name__ == "__main__":
    main()
