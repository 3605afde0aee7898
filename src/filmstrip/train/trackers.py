"""Trackers of experiments, through ``accelerate``: where recorded values also go while a run trains."""

from __future__ import annotations

import importlib.util
import json
import logging
import re
import secrets
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filmstrip.distributed import process
from filmstrip.errors import UserError
from filmstrip.files import write_json
from filmstrip.train.config import TrackerName

if TYPE_CHECKING:
    from accelerate.tracking import GeneralTracker

log = logging.getLogger(__name__)

PROJECT = "filmstrip"
"""Name of the project, or experiment, in which trackers put runs."""
RUNS = "trackers.json"
"""The file in a run's folder with the names that trackers know the run by, so that a resumed one goes on there."""
_EXTRAS = {"wandb": "wandb", "mlflow": "mlflow"}
_NOT_IN_MLFLOW = re.compile(r"[^\w\-./ ]")


def check_trackers(names: Sequence[TrackerName]) -> None:
    """See that the packages of trackers are installed.

    Raises:
        UserError: one is not; names the extra that installs it.
    """
    for name in names:
        if name in _EXTRAS and importlib.util.find_spec(name) is None:
            raise UserError(
                f"train.tracker {name} needs the package {name}: pip install 'filmstrip[{_EXTRAS[name]}]', or leave "
                "it out"
            )


class Trackers:
    """The trackers of one run. Only the first process has any; one that fails on the way is left out from then on."""

    def __init__(self, names: Sequence[TrackerName], folder: Path) -> None:
        self._names, self._folder = names, folder
        self._running: list[GeneralTracker] = []

    def start(self, step: int, settings: Mapping[str, Any]) -> None:
        """Start them after ``step`` steps of a run with these settings, or go on with what they have of it.

        Raises:
            UserError: one cannot start; says why.
        """
        if process.rank() != 0:
            return
        known = _known(self._folder)
        for name in dict.fromkeys(self._names):
            try:
                tracker = _MAKERS[name](self._folder, step, known)
                tracker.start()
                if name == "wandb" or (name == "mlflow" and name not in known):  # whose settings cannot change later
                    tracker.store_init_configuration(dict(settings))
            except Exception as error:  # of any kind: they are other people's, and may reach for the network
                raise UserError(f"train.tracker {name} cannot start: {error}") from error
            if name == "mlflow":
                known["mlflow"] = tracker.tracker.info.run_id
            self._running.append(tracker)
        if known:
            write_json(known, self._folder / RUNS)

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Hand over values of a step."""
        for tracker in list(self._running):
            own = dict(values)
            if tracker.name == "mlflow":
                own = {_NOT_IN_MLFLOW.sub("_", name): value for name, value in values.items()}
            try:
                tracker.log(own, step=step)
            except Exception as error:  # a server that does not answer must not end hours of training
                self._running.remove(tracker)
                log.warning("%s fails and gets nothing more of this run: %s", tracker.name, error)

    def finish(self) -> None:
        """Let them finish."""
        for tracker in self._running:
            try:
                tracker.finish()
            except Exception as error:
                log.warning("%s did not finish: %s", tracker.name, error)
        self._running = []


def _known(folder: Path) -> dict[str, str]:
    """The names by which trackers know the run in a folder."""
    try:
        found = json.loads((folder / RUNS).read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _tensorboard(folder: Path, step: int, known: dict[str, str]) -> GeneralTracker:
    from accelerate.tracking import TensorBoardTracker

    return TensorBoardTracker("tensorboard", logging_dir=folder, purge_step=step + 1)


def _wandb(folder: Path, step: int, known: dict[str, str]) -> GeneralTracker:
    from accelerate.tracking import WandBTracker

    identity = known.setdefault("wandb", secrets.token_hex(4))
    return WandBTracker(PROJECT, name=folder.resolve().name, dir=str(folder), id=identity, resume="allow")


def _mlflow(folder: Path, step: int, known: dict[str, str]) -> GeneralTracker:
    from accelerate.tracking import MLflowTracker

    return MLflowTracker(PROJECT, run_id=known.get("mlflow"), run_name=folder.resolve().name)


_MAKERS: dict[str, Callable[[Path, int, dict[str, str]], GeneralTracker]] = {
    "tensorboard": _tensorboard,
    "wandb": _wandb,
    "mlflow": _mlflow,
}
