"""Moments of a video that sentences describe: found, printed, drawn, and written as subtitles."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from torch import Tensor

from filmstrip.commands.find import Find
from filmstrip.commands.work.feature_encoder import features_along, load_feature_encoder
from filmstrip.commands.work.timeline import (
    Answer,
    FoundMoment,
    Highlight,
    Search,
    as_json,
    check_out,
    render,
    write_all,
)
from filmstrip.data.kinds.moments import MomentInfo, MomentRecord, Moments, recorded_moments
from filmstrip.data.localisation.sequences import FeatureSequence
from filmstrip.data.moments.text import QueryFeatures, TextEncoder, sentence
from filmstrip.data.moments.video import scaled, shortened
from filmstrip.errors import UserError
from filmstrip.inference import device_of, inference, on_device
from filmstrip.nn.segments import iou
from filmstrip.protocols import Batch, Grounder, Grounding
from filmstrip.runs.encoders import VideoEncoder
from filmstrip.runs.loading import load_data_info, load_objective


@dataclass(frozen=True)
class Finder:
    """A trained grounder with the frozen encoders of its features."""

    grounder: Grounder
    config: Moments
    info: MomentInfo
    record: MomentRecord
    encoder: VideoEncoder
    words: QueryFeatures


def find(command: Find) -> None:
    """Print what each query finds; with ``out``, also write it.

    Raises:
        UserError: the run finds no moments, a file has another ending than those known, there is no query, or the
            video cannot be read.
    """
    check_out(command.out)
    if not command.queries:
        raise UserError('find needs a sentence: filmstrip find RUN FILE "the shapes move up"')
    finder = load_finder(command.run, command.encoder, command.text_encoder)
    found, pictures = search(
        finder, command.video, command.queries, top_k=command.top_k, max_overlap=command.max_overlap
    )
    told = {"run": str(command.run), **as_json(found)}
    if command.json:
        json.dump(told, sys.stdout, indent=2)
        print()
    else:
        console = Console()
        console.print(render(found, console.width))
    write_all(found, pictures, told, command.out)


def load_finder(folder: Path, encoder: str | None = None, text_encoder: Path | None = None) -> Finder:
    """A run that finds moments, with the encoders of its features or the ones provided.

    Raises:
        UserError: the run does not find moments, an encoder is unknown, or has other weights than in training.
    """
    objective, run = load_objective(folder)
    record, info, config = recorded_moments(folder), load_data_info(folder), run.data.reads
    assert isinstance(config, Moments) and isinstance(info, MomentInfo), "the run has a record of moments"
    if not isinstance(objective, Grounder):
        raise UserError(
            f"{folder} holds a {type(objective).__name__}, which finds no moments: use a run of grounding.*"
        )
    if text_encoder is not None:
        words: QueryFeatures = TextEncoder(text_encoder)
    elif config.text:
        raise UserError(
            f"{folder} was trained on arrays of queries' features: provide the text encoder that made them "
            "(--text-encoder FOLDER)"
        )
    else:
        words = config.query_features()
    known = record.text_weights
    if isinstance(words, TextEncoder) and known is not None and words.fingerprint != known:
        raise UserError(f"{words.folder} has other weights than the text encoder of {folder} (--text-encoder)")
    if words.width != info.text_width:
        raise UserError(
            f"the text encoder's features have {words.width} channels, and the run's had {info.text_width}"
        )
    model = load_feature_encoder(folder, record, encoder)
    return Finder(objective, config, info, record, model, words)


def search(
    finder: Finder, video: Path, queries: Sequence[str], *, top_k: int = 3, max_overlap: float = 1.0
) -> tuple[Search, list[tuple[float, Tensor]]]:
    """What each query finds in a video, and some of its frames (``C H W`` uint8) with their times in seconds.

    Raises:
        UserError: the video cannot be read, or is too short.
    """
    sequence, seconds, pictures = encode_video(finder, video)
    batch = batch_of(finder, sequence, seconds, queries)
    assert isinstance(finder.grounder, torch.nn.Module), "grounders are objectives"
    with inference(finder.grounder):
        found = finder.grounder.ground(on_device(batch, device_of(finder.grounder)))
    answers = [answer for row in found for answer in row]
    middle = sequence.first + sequence.step * np.arange(len(sequence.features))
    listed = tuple(
        Answer(query, _best(answer, top_k, max_overlap), _highlights(answer, middle))
        for query, answer in zip(queries, answers, strict=True)
    )
    return Search(str(video), seconds, listed), pictures


def encode_video(finder: Finder, video: Path) -> tuple[FeatureSequence, float, list[tuple[float, Tensor]]]:
    """The features along a video, spaced as in training, its duration, and the middle frames of some clips, timed.

    Raises:
        UserError: the video cannot be read, is too short, or the encoder returns other features than in training.
    """
    found, seconds, pictures = features_along(finder.encoder, video, finder.record, finder.info.width)
    if finder.config.normalised:
        found = found._replace(features=scaled(found.features))
    return shortened(found, finder.config), seconds, pictures


def batch_of(finder: Finder, sequence: FeatureSequence, seconds: float, queries: Sequence[str]) -> Batch:
    """A video with queries as a batch of the loader, without moments: a row for each query, or one for all."""
    config = finder.config
    words = [config.rows(finder.words.words("", query)) for query in queries]
    if config.by == "video":
        vectors = torch.stack([sentence(finder.words.words("", query)) for query in queries])
        words = [scaled(vectors) if config.normalised else vectors]
    features, count = sequence.features, len(words)
    return {
        "sequence": features.expand(count, -1, -1),
        "length": torch.full((count,), len(features)),
        "timing": torch.tensor([sequence.first, sequence.step], dtype=torch.float64).expand(count, 2),
        "seconds": torch.full((count,), seconds, dtype=torch.float64),
        "query": torch.nn.utils.rnn.pad_sequence(words, batch_first=True),
        "query_length": torch.tensor([len(rows) for rows in words]),
    }


def _best(found: Grounding, top_k: int, max_overlap: float) -> tuple[FoundMoment, ...]:
    """The likeliest moments, without those that overlap a likelier one too much, or have no duration."""
    kept: list[int] = []
    overlaps = iou(found.segments, found.segments)
    for i, (start, end) in enumerate(found.segments.tolist()):
        if len(kept) < top_k and end > start and all(overlaps[i, j] <= max_overlap for j in kept):
            kept.append(i)
    rows = ((*found.segments[i].tolist(), float(found.scores[i])) for i in kept)
    return tuple(FoundMoment(start, end, score) for start, end, score in rows)


def _highlights(found: Grounding, middle: np.ndarray) -> tuple[Highlight, ...]:
    if found.saliency is None:
        return ()
    return tuple(Highlight(*pair) for pair in zip(middle.tolist(), found.saliency.tolist()))
