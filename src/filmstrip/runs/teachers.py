"""Teachers of a method: from a run folder, or from the Hub or a folder in its layout."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

from filmstrip.errors import UserError
from filmstrip.objectives.config import ObjectiveConfig
from filmstrip.objectives.teachers import TaughtConfig, as_teacher
from filmstrip.protocols import Objective
from filmstrip.runs.config import Run, read_config
from filmstrip.runs.contents import CONFIG, is_run
from filmstrip.runs.encoders import load
from filmstrip.runs.hub import hub_architecture
from filmstrip.runs.run_folder import RunFolder
from filmstrip.weights.keymap import check_names

log = logging.getLogger(__name__)

_LAST_NORM = r"norm\.(?:weight|bias)"


def with_teachers(run: Run, folder: Path | None = None) -> Run:
    """This run with the networks of the teachers that it names by their runs: what its config.json should say.

    Where ``folder`` holds this run already, begun, it is asked instead: teachers' runs are not read again for it.

    Raises:
        UserError: there is no such run or model, or it is of a kind that cannot teach.
    """
    objective = run.objective
    if not isinstance(objective, TaughtConfig):
        return run
    begun = None
    if folder is not None and RunFolder.is_begun(folder):
        there = read_config(folder / CONFIG).objective
        begun = there if isinstance(there, type(objective)) else None
    networks: dict[str, Any] = {}
    for name in objective.used_teachers():
        source = objective.teacher_run(name)
        if source is None:
            continue
        known = begun is not None and begun.teacher_run(name) == source
        networks[name] = getattr(begun, name) if known else _network_of(source)
    return replace(run, objective=replace(objective, **networks))


def start_teachers(objective: Objective, run: Run) -> None:
    """Load the weights of the teachers from where ``run.objective`` says.

    Raises:
        UserError: they are not there or do not fit; or nothing is named, and it was not said that teachers may be
            untrained.
    """
    config = run.objective
    if not isinstance(config, TaughtConfig):
        return
    for name in config.used_teachers():
        source = config.teacher_run(name)
        if source is None:
            option = name.replace("_", "-")
            if not config.untrained_teachers:
                raise UserError(
                    f"the teacher {name} is untrained, and there is nothing to learn from it: name the run or the "
                    f"model that it is (--objective.{option}-run SOURCE), or ask for this "
                    "(--objective.untrained-teachers)"
                )
            log.warning("the teacher %s is untrained: name a trained one with --objective.%s-run", name, option)
            continue
        encoder, given = objective.get_submodule(f"{name}.encoder"), load(source, "cpu").encoder.state_dict()
        wanted = encoder.state_dict()
        check_names(f"{source} cannot be the teacher {name}: it", given, wanted, spare=(_LAST_NORM,))
        encoder.load_state_dict({key: given[key] for key in wanted})


def _network_of(source: str) -> ObjectiveConfig:
    """The configuration of the network that a source holds."""
    return read_config(Path(source) / CONFIG).objective if is_run(source) else as_teacher(hub_architecture(source))
