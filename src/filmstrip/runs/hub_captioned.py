"""Methods of captioned data that begin with a model in the Hub's layout: its sizes, tokenizer and weights."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from filmstrip.data.config import Clip, Data
from filmstrip.data.kinds.captioned import Captioned
from filmstrip.errors import UserError
from filmstrip.objectives.config import ObjectiveConfig
from filmstrip.protocols import FromTransformers, Objective
from filmstrip.runs.config import Run
from filmstrip.runs.hub import hub_folder
from filmstrip.text.tokenizers import Pretrained
from filmstrip.weights.hub import config_of, preprocessing_of, statistics_of, weights_of
from filmstrip.weights.keymap import Weights

log = logging.getLogger(__name__)

_LENGTH = 30
"""Number of tokens of a caption, as in BLIP's training."""


def load_hub_method(
    source: str, method: Callable[[Weights], ObjectiveConfig | None]
) -> tuple[Objective, Data] | None:
    """A model in the Hub's layout as one of our methods, and how its data are read.

    ``method`` gives the configuration for its weights, with any sizes, or none for weights of another kind.

    Raises:
        UserError: there is no such model, it has no safetensors, or they do not fit.
    """
    folder = hub_folder(source)
    theirs = weights_of(source, folder)
    if (configuration := method(theirs)) is None:
        return None
    config, size = _in_hub(configuration, folder, source)
    objective = config.build()
    objective.load_state_dict(cast(FromTransformers, objective).from_transformers(theirs))
    clip = Clip(num_frames=1, sampling="uniform", size=size)
    return objective.eval(), Data(clip=clip, reads=_reads(folder))


def with_method_of_init(
    run: Run, typed: Collection[str], clip_of: Callable[[Clip, Mapping[str, Any], Collection[str]], Clip]
) -> Run:
    """This run with the networks, the frames and the tokenizer of the model in the Hub's layout that ``init`` names.

    ``typed`` are the names of settings that a person gave; ``clip_of`` gives clips of other sizes.

    Raises:
        UserError: a setting of the networks was given, or the source is of another kind.
    """
    source = str(run.init)
    folder = hub_folder(source, "*.json", "*.txt")
    if given := sorted(name for name in typed if name.startswith(("objective.vision.", "objective.text."))):
        raise UserError(f"{source} says how large its networks are: leave out {', '.join(given)}")
    objective, size = _in_hub(run.objective, folder, source)
    log.warning("%s says how large the networks are, and how captions are read", source)
    clip = clip_of(run.data.clip, {"size": size}, typed)
    own = any(name.startswith("data.reads") for name in typed)
    reads = run.data.reads if own else _reads(folder)
    return replace(run, objective=objective.for_clip(clip), data=replace(run.data, clip=clip, reads=reads))


def _in_hub(config: ObjectiveConfig, folder: Path, source: str) -> tuple[ObjectiveConfig, int]:
    """A method with a model's sizes, and the height and width of its frames."""
    preprocessing = preprocessing_of(folder)
    statistics = statistics_of(preprocessing) if "image_mean" in preprocessing else None
    return config.of_hub(config_of(source, folder), statistics, source)


def _reads(folder: Path) -> Captioned:
    return Captioned(tokenizer=Pretrained(folder=str(folder)), max_length=_LENGTH)
