"""Trains toys in a process of its own: ``worker.py JSON``, a list of arguments of ``toys.train``, one after another.

When the batch of step ``stop_at`` is read the training fails, at ``kill_at`` the process dies unasked, and at
``press_at`` its first process gets a Ctrl-C, or the signal named ``press``. ``evaluate`` calls a part of the
objective every two steps. ``note_names`` is a file for the names of the clips that each process read, its rank added.
"""

import json
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path

import torch
from toys import Stream, flat, train

from filmstrip.distributed import process
from filmstrip.train.optim import OPTIMISERS


def trap(stop_at, kill_at, press_at, press):
    def before(step):
        if step == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        if step == press_at and process.rank() == 0:
            os.kill(os.getpid(), getattr(signal, press))
        if step == stop_at:
            raise ConnectionError("the power went out")

    return before


@torch.inference_mode()
def evaluate(objective, step):
    objective.eval()
    batch = next(Stream().stream(1000))
    yield "mean", objective.network(flat(batch)).mean().item()


torch.set_num_threads(1)
for spec in json.loads(sys.argv[1]):
    traps = trap(
        spec.pop("stop_at", None), spec.pop("kill_at", None), spec.pop("press_at", None), spec.pop("press", "SIGINT")
    )
    if "optim" in spec:
        spec["optim"] = OPTIMISERS[spec["optim"].pop("kind")](**spec["optim"])
    if spec.pop("evaluate", False):
        spec |= {"evaluate": evaluate, "eval_every": 2}
    note_names = spec.pop("note_names", None)
    with suppress(ConnectionError, KeyboardInterrupt):
        trained = train(**spec, before=traps)
    if note_names is not None:
        Path(f"{note_names}.{process.rank()}").write_text(json.dumps(trained.names))
if torch.distributed.is_initialized():
    torch.distributed.destroy_process_group()
