"""What a run needs to go on exactly where it stopped, as safetensors and JSON.

``state/`` holds one folder, named by its step: ``tensors.safetensors`` (weights as they are trained, frozen ones and
buffers too; the optimisers' and the average's; every process's random state) and ``state.json``. A new one is written
beside it and renamed before the old one goes, so that a crash at any moment leaves one that is whole.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor
from torch.optim import Optimizer

from filmstrip.dist import process
from filmstrip.dist.tensors import sharded_like
from filmstrip.errors import UserError
from filmstrip.protocols import Objective
from filmstrip.train.ema import Average
from filmstrip.train.files import gathered, write_json, write_tensors
from filmstrip.train.random_state import random_state, restore_random_state

PARTIAL = "partial"
RANDOM = "random/"


@dataclass(kw_only=True)
class TrainingState:
    """Everything that changes while a run trains. All processes save and load together, from one file system."""

    objective: Objective
    optimisers: Mapping[str, Optimizer]
    """By the name of their phase."""
    average: Average
    scaler: torch.amp.GradScaler | None
    """Keeps float16 gradients in range; none at other precisions."""
    device: torch.device
    step: int = 0
    """Optimiser steps done."""
    seconds: float = 0.0
    """Time that was spent on them before this process began."""

    def save(self, folder: Path, seconds: float) -> None:
        """Write the state, after so many ``seconds`` of training, into ``folder``, and remove older ones."""
        random = random_state(self.device)
        tensors = gathered(dict(self._tensors()))
        tensors |= {RANDOM + k: process.stack_over_processes(v, self.device) for k, v in random.items()}
        if process.rank() == 0:
            older = _complete(folder)
            partial = folder / PARTIAL
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
            write_tensors(tensors, partial / "tensors.safetensors")
            scale = self.scaler.state_dict() if self.scaler else None
            values = {"step": self.step, "seconds": seconds, "scaler": scale}
            write_json(values, partial / "state.json")
            partial.rename(folder / f"{self.step:09d}")
            for path in older:
                shutil.rmtree(path)
        process.wait_for_all()

    def load(self, folder: Path) -> None:
        """Go back to the latest state in ``folder``, if there is one.

        Raises:
            UserError: it belongs to another network, or to another version.
        """
        complete = _complete(folder)
        if not complete:
            return
        values = json.loads((complete[-1] / "state.json").read_text())
        with safe_open(complete[-1] / "tensors.safetensors", "pt") as saved:
            self._restore(saved, complete[-1])
        self.step, self.seconds = values["step"], values["seconds"]
        if self.scaler and values["scaler"]:
            self.scaler.load_state_dict(values["scaler"])

    def _tensors(self) -> Iterator[tuple[str, Tensor]]:
        """All but the random state, by name."""
        for name, tensor in self.objective.state_dict().items():
            yield f"weights/{name}", tensor
        for name, tensor in self.average.tensors.items():
            yield f"average/{name}", tensor
        for phase, name, _, state in self._optimised():
            for key, tensor in state.items():
                yield f"optimiser/{phase}/{name}/{key}", tensor

    def _optimised(self) -> Iterator[tuple[str, str, Tensor, dict[str, Tensor]]]:
        """Phase, name, parameter and what the optimiser keeps for it (nothing before its first step)."""
        for phase, optimiser in self.optimisers.items():
            for group in optimiser.param_groups:
                for name, param in zip(group["param_names"], group["params"]):
                    yield phase, name, param, optimiser.state[param]

    @torch.no_grad()
    def _restore(self, saved: Any, path: Path) -> None:
        names = set(saved.keys())
        present = {name: tensor for name, tensor in self._tensors() if not name.startswith("optimiser/")}
        lost = sorted(name for name in names if name.startswith(("weights/", "average/")) and name not in present)
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
        if process.rank() < len(random["torch"]):  # of more processes than before, the new ones start afresh
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
                # A step counter is one number, whole in every process.
                state[key] = tensor.to(param.device) if tensor.ndim == 0 else sharded_like(tensor, param.detach())


def _complete(folder: Path) -> list[Path]:
    """The states in a folder, oldest first; more than one only if the last save was cut short.

    Raises:
        UserError: something else lies there.
    """
    paths = sorted(path for path in folder.glob("*") if path.name != PARTIAL)
    strange = [path.name for path in paths if not (path.name.isdecimal() and (path / "state.json").is_file())]
    if strange:
        raise UserError(
            f"{folder} holds {', '.join(strange[:5])}, which is no state that this version can go on from: "
            "train into another folder, or remove it"
        )
    return paths
