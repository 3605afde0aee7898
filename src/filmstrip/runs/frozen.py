"""Frozen parts of a run, kept by reference and fingerprint, never copied into its folder or its states.

A configuration names them, with the setting that says where their weights come from
(:meth:`~filmstrip.runs.config.ObjectiveConfig.frozen_parts`). ``frozen.json`` records each place with the SHA-256 of
its weights; whoever loads the run finds the place again and verifies it. ``filmstrip export RUN --format run`` writes
a folder with copies.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from filmstrip.errors import UserError
from filmstrip.files import write_json
from filmstrip.runs.config import Run, read_config
from filmstrip.runs.contents import CONFIG, COPIES, FROZEN, LOCK, STATE, WEIGHTS, is_run
from filmstrip.runs.hub import address_of, is_on_hub
from filmstrip.weights.fingerprint import file_fingerprint, joint_fingerprint
from filmstrip.weights.hub import SHARDS, files_of_hub


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where the weights of a frozen part are."""

    path: str
    """A run folder, a folder in the Hub's layout, a file of weights, or the name of a model on the Hub."""
    relative: str | None
    """The same as seen from the run folder, so that both can be moved together; none on the Hub."""
    sha256: str
    """Fingerprint of the weights there."""


References = Mapping[str, tuple[Place, ...]]
"""Places by the setting that named them, such as ``objective.tokenizer_run``."""


def refer(run: Run, folder: Path) -> References:
    """The places of the frozen parts of a run that begins in ``folder``.

    Raises:
        UserError: there are no weights at one of them.
    """
    settings = dict.fromkeys(part.setting for part in run.objective.frozen_parts().values())
    named = {setting: _paths(run, setting) for setting in settings}
    for setting, paths in named.items():
        for path in paths:
            if not Path(path).exists() and not is_on_hub(path):
                raise UserError(f"{setting} names {path}, which is not there")
    return {setting: tuple(_place(path, folder) for path in paths) for setting, paths in named.items() if paths}


def kept_elsewhere(run: Run, references: References) -> tuple[str, ...]:
    """The names of the parts of a run's objective for which references stand."""
    return tuple(name for name, part in run.objective.frozen_parts().items() if part.setting in references)


def write_references(references: References, folder: Path) -> None:
    """Write ``frozen.json``, if there are any references."""
    if references:
        written = {setting: [asdict(place) for place in places] for setting, places in references.items()}
        write_json(written, folder / FROZEN)


def read_references(folder: Path) -> References:
    """The references of a run folder; none if it holds everything itself.

    Raises:
        UserError: ``frozen.json`` is damaged.
    """
    path = folder / FROZEN
    if not path.exists():
        return {}
    try:
        written = json.loads(path.read_bytes())
        return {setting: tuple(Place(**place) for place in places) for setting, places in written.items()}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise UserError(f"{path} is damaged or cannot be read: {error}") from None


def found_again(run: Run, folder: Path, references: References, *, training: bool) -> Run:
    """The run, whose settings name the places where the weights are now; their fingerprints are verified.

    A copy in the run folder comes first, then the recorded path, then the same place as seen from the folder. Without
    ``training``, what only that needs is not looked for.

    Raises:
        UserError: the weights of a part are not there, or have changed.
    """
    for setting, places in references.items():
        if training or _is_always_needed(run, setting):
            run = _with_paths(run, setting, [_found(place, setting, folder) for place in places])
    return run


def copy_whole(folder: Path, out: Path) -> None:
    """Copy a run folder without its states, and the frozen parts that using it needs into it.

    Raises:
        UserError: a frozen part is not where it was, or has changed.
    """
    run, references = read_config(folder / CONFIG), read_references(folder)
    places = {
        setting: [(place, _found(place, setting, folder)) for place in places]
        for setting, places in references.items()
        if _is_always_needed(run, setting)
    }
    shutil.copytree(folder, out, ignore=shutil.ignore_patterns(STATE, COPIES, LOCK), dirs_exist_ok=True)
    for setting, found in places.items():
        for place, path in found:
            copy = _copy_of(place, setting, out)
            if Path(path).is_file():
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, copy)
            elif is_run(path):
                copy_whole(Path(path), copy)
            else:
                copy.mkdir(parents=True, exist_ok=True)
                for file in files_of_hub(address_of(path)):
                    shutil.copyfile(file, copy / file.name)


def fingerprint_of(path: str) -> str:
    """The SHA-256 of the weights at a place; those of a run's frozen parts, which are elsewhere, are included.

    Raises:
        UserError: there is nothing, or nothing that holds weights.
    """
    if Path(path).is_file():
        return file_fingerprint(Path(path))
    if not is_run(path):
        return joint_fingerprint(
            [
                file_fingerprint(file)
                for file in files_of_hub(address_of(path))
                if file.name != CONFIG and not file.name.endswith(SHARDS)
            ]
        )
    weights = Path(path) / WEIGHTS
    if not weights.exists():
        raise UserError(f"{path} holds no weights yet: let the run finish, or reach train.save_every steps")
    others = [place.sha256 for places in read_references(Path(path)).values() for place in places]
    return joint_fingerprint([file_fingerprint(weights), *others])


def _place(path: str, folder: Path) -> Place:
    if is_on_hub(path):
        return Place(path=path, relative=None, sha256=fingerprint_of(path))
    here = os.path.abspath(path)
    return Place(path=here, relative=os.path.relpath(here, folder.resolve()), sha256=fingerprint_of(path))


def _found(place: Place, setting: str, folder: Path) -> str:
    """The path at which the weights of a place are now.

    Raises:
        UserError: they are not to be found; names what was found instead.
    """
    candidates = [str(_copy_of(place, setting, folder)), place.path]
    if place.relative is not None:
        candidates.append(os.path.normpath(folder / place.relative))
    seen = []
    for path in dict.fromkeys(candidates):
        if not Path(path).exists() and not is_on_hub(path):
            if path != candidates[0]:
                seen.append(f"{path} is not there")
            continue
        try:
            found = fingerprint_of(path)
        except UserError as error:
            seen.append(str(error))
            continue
        if found == place.sha256:
            return path
        seen.append(f"the weights in {path} have {found[:12]}...")
    raise UserError(
        f"{folder} keeps the frozen part that {setting} named by reference, as weights with the SHA-256 "
        f"{place.sha256[:12]}..., and they cannot be found: {'; '.join(seen)}. Put them back, or write where they "
        f'are now as the "path" of {setting} in {folder / FROZEN}'
    )


def _copy_of(place: Place, setting: str, folder: Path) -> Path:
    """Where a run folder holds its copy of a place, if it has one."""
    return folder / COPIES / setting / Path(place.path).name


def _is_always_needed(run: Run, setting: str) -> bool:
    return any(part.setting == setting and not part.only_training for part in run.objective.frozen_parts().values())


def _paths(run: Run, setting: str) -> tuple[str, ...]:
    """What a setting names: nothing, a path or several."""
    owner, _, name = setting.rpartition(".")
    value = getattr(run.objective if owner else run, name)
    if value is None:
        return ()
    return tuple(str(path) for path in (value if isinstance(value, tuple) else (value,)))


def _with_paths(run: Run, setting: str, paths: list[str]) -> Run:
    owner, _, name = setting.rpartition(".")
    several = isinstance(getattr(run.objective if owner else run, name), tuple)
    changed: dict[str, Any] = {name: tuple(Path(path) for path in paths) if several else paths[0]}
    return replace(run, objective=replace(run.objective, **changed)) if owner else replace(run, **changed)
