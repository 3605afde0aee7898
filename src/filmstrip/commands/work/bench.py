"""A system's time on this machine: data loading, each part of a step, and the minimum that the machine allows."""

from __future__ import annotations

import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import islice

import torch
from rich.console import Console
from rich.table import Table

from filmstrip.data.augment.pipeline import apply_augment, effective_augment
from filmstrip.data.reading.loader import TrainLoader
from filmstrip.data.sources import Source, open_source
from filmstrip.evals.throughput import backward, count_flops, matrix_rate, train_pass, wait_for
from filmstrip.inference import on_device
from filmstrip.measure.memory import peak_memory
from filmstrip.protocols import Batch, Objective
from filmstrip.runs.config import Run
from filmstrip.runs.loading import default_device
from filmstrip.runs.preflight import check_run
from filmstrip.runs.teachers import with_teachers
from filmstrip.runs.tokenizers import with_tokenizer
from filmstrip.train.part_rates import frozen_parts

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True, kw_only=True)
class BenchResult:
    """Measurements of one system."""

    parameters: int
    clips: int
    """Number of clips in a measured step."""
    loader_clips_per_second: float
    """Rate of the loader alone, with its workers."""
    num_workers: int
    parts: dict[str, float]
    """Median duration of each part of a step in seconds, in order; excludes loading."""
    flops: int
    """Floating-point operations of forward and backward pass (a multiply-add counts as two)."""
    matrix_rate: float
    """Measured peak rate of the machine at the run's precision, FLOP/s."""
    peak_bytes: int

    @property
    def step_seconds(self) -> float:
        """Duration of a step: the sum of its parts."""
        return sum(self.parts.values())

    @property
    def floor_seconds(self) -> float:
        """Duration of the step's matrix products and convolutions at the machine's peak rate."""
        return self.flops / self.matrix_rate

    def table(self) -> Table:
        """The measurements as a table for a terminal."""
        step, rate = self.step_seconds, self.clips / self.step_seconds
        workers = "1 worker" if self.num_workers == 1 else f"{self.num_workers} workers"
        table = Table(box=None, show_header=False, padding=(0, 2))
        table.add_row("parameters", f"{self.parameters / 1e6:.2f} M")
        table.add_row("loader alone", f"{self.loader_clips_per_second:.1f} clips/s", workers)
        table.add_row("step", f"{rate:.1f} clips/s", f"{1e3 * step:.0f} ms for {self.clips} clips")
        for name, seconds in self.parts.items():
            table.add_row(f"  {name}", f"{1e3 * seconds:.1f} ms", f"{seconds / step:.0%}")
        table.add_row(
            "minimum step time",
            f"{1e3 * self.floor_seconds:.0f} ms",
            f"{self.flops / 1e9:.0f} GFLOP at {self.matrix_rate / 1e9:.0f} GFLOP/s",
        )
        table.add_row("achieved", f"{self.floor_seconds / step:.0%}", "of the machine's matrix rate")
        table.add_row("peak memory", f"{self.peak_bytes / 2**20:.0f} MiB")
        bound = "the loader" if self.loader_clips_per_second < rate else "the model"
        table.add_row("training waits for", bound)
        return table


def bench_system(
    run: Run, *, steps: int = 5, device: torch.device | str | None = None, console: Console | None = None
) -> BenchResult:
    """Measure a run on its own data, print the results, and return them.

    Raises:
        UserError: the data cannot be read, or the tokenizer's run is not a run folder.
    """
    device = default_device(device)
    source = open_source(run.data)
    run = with_teachers(with_tokenizer(run))
    check_run(run, bound := run.bound(source.info(run.data.train_split)), source)
    run = bound
    torch.manual_seed(run.seed)
    objective = run.objective.build().to(device).train()
    batch, clips_per_second = _loading(run, source, steps)
    precision = PRECISIONS[run.train.precision]

    def autocast() -> torch.autocast:
        return torch.autocast(device.type, precision, enabled=precision != torch.float32)

    with frozen_parts(objective, run.optim.rates), autocast():
        flops = count_flops(lambda: train_pass(objective, on_device(batch, device)))
    with frozen_parts(objective, run.optim.rates), peak_memory(device) as peak:
        parts = _parts(run, source, objective, batch, device, autocast, steps)
        peak_bytes = peak()
    result = BenchResult(
        parameters=sum(p.numel() for p in objective.parameters()),
        clips=len(batch["video"]),
        loader_clips_per_second=clips_per_second,
        num_workers=run.data.num_workers,
        parts=parts,
        flops=flops,
        matrix_rate=matrix_rate(precision, device),
        peak_bytes=peak_bytes,
    )
    (console or Console()).print(result.table())
    return result


def _loading(run: Run, source: Source, steps: int) -> tuple[Batch, float]:
    """A batch, and the loader's clips per second after its workers have started and filled their queues."""
    loader = TrainLoader(source, run.data, seed=run.seed, accumulate=run.train.accumulate)
    with closing(loader):
        stream = loader.stream(0)
        # Every worker has two batches ready; the batches after them show the sustained rate.
        ready = 1 + 2 * run.data.num_workers
        batch = list(islice(stream, ready))[-1]
        start = time.perf_counter()
        clips = sum(len(b["video"]) for b in islice(stream, ready + steps))
        return batch, clips / (time.perf_counter() - start)


def _parts(
    run: Run,
    source: Source,
    objective: Objective,
    batch: Batch,
    device: torch.device,
    autocast: Callable[[], torch.autocast],
    steps: int,
) -> dict[str, float]:
    """Median seconds of each part of a training step."""
    augment = effective_augment(run.data.augment, source.directional)
    num_classes, specification = len(source.classes) or None, source.kind.specification
    optimizers = [run.optim.build(objective, phase) for phase in objective.phases()]
    times: dict[str, list[float]] = defaultdict(list)

    @contextmanager
    def timed(part: str) -> Iterator[None]:
        wait_for(device)
        start = time.perf_counter()
        yield
        wait_for(device)
        spent[part] += time.perf_counter() - start

    for step in range(steps + 1):
        spent: dict[str, float] = defaultdict(float)
        with timed("copy and augment"):
            given = on_device(batch, device)
            given = apply_augment(given, augment, num_classes=num_classes, specification=specification)
        for phase, optimizer in zip(objective.phases(), optimizers):
            with timed("forward"), autocast():
                loss = objective(given, phase=phase.name)
            with timed("backward"):
                backward(loss, phase)
            with timed("optimiser"):
                optimizer.step()
                objective.zero_grad(set_to_none=True)
        with timed("optimiser"):
            objective.after_step(step + 1)
        if step:  # the first step allocates
            for part, seconds in spent.items():
                times[part].append(seconds)
    return {part: statistics.median(seconds) for part, seconds in times.items()}
