"""Published text-to-video models in the layout of ``diffusers``: a folder with a folder for each of their parts."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from filmstrip.data.config import Clip
from filmstrip.data.kinds.captioned import Captioned
from filmstrip.errors import UserError
from filmstrip.models.video_dit_layouts import clip_of, context_length
from filmstrip.runs.config import Run
from filmstrip.runs.hub import address_of, hub_folder
from filmstrip.text.tokenizers import Pretrained
from filmstrip.weights.hub import config_of, json_of, within

log = logging.getLogger(__name__)

INDEX = "model_index.json"
NETWORK, SCHEDULER, TOKENIZER = "transformer", "scheduler", "tokenizer"
VAE, TEXT_ENCODER = "vae", "text_encoder"
_FILES = ("*.json", "*.safetensors", "*.model", "*.txt")
_RUNS = {"objective.tokenizer_run": VAE, "objective.text_run": TEXT_ENCODER}
SCHEDULER_FILE = "scheduler_config.json"


def with_pipeline_of_init(
    run: Run, typed: Collection[str], clip_with: Callable[[Clip, Mapping[str, Any], Collection[str]], Clip]
) -> Run:
    """This run with the sizes, the noise, the autoencoder and the encoder of texts of the model that ``init`` names.

    ``init`` is its folder, or that of its transformer alone, which says nothing of the other parts. Parts keep their
    places, on the Hub by their names there: the run refers to the autoencoder and the encoder of texts in them.
    ``typed`` are the dotted names of settings that a person gave; ``clip_with`` gives clips of other sizes.

    Raises:
        UserError: there is no such model, it is of another kind, it lacks a part, or a setting was given that it
            decides.
    """
    source = address_of(str(run.init))
    folder = hub_folder(source, *_FILES)
    whole = (folder / INDEX).exists()
    if whole:
        _check_index(json_of(folder / INDEX, str(run.init)), str(run.init))
    network = folder / NETWORK if whole else folder
    if given := sorted(name for name in typed if name.startswith("objective.transformer.")):
        raise UserError(f"{run.init} says how large its transformer is: leave out {', '.join(given)}")
    about = config_of(within(source, NETWORK) if whole else source, network)
    noise = _scheduler(folder) if whole else None
    own: Any = run.objective
    objective = own.of_pipeline(about, noise, str(run.init))
    data = run.data
    if whole:
        parts = {setting.partition(".")[2]: part for setting, part in _RUNS.items() if setting not in typed}
        if missing := [part for part in parts.values() if not (folder / part).is_dir()]:
            raise UserError(f"{run.init} lacks the folder {', '.join(missing)}: give a whole pipeline of diffusers")
        objective = replace(objective, **{name: within(source, part) for name, part in parts.items()})
        if isinstance(data.reads, Captioned) and not any(name.startswith("data.reads.tokenizer") for name in typed):
            tokenizer = Pretrained(folder=str(folder / TOKENIZER))
            length = data.reads.max_length if "data.reads.max_length" in typed else context_length(about)
            data = replace(data, reads=replace(data.reads, tokenizer=tokenizer, max_length=length))
    sizes = {name: size for name, size in clip_of(about).items() if f"data.clip.{name}" not in typed}
    clip = clip_with(data.clip, sizes, typed)
    log.warning("%s says how large the network is, what is noise and how texts are read", run.init)
    init = within(source, NETWORK) if whole else source
    return replace(run, init=init, objective=objective.for_clip(clip), data=replace(data, clip=clip))


def _check_index(index: Mapping[str, Any], source: str) -> None:
    """Refuse a pipeline of several networks, or one that tells each place its own time.

    Raises:
        UserError: it is one.
    """
    second = index.get("transformer_2") or (None, None)
    if any(second) or index.get("boundary_ratio") is not None:
        raise UserError(f"{source} has two transformers, one for much noise and one for little: one is known here")
    if index.get("expand_timesteps"):
        raise UserError(f"{source} gives each place a time of its own (expand_timesteps), which is not known here")


def _scheduler(folder: Path) -> dict[str, Any]:
    path = folder / SCHEDULER / SCHEDULER_FILE
    if not path.exists():
        raise UserError(f"{folder} lacks {SCHEDULER}/{SCHEDULER_FILE}, which says what is noise")
    return json_of(path, str(folder))
