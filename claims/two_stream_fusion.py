"""Flow tells how things move and frames tell what they are; two streams together know more than either.

    python claims/two_stream_fusion.py

Simonyan & Zisserman 2014, on UCF-101: spatial 73.0, temporal 83.7, averaged 86.9, fused by SVM 88.0. Here a class is
a motion (left, right, up or down) of bright shapes on a dark ground or, colours inverted, of dark ones on a bright
ground: a frame tells the ground alone (which makes 25.0 on average), flow the motion alone (50.0), and chance is
12.5. Top-1 on unseen videos.
"""

from __future__ import annotations

import argparse
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from filmstrip.data.synthetic.motions import Motions
from filmstrip.objectives.two_stream import TwoStream
from filmstrip.systems.recognition import two_stream

WAYS = ("left", "right", "up", "down")
PAPER = {"spatial": 73.0, "temporal": 83.7, "average": 86.9, "svm": 88.0}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--videos", type=int, default=80, help="training videos of each of the eight classes")
    parser.add_argument("--tests", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    train, test = clips(args.videos, (args.seed, 0)), clips(args.tests, (args.seed, 1))
    found = top1(trained(train, args), *test)
    print("| seen by | paper (UCF-101) | here |\n|---|---:|---:|")
    for name, paper in PAPER.items():
        print(f"| {name} | {paper} | {100 * found[name]:.1f} |")


def clips(count: int, seed: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """``count`` clips ``T 3 H W`` uint8 of each class, and their labels: twice the motion, plus one if inverted."""
    clip = two_stream.tiny().data.clip
    drawn = Motions(num_frames=clip.num_frames * clip.stride, difficulty=0.0)
    videos = []
    for i, way in enumerate(WAYS):
        for inverted in (0, 1):
            for k in range(count):
                video = drawn.render(way, np.random.default_rng((*seed, i, inverted, k)))[:: clip.stride]
                videos.append(255 - video if inverted else video)
    return torch.stack(videos), torch.arange(2 * len(WAYS)).repeat_interleave(count)


def trained(data: tuple[Tensor, Tensor], args: argparse.Namespace) -> TwoStream:
    """Both streams and the SVM, as ``two_stream.tiny`` trains them."""
    run = two_stream.tiny()
    torch.manual_seed(args.seed)
    network = replace(run.objective, num_classes=2 * len(WAYS)).build()
    generator = torch.Generator().manual_seed(args.seed)
    optimiser = torch.optim.AdamW(network.parameters(), lr=run.optim.lr, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=run.optim.lr, total_steps=args.steps)
    for _ in range(args.steps):
        chosen = torch.randint(len(data[0]), (run.data.batch_size,), generator=generator)
        optimiser.zero_grad()
        network({"video": data[0][chosen].float() / 255, "label": data[1][chosen]}).total.backward()
        optimiser.step()
        schedule.step()
    return network.eval()


@torch.no_grad()
def top1(network: TwoStream, videos: Tensor, label: Tensor) -> dict[str, float]:
    """Accuracy of each stream, of their mean and of the SVM."""
    parts = [network.streams(part.float() / 255) for part in videos.split(32)]
    spatial, temporal = (torch.cat(stream) for stream in zip(*parts))
    said = {
        "spatial": spatial,
        "temporal": temporal,
        "average": torch.logaddexp(spatial, temporal),
        "svm": network.svm(torch.cat([spatial, temporal], dim=1).exp()),
    }
    return {name: (scores.argmax(dim=1) == label).float().mean().item() for name, scores in said.items()}


if __name__ == "__main__":
    main()
