"""A recurrent network knows in which order it saw the frames; their average does not.

    python claims/recurrent_order.py

LRCN carries what a convolutional network sees of each frame through an LSTM, a recurrent convolutional network
carries whole maps (the lecture, section 24.4.1). Here a texture goes left or right, and frames alone say nothing.
Both are trained on clips, and asked of unseen ones, forwards and backwards: who follows the order names the opposite
motion of a clip that is played backwards. Chance is 50.
"""

from __future__ import annotations

import argparse
from dataclasses import replace

import torch
from torch import Tensor

from filmstrip.objectives.classification import Classification
from filmstrip.systems.recognition import late_fusion, lrcn, recurrent_conv

FRAMES, SIZE = 8, 32
NETWORKS = {
    "late_fusion:tiny_pooling": late_fusion.tiny_pooling(),
    "lrcn": lrcn.tiny(),
    "recurrent_conv": recurrent_conv.tiny(),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    print("| network | top-1 | says the opposite of it played backwards |\n|---|---:|---:|")
    for name, run in NETWORKS.items():
        torch.manual_seed(args.seed)
        network = replace(run.objective, num_classes=2).build()
        generator = torch.Generator().manual_seed(args.seed)
        learn(network, run.optim.lr, args, generator)
        video, label = make(320, generator)
        said, backwards = (answers(network, clips) for clips in (video, video.flip(1)))
        shares = ((said == label).float().mean(), (said != backwards).float().mean())
        print(f"| {name} | {' | '.join(f'{100 * share.item():.1f}' for share in shares)} |", flush=True)


def make(count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Clips ``B T 3 H W`` in 0..1 of a texture that goes left (0) or right (1), and which."""
    label = torch.randint(2, (count,), generator=generator)
    speed, turns, height, start = torch.rand(4, count, 1, 1, 1, generator=generator)
    ticks = torch.arange(SIZE) / SIZE
    way = 2 * label[:, None, None, None] - 1
    shift = start + way * (0.03 + 0.03 * speed) * torch.arange(FRAMES)[:, None, None]
    x, y = (2 * torch.pi * (1 + turns) * part for part in (ticks - shift, ticks[:, None] - height))
    texture = (torch.sin(x) * torch.sin(y))[:, :, None]
    colour = 0.6 * torch.rand(count, 1, 3, 1, 1, generator=generator) - 0.3
    return 0.5 + texture * colour, label


def learn(network: Classification, lr: float, args: argparse.Namespace, generator: torch.Generator) -> None:
    """Train on clips that are never the same."""
    optimiser = torch.optim.AdamW(network.parameters(), lr=lr, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=lr, total_steps=args.steps)
    for _ in range(args.steps):
        video, label = make(args.batch, generator)
        optimiser.zero_grad()
        network({"video": video, "label": label}).total.backward()
        optimiser.step()
        schedule.step()


@torch.no_grad()
def answers(network: Classification, video: Tensor) -> Tensor:
    """The classes a network names, ``B``."""
    network.eval()
    return torch.cat([network.classify(part).argmax(dim=1) for part in video.split(32)])


if __name__ == "__main__":
    main()
