"""VideoMAE's two findings, re-run small on synthetic motions.

1. Pretraining without labels, then fine-tuning, beats training from scratch for as many labelled steps.
2. Tube masking is better than random masking, and far better than hiding whole frames, at a high masking ratio.

    python claims/videomae_pretraining.py

Pretraining sees all training videos; fine-tuning and training from scratch see the same ones, labelled. Numbers are
top-1 accuracies on unseen videos, chance is 12.5. Paper: ViT-B on Something-Something V2 (Tong et al. 2022, table 1).
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import replace
from pathlib import Path

from filmstrip.data.synthetic.motions import Motions
from filmstrip.runs import experiment
from filmstrip.runs.config import Run
from filmstrip.systems.pretraining import videomae
from filmstrip.systems.recognition import vit

# The masking ratio of each kind as in the paper's comparison; of 4 time steps "frame" can hide 3.
MASKINGS = {"tube": 0.9, "random": 0.9, "frame": 0.75}
PAPER = {"scratch": 32.6, "tube": 69.6, "random": 68.3, "frame": 61.5}


def shared(run: Run, args: argparse.Namespace, seed: int, steps: int) -> Run:
    """A tiny preset on more videos, for a number of steps."""
    videos = Motions(train_per_class=args.videos, test_per_class=25)
    data = replace(run.data, synthetic=videos, batch_size=args.batch)
    return replace(run, data=data, seed=seed, train=replace(run.train, steps=steps, log_every=50))


def pretrain(args: argparse.Namespace, masking: str, seed: int, out: Path) -> Path:
    run = shared(videomae.tiny(), args, seed, args.pretrain_steps)
    run = replace(run, objective=replace(run.objective, masking=masking, mask_ratio=MASKINGS[masking]))
    return experiment.train(run, out / f"{masking}-{seed}").folder


def finetune(args: argparse.Namespace, start: Path | None, seed: int, out: Path) -> float:
    run = shared(vit.tiny(), args, seed, args.finetune_steps)
    run = replace(run, init=str(start) if start else None)
    name = start.name if start else f"scratch-{seed}"
    return 100 * experiment.train(run, out / f"{name}-finetuned").metrics["top1"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pretrain-steps", type=int, default=1500)
    parser.add_argument("--finetune-steps", type=int, default=300)
    parser.add_argument("--videos", type=int, default=100, help="training videos of each of the eight classes")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--out", type=Path, help="keep the run folders here; an interrupted claim goes on from them")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        out = args.out or Path(temporary)
        found: dict[str, list[float]] = {name: [] for name in PAPER}
        for seed in range(args.seeds):
            found["scratch"].append(finetune(args, None, seed, out))
            for masking in MASKINGS:
                found[masking].append(finetune(args, pretrain(args, masking, seed, out), seed, out))
    print("\n| | paper, SSV2 | here, motions |\n|---|---:|---:|")
    for name, values in found.items():
        label = "from scratch" if name == "scratch" else f"pretrained, {name} masking"
        print(f"| {label} | {PAPER[name]} | {sum(values) / len(values):.1f} |")
    mean = {name: sum(values) / len(values) for name, values in found.items()}
    print(f"\npretraining beats scratch: {mean['tube'] > mean['scratch']} (paper: True)")
    print(f"tube beats random: {mean['tube'] > mean['random']} (paper: True)")
    print(f"tube beats frame: {mean['tube'] > mean['frame']} (paper: True)")


if __name__ == "__main__":
    main()
