"""The random generators of a process, as tensors."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

from filmstrip.distributed import process


def random_state(device: torch.device) -> dict[str, Tensor]:
    """The states of the generators of torch (CPU, and ``device`` if it is another), Python and NumPy."""
    _, words, spare = random.getstate()
    _, keys, position, has_spare, numpy_spare = np.random.get_state(legacy=True)
    state = {
        "torch": torch.get_rng_state(),
        "python": torch.tensor(words),
        "numpy": torch.tensor([*keys.tolist(), position, has_spare]),
        # A second normal number, drawn with the first and not used yet; Python has none rather than a flag.
        "spare": torch.tensor([float("nan") if spare is None else spare, numpy_spare], dtype=torch.float64),
    }
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    return state


def restore_random_state(state: Mapping[str, Tensor], device: torch.device) -> None:
    """Put the generators back to where :func:`random_state` saw them."""
    spare, numpy_spare = state["spare"].tolist()
    random.setstate((3, tuple(state["python"].tolist()), None if spare != spare else spare))
    *keys, position, has_spare = state["numpy"].tolist()
    np.random.set_state(("MT19937", np.array(keys, dtype=np.uint32), position, has_spare, numpy_spare))
    torch.set_rng_state(state["torch"])
    if device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"], device)


@contextmanager
def random_state_kept(device: torch.device) -> Iterator[None]:
    """Whatever is drawn inside, afterwards the generators are as before."""
    state = random_state(device)
    try:
        yield
    finally:
        restore_random_state(state, device)


def set_processes_apart() -> None:
    """Give every process but the first its own generator of dropout and the like, derived from torch's seed."""
    if process.rank() > 0:
        torch.manual_seed(torch.initial_seed() + process.rank())
