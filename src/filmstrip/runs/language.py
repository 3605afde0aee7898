"""Parts of language models that see: encoders and language models from run folders, or in the Hub's layout."""

from __future__ import annotations

import logging
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from filmstrip.data.kinds.conversations import Conversations
from filmstrip.errors import UserError
from filmstrip.models.decoder import Decoder
from filmstrip.models.llama_layout import copy_decoder, load_decoder
from filmstrip.objectives.language import VideoLanguage, VideoLanguageConfig
from filmstrip.objectives.teachers import as_encoder
from filmstrip.protocols import Objective
from filmstrip.runs.config import Run, read_config
from filmstrip.runs.contents import CONFIG, is_run
from filmstrip.runs.hub import hub_decoder, hub_folder, hub_network, hub_weights
from filmstrip.runs.hub_language import DESCRIBED
from filmstrip.runs.run_folder import RunFolder
from filmstrip.text.tokenizers import Words, tokenizer_named

log = logging.getLogger(__name__)

_PARTS = ("encoder", "decoder")


def with_reading_of_parts(run: Run, typed: Collection[str] = ()) -> Run:
    """This run with clips cut as in the run that its encoder is of, and text in its language model's own tokens.

    An encoder knows what it was trained on, and a language model no other ids. Settings that a person gave, by their
    dotted names in ``typed``, stay. Encoders in the Hub's layout say nothing of clips.

    Raises:
        UserError: there is no such run or model.
    """
    own, data = run.objective, run.data
    if not isinstance(own, VideoLanguageConfig):
        return run
    if own.encoder_run is not None and is_run(own.encoder_run):
        kept = {name.split(".")[2] for name in typed if name.startswith("data.clip.")}
        there = read_config(Path(own.encoder_run) / CONFIG).data.clip
        clip = replace(there, **{name: getattr(data.clip, name) for name in kept})
        if clip != data.clip:
            log.warning("clips are cut as in %s, which the encoder is of", own.encoder_run)
        data = replace(data, clip=clip)
    reads, source = data.reads, None if "data.reads.tokenizer" in typed else own.decoder_run
    if source is not None and isinstance(reads, Conversations) and isinstance(reads.tokenizer, Words):
        folder = source if is_run(source) else hub_folder(source, *DESCRIBED)
        log.warning("text is read by the tokenizer of %s, which the language model is of", source)
        data = replace(data, reads=replace(reads, tokenizer=tokenizer_named(str(folder))))
    return replace(run, data=data)


def with_parts(run: Run, folder: Path | None = None) -> Run:
    """This run with the networks of the encoder and the language model that it names: what its config.json says.

    Where ``folder`` holds this run already, begun, it is asked instead: the parts' places are not read again for it.

    Raises:
        UserError: there is no such run or model, or it has no such part.
    """
    own = run.objective
    if not isinstance(own, VideoLanguageConfig):
        return run
    begun = None
    if folder is not None and RunFolder.is_begun(folder):
        there = read_config(folder / CONFIG).objective
        begun = there if isinstance(there, type(own)) else None
    networks: dict[str, Any] = {}
    for part in _PARTS:
        source = getattr(own, f"{part}_run")
        if source is None:
            continue
        known = begun is not None and getattr(begun, f"{part}_run") == source
        networks[part] = getattr(begun, part) if known else _network_of(source, part)
    return replace(run, objective=replace(own, **networks)) if networks else run


def with_visual_tokens(run: Run) -> Run:
    """This run, told how many tokens of a conversation a visual takes.

    Raises:
        UserError: it was told another number, or conversations have no room for text beside a visual.
    """
    reads = run.data.reads
    if not isinstance(run.objective, VideoLanguageConfig) or not isinstance(reads, Conversations):
        return run
    if reads.text_alone:
        raise UserError(
            f"{type(run.objective).__name__} sees, and data.reads.visuals 0 makes batches of text alone: leave it "
            "out, or train language.lwm_text"
        )
    clip = run.data.clip
    with torch.device("meta"):
        model = run.objective.build()
        assert isinstance(model, VideoLanguage)
        try:
            takes = model.num_tokens(clip)
        except ValueError as error:
            raise UserError(f"this model cannot see clips of {clip.size} x {clip.size} pixels: {error}") from None
    still = None
    if reads.visuals > 1:
        if not model.sees_several:
            raise UserError(
                f"{type(model).__name__} reads one visual a conversation: data.reads.visuals is {reads.visuals}"
            )
        still = model.num_tokens(replace(clip, num_frames=1))
    if reads.timestamps and not model.frames_apart:
        raise UserError(
            f"{type(model).__name__} has no place for times between frames: leave out data.reads.timestamps"
        )
    if reads.visuals > 1 and model.frames_apart and not reads.timestamps:
        raise UserError(
            f"{type(model).__name__} tells several videos apart by the times of their frames: give "
            "--data.reads.timestamps, or one visual a conversation"
        )
    frames = f"{clip.num_frames} frames of {clip.size} x {clip.size} pixels take {takes} tokens"
    if reads.visual_tokens not in (None, takes):
        raise UserError(f"data.reads.visual_tokens is {reads.visual_tokens}, and {frames}: leave it out")
    if reads.max_length <= takes:
        raise UserError(
            f"{frames}, and a conversation has at most {reads.max_length}: nothing is left for what is said; raise "
            "--data.reads.max-length, or lower --data.clip.num-frames or --data.clip.size"
        )
    reads = replace(reads, visual_tokens=takes, image_tokens=still)
    return replace(run, data=replace(run.data, reads=reads))


def start_trained_parts(objective: Objective, run: Run) -> None:
    """Load the weights that parts begin with which are trained, from where ``run.objective`` says.

    Raises:
        UserError: they are not there or do not fit.
    """
    config = run.objective
    if isinstance(config, VideoLanguageConfig) and isinstance(objective, VideoLanguage):
        for part in _PARTS:
            if part in config.trains and (source := getattr(config, f"{part}_run")) is not None:
                _start(objective, part, source)


def start_frozen_parts(objective: Objective, run: Run, only: Collection[str] | None = None) -> None:
    """Load the weights of an encoder and a language model that are frozen, from where ``run.objective`` says.

    ``only`` are the settings whose parts are loaded, by default all.

    Raises:
        UserError: they are not there or do not fit; or a frozen part has no source, and it was not said that it may
            be untrained.
    """
    config = run.objective
    if not isinstance(config, VideoLanguageConfig) or not isinstance(objective, VideoLanguage):
        return
    for part in _PARTS:
        source, setting = getattr(config, f"{part}_run"), f"objective.{part}_run"
        if part in config.trains or (only is not None and setting not in only):
            continue
        if source is not None:
            _start(objective, part, source)
        elif run.init is None:
            _say_untrained(part, config.untrained_parts)


def _start(objective: VideoLanguage, part: str, source: str) -> None:
    if part == "decoder":
        _start_decoder(objective.decoder, source)
    else:
        from filmstrip.runs.encoders import copy_encoder  # loads runs in turn

        copy_encoder(objective.encoder, source, "the encoder")


def _say_untrained(part: str, allowed: bool) -> None:
    option = f"--objective.{part}-run"
    if not allowed:
        raise UserError(
            f"the {part} is frozen and untrained: name the run or the model that it is ({option} SOURCE), train it "
            "(objective.trains), or ask for this (--objective.untrained-parts)"
        )
    log.warning("the %s is frozen and untrained: name a trained one with %s", part, option)


def _network_of(source: str, part: str) -> Any:
    """The configuration of a part that a source holds."""
    if not is_run(source):
        return hub_decoder(source) if part == "decoder" else as_encoder(hub_network(source))
    there = read_config(Path(source) / CONFIG).objective
    if part == "encoder":
        return there.encoder if isinstance(there, VideoLanguageConfig) else there
    if not isinstance(there, VideoLanguageConfig):
        raise UserError(f"{source} holds a {type(there).__name__}, which has no language model")
    return there.decoder


def _start_decoder(decoder: Decoder, source: str) -> None:
    """Copy a language model into a decoder of its sizes, whose adaptation, if any, stays."""
    from filmstrip.runs.loading import load_objective  # loads runs in turn

    if not is_run(source):
        load_decoder(decoder, hub_weights(source), source)
        return
    given, _ = load_objective(source, "cpu")
    if not isinstance(given, VideoLanguage):
        raise UserError(f"{source} holds a {type(given).__name__}, which has no language model")
    copy_decoder(decoder, given.decoder.state_dict(), f"{source} cannot be the language model: it")
