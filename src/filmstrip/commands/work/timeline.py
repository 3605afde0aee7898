"""Moments along a video: printed as text, drawn below its frames, and written as subtitles or JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text
from torch import Tensor

from filmstrip.commands.work.forecast import save, show_frame
from filmstrip.errors import UserError
from filmstrip.files import write_json, write_text

PICTURES, SUBTITLES = (".png", ".svg", ".pdf"), (".srt", ".vtt")
HIGHLIGHTS = 3
"""Number of highlights that are listed for each query."""


@dataclass(frozen=True)
class FoundMoment:
    """One moment that answers a query, or an action."""

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
    """What one query found, or all actions of a class."""

    query: str
    moments: tuple[FoundMoment, ...]
    highlights: tuple[Highlight, ...]
    """All clips in temporal order; empty if the method predicts no highlights."""


@dataclass(frozen=True)
class Search:
    """What all queries found in one video."""

    path: str
    seconds: float
    """Duration of the video."""
    answers: tuple[Answer, ...]


def check_out(paths: Sequence[Path]) -> None:
    """See that all files can be written.

    Raises:
        UserError: one has another ending than those known.
    """
    for path in paths:
        if path.suffix.lower() not in (*PICTURES, *SUBTITLES, ".json"):
            raise UserError(f"{path} is no file that can be written: name it .png, .svg, .pdf, .srt, .vtt or .json")


def write_all(
    found: Search,
    pictures: Sequence[tuple[float, Tensor]],
    told: dict[str, Any],
    paths: Sequence[Path],
    *,
    ranked: bool = True,
) -> None:
    """Write a timeline, subtitles or JSON (what is ``told``), by the ending of each path.

    ``ranked``: the moments of an answer compete, and the first of them is the likeliest.

    Raises:
        UserError: a file cannot be written.
    """
    for path in paths:
        match path.suffix.lower():
            case ".json":
                write_json(told, path)
            case ".srt" | ".vtt":
                write_text(subtitles(found, path.suffix.lower()), path)
            case _:
                draw(found, pictures, path, ranked=ranked)


def as_json(found: Search) -> dict[str, Any]:
    """Everything that queries found."""
    return asdict(found)


def render(found: Search, width: int = 80, *, ranked: bool = True) -> RenderableType:
    """What was found as text: each answer's moments, with their places along the video."""
    room = max(10, min(width, 110) - 42)
    parts: list[RenderableType] = [Text.assemble((found.path, "bold"), f"  {found.seconds:.1f} s")]
    for answer in found.answers:
        table = Table(box=None, show_header=False, padding=(0, 1))
        for rank, moment in enumerate(answer.moments):
            ends = [round(room * time / found.seconds) for time in (moment.start, moment.end)]
            length = max(1, ends[1] - ends[0])
            start = min(ends[0], room - length)
            line = Text("·" * start + "━" * length + "·" * (room - start - length))
            style = "dim" if ranked and rank else "bold green"
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


def draw(found: Search, pictures: Sequence[tuple[float, Tensor]], out: Path, *, ranked: bool = True) -> None:
    """Draw frames of the video above a timeline for each answer: its moments, and the saliency of clips.

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
            colour = "#2f7ed8" if rank == 0 or not ranked else "#b7cfe8"
            axes.barh(0.5, moment.end - moment.start, left=moment.start, height=0.5, color=colour, alpha=0.9)
        if answer.highlights:
            values = np.array([clip.saliency for clip in answer.highlights])
            heights = (values - values.min()) / max(float(np.ptp(values)), 1e-9)
            axes.plot([clip.seconds for clip in answer.highlights], heights, color="#d9822b", linewidth=1.2)
        axes.set(xlim=(0, found.seconds), ylim=(-0.05, 1.05), yticks=[])
        axes.set_title(answer.query, fontsize=9, loc="left")
        if row < count:
            axes.set_xticklabels([])
        else:
            axes.set_xlabel("seconds", fontsize=9)
    save(figure, out)
