"""Language models of text alone: sizes and tokenizer of what they start from, and the data that they read."""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from filmstrip.data.kinds.conversations import Conversations, padded
from filmstrip.data.kinds.documents import Documents
from filmstrip.data.kinds.vision_text import VisionText
from filmstrip.errors import UserError
from filmstrip.inference import on_device
from filmstrip.models.decoder import DecoderConfig
from filmstrip.objectives.latent import LatentConfig
from filmstrip.objectives.text import TextModel, TextModelConfig
from filmstrip.protocols import TextWriter
from filmstrip.runs.config import Run, read_config
from filmstrip.runs.contents import CONFIG, is_run
from filmstrip.runs.hub import hub_decoder, hub_folder, hub_weights
from filmstrip.runs.hub_language import DESCRIBED, has_chat_format, read_as_there
from filmstrip.runs.loading import default_device, load_objective
from filmstrip.text.conversation import HUB, Serialiser
from filmstrip.text.tokenizers import Pretrained, TextTokenizer, open_tokenizer
from filmstrip.weights.keymap import check_names, some

log = logging.getLogger(__name__)

_BASE, _INDEX_SCALE = "objective.decoder.rope_base", "objective.decoder.rope_index_scale"
"""Settings of a language model that its weights do not depend on."""


def with_text_model_of_init(run: Run, typed: Collection[str]) -> Run:
    """This run with the sizes of the language model that ``init`` names, and its tokenizer; the rotary base is this
    run's own. Other methods' runs are returned as they are.

    Its weights are not read. ``typed`` are the dotted names of settings that a person gave.

    Raises:
        UserError: there is no such model, it has another rotary base than this run begins at, or a setting was given
            that it decides.
    """
    own = run.objective
    if not isinstance(own, TextModelConfig) or run.init is None:
        return run
    source = run.init
    decides = sorted(
        name for name in typed if name.startswith("objective.decoder.") and name not in (_BASE, _INDEX_SCALE)
    )
    if decides:
        raise UserError(f"{source} says how large the language model is: leave out {', '.join(decides)}")
    given = _decoder_of(source)
    if _INDEX_SCALE in typed:
        given = replace(given, rope_index_scale=own.decoder.rope_index_scale)
    objective = own.of_init(given, source)
    if isinstance(objective, LatentConfig):
        objective = replace(objective, **_codes_of_init(objective, source))
    reads = run.data.reads
    if not is_run(source) and isinstance(reads, (Documents, Conversations)):
        reads = read_as_there(reads, hub_folder(source, *DESCRIBED), source, {*typed, "data.reads.format"})
    log.warning("%s says how large the language model is, and how text is read", source)
    return replace(run, objective=objective, data=replace(run.data, reads=reads))


def _codes_of_init(own: LatentConfig, source: str) -> dict[str, Any]:
    """The tokenizer of the run that a model of codes starts from, where it names none of its own.

    Raises:
        UserError: neither has one.
    """
    if own.tokenizer_run is not None:
        return {}
    there = read_config(Path(source) / CONFIG).objective if is_run(source) else None
    if isinstance(there, LatentConfig):
        log.warning("%s says which tokenizer codes videos", source)
        return {"tokenizer": there.tokenizer, "tokenizer_run": there.tokenizer_run}
    if own.untrained_tokenizer:
        return {}
    raise UserError(
        f"{source} is a language model of text, which codes no videos: name the tokenizer, a run or a folder in the "
        "layout of diffusers (--objective.tokenizer-run FOLDER)"
    )


def _decoder_of(source: str) -> DecoderConfig:
    """The sizes of the language model at a source."""
    if not is_run(source):
        return hub_decoder(source)
    there = read_config(Path(source) / CONFIG).objective
    if not isinstance(there, TextModelConfig):
        raise UserError(
            f"{source} holds a {type(there).__name__}, which is no language model of text alone: start from a run of "
            "language.lwm_text, or a language model in the Hub's layout"
        )
    return there.decoder


def with_frame_tokens(run: Run) -> Run:
    """This run, told how many tokens of its streams the frames of videos take, where it reads videos as codes.

    Raises:
        UserError: it reads other data than streams of text and videos.
    """
    own, reads = run.objective, run.data.reads
    if not isinstance(own, TextModelConfig) or (takes := own.tokens_of_frame()) is None:
        return run
    if not isinstance(reads, VisionText):
        raise UserError(
            f"{type(own).__name__} reads text and videos in one stream, and data.reads is {type(reads).__name__}: "
            "leave it out, or give --data.reads vision_text"
        )
    return replace(run, data=replace(run.data, reads=reads.with_frame_tokens(*takes, run.data.clip.num_frames)))


def with_text_alone(run: Run) -> Run:
    """This run with conversations as text alone, which is all that a language model of text reads."""
    reads = run.data.reads
    if not run.objective.continues_text or not isinstance(reads, Conversations) or reads.text_alone:
        return run
    return replace(run, data=replace(run.data, reads=replace(reads, visuals=0)))


@dataclass(frozen=True)
class TextModelWithTokenizer:
    """A language model of text that writes."""

    model: TextModel
    tokenizer: TextTokenizer
    serialiser: Serialiser | None
    """How it converses; none of a model that only goes on with texts."""


def load_text_model(source: str, device: torch.device | str | None = None) -> TextModelWithTokenizer:
    """The language model of a run folder, or of one in LLaMA's or GPT-2's layout of ``transformers`` (``hf:FOLDER``,
    or its path).

    Raises:
        UserError: there is none, its weights do not fit, or it has no tokenizer.
    """
    if is_run(source):
        objective, run = load_objective(source, device)
        if not isinstance(objective, TextModel):
            raise UserError(
                f"{source} holds a {type(objective).__name__}, which is no language model of text alone: give a run "
                "of language.lwm_text, or a language model in the layout of transformers"
            )
        tokenizer, reads = open_tokenizer(Path(source)), run.data.reads
        converses = isinstance(reads, Conversations)
        serialiser = Serialiser(tokenizer, reads.format, visuals=False) if converses else None  # type: ignore[attr-defined]
        return TextModelWithTokenizer(objective, tokenizer, serialiser)
    model = TextModelConfig(decoder=hub_decoder(source)).build()
    weights, own = model.from_transformers(hub_weights(source)), model.state_dict()
    check_names(source, weights, own)
    if unlike := [name for name, weight in weights.items() if weight.shape != own[name].shape]:
        raise UserError(f"{source} has weights of other shapes than its config.json says: {some(unlike)}")
    device = default_device(device)
    model.load_state_dict({name: weight.float() for name, weight in weights.items()})
    folder = hub_folder(source, *DESCRIBED)
    tokenizer = Pretrained(folder=str(folder)).fit(())
    serialiser = Serialiser(tokenizer, HUB, visuals=False) if has_chat_format(folder) else None
    return TextModelWithTokenizer(model.to(device).eval(), tokenizer, serialiser)


def written(
    model: TextWriter,
    prompts: Sequence[Sequence[int]],
    *,
    stops: Sequence[Sequence[int]],
    pad: int,
    count: int,
    device: torch.device,
    sampling: Any = None,
    seed: int | Tensor = 0,
) -> list[list[int]]:
    """At most ``count`` ids after each prompt, without the first of the ``stops`` and what would follow it.

    By default the most probable ones; see :meth:`~filmstrip.protocols.TextWriter.write_on`.
    """
    batch = on_device(padded(prompts, pad), device)
    rows: list[list[int]] = [[] for _ in prompts]
    ended = [False] * len(rows)
    for ids in model.write_on(batch, count=count, seed=seed, sampling=sampling):
        for i, (row, token) in enumerate(zip(rows, ids.tolist())):
            if ended[i]:
                continue
            row.append(token)
            for stop in stops:
                if row[-len(stop) :] == list(stop):
                    del row[-len(stop) :]
                    ended[i] = True
                    break
        if all(ended):
            break
    return rows
