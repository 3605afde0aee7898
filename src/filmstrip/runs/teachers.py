"""Teachers and other frozen networks of a method: from a run folder, the Hub, or a folder in its layout."""

from __future__ import annotations

import logging
from collections.abc import Container
from dataclasses import replace
from pathlib import Path
from typing import Any

from filmstrip.errors import UserError
from filmstrip.objectives.config import FrozenNetworksConfig, ObjectiveConfig
from filmstrip.protocols import Objective
from filmstrip.runs.config import Run, read_config
from filmstrip.runs.contents import CONFIG, is_run
from filmstrip.runs.encoders import copy_encoder
from filmstrip.runs.hub import hub_architecture
from filmstrip.runs.run_folder import RunFolder

log = logging.getLogger(__name__)


def with_teachers(run: Run, folder: Path | None = None) -> Run:
    """This run with the frozen networks that it names by their runs: what its config.json should say.

    Where ``folder`` holds this run already, begun, it is asked instead: networks' runs are not read again for it.

    Raises:
        UserError: there is no such run or model, or it has no encoder of a known kind.
    """
    objective = run.objective
    if not isinstance(objective, FrozenNetworksConfig):
        return run
    begun = None
    if folder is not None and RunFolder.is_begun(folder):
        there = read_config(folder / CONFIG).objective
        begun = there if isinstance(there, type(objective)) else None
    networks: dict[str, Any] = {}
    for name in objective.frozen_networks():
        source = objective.network_run(name)
        if source is None:
            continue
        known = begun is not None and begun.network_run(name) == source
        networks[name] = getattr(begun, name) if known else _network_of(objective, source)
    return replace(run, objective=replace(objective, **networks))


def start_teachers(
    objective: Objective, run: Run, *, training: bool = True, kept: Container[str] | None = None
) -> None:
    """Load the weights of the frozen networks from where ``run.objective`` says; without ``training``, not of those
    that only training needs; and of a run that has begun those alone whose settings are in ``kept``, its references.

    Raises:
        UserError: they are not there or do not fit; or nothing is named, and it was not said that they may be
            untrained.
    """
    config = run.objective
    if not isinstance(config, FrozenNetworksConfig) or (config.only_training and not training):
        return
    kind = config.network_kind
    for name in config.frozen_networks():
        source = config.network_run(name)
        if kept is not None and f"objective.{name}_run" not in kept:  # they are in the run itself
            continue
        if source is None:
            option = name.replace("_", "-")
            if not config.may_be_untrained():
                raise UserError(
                    f"the {kind} {name} is untrained, and there is nothing to learn from it: name the run or the "
                    f"model that it is (--objective.{option}-run SOURCE), or ask for this "
                    f"(--objective.untrained-{kind}s)"
                )
            log.warning("the %s %s is untrained: name a trained one with --objective.%s-run", kind, name, option)
            continue
        part = objective.get_submodule(config.part_of(name))
        if isinstance(part, Objective):
            from filmstrip.runs.initial_weights import start  # starts frozen networks in turn

            start(part, source)
        else:
            copy_encoder(part, source, f"the {kind} {name}")


def _network_of(config: FrozenNetworksConfig, source: str) -> ObjectiveConfig:
    """The configuration of the network that a source holds."""
    if is_run(source):
        return read_config(Path(source) / CONFIG).objective
    if config.takes_towers:
        from filmstrip.runs.hub_towers import hub_towers  # methods without such networks do without its rooms

        if (found := hub_towers(source)) is None:
            raise UserError(f"{source} is no SigLIP or SigLIP 2 in the Hub's layout, nor a run folder")
        return config.of_towers(found.vision, found.text)
    from filmstrip.objectives.teachers import as_encoder

    return as_encoder(hub_architecture(source))
