"""The states of a process's random generators, as tensors."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

from filmstrip.distributed.mesh import Mesh


def random_state(device: torch.device) -> dict[str, Tensor]:
    """The states of the generators of torch (CPU, and ``device`` if it is another), Python and NumPy."""
    _, words, spare = random.getstate()
    numpy_state = np.random.get_state(legacy=False)
    words_of_numpy, position = numpy_state["state"]["key"], numpy_state["state"]["pos"]
    state = {
        "torch": torch.get_rng_state(),
        "python": torch.tensor(words),
        "numpy": torch.tensor([*words_of_numpy.tolist(), position, numpy_state["has_gauss"]]),
        # The cached second normal number; Python marks its absence by None, NumPy by a flag.
        "spare": torch.tensor([float("nan") if spare is None else spare, numpy_state["gauss"]], dtype=torch.float64),
    }
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    return state


def restore_random_state(state: Mapping[str, Tensor], device: torch.device) -> None:
    """Restore the generators to the state from :func:`random_state`."""
    spare, numpy_spare = state["spare"].tolist()
    random.setstate((3, tuple(state["python"].tolist()), None if spare != spare else spare))
    *keys, position, has_spare = state["numpy"].tolist()
    np.random.set_state(("MT19937", np.array(keys, dtype=np.uint32), position, has_spare, numpy_spare))
    torch.set_rng_state(state["torch"])
    if device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"], device)


@contextmanager
def random_state_kept(device: torch.device) -> Iterator[None]:
    """The generators are restored on leaving the context."""
    state = random_state(device)
    try:
        yield
    finally:
        restore_random_state(state, device)


def set_processes_apart(mesh: Mesh) -> None:
    """Seed the generators of processes with other batches than the first differently (for dropout and the like), from
    torch's seed."""
    if mesh.data.rank > 0:
        torch.manual_seed(torch.initial_seed() + mesh.data.rank)
