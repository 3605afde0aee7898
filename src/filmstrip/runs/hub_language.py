"""Language models that see, in the Hub's layout: their sizes, their tokenizer, and the files beside their weights."""

from __future__ import annotations

import json
import logging
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import Any

from filmstrip.data.kinds.conversations import Conversations
from filmstrip.data.kinds.documents import Documents
from filmstrip.errors import UserError
from filmstrip.objectives.language import VideoLanguageConfig
from filmstrip.runs.config import Run
from filmstrip.runs.hub import hub_folder
from filmstrip.text.conversation import HUB
from filmstrip.text.tokenizers import Pretrained
from filmstrip.weights.hub import config_of, preprocessing_of

log = logging.getLogger(__name__)

DESCRIBED = ("*.json", "*.jinja", "*.txt", "*.model")
"""Files of a published model that are no weights."""
_TOKENIZERS = ("tokenizer.json", "tokenizer.model", "spiece.model", "vocab.json")
_TEMPLATES = ("chat_template.jinja", "chat_template.json")
_OWN = ("objective.encoder", "objective.decoder", "objective.connector")


def with_language_of_init(run: Run, typed: Collection[str]) -> Run:
    """This run with the sizes and the tokenizer of the published model that ``init`` names, and frames of its size.

    Its weights are not read. ``typed`` are the dotted names of settings that a person gave.

    Raises:
        UserError: there is no such model, it is of another kind, it has no tokenizer and none was given, or a setting
            was given that it decides.
    """
    own, source = run.objective, str(run.init)
    if not isinstance(own, VideoLanguageConfig):
        return run
    if not own.hub_types:
        raise UserError(
            f"no published layout of {type(own).__name__} is known: start it from a run, or its parts from theirs "
            "(--objective.encoder-run, --objective.decoder-run)"
        )
    folder = hub_folder(source, *DESCRIBED)
    config = config_of(source, folder)
    if (kind := config.get("model_type", "model of unknown type")) not in own.hub_types:
        raise UserError(f"{source} is a {kind}, and this method starts from a {' or '.join(own.hub_types)}")
    sees = "vision_config" in config  # the files of LLaVA's authors have no encoder
    given = {name for name in typed if name.startswith(_OWN)} - (set() if sees else {"objective.encoder_run"})
    if given:
        raise UserError(f"{source} holds all parts: leave out {', '.join(sorted(given))}")
    if not sees and own.encoder_run is None:
        raise UserError(f"{source} holds no encoder: name the one that it is for (--objective.encoder-run SOURCE)")
    objective = replace(own.as_published(config, preprocessing_of(folder), source), published=True)
    size = getattr(objective.encoder, "size", None) or _size_of(objective.encoder)
    clip = run.data.clip
    if size is not None and size != clip.size and not own.any_size:
        if "data.clip.size" in typed:
            raise UserError(f"data.clip.size is {clip.size} and {source} sees {size} pixels: leave it out")
        low, high = (round(side * size / clip.size) for side in clip.short_side)
        clip = replace(
            clip, size=size, short_side=clip.short_side if "data.clip.short_side" in typed else (low, high)
        )
    if clip.native is not None and not any(name.startswith("data.clip.native") for name in typed):
        clip = replace(clip, native=objective.frame_sizes(clip.native))
    log.warning("%s says how large the network is, and how text is read", source)
    reads = read_as_there(run.data.reads, folder, source, typed)
    return replace(run, objective=objective.for_clip(clip), data=replace(run.data, clip=clip, reads=reads))


def read_as_there(reads: Any, folder: Path, source: str, typed: Collection[str]) -> Any:
    """Documents or conversations in the tokens of a published model, and these in its format where it has one.

    Raises:
        UserError: it has no tokenizer, and none was given.
    """
    if not isinstance(reads, (Conversations, Documents)):
        return reads
    if "data.reads.tokenizer" not in typed:
        if not any((folder / name).exists() for name in _TOKENIZERS):
            raise UserError(f"{source} brings no tokenizer: give one (--data.reads.tokenizer FOLDER)")
        reads = replace(reads, tokenizer=Pretrained(folder=str(folder)))
    in_format = isinstance(reads, Conversations) and has_chat_format(folder) and "data.reads.format" not in typed
    return replace(reads, format=HUB) if in_format else reads


def has_chat_format(folder: Path) -> bool:
    """Whether the tokenizer of a published model brings a format of conversations."""
    settings = folder / "tokenizer_config.json"  # where older ones have it
    return any((folder / name).exists() for name in _TEMPLATES) or (
        settings.exists() and bool(json.loads(settings.read_text(encoding="utf-8")).get("chat_template"))
    )


def _size_of(encoder: Any) -> int | None:
    """Side of the frames that a network of ``transformers`` sees, pixels."""
    size = dict(getattr(encoder, "settings", ())).get("image_size")
    return int(size) if size is not None else None


def described_in(source: str) -> tuple[dict[str, Any], list[Path]]:
    """The ``config.json`` of a published model, and its other files that are no weights.

    Raises:
        UserError: there is no such model.
    """
    folder = hub_folder(source, *DESCRIBED)
    files = [path for pattern in DESCRIBED for path in sorted(folder.glob(pattern))]
    return config_of(source, folder), [
        path for path in files if path.name != "config.json" and not path.name.endswith(".index.json")
    ]
