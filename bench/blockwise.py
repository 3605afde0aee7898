"""Attention within documents, forward and backward: a mask of all pairs of tokens against blocks.

    python bench/blockwise.py
    python bench/blockwise.py --lengths 2048 --rounds 3

Causal attention of 4 heads of 64 channels in rows that documents of 100 or 1000 tokens fill. Memory is the peak of a
process of its own beyond what its inputs take.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Callable

import torch

from filmstrip.nn.attention import attend
from filmstrip.nn.masks import causal, document
from timing import alternate, peak_of

CPU = torch.device("cpu")


def step(way: str, length: int, size: int) -> Callable[[], None]:
    """One pass forward and backward; the mask is made anew, as in every batch."""
    torch.manual_seed(0)
    q, k, v = (torch.randn(1, 4, length, 64, requires_grad=True) for _ in range(3))
    ids = torch.arange(length)[None] // size

    def run() -> None:
        mask = causal() & document(ids)
        if way == "mask":
            attend(q, k, v, allowed=mask.dense(length, length, CPU)).sum().backward()
        else:
            attend(q, k, v, mask).sum().backward()

    return run


def peak(way: str, length: int, size: int) -> float:
    """Peak megabytes of a step in another process."""
    command = [sys.executable, __file__, "--memory-of", way, str(length), str(size)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--lengths", nargs="+", type=int, default=[512, 2048, 8192])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--memory-of", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.memory_of:
        way, length, size = args.memory_of
        step(way, 64, 64)()  # what torch itself takes on the first call
        run = step(way, int(length), int(size))
        print(peak_of(run) / 1e6)
        return
    print("| tokens a row | a document | blocks, ms | speed, mask = 1 | MB, mask / blocks |")
    print("|---:|---:|---:|---:|---:|")
    for length in args.lengths:
        for size in (100, 1000):
            if size > length:
                continue
            seconds = alternate({way: step(way, length, size) for way in ("mask", "blocks")}, args.rounds)
            memory = " / ".join(f"{peak(way, length, size):.0f}" for way in ("mask", "blocks"))
            ratio = seconds["mask"] / seconds["blocks"]
            print(f"| {length} | {size} | {seconds['blocks'] * 1e3:.0f} | {ratio:.2f} | {memory} |", flush=True)


if __name__ == "__main__":
    main()
