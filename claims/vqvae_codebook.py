"""Moving averages with random restarts keep the codebook alive.

    python claims/vqvae_codebook.py

One VQ-VAE is trained with three codebooks: codes that are moving averages of their latents and restart when dead,
the same without restarts, and codes learnt by gradient. Numbers are on unseen videos: the share of codes that occur,
the perplexity of the codes, and the squared error over the variance. The paper (Yan et al. 2021) trains with restarts
and reports no such table: its finding is that it needed them.
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import replace
from pathlib import Path

from filmstrip.runs import experiment
from filmstrip.systems.tokenizers import vqvae3d
from vqvae_attention import score, shared

BOOK = replace(vqvae3d.tiny().objective.codebook, size=512)
BOOKS = {
    "moving averages, restarts": BOOK,
    "moving averages, no restarts": replace(BOOK, restart_below=0.0),
    "by gradient": replace(BOOK, kind="learnt"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--videos", type=int, default=100, help="training videos of each of the eight classes")
    parser.add_argument("--out", type=Path, help="keep the run folders here; an interrupted claim goes on from them")
    args = parser.parse_args()
    rows = {}
    with tempfile.TemporaryDirectory() as temporary:
        for i, (name, book) in enumerate(BOOKS.items()):
            run = shared(args, seed=0)
            run = replace(run, objective=replace(run.objective, codebook=book))
            rows[name] = score(experiment.train(run, (args.out or Path(temporary)) / f"codebook-{i}"))
    print(f"\n| {BOOK.size} codes | used, % | perplexity | error / variance |\n|---|---:|---:|---:|")
    for name, row in rows.items():
        print(f"| {name} | {100 * row['used']:.1f} | {row['perplexity']:.1f} | {row['nmse']:.4f} |")
    kept, *others = (row["perplexity"] for row in rows.values())
    print(f"\nrestarts keep more of the codebook in use: {all(kept > other for other in others)} (paper: True)")


if __name__ == "__main__":
    main()
