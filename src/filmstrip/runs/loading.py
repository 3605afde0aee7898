"""Reading a run folder: the trained objective, and what its data told it."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from filmstrip.data.config import DataInfo
from filmstrip.errors import UserError
from filmstrip.files import write_json
from filmstrip.protocols import Objective
from filmstrip.runs.config import Run, from_json, read_config, to_json
from filmstrip.runs.contents import CONFIG, DATA
from filmstrip.runs.run_folder import RunFolder


def load_objective(
    folder: str | Path, device: torch.device | str | None = None, *, last: bool = False, merged: bool = True
) -> tuple[Objective, Run]:
    """A trained objective, in evaluation mode, and the run that made it, from its folder and what that refers to.

    A run that looked for its best step (``train.best``) gives the weights of that one, or those of its ``last`` step.
    An adaptation of the encoder (``lora``) is ``merged`` into its weights, or kept beside them.

    Raises:
        UserError: this is no run folder, it holds no weights yet, they do not fit its configuration, or a frozen part
            that is kept elsewhere is not there or has changed.
    """
    from filmstrip.runs.initial_weights import build_begun  # loads runs in turn

    folder = Path(folder)
    run = read_config(folder / CONFIG)
    objective = build_begun(run, folder, training=False)
    RunFolder(folder).load_weights(objective, last=last)
    if merged and run.lora is not None:
        from filmstrip.objectives.adaptation import merge_adaptation  # of few runs

        merge_adaptation(objective)
    return objective.to(default_device(device)).eval(), run


def save_data_info(info: DataInfo, folder: Path) -> None:
    """Keep what the data told the objective in the run folder: prediction needs the names of the classes."""
    write_json(to_json(info), folder / DATA)


def load_data_info(folder: str | Path) -> DataInfo:
    """What the data of a run told its objective.

    Raises:
        UserError: the folder does not say, or what it says is damaged.
    """
    path = Path(folder) / DATA
    if not path.exists():
        raise UserError(f"{folder} does not say what its data were: it has no {path.name}")
    try:
        info = from_json(json.loads(path.read_bytes()))
    except (OSError, TypeError, ValueError, KeyError) as error:
        raise UserError(f"{path} is damaged or cannot be read: {error}") from None
    if not isinstance(info, DataInfo):
        raise UserError(f"{path} does not describe the data of a run")
    return info


def load_classes(folder: str | Path) -> tuple[str, ...]:
    """The names of the classes that a run was trained on, in the order of its logits.

    Raises:
        UserError: the folder does not say.
    """
    return load_data_info(folder).classes


def default_device(device: torch.device | str | None = None) -> torch.device:
    """The device that was asked for; otherwise CUDA where there is one, else the CPU."""
    return torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
