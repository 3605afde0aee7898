"""Speed and memory of a system, relative to the maximum of the machine."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from filmstrip.bounds import Count
from filmstrip.data.config import Data
from filmstrip.errors import UserError
from filmstrip.inference import inference, modes_kept, on_device
from filmstrip.measure.complexity import flop_counter
from filmstrip.measure.memory import peak_memory
from filmstrip.protocols import Batch, Loss, Objective, Phase
from filmstrip.runs.evaluation import Evaluation, Subject


@dataclass(frozen=True, kw_only=True)
class Throughput(Evaluation):
    """Samples per second, time of a forward and a training pass, peak memory, and the share of the matrix rate.

    Runs on a drawn batch of the data's kind and shape, in float32, so it measures the model and not the loader.
    """

    requires: ClassVar[frozenset[str]] = frozenset()

    batch_size: Count = 8
    rounds: Count = 5
    """Number of measured passes; the median is reported."""

    def splits_of(self, data: Data) -> tuple[str, ...]:
        """None: it looks at samples that are drawn."""
        return ()

    def check(self, subject: Subject) -> None:
        """The data hold what the objective requires."""
        random_batch(subject, 1)

    def __call__(self, subject: Subject) -> Iterator[tuple[str, float]]:
        """Yield seconds, clips/s, bytes and FLOP/s of the loss forward, then of forward and backward."""
        batch = random_batch(subject, self.batch_size)
        rate = matrix_rate(torch.float32, subject.device)
        objective, device = subject.objective, subject.device

        def forward() -> None:
            objective(batch)

        with inference(objective):
            flops, seconds, peak = _measure(forward, device, self.rounds)
        yield from self._values("forward", flops, seconds, peak, rate)
        with _training(objective):
            flops, seconds, peak = _measure(lambda: train_pass(objective, batch), device, self.rounds)
        yield from self._values("training", flops, seconds, peak, rate)
        yield "machine/matrix_flops_per_second", rate

    def _values(self, name: str, flops: int, seconds: float, peak: int, rate: float) -> Iterator[tuple[str, float]]:
        yield f"{name}/clips_per_second", self.batch_size / seconds
        yield f"{name}/seconds", seconds
        yield f"{name}/peak_bytes", float(peak)
        yield f"{name}/flops_per_second", flops / seconds
        yield f"{name}/share_of_matrix_rate", flops / seconds / rate


def train_pass(objective: Objective, batch: Batch) -> None:
    """Forward and backward of every phase, from zero gradients, without an optimiser step."""
    objective.zero_grad(set_to_none=True)
    for phase in objective.phases():
        backward(objective(batch, phase=phase.name), phase)


def backward(loss: Loss, phase: Phase) -> None:
    """Gradients of the phase's own trainable parameters, as in training."""
    own = {p: None for module in phase.modules for p in module.parameters() if p.requires_grad}
    loss.total.backward(inputs=list(own))


def random_batch(subject: Subject, batch_size: int) -> Batch:
    """A drawn batch with the keys that the objective requires, as a loader would give it.

    Raises:
        UserError: the objective requires a key that the data do not provide.
    """
    source, data = subject.source, subject.data
    kind = data.reads if isinstance(data.reads, source.kind) else source.kind()
    sizes = {**kind.told_sizes(data, source.info(source.splits[0])), "B": batch_size}
    # What has no example, such as actions, is blank.
    blank = {key: value for key, value in kind.specification.blank(sizes).items() if key in source.gives}
    batch = blank | kind.example(sizes, torch.Generator().manual_seed(0))
    missing = [key for key in subject.objective.requires if key not in batch]
    if missing:
        raise UserError(f"the objective requires {', '.join(missing)}, which {source.root} does not hold")
    return on_device(batch, subject.device)


def count_flops(function: Callable[[], object]) -> int:
    """Floating-point operations (two for a multiply-add) of one call: its matrix products and convolutions."""
    with flop_counter() as counter:
        function()
    return counter.get_total_flops()


def median_seconds(function: Callable[[], object], device: torch.device, rounds: int) -> float:
    """Median wall time of one call, seconds, after a warm-up call; waits for the device."""
    function()
    times = []
    for _ in range(rounds):
        wait_for(device)
        start = time.perf_counter()
        function()
        wait_for(device)
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def matrix_rate(dtype: torch.dtype, device: torch.device | str = "cpu", threads: int | None = None) -> float:
    """The maximum rate of square matrix products on this machine, FLOP/s (two for a multiply-add).

    Processors without instructions for a shorter type multiply it many times slower than float32: its rate is then
    float32's, in which the same products can be computed.
    """
    device = torch.device(device)
    sizes = (4096, 8192) if device.type == "cuda" else (768, 1536, 2304)
    with _threads(threads):
        if device.type == "cpu" and dtype.itemsize < 4:
            dtype = max(dtype, torch.float32, key=lambda tried: _product_rate(sizes[0], tried, device))
        return max(_product_rate(size, dtype, device) for size in sizes)


def memory_bandwidth(device: torch.device | str = "cpu", threads: int | None = None) -> float:
    """The maximum rate of copying a large array, bytes/s, reads plus writes."""
    device = torch.device(device)
    size = 2**30 if device.type == "cuda" else 2**27
    source = torch.ones(size, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    with _threads(threads):
        return 2 * size / _best_seconds(lambda: target.copy_(source), device)


def _measure(function: Callable[[], object], device: torch.device, rounds: int) -> tuple[int, float, int]:
    flops = count_flops(function)
    with peak_memory(device) as peak:
        seconds = median_seconds(function, device, rounds)
        return flops, seconds, peak()


@contextmanager
def _training(objective: Objective) -> Iterator[None]:
    """Training mode with gradients; modes, buffers and gradients are restored afterwards."""
    buffers = {name: buffer.clone() for name, buffer in objective.named_buffers()}
    grads = [(p, p.grad) for p in objective.parameters()]
    try:
        with modes_kept(objective), torch.inference_mode(False), torch.enable_grad():
            objective.train()
            yield
    finally:
        for name, buffer in objective.named_buffers():
            buffer.copy_(buffers[name])
        for p, grad in grads:
            p.grad = grad


@contextmanager
def _threads(count: int | None) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _product_rate(size: int, dtype: torch.dtype, device: torch.device) -> float:
    left, right = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    out = torch.empty(size, size, dtype=dtype, device=device)
    return 2 * size**3 / _best_seconds(lambda: torch.mm(left, right.T, out=out), device)


def _best_seconds(function: Callable[[], Tensor], device: torch.device, budget: float = 0.3) -> float:
    """Minimum time of one call, over at least three calls and ``budget`` seconds, after a warm-up call."""
    function()
    times: list[float] = []
    while len(times) < 3 or sum(times) < budget:
        wait_for(device)
        start = time.perf_counter()
        function()
        wait_for(device)
        times.append(time.perf_counter() - start)
    return min(times)


def wait_for(device: torch.device) -> None:
    """Wait for the device to finish its queued work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
