"""Windows that shift see across their borders, and cost a fraction of attention to everything."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from claims.ledger import Claim, Figure, above, below, equal
from filmstrip.data.synthetic.motions import MOTIONS, Motions
from filmstrip.measure.complexity import flop_counter
from filmstrip.systems.recognition import video_swin

SHIFTS = {"time and space": (1, 1, 1), "space alone": (0, 1, 1), "nothing": (0, 0, 0)}
"""The axes (t, h, w) along which windows shift."""
WINDOW = (2, 4, 4)
"""Places (t, h, w): two windows along each axis of a clip of 8 x 64 x 64 pixels."""
ROUNDING = 1e-5

CLAIM = Claim(
    systems=("recognition.video_swin",),
    finding=__doc__.strip(),
    paper="Liu et al. 2022 attend within 3D windows, which every second layer shifts by half their size; Swin-T "
    "costs 88 G multiply-adds on Kinetics-400, and the shift is worth 0.7 points of top-1, less than a training of "
    "minutes can tell.",
    here="A stage of two blocks, with random weights, says the same of a clip whose windows have changed places if "
    "these never meet: figures are the largest relative change of what it says of clips of motions. Multiply-adds of "
    "Swin-T are counted on 32 x 224 x 224.",
    baseline="Rounding (1e-5), and one window that spans the clip.",
    figures={
        **{
            f"{shift}, exchanged in {axis}": Figure(
                says=f"shifting in {shift}: change by exchanging windows in {axis}", digits=7
            )
            for shift in SHIFTS
            for axis in ("time", "space")
        },
        "windows": Figure(says="Swin-T with windows of 8 x 7 x 7, G multiply-adds", paper="88"),
        "windows, attention": Figure(says="of them within attention, G"),
        "one window": Figure(says="Swin-T with one window, G multiply-adds"),
    },
    expected=(
        above("time and space, exchanged in time", ROUNDING, "windows that shift in time meet in time"),
        above("time and space, exchanged in space", ROUNDING, "windows that shift in space meet in space"),
        equal(
            "space alone, exchanged in time",
            0.0,
            "windows that do not shift in time never meet there",
            within=ROUNDING,
        ),
        above("space alone, exchanged in space", ROUNDING, "though they meet in space"),
        equal("nothing, exchanged in time", 0.0, "windows that never shift do not meet in time", within=ROUNDING),
        equal("nothing, exchanged in space", 0.0, "nor in space", within=ROUNDING),
        equal("windows", 88.0, "Swin-T costs what the paper says", within=0.5),
        below("windows", "one window", "windows cost less than attention to everything"),
    ),
    seeds=5,
    minutes=0.4,
)


def measure(seed: int, folder: Path) -> dict[str, float]:
    drawn = Motions(num_frames=8, size=64)
    video = torch.stack([drawn.render(motion, np.random.default_rng((seed, i))) for i, motion in enumerate(MOTIONS)])
    found = {}
    for shift, axes in SHIFTS.items():
        network = stage(axes, seed)
        found[f"{shift}, exchanged in time"] = change(network, video, video.roll(4, dims=1))
        found[f"{shift}, exchanged in space"] = change(network, video, video.roll(32, dims=4))
    found["windows, attention"], found["windows"] = costs((8, 7, 7))
    _, found["one window"] = costs((16, 56, 56))
    return found


def stage(axes: tuple[int, ...], seed: int) -> video_swin.VideoSwin:
    """A stage of two blocks whose windows shift along those axes alone, with random weights."""
    torch.manual_seed(seed)
    network = video_swin.VideoSwin(
        video_swin.VideoSwinConfig(
            width=32, depths=(2,), num_heads=(2,), window=WINDOW, patch_size=(2, 8, 8), num_classes=1
        )
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
