"""Windows that shift see what happens across their borders, and cost a fraction of attention to everything.

    python claims/swin_shift.py

Video Swin (Liu et al. 2022) attends within 3D windows, which every second layer shifts by half their size; on
Kinetics-400 the paper finds the shift worth 0.7 points of top-1. Networks here differ in it alone. *Across*: a place
turns from orange to blue, or from blue to orange, just where one window in time ends and the next begins; the same
colours also blink alone, so that window by window both classes show the same, and a network whose windows never meet
can but guess (50). *Motions*: eight ways of moving (chance 12.5), most of which shows within a window, as in the
paper's videos. Last, multiply-adds of Swin-T on 32 x 224 x 224: within windows, and with windows that span the clip.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from filmstrip.complexity import flop_counter
from filmstrip.data.motions import MOTIONS, Motions
from filmstrip.objectives.classification import Classification
from filmstrip.systems.recognition import video_swin
from filmstrip.systems.recognition.video_swin import VideoSwinConfig

SHIFTS = {"time and space": (1, 1, 1), "space alone": (0, 1, 1), "nothing": (0, 0, 0)}
"""The axes (t, h, w) along which windows shift."""
PATCH, GRID = (2, 4, 4), (4, 8, 8)
"""Pixels of a place, and places (t, h, w), of *across*."""
ACROSS = VideoSwinConfig(
    width=32,
    depths=(4,),
    num_heads=(2,),
    window=(2, 2, 2),
    patch_size=PATCH,
    drop_path=0.0,
    dropout=0.0,
    num_classes=2,
)
ORANGE, BLUE = torch.tensor([1.0, 0.55, 0.1]), torch.tensor([0.1, 0.45, 1.0])
Draw = Callable[[int, torch.Generator], tuple[Tensor, Tensor]]
"""So many clips ``B T 3 H W`` in 0..1, and their labels."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument(
        "--videos", type=int, default=60, help="of motions, for training, of each of the eight classes"
    )
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--only", choices=("across", "motions", "cost"))
    args = parser.parse_args()
    if args.only in (None, "across"):
        table("across", ACROSS, across, across, args)
    if args.only in (None, "motions"):
        train, test = motions(args.videos, 0), motions(40, 1)
        table("motions", video_swin.tiny().objective, some_of(*train), some_of(*test), args)
    if args.only in (None, "cost"):
        print("\n| Swin-T, G multiply-adds | attention | everything |\n|---|---:|---:|")
        for name, window in {"windows of 8 x 7 x 7": (8, 7, 7), "one window": (16, 56, 56)}.items():
            print("| {} | {:.1f} | {:.1f} |".format(name, *costs(window)), flush=True)


def table(name: str, config: VideoSwinConfig, train: Draw, test: Draw, args: argparse.Namespace) -> None:
    """Print the accuracies of networks that shift along some axes."""
    print(f"\n| windows shift in | top-1, {name} | of each seed |\n|---|---:|---|")
    for shift, axes in SHIFTS.items():
        top1 = []
        for seed in range(args.seeds):
            network = learnt(config, axes, train, args.steps, seed)
            top1.append(100 * accuracy(network, test))
        print(f"| {shift} | {sum(top1) / len(top1):.1f} | {', '.join(f'{t:.1f}' for t in top1)} |", flush=True)


def learnt(config: VideoSwinConfig, axes: tuple[int, ...], draw: Draw, steps: int, seed: int) -> Classification:
    """A network whose windows shift along those axes alone, after training."""
    torch.manual_seed(seed)
    network = config.build()
    encoder = network.encoder
    encoder.shift = tuple(s * on for s, on in zip(encoder.shift, axes))
    for block in (block for stage in encoder.stages for block in stage["blocks"]):
        block.attention.shift = tuple(s * on for s, on in zip(block.attention.shift, axes))
    optimiser = torch.optim.AdamW(network.parameters(), lr=2e-3, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=2e-3, total_steps=steps, pct_start=0.2)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        video, label = draw(16, generator)
        optimiser.zero_grad()
        network({"video": video, "label": label}).total.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
        schedule.step()
    return network.eval()


@torch.no_grad()
def accuracy(network: Classification, draw: Draw) -> float:
    """The share of 640 clips that are named rightly."""
    generator = torch.Generator().manual_seed(1000)
    right = []
    for _ in range(20):
        video, label = draw(32, generator)
        right.append(network.classify(video).argmax(dim=1) == label)
    return torch.cat(right).float().mean().item()


def across(count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Clips that turn from orange to blue (0) or from blue to orange (1) where windows of two places meet in time."""
    t, h, w = GRID
    places = 0.5 + 0.05 * torch.randn(count, t, h, w, *PATCH, 3, generator=generator)
    label = torch.randint(2, (count,), generator=generator)
    for clip, turned in zip(places, label.tolist()):
        first, second = (BLUE, ORANGE) if turned else (ORANGE, BLUE)
        # Three windows of a frame, and the same place within each: only the turn itself tells the classes apart.
        within = torch.randint(2, (2,), generator=generator)
        windows = torch.randperm(h * w // 4, generator=generator)[:3]
        turn, one, other = (
            (slice(None), *(2 * torch.stack([i // (w // 2), i % (w // 2)]) + within).tolist()) for i in windows
        )
        clip[turn][1], clip[turn][2] = first, second
        clip[one][2] = first
        clip[other][1] = second
    return rearrange(places, "b t h w p q r c -> b (t p) c (h q) (w r)").clamp(0, 1), label


def motions(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """``count`` clips ``T 3 H W`` uint8 of each motion, every other frame, and their labels."""
    clip = video_swin.tiny().data.clip
    drawn = Motions(num_frames=clip.num_frames * clip.stride, size=clip.size)
    videos = [
        drawn.render(motion, np.random.default_rng((seed, i, k)))[:: clip.stride]
        for i, motion in enumerate(MOTIONS)
        for k in range(count)
    ]
    return torch.stack(videos), torch.arange(len(MOTIONS)).repeat_interleave(count)


def some_of(videos: Tensor, labels: Tensor) -> Draw:
    """Draws from videos that are there."""

    def draw(count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        chosen = torch.randint(len(videos), (count,), generator=generator)
        return videos[chosen].float() / 255, labels[chosen]

    return draw


def costs(window: tuple[int, int, int]) -> tuple[float, float]:
    """G multiply-adds of Swin-T on a clip with such windows: of products within attention, and of everything."""
    run = video_swin.tiny_k400()
    with torch.device("meta"), torch.no_grad():
        encoder = replace(run.objective, window=window).build().encoder.eval()
        with flop_counter() as counter:
            encoder(torch.empty(1, run.data.clip.num_frames, 3, run.data.clip.size, run.data.clip.size))
    of_attention = [
        count
        for operation, count in counter.get_flop_counts()["Global"].items()
        if "attention" in str(operation) or "bmm" in str(operation)
    ]
    return sum(of_attention) / 2e9, counter.get_total_flops() / 2e9


if __name__ == "__main__":
    main()
