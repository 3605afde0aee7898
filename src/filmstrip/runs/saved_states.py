"""The last states of a run on disk, each verified by checksum.

``state/`` holds a folder for each of the last two, named by its step: ``tensors.safetensors``, and ``state.json``
with further numbers and the tensors' size and checksum. A new state is written under a temporary name, synced to disk
and renamed; only then is the oldest removed. So a crash at any moment, or damage to the newest state, costs at most
the steps between two states.
"""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import safe_open
from torch import Tensor

from filmstrip.errors import UserError
from filmstrip.files import sync_folder, write_json, write_tensors
from filmstrip.protocols import Objective
from filmstrip.train.state import WEIGHTS
from filmstrip.train.store import SavedState
from filmstrip.weights.fingerprint import file_fingerprint

log = logging.getLogger(__name__)

KEPT = 2
PARTIAL, TENSORS, VALUES = "partial", "tensors.safetensors", "state.json"


class Damaged(Exception):
    """A damaged state, and the reason."""


def write_state(folder: Path, tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> None:
    """Add a state, whose ``values`` include its ``step``; remove all but the last two, and those of later steps.

    Raises:
        OSError: it cannot be written; existing states are kept.
        UserError: the folder holds other things.
    """
    name = f"{values['step']:09d}"
    earlier = [path for path in saved_states(folder) if path.name < name]
    partial = folder / PARTIAL
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        write_tensors(tensors, partial / TENSORS)
        write_json({**values, "tensors": _stamp(partial / TENSORS)}, partial / VALUES)
        sync_folder(partial)
        for path in saved_states(folder):
            if path not in earlier:  # of steps that are repeated, or damaged
                shutil.rmtree(path)
        partial.rename(folder / name)
        sync_folder(folder)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    for path in earlier[: 1 - KEPT]:
        shutil.rmtree(path)


def newest_state(folder: Path) -> SavedState | None:
    """The newest intact state, or none if there are no states; logs a warning for damaged later ones.

    Raises:
        UserError: the folder holds other things, or every state is damaged.
    """
    damage = []
    for path in reversed(saved_states(folder)):
        try:
            found = _checked(path)
        except Damaged as error:
            damage.append(str(error))
            continue
        for what in damage:
            log.warning("%s: going on from step %d, which was saved before it", what, found.values["step"])
        return found
    if damage:
        raise UserError(
            f"{folder} holds no state that this version can resume from ({'; '.join(damage)}): train into another "
            "folder, or remove it"
        )
    return None


def saved_states(folder: Path) -> list[Path]:
    """The states in a folder, oldest first, intact or not.

    Raises:
        UserError: the folder holds other things.
    """
    paths = sorted(path for path in folder.glob("*") if path.name != PARTIAL)
    strange = [path.name for path in paths if not (path.name.isdecimal() and path.is_dir())]
    if strange:
        raise UserError(
            f"{folder} holds {', '.join(strange[:5])}, which is not a state that this version can resume from: "
            "train into another folder, or remove it"
        )
    return paths


def load_saved_weights(objective: Objective, folder: Path) -> None:
    """Load the weights of the newest intact state in ``folder``, without EMA, into an objective.

    Raises:
        UserError: there is none, or it belongs to another network.
    """
    found = newest_state(folder)
    if found is None:
        raise UserError(f"{folder} holds no state yet")
    with safe_open(found.tensors, "pt") as saved:
        names = [name for name in saved.keys() if name.startswith(WEIGHTS)]  # noqa: SIM118 (not a dictionary)
        weights = {name.removeprefix(WEIGHTS): saved.get_tensor(name) for name in names}
    try:
        objective.load_own_state(weights)
    except RuntimeError as error:
        raise UserError(f"{found.tensors} does not fit the run's configuration: {error}") from None


def _checked(path: Path) -> SavedState:
    """A state after verification of every byte.

    Raises:
        Damaged: the state is not intact.
    """
    try:
        values = json.loads((path / VALUES).read_bytes())
        expected, step = values["tensors"], values["step"]
    except FileNotFoundError:
        raise Damaged(f"{path / VALUES} is missing") from None
    except KeyError as error:
        raise Damaged(f"{path / VALUES} lacks {error}: another version may have written it") from None
    except (OSError, ValueError, TypeError) as error:
        raise Damaged(f"{path / VALUES} is damaged: {type(error).__name__} {error}") from None
    if step != int(path.name):
        raise Damaged(f"{path / VALUES} is damaged: it records step {step}")
    try:
        found = _stamp(path / TENSORS)
    except OSError as error:
        raise Damaged(f"{path / TENSORS} cannot be read: {error.strerror}") from None
    if found != expected:
        raise Damaged(f"{path / TENSORS} is damaged: its size or checksum differs from when it was saved")
    return SavedState(path / TENSORS, values)


def _stamp(path: Path) -> dict[str, int | str]:
    return {"bytes": path.stat().st_size, "sha256": file_fingerprint(path)}
