"""Windows that shift see across their borders, and cost a fraction of attention to everything.

    python claims/swin_shift.py

Video Swin (Liu et al. 2022) attends within 3D windows, which every second layer shifts by half their size; on
Kinetics-400 the paper finds the shift worth 0.7 points of top-1, less than a training of minutes can tell. What it is
for shows without any: a stage whose windows never shift says the same of a clip whose windows have changed places, in
time or in space, for these never meet. The first table has the largest relative change of what such stages, drawn at
random, say of clips of motions; without the shift only rounding may be left. The second counts multiply-adds of
Swin-T on 32 x 224 x 224, with its windows (the paper's 88 G) and with one window that spans the clip.
"""

from __future__ import annotations

import argparse
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from filmstrip.data.synthetic.motions import MOTIONS, Motions
from filmstrip.measure.complexity import flop_counter
from filmstrip.systems.recognition import video_swin

SHIFTS = {"time and space": (1, 1, 1), "space alone": (0, 1, 1), "nothing": (0, 0, 0)}
"""The axes (t, h, w) along which windows shift."""
WINDOW = (2, 4, 4)
"""Places (t, h, w): two windows along each axis of a clip of 8 x 64 x 64 pixels."""
ROUNDING = 1e-5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5, help="networks drawn at random, of each kind")
    args = parser.parse_args()
    drawn = Motions(num_frames=8, size=64)
    video = torch.stack([drawn.render(motion, np.random.default_rng(i)) for i, motion in enumerate(MOTIONS)])
    print("| windows shift in | exchanged in time | exchanged in space |\n|---|---:|---:|")
    changes = {}
    for shift, axes in SHIFTS.items():
        networks = [stage(axes, seed) for seed in range(args.seeds)]
        changes[shift] = (
            max(change(network, video, video.roll(4, dims=1)) for network in networks),
            max(change(network, video, video.roll(32, dims=4)) for network in networks),
        )
        print("| {} | {:.1e} | {:.1e} |".format(shift, *changes[shift]), flush=True)
    print("\n| Swin-T, G multiply-adds | attention | everything |\n|---|---:|---:|")
    work = {}
    for name, window in {"windows of 8 x 7 x 7": (8, 7, 7), "one window": (16, 56, 56)}.items():
        work[name] = costs(window)
        print("| {} | {:.1f} | {:.1f} |".format(name, *work[name]), flush=True)
    met = {shift: tuple(value > ROUNDING for value in values) for shift, values in changes.items()}
    expected = {"time and space": (True, True), "space alone": (False, True), "nothing": (False, False)}
    print(f"\nwindows meet along the axes that they shift along, and along no other: {met == expected} (paper: True)")


def stage(axes: tuple[int, ...], seed: int) -> video_swin.VideoSwin:
    """A stage of two blocks whose windows shift along those axes alone, with random weights."""
    torch.manual_seed(seed)
    network = video_swin.VideoSwin(
        video_swin.VideoSwinConfig(width=32, depths=(2,), num_heads=(2,), window=WINDOW, patch_size=(2, 8, 8))
    ).eval()
    for weight in network.parameters():
        nn.init.normal_(weight, std=0.2)
    network.shift = tuple(s * on for s, on in zip(network.shift, axes))
    for block in network.stages[0]["blocks"]:
        block.attention.shift = tuple(s * on for s, on in zip(block.attention.shift, axes))
    return network


@torch.no_grad()
def change(network: video_swin.VideoSwin, video: Tensor, exchanged: Tensor) -> float:
    """How much the vectors of clips change, as a share of their largest entry."""
    before, after = (network(clips).pooled() for clips in (video, exchanged))
    return ((after - before).abs().max() / before.abs().max()).item()


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
