"""The state that a run needs to resume exactly, as tensors and a few numbers.

The tensors are the objective's weights and buffers, without the frozen parts that are kept elsewhere; those of the
optimisers and the EMA; the random state of every process. A :class:`~filmstrip.train.store.Store` keeps them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor
from torch.optim import Optimizer

from filmstrip.distributed import process
from filmstrip.distributed.tensors import gathered, sharded_like
from filmstrip.errors import UserError
from filmstrip.protocols import Objective
from filmstrip.train.ema import Average
from filmstrip.train.random_state import random_state, restore_random_state
from filmstrip.train.store import Store

WEIGHTS = "weights/"
RANDOM = "random/"


@dataclass(kw_only=True)
class TrainingState:
    """Everything that changes during training. All processes save and load together, from one file system."""

    objective: Objective
    optimisers: Mapping[str, Optimizer]
    """Optimisers by phase name."""
    average: Average
    scaler: torch.amp.GradScaler | None
    """Gradient scaler for float16; none at other precisions."""
    device: torch.device
    step: int = 0
    """Number of optimiser steps done."""
    seconds: float = 0.0
    """Training time before this process started, seconds."""

    def save(self, store: Store, seconds: float) -> None:
        """Save the state, after ``seconds`` of training."""
        random = random_state(self.device)
        tensors = gathered(dict(self._tensors()))
        tensors |= {RANDOM + k: process.stack_over_processes(v, self.device) for k, v in random.items()}
        scale = self.scaler.state_dict() if self.scaler else None
        store.write_state(tensors, {"step": self.step, "seconds": seconds, "scaler": scale})

    def load(self, store: Store) -> None:
        """Restore the newest intact state, if there is one.

        Raises:
            UserError: it belongs to another network or version, or all are damaged.
        """
        if (found := store.newest_state()) is None:
            return
        values = found.values
        with safe_open(found.tensors, "pt") as saved:
            self._restore(saved, found.tensors.parent)
        self.step, self.seconds = values["step"], values["seconds"]
        if self.scaler and values["scaler"]:
            self.scaler.load_state_dict(values["scaler"])

    def _tensors(self) -> Iterator[tuple[str, Tensor]]:
        """All tensors but the random state, by name."""
        for name, tensor in self.objective.own_state().items():
            yield WEIGHTS + name, tensor
        for name, tensor in self.average.tensors.items():
            yield f"average/{name}", tensor
        for phase, name, _, state in self._optimised():
            for key, tensor in state.items():
                yield f"optimiser/{phase}/{name}/{key}", tensor

    def _optimised(self) -> Iterator[tuple[str, str, Tensor, dict[str, Tensor]]]:
        """Phase, name, parameter and its optimiser state (empty before the first step)."""
        for phase, optimiser in self.optimisers.items():
            for group in optimiser.param_groups:
                for name, param in zip(group["param_names"], group["params"]):
                    yield phase, name, param, optimiser.state[param]

    @torch.no_grad()
    def _restore(self, saved: Any, path: Path) -> None:
        names = set(saved.keys())
        present = {name: tensor for name, tensor in self._tensors() if not name.startswith("optimiser/")}
        lost = sorted(name for name in names if name.startswith((WEIGHTS, "average/")) and name not in present)
        unlike = sorted(
            name
            for name, tensor in present.items()
            if name not in names or tuple(saved.get_slice(name).get_shape()) != tuple(tensor.shape)
        )
        if lost or unlike:
            raise UserError(
                f"{path} is the state of another network ({', '.join((lost + unlike)[:5])}): "
                "train into another folder, or remove this one"
            )
        for name, tensor in present.items():
            tensor.copy_(sharded_like(saved.get_tensor(name), tensor))
        self._restore_optimisers(saved)
        random = {name.removeprefix(RANDOM): saved.get_tensor(name) for name in names if name.startswith(RANDOM)}
        if process.rank() < len(random["torch"]):  # with more processes than before, new ones keep their fresh state
            # Cloned, because torch reads a generator's state from the start of a tensor's storage.
            own = {name: states[process.rank()].clone() for name, states in random.items()}
            restore_random_state(own, self.device)

    def _restore_optimisers(self, saved: Any) -> None:
        kept: dict[str, list[str]] = {}
        for name in saved.keys():  # noqa: SIM118 (not a dictionary)
            owner, _, key = name.rpartition("/")
            kept.setdefault(owner, []).append(key)
        for phase, name, param, state in self._optimised():
            owner = f"optimiser/{phase}/{name}"
            for key in kept.get(owner, ()):
                tensor = saved.get_tensor(f"{owner}/{key}")
                # A step counter is a scalar, never sharded.
                state[key] = tensor.to(param.device) if tensor.ndim == 0 else sharded_like(tensor, param.detach())
