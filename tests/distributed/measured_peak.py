"""Trains a preset for two steps and writes the bytes of tensors that were alive at once, at most, by rank.

    python tests/distributed/measured_peak.py OUT [--resident] SYSTEM:PRESET [options of the run]

All tensors of the process count: weights, optimiser, batches, gradients, activations, what other processes sent. What
kernels take for themselves while they run does not, but for ``--resident``.
"""

import json
import sys
import weakref
from dataclasses import replace
from pathlib import Path

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from filmstrip.commands.arguments import run_from
from filmstrip.commands.train import Train
from filmstrip.distributed import process
from filmstrip.measure.memory import peak_memory
from filmstrip.runs.experiment import train


class Alive(TorchDispatchMode):
    """Looks at all storages after every operation that makes one: FSDP changes the sizes of its own meanwhile."""

    def __init__(self):
        super().__init__()
        self.peak, self._storages = 0, {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if not self._note(out):
            return out
        alive = {key: storage for key, at in list(self._storages.items()) if (storage := at()) is not None}
        self._storages = {key: self._storages[key] for key in alive}
        self.peak = max(self.peak, sum(storage.nbytes() for storage in alive.values()))
        return out

    def _note(self, value):
        """Whether there is a storage among the values that is new."""
        if isinstance(value, (list, tuple)):
            return any([self._note(each) for each in value])
        if hasattr(value, "untyped_storage"):
            # Of a sharded tensor its part is in memory; its own storage has the size of the whole.
            storage = getattr(value, "_local_tensor", value).untyped_storage()
            key = storage._cdata
            if key not in self._storages or self._storages[key]() is None:
                self._storages[key] = weakref.ref(storage)
                return True
        return False


def planned_run(arguments):
    """The run that is measured: two steps, without evaluations."""
    run, _ = run_from(Train, [*arguments, "--train.steps", "2", "--data.num-workers", "0"], "measured")
    return replace(run, evals=(), train=replace(run.train, tracker=()))


def measured(arguments, folder):
    """Bytes of tensors alive at once in training."""
    with Alive() as alive:
        train(planned_run(arguments), Path(folder) / "run")
    return alive.peak


def resident(arguments, folder):
    """Bytes by which the process's resident memory grows in training."""
    run = planned_run(arguments)
    train(run.__class__(**{**vars(run), "data": replace(run.data, batch_size=2)}), Path(folder) / "small")
    with peak_memory(torch.device("cpu")) as peak:
        before = peak()
    with peak_memory(torch.device("cpu")) as peak:
        train(run, Path(folder) / "run")
        return peak() - before


def main(out, *arguments):
    find = measured
    if arguments[0] == "--resident":
        find, arguments = resident, arguments[1:]
    folder = Path(out).parent  # one for all processes
    found = find(arguments, folder)
    Path(f"{out}.{process.rank()}").write_text(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
