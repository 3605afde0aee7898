"""What no single frame shows: eight ways of moving, of which every frame looks alike.

    python claims/single_frame_directions.py

On Sports-1M a single frame is nearly as good as any fusion of frames (Karpathy et al. 2014: 77.7 against 76.8 to 80.2
top-5), because scenes give actions away. On these motions scenes say nothing: a network of single frames must stay at
chance, 12.5, and one that sees frames together must not. Numbers are top-1 accuracies on unseen videos.
"""

from __future__ import annotations

import argparse
import math
import tempfile
from dataclasses import replace
from pathlib import Path

from filmstrip.data.synthetic.motions import Motions
from filmstrip.runs import experiment
from filmstrip.systems.recognition import r2plus1d, single_frame, vit

TEST_PER_CLASS = 25
CHANCE = 1 / 8


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--videos", type=int, default=100, help="training videos of each of the eight classes")
    parser.add_argument("--out", type=Path, help="keep the run folders here; an interrupted claim goes on from them")
    args = parser.parse_args()
    found = {}
    with tempfile.TemporaryDirectory() as temporary:
        for system in (single_frame, r2plus1d, vit):
            name = system.__name__.rsplit(".", 1)[-1]
            run = system.tiny()
            data = replace(run.data, synthetic=Motions(train_per_class=args.videos, test_per_class=TEST_PER_CLASS))
            run = replace(run, data=data, train=replace(run.train, steps=args.steps, log_every=50))
            found[name] = experiment.train(run, (args.out or Path(temporary)) / name).metrics["top1"]
    # What chance alone exceeds once in forty times, by the normal approximation of the binomial.
    spread = 1.96 * math.sqrt(CHANCE * (1 - CHANCE) / (8 * TEST_PER_CLASS))
    print(f"\n| network | top-1 here | chance {100 * CHANCE:.1f} +- {100 * spread:.1f} |\n|---|---:|---|")
    for name, top1 in found.items():
        verdict = "at chance" if abs(top1 - CHANCE) <= spread else "above" if top1 > CHANCE else "below"
        print(f"| {name} | {100 * top1:.1f} | {verdict} |")


if __name__ == "__main__":
    main()
