"""Moments of a video that sentences describe: found, printed, drawn, and written as subtitles."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text
from torch import Tensor

from filmstrip.commands.find import Find
from filmstrip.commands.work.encode import reader_of
from filmstrip.commands.work.feature_encoder import load_feature_encoder
from filmstrip.commands.work.forecast import save, show_frame
from filmstrip.data.kinds.moments import MomentInfo, MomentRecord, Moments, recorded_moments
from filmstrip.data.localisation.sequences import FeatureSequence
from filmstrip.data.moments.text import QueryFeatures, TextEncoder, sentence
from filmstrip.data.moments.video import scaled, shortened
from filmstrip.data.reading.views import frames_in, opened, views_of_parts
from filmstrip.errors import UserError
from filmstrip.files import write_json, write_text
from filmstrip.inference import device_of, inference, on_device
from filmstrip.nn.segments import iou
from filmstrip.progress import tracked
from filmstrip.protocols import Batch, Grounder, Grounding
from filmstrip.runs.encoders import VideoEncoder
from filmstrip.runs.loading import load_data_info, load_objective

SHOWN = 8
"""Number of evenly spaced frames above a timeline."""
PICTURES, SUBTITLES = (".png", ".svg", ".pdf"), (".srt", ".vtt")
HIGHLIGHTS = 3
"""Number of highlights that are listed for each query."""


@dataclass(frozen=True)
class FoundMoment:
    """One moment that answers a query."""

    start: float
    end: float
    """End, in seconds from the video's first frame."""
    score: float


@dataclass(frozen=True)
class Highlight:
    """How much of a highlight a clip is, higher for better ones."""

    seconds: float
    """Middle of the clip."""
    saliency: float


@dataclass(frozen=True)
class Answer:
    """What one query found."""

    query: str
    moments: tuple[FoundMoment, ...]
    highlights: tuple[Highlight, ...]
    """All clips in temporal order; empty if the method predicts no highlights."""


@dataclass(frozen=True)
class Search:
    """What all queries found in one video."""

    path: str
    seconds: float
    answers: tuple[Answer, ...]


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
        video
            cannot be read.
    """
    for path in command.out:
        if path.suffix.lower() not in (*PICTURES, *SUBTITLES, ".json"):
            raise UserError(f"{path} is no file that can be written: name it .png, .svg, .pdf, .srt, .vtt or .json")
    if not command.queries:
        raise UserError('find needs a sentence: filmstrip find RUN FILE "the shapes move up"')
    finder = load_finder(command.run, command.encoder, command.text_encoder)
    found, pictures = search(
        finder, command.video, command.queries, top_k=command.top_k, max_overlap=command.max_overlap
    )
    if command.json:
        json.dump({"run": str(command.run), **asdict(found)}, sys.stdout, indent=2)
        print()
    else:
        console = Console()
        console.print(render(found, console.width))
    for path in command.out:
        match path.suffix.lower():
            case ".json":
                write_json({"run": str(command.run), **asdict(found)}, path)
            case ".srt" | ".vtt":
                write_text(subtitles(found, path.suffix.lower()), path)
            case _:
                draw(found, pictures, path)


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
    model = load_feature_encoder(folder, record.encoder, record.weights, record.clip_changes, encoder)
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
    record, features, pictures = finder.record, [], []
    with opened(video, finder.encoder.backend) as decoder:
        seconds = decoder.info.duration
        count = max(2, round(seconds / record.step_seconds))
        if count > frames_in(decoder.info):
            raise UserError(f"{video} lasts {seconds:.2f} s, too short for clips every {record.step_seconds:g} s")
        step, length = seconds / count, min(2 * record.reach_seconds, seconds)
        starts = (np.arange(count) + 0.5) * step - length / 2
        spans = [(s, s + length) for s in starts.clip(0.0, seconds - length).tolist()]
        shown = set(np.linspace(0, count - 1, min(SHOWN, count)).round().astype(int).tolist())
        read = reader_of(finder.encoder, finder.record.level)
        views = views_of_parts(decoder, finder.encoder.clip, spans)
        for i, clip in enumerate(tracked(views, "encoding", total=count)):
            with inference(finder.encoder):
                features.append(read(clip.video).tokens[0].float().mean(dim=0).cpu())
            if i in shown:
                frame = clip.video[0, clip.video.shape[1] // 2].clone()  # a view would keep the clip
                pictures.append(((i + 0.5) * step, frame))
    rows = torch.stack(features)
    if rows.shape[1] != finder.info.width:
        raise UserError(
            f"the encoder returns features of width {rows.shape[1]}, and this run was trained on "
            f"{finder.info.width}: provide the encoder of its features (--encoder)"
        )
    rows = scaled(rows) if finder.config.normalised else rows
    found = FeatureSequence(rows, step / 2, step, length / 2)
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


def render(found: Search, width: int = 80) -> RenderableType:
    """What was found as text: each query's moments, with their places along the video."""
    room = max(10, min(width, 110) - 42)
    parts: list[RenderableType] = [Text.assemble((found.path, "bold"), f"  {found.seconds:.1f} s")]
    for answer in found.answers:
        table = Table(box=None, show_header=False, padding=(0, 1))
        for rank, moment in enumerate(answer.moments):
            ends = [round(room * time / found.seconds) for time in (moment.start, moment.end)]
            length = max(1, ends[1] - ends[0])
            start = min(ends[0], room - length)
            line = Text("·" * start + "━" * length + "·" * (room - start - length))
            style = "dim" if rank else "bold green"
            times = Text(f"{clock(moment.start)} - {clock(moment.end)}", style=style)
            table.add_row(times, line, Text(f"{moment.score:6.1%}"))
        parts += [Text(f"\n{answer.query}", style="cyan"), table]
        if answer.highlights:
            best = sorted(answer.highlights, key=lambda clip: -clip.saliency)[:HIGHLIGHTS]
            parts.append(Text(f"  highlights at {', '.join(clock(clip.seconds) for clip in best)}", style="dim"))
    return Group(*parts)


def clock(seconds: float) -> str:
    """A time as minutes and seconds, ``1:02.5``."""
    tenths = round(10 * seconds)
    return f"{tenths // 600}:{tenths % 600 / 10:04.1f}"


def subtitles(found: Search, suffix: str) -> str:
    """The moments of all queries in temporal order, as SubRip (``.srt``) or WebVTT (``.vtt``) subtitles."""
    cues = sorted(
        (moment.start, moment.end, answer.query, moment.score)
        for answer in found.answers
        for moment in answer.moments
    )
    lines = ["WEBVTT", ""] if suffix == ".vtt" else []
    for number, (start, end, query, score) in enumerate(cues, 1):
        times = (_stamp(time, "." if suffix == ".vtt" else ",") for time in (start, end))
        text = " ".join(query.split()).replace("-->", "→")
        lines += [str(number), " --> ".join(times), f"{text} ({score:.0%})", ""]
    return "\n".join(lines)


def _stamp(seconds: float, mark: str) -> str:
    thousandths = round(1000 * seconds)
    minutes, rest = divmod(thousandths, 60_000)
    return f"{minutes // 60:02d}:{minutes % 60:02d}:{rest // 1000:02d}{mark}{rest % 1000:03d}"


def draw(found: Search, pictures: Sequence[tuple[float, Tensor]], out: Path) -> None:
    """Draw frames of the video above a timeline for each query: its moments, and the saliency of clips.

    Raises:
        UserError: the file cannot be written.
    """
    from matplotlib.figure import Figure

    count = len(found.answers)
    figure = Figure(figsize=(1.6 * len(pictures), 1.7 + 0.9 * count), layout="constrained")
    grid = figure.add_gridspec(1 + count, len(pictures), height_ratios=[1.6, *[0.9] * count])
    for column, (seconds, frame) in enumerate(pictures):
        show_frame(figure.add_subplot(grid[0, column]), frame, clock(seconds))
    for row, answer in enumerate(found.answers, 1):
        axes = figure.add_subplot(grid[row, :])
        for rank, moment in enumerate(reversed(answer.moments), 1 - len(answer.moments)):
            colour = "#2f7ed8" if rank == 0 else "#b7cfe8"
            axes.barh(0.5, moment.end - moment.start, left=moment.start, height=0.5, color=colour, alpha=0.9)
        if answer.highlights:
            values = np.array([clip.saliency for clip in answer.highlights])
            heights = (values - values.min()) / max(float(np.ptp(values)), 1e-9)
            axes.plot([clip.seconds for clip in answer.highlights], heights, color="#d9822b", linewidth=1.2)
        axes.set(xlim=(0, found.seconds), ylim=(-0.05, 1.05), yticks=[])
        axes.set_title(answer.query, fontsize=9, loc="left")
        if row < count:
            axes.set_xticklabels([])
    save(figure, out)
