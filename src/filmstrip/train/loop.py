"""The training loop: the only one, for every objective.

It knows steps, batches, phases, precision and processes. It knows nothing of labels, models or tasks.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import nn

from filmstrip.distributed import process
from filmstrip.distributed.mesh import Mesh, share_context
from filmstrip.distributed.parallel import is_sharded, parallelise, unsharded
from filmstrip.distributed.tensors import sharded_like
from filmstrip.errors import UserError
from filmstrip.inference import modes_kept
from filmstrip.measure.memory import peak_memory
from filmstrip.protocols import EVALUATION, Batch, Objective
from filmstrip.train.async_metrics import AsyncMetrics
from filmstrip.train.best import Best
from filmstrip.train.blocks import changed_blocks
from filmstrip.train.config import Loop
from filmstrip.train.ema import Average
from filmstrip.train.interrupt import Interrupt, stopped_by
from filmstrip.train.lengths import span_steps
from filmstrip.train.optim import Optim, set_rates
from filmstrip.train.part_rates import frozen_parts
from filmstrip.train.phase_values import value_for
from filmstrip.train.progress import ProgressBar
from filmstrip.train.random_state import random_state_kept, set_processes_apart
from filmstrip.train.state import TrainingState
from filmstrip.train.step import OptimiserStep
from filmstrip.train.stopwatch import Stopwatch
from filmstrip.train.store import Store
from filmstrip.train.trackers import Trackers, check_trackers

if TYPE_CHECKING:
    from accelerate import Accelerator

log = logging.getLogger(__name__)

Augment = Callable[[Batch], Batch]
Evaluate = Callable[[Objective, int], Iterator[tuple[str, float]]]
PRECISIONS = {"float32": "no", "bfloat16": "bf16", "float16": "fp16"}
MAX_SHOWN = 12
"""Maximum number of evaluation values shown while training; ``metrics.jsonl`` has all."""


class BatchStream(Protocol):
    """A source of batches. One that encounters unreadable files also lists them, in ``unreadable``.

    One whose batches depend on what is trained, as those of an agent that acts, also has ``begin(objective, path)``,
    which is called before the first batch with the folder of the run, and ``save(step)``, which is called when the
    state after a step is to be saved, before that is. ``stream`` then goes on from what was saved.
    """

    @property
    def steps_per_epoch(self) -> float:
        """Optimiser steps in one pass over the training data."""
        ...

    def stream(self, start: int) -> Iterator[Batch]:
        """An endless stream of this process's micro-batches from optimiser step ``start``, counted from zero."""
        ...


def fit(
    objective: Objective,
    batches: BatchStream,
    *,
    optim: Optim,
    loop: Loop,
    folder: Store,
    mesh: Mesh | None = None,
    augment: Augment = lambda batch: batch,
    evaluate: Evaluate | None = None,
    begun: Callable[[], None] = lambda: None,
    settings: Mapping[str, Any] | None = None,
) -> None:
    """Train ``objective`` in place, resuming from the newest intact state in ``folder``, if there is one.

    Nothing is written before the first step is complete: a failure until then leaves ``folder`` unchanged. ``begun``
    is called at that point, before anything is saved; or before the final evaluation if no step is left.

    ``settings`` of the run, by name, are for trackers. ``mesh`` is how the processes share ``batches``; by default as
    ``loop.context`` says.

    The objective ends with its final weights (EMA weights if ``loop.ema``), or the best ones by ``loop.best``, which
    are also saved in ``folder``. The modes of its modules (training, evaluation) do not change; parts that
    ``optim.rates`` and ``optim.freeze`` freeze are in evaluation mode meanwhile. ``evaluate`` receives the objective
    and the number of steps done, and runs in every process; its results are recorded as ``eval/name``.

    Raises:
        UserError: batches lack required keys, a loss is not finite, or the settings are inconsistent or name no part
            of the objective.
        KeyboardInterrupt: Ctrl-C or, as :class:`~filmstrip.errors.Terminated`, SIGTERM or SIGHUP, after the step is
            finished and saved.
    """
    if loop.best is not None and evaluate is None:
        raise UserError(f"train.best is {loop.best!r}, and there is no evaluation that could measure it")
    check_trackers(loop.tracker)
    total = total_steps(loop, batches.steps_per_epoch)
    warmup = span_steps(optim.schedule.warmup, total)
    if warmup > total and process.rank() == 0:
        log.warning(
            "the warm-up of %d steps does not end within %d: the learning rate stays below its peak", warmup, total
        )
    mesh = mesh or Mesh.of_processes(loop.context)
    accelerator = _accelerator(loop)
    set_processes_apart(mesh)
    objective.to(accelerator.device)
    with (
        frozen_parts(objective, optim.rates, optim.freeze),
        changed_blocks(objective, checkpoint=loop.checkpoint, compile=loop.compile) as blocks,
    ):
        _Training(
            objective,
            batches,
            blocks,
            total,
            accelerator,
            mesh,
            optim,
            loop,
            folder,
            augment,
            evaluate,
            begun,
            settings,
        ).run()


class _Training:
    """The components of one run; see :func:`fit`."""

    def __init__(
        self,
        objective: Objective,
        batches: BatchStream,
        blocks: list[nn.Module],
        total: int,
        accelerator: Accelerator,
        mesh: Mesh,
        optim: Optim,
        loop: Loop,
        folder: Store,
        augment: Augment,
        evaluate: Evaluate | None,
        begun: Callable[[], None],
        settings: Mapping[str, Any] | None,
    ) -> None:
        self.trackers, self.settings = Trackers(loop.tracker, folder.path), settings or {}
        self.objective, self.batches, self.evaluate, self.begun = objective, batches, evaluate, begun
        self.total, self.accelerator, self.optim, self.loop, self.folder = total, accelerator, optim, loop, folder
        self.device, self.mesh = accelerator.device, mesh
        connected = mesh.connect(self.device)
        share_context(objective, mesh, connected, blocks, striped=loop.context_striped)
        phases = objective.phases()
        model = parallelise(
            objective,
            loop.shard,
            blocks=blocks,
            device=self.device,
            partial=len(phases) > 1,
            unsynchronised=[name for name in objective.state_dict() if objective.is_kept_elsewhere(name)],
        )
        # Sharding replaces the parameters, so optimisers are built after it.
        self.optimisers = {phase: optim.build(objective, phase, sharded=is_sharded(objective)) for phase in phases}
        self.average = Average(objective, loop.ema)
        self.best = Best(loop)
        self.state = TrainingState(
            objective=objective,
            optimisers={phase.name: one for phase, one in self.optimisers.items()},
            average=self.average,
            scaler=accelerator.scaler,
            device=self.device,
        )
        # A gradient scaler finds its scale by overflow, and skips those steps itself.
        watched = ("loss",) if accelerator.scaler else ("loss", "grad_norm")
        prefixes = [""] if len(phases) == 1 else [f"{phase.name}/" for phase in phases]
        self.readings = AsyncMetrics(
            self.device,
            {prefix + name for prefix in prefixes for name in watched},
            group=None if connected is None else connected.get_group("data"),
        )
        if (begin := getattr(batches, "begin", None)) is not None:
            begin(objective, folder.path)
        self.take_step = OptimiserStep(
            objective,
            model,
            self.optimisers,
            accelerator=accelerator,
            readings=self.readings,
            augment=augment,
            clip_grad={
                phase.name: value_for(phase.name, loop.phase_clip_grad, objective, "train.phase_clip_grad")
                or loop.clip_grad
                for phase in phases
            },
        )

    def run(self) -> None:
        """All steps from the last saved one on, and the final evaluation."""
        self.state.load(self.folder)
        start = self.state.step
        if self.best:
            self.best.replay(self.folder.evaluated(str(self.best.metric), start))
        self.watch = Stopwatch(self.state.seconds)
        try:
            with ProgressBar(start, self.total) as self.bar, peak_memory(self.device) as self.peak_bytes:
                with Interrupt() as interrupt:
                    self._train(_checked(self.batches.stream(start), self.objective), interrupt)
                if self.state.step == start:
                    self._begin(start)
                if self.evaluate and not (self.best.is_exhausted and self.best.last == self.state.step):
                    self._evaluate(self.evaluate)
                self.average.swap()
                self._end_with_best()
        finally:
            self.trackers.finish()

    def _begin(self, start: int) -> None:
        """Claim the folder for this run: writing starts here."""
        self.folder.write_environment(self.device)
        self.folder.forget_metrics_after(start)
        self.trackers.start(start, self.settings)
        self.begun()

    def _train(self, stream: Iterator[Batch], interrupt: Interrupt) -> None:
        clips, since, start = 0, self.watch.seconds, self.state.step
        begun = self._evaluate_again(start)
        while self.state.step < self.total and not self.best.is_exhausted:
            factor = set_rates(self.optimisers.values(), self.optim, self.state.step, self.total)
            self.state.step += 1
            step, last = self.state.step, self.state.step == self.total
            clips += self.take_step(step, stream)
            self.objective.after_step(step)
            self.average.update(step)
            self.bar.advance(step)
            if step == start + 1 and not begun:
                self._begin(start)
            logged = last or step % self.loop.log_every == 0
            if logged:
                seconds = self.watch.seconds
                self._log(self.optim.lr * factor, clips * self.mesh.data.size / (seconds - since))
                clips, since = 0, seconds
            # Interrupts are exchanged between processes where losses are exchanged anyway.
            stop = interrupt.agreed(self.device) if logged or not process.is_several() else None
            if last or stop or step % self.loop.save_every == 0:
                self._save()
            if stop and not last:
                self.bar.say(f"Interrupted: saved after step {step}.")
                raise stopped_by(stop)
            if self.evaluate and self._is_evaluated_at(step) and not last:
                self._evaluate(self.evaluate)
        if self.best.is_exhausted and self.state.step < self.total:
            if self.state.step > start:
                self._save()
            self.bar.say(f"Stopped after step {self.state.step}: {self.loop.patience} evaluations were no better.")

    def _is_evaluated_at(self, step: int) -> bool:
        return bool(self.loop.eval_every) and step % (self.loop.eval_every or 1) == 0

    def _evaluate_again(self, start: int) -> bool:
        """Evaluate after the step of a state that was saved and then not evaluated: the best step depends on it.
        Whether that was so."""
        missed = 0 < start < self.total and self.best.last != start and self._is_evaluated_at(start)
        if not (self.best and self.evaluate and missed):
            return False
        self._begin(start)
        self._evaluate(self.evaluate)
        return True

    def _log(self, lr: float, clips_per_second: float) -> None:
        """Record the means since the last call; with several phases, ``loss`` is the sum of theirs."""
        means = self.readings.means()
        loss = means["loss"] if "loss" in means else sum(means[f"{phase.name}/loss"] for phase in self.optimisers)
        speed = {"lr": lr, "clips_per_second": clips_per_second, "memory_gib": self.peak_bytes() / 2**30}
        values = {"loss": loss, **means, **speed}
        self._record(values)
        self.bar.report(self.state.step, values, self.watch.seconds - self.state.seconds)

    def _evaluate(self, evaluate: Evaluate) -> None:
        """Run the evaluations on the EMA weights, without any effect on training."""
        with (
            self.watch.paused(),
            self.average.applied(),
            modes_kept(self.objective),
            random_state_kept(self.device),
            unsharded(self.objective),
        ):
            values = {f"{EVALUATION}{name}": value for name, value in evaluate(self.objective, self.state.step)}
            if self.best and self.best.is_improved_by(process.from_all(values)[0], self.state.step):
                self.folder.save_weights(self.objective)
        self._record(values)
        shown = [f"{k} {v:.4g}" for k, v in list(values.items())[:MAX_SHOWN]]
        more = [f"and {len(values) - MAX_SHOWN} more"] if len(values) > MAX_SHOWN else []
        self.bar.say("  ".join((f"step {self.state.step}", *shown, *more)))

    @torch.no_grad()
    def _end_with_best(self) -> None:
        """Go back to the best weights, and evaluate them once more: what is kept and returned is then theirs."""
        if not self.best:
            return
        self.bar.say(f"Best: {self.best}. Its weights are kept, and those of the last step in last.safetensors.")
        if self.best.step == self.state.step or not self.evaluate:
            return
        weights = self.folder.read_weights()
        for name, tensor in self.objective.own_state().items():
            tensor.copy_(sharded_like(weights[name], tensor))
        with modes_kept(self.objective), random_state_kept(self.device), unsharded(self.objective):
            for _ in self.evaluate(self.objective, int(self.best.step or 0)):
                pass

    def _record(self, values: dict[str, float]) -> None:
        self.folder.append_metrics({"step": self.state.step, "seconds": round(self.watch.seconds, 3), **values})
        self.trackers.log(values, self.state.step)

    def _save(self) -> None:
        """Write the weights, then the state: after a crash in between, some steps are repeated."""
        self.readings.check(wait=True)
        if (save := getattr(self.batches, "save", None)) is not None:
            save(self.state.step)
        with self.average.applied():
            if self.best:
                self.folder.save_weights(self.objective, last=True)
            if self.best.step is None:
                self.folder.save_weights(self.objective)
        self.state.save(self.folder, self.watch.seconds)
        self.folder.write_unreadable(getattr(self.batches, "unreadable", ()))


def total_steps(loop: Loop, steps_per_epoch: float) -> int:
    """Optimiser steps of a whole run.

    Raises:
        UserError: it amounts to less than one step.
    """
    steps = loop.length.total(steps_per_epoch)
    if steps < 1:
        raise UserError(f"a run needs at least one step, got {steps}")
    return steps


def _accelerator(loop: Loop) -> Accelerator:
    """The accelerator of this process, for the configured precision."""
    if loop.precision == "float16" and not torch.cuda.is_available():
        raise UserError("train.precision float16 needs a CUDA device: use bfloat16 or float32")
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState

    # Accelerate keeps one state per process, which refuses another precision than an earlier run's.
    AcceleratorState._reset_state()
    return Accelerator(
        mixed_precision=PRECISIONS[loop.precision],
        gradient_accumulation_steps=loop.accumulate,
    )


def _checked(stream: Iterator[Batch], objective: Objective) -> Iterator[Batch]:
    """The same batches, after a check of the first one for the keys that the objective requires."""
    first = next(stream)
    missing = [key for key in objective.requires if key not in first]
    if missing:
        raise UserError(
            f"{type(objective).__name__} needs {', '.join(map(repr, missing))} in its batches, this data provides "
            f"{', '.join(map(repr, first))}" + (": are the videos labelled?" if "label" in missing else "")
        )
    yield first
    yield from stream
