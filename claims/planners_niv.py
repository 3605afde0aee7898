"""The planners of table 2 keep their order: retrieval, DDN, PDPP and the transformers.

    python claims/planners_niv.py                  # NIV and CrossTask, minutes on one thread
    python claims/planners_niv.py --sets niv --seeds 5

The steps are those of real videos, divided as PDPP does; what is seen of start and goal is the CLIP text embedding of
the first and of the last step, less the mean of all and projected to 64 values, with Gaussian noise: there are no
video features. Networks are narrow and train for few steps, all equally many, but for retrieval, which passes over
the data once. Success rate, mean accuracy and mean IoU of plans of three steps, in percent, in the test videos.
SCHEMA reads the texts that its authors published.

With 300 steps the order does not come out. On NIV with one seed success rates were 36.3 (DDN), 31.9 (retrieval),
12.6 (SCHEMA), 11.5 (transformer) and 1.1 (PDPP). The largest networks are far from trained by then (the papers train
SCHEMA for 500 epochs, PDPP for 6,500 batches of 256): give more --steps to compare methods, not speed of learning.

The IoU is that of each plan's set of steps; table 2 mixes that with averages over batches and with IoUs of the bits
of ids, so that its column can be compared within one method only.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from filmstrip.data.config import Data
from filmstrip.data.kinds.procedures import Procedures
from filmstrip.evals.planning import Planning
from filmstrip.runs import experiment
from filmstrip.runs.config import ObjectiveConfig, Run
from filmstrip.systems.procedures.ddn import DDNConfig
from filmstrip.systems.procedures.pdpp import PDPPConfig
from filmstrip.systems.procedures.retrieval import RetrievalConfig
from filmstrip.systems.procedures.schema import SCHEMAConfig
from filmstrip.systems.procedures.transformer import StepTransformerConfig
from filmstrip.train.config import Loop, Optim

WIDTH = 64
PLANNING = Path(__file__).parents[2] / "shared/data/planning"
COLUMNS = ("success_rate", "mean_accuracy", "miou")
PAPER = {  # VEDIT's table 2, T = 3
    ("niv", "DDN"): "18.41, 32.54, 56.56",
    ("niv", "SCHEMA"): "27.93, 41.64, 76.77",
    ("crosstask", "retrieval"): "8.05, 23.30, 32.06",
    ("crosstask", "DDN"): "12.18, 31.29, 47.48",
    ("crosstask", "PDPP"): "26.38, 55.62, 59.34",
    ("crosstask", "SCHEMA"): "31.83, 57.31, 78.33",
}


def planners(dataset: str) -> dict[str, tuple[ObjectiveConfig, Optim]]:
    """Each method with its learning rate, in the order of the table."""
    texts = PLANNING / f"text_features/{dataset}_state_prompt_features.npy"
    plain = Optim(lr=1e-3, weight_decay=0.0)
    return {
        "retrieval": (RetrievalConfig(), Optim(lr=1e-2, weight_decay=0.0)),
        "DDN": (DDNConfig(), plain),
        "PDPP": (PDPPConfig(widths=(64, 64, 128), diffusion_steps=50), Optim(lr=4e-3, weight_decay=0.0)),
        "transformer": (StepTransformerConfig(width=128, depth=2, num_heads=4), plain),
        "SCHEMA": (
            SCHEMAConfig(texts=texts, num_heads=4, state_task=dataset != "niv"),
            Optim(lr=3e-3, weight_decay=1e-4),
        ),
    }


def embeddings(dataset: str, folder: Path) -> Path:
    """The texts' embeddings in a fixed random projection to fewer values: a file ``steps WIDTH``."""
    path = folder / f"{dataset}.npy"
    texts = np.load(PLANNING / f"text_features/{dataset}_action_prompt_features.npy").mean(axis=1)
    texts = texts / np.linalg.norm(texts, axis=1, keepdims=True)
    axes, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(texts.shape[1], WIDTH)))
    np.save(path, (texts - texts.mean(axis=0)) @ axes)
    return path


def score(name: str, dataset: str, seed: int, args: argparse.Namespace, folder: Path) -> tuple[float, ...]:
    """The three columns, in percent."""
    objective, optim = planners(dataset)[name]
    asked = Procedures(
        dataset=dataset, annotations=PLANNING / dataset, task="planning", horizon=3, noise=args.noise, seed=seed
    )
    loop = Loop(epochs=1) if name == "retrieval" else Loop(steps=args.steps)
    run = Run(
        data=Data(path=embeddings(dataset, folder.parent), reads=asked, batch_size=64, num_workers=0),
        objective=objective,
        optim=optim,
        train=replace(loop, save_every=10**9, clip_grad=None if name == "PDPP" else 1.0),
        evals=(Planning(batch_size=256),),
        seed=seed,
    )
    metrics = experiment.train(run, folder).metrics
    return tuple(100 * metrics[column] for column in COLUMNS)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sets", nargs="+", default=["niv", "crosstask"])
    parser.add_argument("--seeds", type=int, default=3, help="of weights, batches and the noise of what is seen")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--noise", type=float, default=2.0, help="deviation over the embeddings' root mean square")
    parser.add_argument("--out", type=Path, help="keep the run folders here; an interrupted claim goes on from them")
    args = parser.parse_args()
    lines, verdicts = [], []
    with tempfile.TemporaryDirectory() as temporary:
        (args.out or Path(temporary)).mkdir(parents=True, exist_ok=True)
        for dataset in args.sets:
            success = {}
            for name in planners(dataset):
                began, rows = time.monotonic(), []
                for seed in range(args.seeds):
                    folder = (args.out or Path(temporary)) / f"{dataset}-{name}-{seed}"
                    rows.append(score(name, dataset, seed, args, folder))
                print(f"{dataset} {name}: {time.monotonic() - began:.0f} s")
                cells = [f"{statistics.mean(c):.2f}±{statistics.pstdev(c):.2f}" for c in zip(*rows)]
                lines.append(f"| {dataset} | {name} | {PAPER.get((dataset, name), '')} | {' | '.join(cells)} |")
                success[name] = statistics.mean(row[0] for row in rows)
            ours = sorted(success, key=success.get)
            order = [name for name in success if (dataset, name) in PAPER]
            verdicts.append(
                f"{dataset}: by success rate {' < '.join(ours)}; the paper's order ({' < '.join(order)}): "
                f"{[name for name in ours if name in order] == order}"
            )
    print("\n| set | method | paper: SR, mAcc, mIoU | here: SR | mAcc | mIoU |\n|---|---|---|---:|---:|---:|")
    print("\n".join(lines))
    print("\n" + "\n".join(verdicts))


if __name__ == "__main__":
    main()
