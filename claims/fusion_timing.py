"""Early fusion needs a filter for each timing of an event; a convolution over time has one for all.

    python claims/fusion_timing.py

The lecture's demonstration (Johnson, lecture 24: a patch that turns from orange to blue): a filter of early fusion
spans the clip and is tied to a moment, a 3D filter slides along time. Somewhere in a grey clip a patch is orange and
then blue, or blue and then orange, for two frames each, then grey again: no single frame and no set of frames tells
which. The lecture's networks are trained on events in the first half of the clip, and asked of events in either half.
A second table trains on all timings, with a lone orange and a lone blue blink in each clip, and counts first-layer
filters. Numbers are top-1 accuracies on unseen clips; chance is 50.
"""

from __future__ import annotations

import argparse
from dataclasses import replace

import torch
from torch import Tensor

from filmstrip.objectives.classification import Classification
from filmstrip.objectives.plain_cnn import PlainCNNConfig
from filmstrip.systems.recognition import c3d, early_fusion, late_fusion, slow_fusion_3d

FRAMES, SIZE, PATCH = 20, 32, 12
EVENT = 4
"""Frames of an event."""
EARLY, LATE = range(7), range(10, FRAMES - EVENT + 1)
"""First frames of an event."""
ORANGE, BLUE = torch.tensor([1.0, 0.55, 0.1]), torch.tensor([0.1, 0.45, 1.0])
NETWORKS = {
    "early_fusion": (early_fusion.tiny(), 3e-3),
    "late_fusion": (late_fusion.tiny(), 1e-3),
    "late_fusion:tiny_pooling": (late_fusion.tiny_pooling(), 1e-2),
    "slow_fusion_3d": (slow_fusion_3d.tiny(), 1e-2),
    "c3d": (c3d.tiny(), 1e-3),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", choices=("timing", "filters"))
    args = parser.parse_args()
    if args.only != "filters":
        print("| network | timings it was trained on | later ones |\n|---|---:|---:|")
        for name, (run, lr) in NETWORKS.items():
            network = trained(run.objective, lr, EARLY, args)
            told = (f"{100 * accuracy(network, timings, args):.1f}" for timings in (EARLY, LATE))
            print(f"| {name} | {' | '.join(told)} |", flush=True)
    if args.only != "timing":
        timings = range(FRAMES - EVENT + 1)
        print("\n| filters in the first layer | early_fusion | slow_fusion_3d |\n|---:|---:|---:|")
        for filters in (2, 4, 12):
            told = []
            for name in ("early_fusion", "slow_fusion_3d"):
                run, lr = NETWORKS[name]
                first, *rest = run.objective.layers
                layers = (replace(first, width=filters), *rest)
                network = trained(replace(run.objective, layers=layers), lr, timings, args, blinks=True)
                told.append(f"{100 * accuracy(network, timings, args, blinks=True):.1f}")
            print(f"| {filters} | {' | '.join(told)} |", flush=True)


def trained(
    config: PlainCNNConfig, lr: float, timings: range, args: argparse.Namespace, *, blinks: bool = False
) -> Classification:
    """A network after training on clips that are never the same."""
    torch.manual_seed(args.seed)
    network = replace(config, num_frames=FRAMES, size=SIZE, num_classes=2).build()
    optimiser = torch.optim.AdamW(network.parameters(), lr=lr, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=lr, total_steps=args.steps)
    generator = torch.Generator().manual_seed(args.seed)
    for _ in range(args.steps):
        video, label = make(args.batch, timings, generator, blinks=blinks)
        optimiser.zero_grad()
        network({"video": video, "label": label}).total.backward()
        optimiser.step()
        schedule.step()
    return network.eval()


@torch.no_grad()
def accuracy(network: Classification, timings: range, args: argparse.Namespace, *, blinks: bool = False) -> float:
    """The share of 320 new clips that are named rightly."""
    generator = torch.Generator().manual_seed(args.seed + 1)
    right = []
    for _ in range(10):
        video, label = make(32, timings, generator, blinks=blinks)
        right.append(network.classify(video).argmax(dim=1) == label)
    return torch.cat(right).float().mean().item()


def make(count: int, timings: range, generator: torch.Generator, *, blinks: bool) -> tuple[Tensor, Tensor]:
    """Clips ``B T 3 H W`` in 0..1, and whether each turns from orange to blue (0) or from blue to orange (1).

    ``blinks`` adds an orange and a blue blink at the same place, in either order and apart from the event and from
    each other, so that which colour comes earlier on the whole does not tell.
    """
    video = 0.5 + 0.05 * torch.randn(count, FRAMES, 3, SIZE, SIZE, generator=generator)
    label = torch.randint(2, (count,), generator=generator)
    for clip, turned in zip(video, label.tolist()):
        start, y, x = (pick(choices, generator) for choices in (timings, *2 * (range(SIZE - PATCH + 1),)))
        patch = clip[:, :, y : y + PATCH, x : x + PATCH]
        colours = (BLUE, ORANGE) if turned else (ORANGE, BLUE)
        half = EVENT // 2
        for i, colour in enumerate(colours):
            patch[start + i * half : start + (i + 1) * half] = colour[:, None, None]
        if blinks:
            taken = set(range(start - half, start + EVENT + 1))  # with a grey frame between
            for colour in (ORANGE, BLUE):
                at = pick([t for t in range(FRAMES - half + 1) if t not in taken], generator)
                patch[at : at + half] = colour[:, None, None]
                taken |= set(range(at - half, at + half + 1))
    return video.clamp_(0, 1), label


def pick(choices: range | list[int], generator: torch.Generator) -> int:
    """One of them, all as likely."""
    return choices[int(torch.randint(len(choices), (), generator=generator))]


if __name__ == "__main__":
    main()
