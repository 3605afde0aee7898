"""Towers of texts that begin as a model of text in the Hub's layout, which ``objective.text_run`` names."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

from filmstrip.data.kinds.captioned import Captioned
from filmstrip.errors import UserError
from filmstrip.protocols import Objective, TextFromTransformers
from filmstrip.runs.config import Run, read_config
from filmstrip.runs.contents import CONFIG
from filmstrip.runs.hub import hub_folder, hub_weights
from filmstrip.runs.initial_weights import check_shapes
from filmstrip.runs.run_folder import RunFolder
from filmstrip.text.tokenizers import Pretrained, Words
from filmstrip.weights.hub import HUB, config_of
from filmstrip.weights.keymap import check_names

log = logging.getLogger(__name__)


def with_text_tower(run: Run, folder: Path | None = None) -> Run:
    """This run with the tower of texts that it names, and that one's tokenizer in place of one that would be fitted.

    Where ``folder`` holds this run already, begun, it is asked instead: the model is not read again for it.

    Raises:
        UserError: there is no such model, it is of another kind, or captions are read by another tokenizer.
    """
    if (source := _source(run)) is None:
        return run
    own: Any = run.objective
    reads = run.data.reads
    if folder is not None and RunFolder.is_begun(folder):
        there = read_config(folder / CONFIG)
        begun: Any = there.objective
        if isinstance(begun, type(own)) and _source(there) == source:
            return replace(
                run, objective=replace(own, text=begun.text), data=replace(run.data, reads=there.data.reads)
            )
    found = hub_folder(source, "*.json", "*.txt")
    own = own.with_text_of_hub(config_of(source, found), source)
    if isinstance(reads, Captioned) and isinstance(reads.tokenizer, Words):
        reads = replace(reads, tokenizer=Pretrained(folder=str(found)))
    log.warning("%s says how large the tower of texts is, and how captions are read", source)
    return replace(run, objective=own, data=replace(run.data, reads=reads))


def start_text_tower(objective: Objective, run: Run) -> None:
    """Load the weights that the tower of texts begins with, from where ``run.objective`` says.

    Raises:
        UserError: they are not there or do not fit.
    """
    if (source := _source(run)) is None:
        return
    assert isinstance(objective, TextFromTransformers), "such a method starts so"
    try:
        given = objective.text_from_transformers(hub_weights(source))
    except UserError as error:
        raise UserError(f"{source}: {error}") from None
    wanted = {name: value for name, value in objective.state_dict().items() if name.startswith("text.")}
    check_names(f"{source} cannot start the tower of texts: it", given, wanted)
    check_shapes(given, wanted, source)
    objective.load_state_dict(given, strict=False)


def _source(run: Run) -> str | None:
    """Folder or address of the model that is named."""
    source: str | None = getattr(run.objective, "text_run", None) if run.objective.has_text_run else None
    if source is not None and (folder := Path(source.removeprefix(HUB)).expanduser()).is_dir():
        return str(folder)
    return source
