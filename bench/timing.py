"""Timing that survives a busy machine: alternate what is compared, take medians, report ratios. Peaks of memory."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping

import torch

from filmstrip.measure.memory import peak_memory


def alternate(
    functions: Mapping[str, Callable[[], object]], rounds: int, clock: Callable[[], float] = time.perf_counter
) -> dict[str, float]:
    """Median seconds of each function over ``rounds`` rounds, after one round that is not counted.

    Each round calls every function once, beginning one further each time: what slows the machine for a while slows
    all of them, and none always runs in another's wake. ``clock`` may be that of the process alone.
    """
    if rounds < 1 or not functions:
        raise ValueError(f"need at least one round and one function, got {rounds} and {len(functions)}")
    names = list(functions)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for number in range(-1, rounds):
        shift = number % len(names)
        for name in names[shift:] + names[:shift]:
            begin = clock()
            functions[name]()
            if number >= 0:
                seconds[name].append(clock() - begin)
    return {name: statistics.median(values) for name, values in seconds.items()}


def peak_of(run: Callable[[], object]) -> float:
    """Bytes by which the process's resident memory grows at its peak while ``run`` runs: for a process of its own."""
    with peak_memory(torch.device("cpu")) as used:
        before = used()
        run()
        return used() - before


def ratio_table(medians: Mapping[str, float], reference: str, unit: str = "ms", per: int = 1) -> str:
    """A Markdown table: each time (divided by ``per`` items), and how many times as fast as ``reference`` it is."""
    scale = {"s": 1.0, "ms": 1e3, "us": 1e6}[unit]
    lines = [f"| what | {unit} | speed, {reference} = 1 |", "|---|---:|---:|"]
    for name, seconds in medians.items():
        lines.append(f"| {name} | {seconds / per * scale:.2f} | {medians[reference] / seconds:.2f} |")
    return "\n".join(lines)
