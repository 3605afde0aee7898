"""Actions of an untrimmed video, with their times: printed, drawn on a timeline, and written as subtitles or JSON."""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import Tensor

from filmstrip.commands.localise import Localise
from filmstrip.commands.work.feature_encoder import features_along, load_feature_encoder
from filmstrip.commands.work.timeline import Answer, FoundMoment, Search, check_out, render, write_all
from filmstrip.data.kinds.untrimmed import UntrimmedInfo, UntrimmedVideos, resized
from filmstrip.data.localisation.sequences import FeatureSequence, read_record
from filmstrip.errors import UserError
from filmstrip.inference import device_of, inference, on_device
from filmstrip.protocols import Batch, Detections, Localiser
from filmstrip.runs.loading import load_data_info, load_objective


def localise(command: Localise) -> None:
    """Print the actions of a file as text or JSON, and write them to the files of ``out``.

    Raises:
        UserError: the run does not localise actions, or was not trained on features of a known encoder; or the video
            cannot be read, or an output cannot be written.
    """
    check_out(command.out)
    found, pictures = search(
        command.run, command.video, command.encoder, min_score=command.min_score, top_k=command.top_k
    )
    told = {"run": str(command.run), **as_json(found)}
    if command.json:
        json.dump(told, sys.stdout, indent=2)
        print()
    else:
        console = Console()
        console.print(render(found, console.width, ranked=False))
        if not found.answers:
            console.print(f"no action with a score of {command.min_score:g} or more (--min-score)")
    write_all(found, pictures, told, command.out, ranked=False)


def search(
    folder: Path, video: Path, encoder: str | None = None, *, min_score: float = 0.3, top_k: int = 100
) -> tuple[Search, list[tuple[float, Tensor]]]:
    """The actions of a video, an answer for each class in the order of their first start, and some of its frames.

    Raises:
        UserError: as of :func:`localise`.
    """
    objective, run = load_objective(folder)
    if not isinstance(objective, Localiser):
        raise UserError(
            f"{folder} holds a {type(objective).__name__}, which localises no actions: use a run of localisation.*"
        )
    info, reads = load_data_info(folder), run.data.reads
    assert isinstance(info, UntrimmedInfo) and isinstance(reads, UntrimmedVideos), "what localisers are trained on"
    record = read_record(folder)
    model = load_feature_encoder(folder, record, encoder)
    sequence, seconds, pictures = features_along(model, video, record, info.width)
    if reads.resized:
        sequence = resized(sequence, reads.max_length)
    with inference(objective):
        (detections,) = objective.localise(on_device(batch_of(sequence, seconds), device_of(objective)))
    answers = by_class(detections, info.classes, min_score, top_k)
    return Search(str(video), seconds, answers), pictures


def batch_of(sequence: FeatureSequence, seconds: float) -> Batch:
    """A video as a batch of the loader, without actions."""
    return {
        "sequence": sequence.features[None],
        "length": torch.tensor([len(sequence.features)]),
        "timing": torch.tensor([[sequence.first, sequence.step]], dtype=torch.float64),
        "seconds": torch.tensor([seconds], dtype=torch.float64),
    }


def by_class(found: Detections, classes: Sequence[str], min_score: float, top_k: int) -> tuple[Answer, ...]:
    """The actions of each class that occurs, both in temporal order."""
    moments: dict[str, list[FoundMoment]] = defaultdict(list)
    rows = zip(found.segments.tolist(), found.scores.tolist(), found.classes.tolist())
    for (start, end), score, kind in list(rows)[:top_k]:
        if score >= min_score and end > start:
            moments[classes[kind]].append(FoundMoment(start, end, score))
    answers = [
        Answer(name, tuple(sorted(some, key=lambda moment: moment.start)), ()) for name, some in moments.items()
    ]
    return tuple(sorted(answers, key=lambda answer: answer.moments[0].start))


def as_json(found: Search) -> dict[str, Any]:
    """All actions in temporal order."""
    actions = sorted(
        (moment.start, moment.end, answer.query, moment.score)
        for answer in found.answers
        for moment in answer.moments
    )
    return {
        "path": found.path,
        "seconds": found.seconds,
        "actions": [
            {"class": name, "start": round(start, 3), "end": round(end, 3), "score": round(score, 4)}
            for start, end, name, score in actions
        ],
    }
