"""What happens next in a video: the coming steps, with their probabilities, at every moment of its timeline."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text
from torch import Tensor

from filmstrip.commands.forecast import Forecast as Wanted
from filmstrip.commands.work.planner import Planner, load_planner
from filmstrip.commands.work.predict import Moment, strip
from filmstrip.data.reading.views import frames_in, opened, views_of_parts
from filmstrip.errors import UserError
from filmstrip.files import replacing
from filmstrip.progress import tracked

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TASKS = ("forecast", "anticipation")
SHOWN = 8
"""Moments that a picture shows, evenly spaced."""

Ranked = tuple[tuple[str, float], ...]
"""The most probable steps of one place, with their probabilities."""


@dataclass(frozen=True)
class Outlook:
    """What comes after a clip that ends at ``end``: the most probable steps of each place of the horizon."""

    start: float
    end: float
    """Seconds."""
    next: tuple[Ranked, ...]


@dataclass(frozen=True)
class Forecast:
    """What comes next along one video."""

    path: str
    timeline: tuple[Outlook, ...]


def forecast(wanted: Wanted) -> None:
    """Print what a run expects after each clip of a video; with ``out`` also draw it.

    Raises:
        UserError: the run forecasts nothing, or the video cannot be read or is too short.
    """
    planner = load_planner(wanted.run, TASKS, wanted.encoder)
    found, pictures = forecast_video(
        planner, wanted.video, top_k=wanted.top_k, samples=wanted.samples, clip_seconds=wanted.clip_seconds
    )
    if wanted.json:
        json.dump({"run": str(wanted.run), **asdict(found)}, sys.stdout, indent=2)
        print()
    else:
        console = Console()
        console.print(render(found, console.width))
    if wanted.out is not None:
        draw(found, pictures, wanted.out)


def forecast_video(
    planner: Planner, video: Path, *, top_k: int = 3, samples: int = 1, clip_seconds: float | None = None
) -> tuple[Forecast, list[Tensor]]:
    """The forecast after each of a video's clips, which lie end to end, and a frame of each (``C H W`` uint8).

    Clips are about as long as those that the run was trained on; ``clip_seconds`` says otherwise.

    Raises:
        UserError: the video cannot be read, or has fewer clips than the run observes at least.
    """
    config, wanted = planner.config, clip_seconds or planner.record.clip_seconds
    least = config.observed if config.task == "anticipation" else 1
    features, pictures = [], []
    with opened(video, planner.encoder.backend) as decoder:
        duration, held = decoder.info.duration, frames_in(decoder.info)
        if duration / wanted > held:
            raise UserError(
                f"{video} has {held} frames in {duration:.1f} s, too few for clips of {wanted:g} s: give longer ones "
                "(--clip-seconds)"
            )
        edges = np.linspace(0, duration, max(1, round(duration / wanted)) + 1)
        if len(edges) - 1 < least:
            raise UserError(
                f"{video} lasts {duration:.1f} s, {len(edges) - 1} clips of {wanted:.1f} s, and this run observes "
                f"{least}: give a longer video, or shorter clips (--clip-seconds)"
            )
        spans = list(zip(edges[:-1].tolist(), edges[1:].tolist()))
        for views in tracked(views_of_parts(decoder, planner.encoder.clip, spans), "encoding", total=len(spans)):
            features.append(planner.features(views))
            pictures.append(views.video[0, views.video.shape[1] // 2].clone())  # a view would keep the clip
    nothing = [None] * config.horizon
    windows = []
    for now in range(least, len(features) + 1):
        seen = features[max(0, now - config.observed) : now]
        windows.append([None] * (config.observed - len(seen)) + seen + nothing)
    targets = range(config.observed, config.observed + config.horizon)
    probabilities = planner.probabilities(windows, targets, samples=samples)
    timeline = [
        Outlook(*span, tuple(ranked(place, planner.info.steps, top_k) for place in places))
        for span, places in zip(spans[least - 1 :], probabilities)
    ]
    return Forecast(str(video), tuple(timeline)), pictures[least - 1 :]


def ranked(probabilities: Tensor, names: tuple[str, ...], top_k: int) -> Ranked:
    """The ``top_k`` most probable steps."""
    best = probabilities.topk(min(top_k, len(names)))
    return tuple((names[i], p) for i, p in zip(best.indices.tolist(), best.values.tolist()))


def bars(places: tuple[Ranked, ...]) -> Table:
    """The most probable steps of each place, with bars."""
    table = Table(box=None, show_header=False, padding=(0, 1))
    for number, place in enumerate(places, 1):
        for rank, (name, probability) in enumerate(place):
            style = "dim" if rank else "bold green"
            bar = Text("━" * max(1, round(30 * probability)), style=style)
            table.add_row(Text("" if rank else f"{number}."), Text(name), bar, Text(f"{probability:6.1%}"))
    return table


def render(found: Forecast, width: int = 80) -> RenderableType:
    """A forecast as text: what comes after the video, then the next step expected along its timeline."""
    title = Text.assemble((found.path, "bold"), "  after its end:")
    moments = [Moment(at.start, at.end, *at.next[0][0]) for at in found.timeline]
    along = Text("  next step, as expected after each clip:")
    return Group(title, bars(found.timeline[-1].next), along, *strip(moments, min(width, 100) - 4), Text())


def draw(found: Forecast, pictures: list[Tensor], out: Path) -> None:
    """Draw frames of the video above the steps that are expected after them.

    Raises:
        UserError: the file cannot be written.
    """
    from matplotlib.figure import Figure

    shown = sorted(set(np.linspace(0, len(pictures) - 1, min(SHOWN, len(pictures))).round().astype(int).tolist()))
    figure = Figure(figsize=(2.2 * len(shown), 3.6), layout="constrained")
    axes = figure.subplots(2, len(shown), squeeze=False)
    for column, i in enumerate(shown):
        at = found.timeline[i]
        show_frame(axes[0][column], pictures[i], f"until {at.end:.1f} s")
        show_steps(axes[1][column], at.next[0], "next")
    save(figure, out)


def show_frame(axes: Axes, frame: Tensor, title: str) -> None:
    """A frame, ``C H W`` uint8."""
    axes.imshow(frame.permute(1, 2, 0).numpy())
    axes.set_title(title, fontsize=9)
    axes.axis("off")


def show_steps(axes: Axes, place: Ranked, title: str) -> None:
    """The most probable steps of one place, as bars with their names in them."""
    for row, (name, probability) in enumerate(place):
        axes.barh(-row, probability, color="#8fb8de" if row == 0 else "#dbe4ee")
        axes.text(0.02, -row, f"{name} {probability:.0%}", va="center", fontsize=8)
    axes.set(xlim=(0, 1), ylim=(-len(place) + 0.4, 0.6), xticks=[], yticks=[])
    axes.set_title(title, fontsize=9)


def save(figure: Figure, out: Path) -> None:
    """Write a figure.

    Raises:
        UserError: the name's ending is of no picture.
        OSError: it cannot be written.
    """
    try:
        with replacing(out) as part:
            figure.savefig(part, dpi=120)
    except ValueError as error:
        raise UserError(f"{out} cannot be written ({error}): name it .png, .svg or .pdf") from None
