"""Steps and memory of our networks beside another library's, in one process, alternating, at the same precision."""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from filmstrip.evals.throughput import count_flops, matrix_rate
from filmstrip.protocols import Objective
from timing import alternate, peak_of

Step = Callable[[], None]
PRECISIONS = ("float32", "bfloat16")


@dataclass(frozen=True)
class Case:
    """One thing that both do: each maker builds its model and returns a step of it at a precision."""

    ours: Callable[[str], Step]
    theirs: Callable[[str], Step]


def autocast(precision: str):
    """Autocast on the CPU, or nothing for float32."""
    return torch.autocast("cpu", torch.bfloat16) if precision == "bfloat16" else nullcontext()


def training(parameters: Iterable[nn.Parameter], loss: Callable[[], Tensor], precision: str) -> Step:
    """Forward, backward and AdamW's update."""
    optimiser = torch.optim.AdamW((p for p in parameters if p.requires_grad), fused=True)

    def step() -> None:
        with autocast(precision):
            value = loss()
        value.backward()
        optimiser.step()
        optimiser.zero_grad()

    return step


def inference(logits: Callable[[], Tensor], precision: str) -> Step:
    """Forward alone."""

    def step() -> None:
        with torch.inference_mode(), autocast(precision):
            logits()

    return step


def without_drop_path(objective: Objective) -> Objective:
    """In training mode, but without stochastic depth, which the other library lacks."""
    for module in objective.train().modules():
        if hasattr(module, "rate"):
            module.rate = 0.0
    return objective


def compare(cases: Mapping[str, Case], script: str, description: str, peer: str = "transformers") -> None:
    """The command line of a comparison with a peer: prints a Markdown row for each case and precision."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--cases", nargs="+", choices=cases, default=list(cases))
    parser.add_argument("--precisions", nargs="+", choices=PRECISIONS, default=list(PRECISIONS))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--without-memory", action="store_true", help="leave the peaks out: each starts a process")
    parser.add_argument("--memory-of", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.memory_of:
        which, case, precision = args.memory_of
        print(_peak(which, cases[case], precision))
        return
    print(f"| step | precision | ours, ms | speed, {peer} = 1 | GB, ours / theirs | share of matrix rate |")
    print("|---|---|---:|---:|---:|---:|")
    for precision in args.precisions:
        rate = matrix_rate(getattr(torch, precision))
        if precision == "bfloat16" and rate < 1.2 * matrix_rate(torch.float32):
            print("this CPU multiplies bfloat16 no faster than float32", file=sys.stderr)
        for name in args.cases:
            both = {"ours": cases[name].ours(precision), "theirs": cases[name].theirs(precision)}
            flops = count_flops(both["ours"])
            # Of one thread the processor's time is the duration, without what other processes take meanwhile.
            clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
            seconds = alternate(both, args.rounds, clock)
            del both
            peaks = ["not measured"]
            if not args.without_memory:
                peaks = [f"{_peak_elsewhere(script, which, name, precision):.2f}" for which in seconds]
            print(
                f"| {name} | {precision} | {1e3 * seconds['ours']:.0f} | {seconds['theirs'] / seconds['ours']:.2f} "
                f"| {' / '.join(peaks)} | {flops / seconds['ours'] / rate:.0%} |",
                flush=True,
            )


def _peak_elsewhere(script: str, which: str, case: str, precision: str) -> float:
    """Peak gigabytes of a process that runs one of the two."""
    command = [sys.executable, script, "--memory-of", which, case, precision]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1])


def _peak(which: str, case: Case, precision: str) -> float:
    if which == "theirs":
        import transformers  # noqa: F401 - its own size is not the model's

    def built_and_stepped() -> None:
        step = getattr(case, which)(precision)
        for _ in range(4):
            step()

    return peak_of(built_and_stepped) / 1e9
