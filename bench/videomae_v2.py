"""What masking the decoder saves: VideoMAE V2's pretraining steps against VideoMAE's, alternating in one process.

    python bench/videomae_v2.py                       # ViT-S and ViT-B, two clips of 16 x 224 x 224, float32
    python bench/videomae_v2.py --sizes S --rounds 3

A step is a forward and a backward pass and AdamW's update. V2 differs in one thing: its decoder reconstructs half of
the masked cubes (running cells). Multiply-adds are counted, forward, of one clip.
"""

from __future__ import annotations

import argparse
from dataclasses import replace

import torch

from filmstrip.data.config import Clip
from filmstrip.measure import complexity
from filmstrip.systems.pretraining import videomae
from peers import PRECISIONS, Step, training
from timing import alternate
from videomae import data

SIZES = {"S": videomae.SMALL, "B": videomae.BASE}
CLIP = Clip(num_frames=16, size=224)


def methods(size: str) -> dict[str, videomae.VideoMAEConfig]:
    first = SIZES[size]
    return {"V1": first, "V2": replace(first, decoder_masking="running_cell", decoder_ratio=0.5)}


def step_of(config: videomae.VideoMAEConfig, precision: str) -> Step:
    objective, batch = config.build().train(), data()
    return training(objective.parameters(), lambda: objective(batch).total, precision)


def multiply_adds(config: videomae.VideoMAEConfig) -> float:
    with torch.device("meta"):
        objective = config.build()
    return complexity.measure(objective, CLIP).multiply_adds / 1e9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=list(SIZES))
    parser.add_argument("--precisions", nargs="+", choices=PRECISIONS, default=["float32"])
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    print("| size | precision | V1, s | V2, s | V2's share of the time | of the multiply-adds |")
    print("|---|---|---:|---:|---:|---:|")
    for size in args.sizes:
        counted = {name: multiply_adds(config) for name, config in methods(size).items()}
        for precision in args.precisions:
            steps = {name: step_of(config, precision) for name, config in methods(size).items()}
            seconds = alternate(steps, args.rounds)
            print(
                f"| ViT-{size} | {precision} | {seconds['V1']:.2f} | {seconds['V2']:.2f} "
                f"| {seconds['V2'] / seconds['V1']:.2f} | {counted['V2'] / counted['V1']:.2f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
