"""Trainings that the studio starts: as ``filmstrip train`` in processes of their own, stopped so that they save."""

from __future__ import annotations

import re
import subprocess
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from filmstrip import systems
from filmstrip.errors import UserError
from filmstrip.report.markup import Markup, join, tag
from filmstrip.studio.jobs import command_line, last_words, start, stop
from filmstrip.studio.places import Places

GROUP = "recognition."
"""Group of systems that learn classes of films."""
SUGGESTED = ("recognition.r2plus1d:small", "recognition.r2plus1d:tiny", "recognition.vit:tiny")
"""Presets that come first in the list."""
LOGS = "trainings"
"""Folder of the studio's own for what trainings say."""
STOPPED = (143, 130, -15, -2)
"""Exit codes of a training that was stopped."""
PATIENCE = 120.0
"""Time that a stopped training has to finish its step and save, seconds."""


@dataclass
class Training:
    """A training that this server started."""

    name: str
    command: str
    process: subprocess.Popen[bytes] = field(repr=False)
    is_stopping: bool = False

    @property
    def is_at_work(self) -> bool:
        """Whether it still trains."""
        return self.process.poll() is None

    @property
    def is_failed(self) -> bool:
        """Whether it ended otherwise than by itself or by being stopped."""
        return self.process.poll() not in (None, 0, *STOPPED)


class Trainings:
    """All trainings of a server, by the names of their runs."""

    def __init__(self) -> None:
        self._trainings: dict[str, Training] = {}
        self._lock = threading.Lock()

    def get(self, name: str) -> Training | None:
        """A training; None if this server did not start it."""
        return self._trainings.get(name)

    def all(self) -> list[Training]:
        """All trainings."""
        return list(self._trainings.values())

    def start(self, places: Places, name: str, arguments: list[str]) -> Training:
        """Start the training of a run.

        Raises:
            UserError: there is such a run, or a training of this name is at work.
        """
        with self._lock:
            known = self._trainings.get(name)
            if (known is not None and known.is_at_work) or (places.runs / name).exists():
                raise UserError(f"there is a run {name!r} already: choose another name")
            log = log_of(places, name)
            log.parent.mkdir(parents=True, exist_ok=True)
            log.unlink(missing_ok=True)
            training = Training(name, command_line(arguments), start(arguments, log))
            self._trainings[name] = training
            return training

    def stop(self, name: str) -> None:
        """Ask a training to save and stop; does not wait for it.

        Raises:
            UserError: this server did not start it.
        """
        training = self._trainings.get(name)
        if training is None:
            raise UserError(
                f"the studio did not start the training of {name!r}: stop it where it was started (Ctrl-C)"
            )
        if training.is_at_work and not training.is_stopping:
            training.is_stopping = True
            threading.Thread(target=stop, args=(training.process, PATIENCE), daemon=True).start()

    def close(self) -> None:
        """Stop all trainings, and wait until they have saved."""
        for training in self.all():
            if training.is_at_work:
                training.process.terminate()
        for training in self.all():
            stop(training.process, PATIENCE)


def log_of(places: Places, name: str) -> Path:
    """The file with what the training of a run says."""
    return places.own / LOGS / f"{name}.log"


def presets() -> list[str]:
    """The presets that learn classes of films, the suggested ones first."""
    every = [
        f"{name}:{preset}" for name in systems.names() if name.startswith(GROUP) for preset in systems.presets(name)
    ]
    return [*SUGGESTED, *(name for name in every if name not in SUGGESTED)]


def command_for(places: Places, data: Path, given: Mapping[str, Any]) -> tuple[str, list[str]]:
    """The name of a run and the arguments that train it on a manifest.

    Raises:
        UserError: the preset, the name or the number of steps is not valid.
    """
    preset, name = str(given.get("preset", "")), str(given.get("name", "")).strip()
    if preset not in presets():
        raise UserError(f"there is no preset {preset!r}: choose one of the list")
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}", name):
        raise UserError(
            f"the name {name!r} cannot be that of a run: use letters, digits, dots, hyphens and underscores"
        )
    arguments = ["train", preset, "--data", str(data), "--out", str(places.runs / name)]
    if steps := str(given.get("steps", "")).strip():
        if not steps.isdecimal() or not 1 <= int(steps) <= 10**7:
            raise UserError(
                f"the number of steps is {steps!r}: expected 1 to 10000000, or nothing for the preset's own"
            )
        arguments += ["--train.steps", steps]
    return name, arguments


def shown(training: Training, places: Places) -> Markup:
    """A training as the pages show it: what it says, and a button to stop it."""
    said = last_words(log_of(places, training.name), 6)
    code = training.process.poll()
    if code is None:
        state = "is stopping: it finishes its step and saves" if training.is_stopping else "is at work"
        button = tag("button", "Stop", type="button", class_="danger", data_stop=training.name)
        head = join([tag("strong", training.name), f" {state}. ", None if training.is_stopping else button])
    elif not training.is_failed:
        head = join(
            [tag("strong", training.name), " has ended." if code == 0 else " was stopped; it keeps what it saved."]
        )
    else:
        head = join([tag("strong", training.name), tag("span", " failed:", class_="problem")])
    return tag("div", tag("p", head), tag("pre", said), class_="log-box")
