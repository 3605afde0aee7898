"""Forecasts along a video: the next steps with their probabilities after each clip of its timeline."""

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

from filmstrip.commands.forecast import Forecast
from filmstrip.commands.work.predict import Moment, strip
from filmstrip.commands.work.step_predictor import StepPredictor, load_step_predictor
from filmstrip.data.reading.views import frames_in, opened, views_of_parts
from filmstrip.errors import UserError
from filmstrip.files import replacing
from filmstrip.progress import tracked

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TASKS = ("forecast", "anticipation")
SHOWN = 8
"""Number of evenly spaced clips that a figure shows."""

Ranked = tuple[tuple[str, float], ...]
"""The most probable steps at one position, with their probabilities."""


@dataclass(frozen=True)
class Outlook:
    """The forecast after one clip: the most probable steps at each position of the horizon."""

    start: float
    end: float
    """End of the clip, after which the forecast begins, in seconds."""
    next: tuple[Ranked, ...]


@dataclass(frozen=True)
class VideoForecast:
    """The forecasts along one video."""

    path: str
    timeline: tuple[Outlook, ...]


def forecast(command: Forecast) -> None:
    """Print the forecast after each clip of a video; with ``out``, also draw it.

    Raises:
        UserError: the run is not a forecaster, or the video cannot be read or is too short.
    """
    predictor = load_step_predictor(command.run, TASKS, command.encoder)
    found, pictures = forecast_video(
        predictor, command.video, top_k=command.top_k, samples=command.samples, clip_seconds=command.clip_seconds
    )
    if command.json:
        json.dump({"run": str(command.run), **asdict(found)}, sys.stdout, indent=2)
        print()
    else:
        console = Console()
        console.print(render(found, console.width))
    if command.out is not None:
        draw(found, pictures, command.out)


def forecast_video(
    predictor: StepPredictor, video: Path, *, top_k: int = 3, samples: int = 1, clip_seconds: float | None = None
) -> tuple[VideoForecast, list[Tensor]]:
    """The forecast after each of a video's contiguous clips, and a frame of each (``C H W`` uint8).

    Clips are about as long as those that the run was trained on, or as ``clip_seconds``.

    Raises:
        UserError: the video cannot be read, or has fewer clips than the run needs to observe.
    """
    config, seconds = predictor.config, clip_seconds or predictor.record.clip_seconds
    minimum = config.observed if config.task == "anticipation" else 1
    features, pictures = [], []
    with opened(video, predictor.encoder.backend) as decoder:
        duration, held = decoder.info.duration, frames_in(decoder.info)
        if duration / seconds > held:
            raise UserError(
                f"{video} has {held} frames in {duration:.1f} s, too few for clips of {seconds:g} s: use longer ones "
                "(--clip-seconds)"
            )
        edges = np.linspace(0, duration, max(1, round(duration / seconds)) + 1)
        if len(edges) - 1 < minimum:
            raise UserError(
                f"{video} lasts {duration:.1f} s, {len(edges) - 1} clips of {seconds:.1f} s, and this run observes "
                f"{minimum}: provide a longer video, or use shorter clips (--clip-seconds)"
            )
        spans = list(zip(edges[:-1].tolist(), edges[1:].tolist()))
        for views in tracked(views_of_parts(decoder, predictor.encoder.clip, spans), "encoding", total=len(spans)):
            features.append(predictor.features(views))
            pictures.append(views.video[0, views.video.shape[1] // 2].clone())  # a view would keep the clip
    windows: list[list[Tensor | None]] = []
    for now in range(minimum, len(features) + 1):
        observed = features[max(0, now - config.observed) : now]
        windows.append([*[None] * (config.observed - len(observed)), *observed, *[None] * config.horizon])
    targets = range(config.observed, config.observed + config.horizon)
    probabilities = predictor.probabilities(windows, targets, samples=samples)
    timeline = [
        Outlook(*span, tuple(ranked(position, predictor.info.steps, top_k) for position in positions))
        for span, positions in zip(spans[minimum - 1 :], probabilities)
    ]
    return VideoForecast(str(video), tuple(timeline)), pictures[minimum - 1 :]


def ranked(probabilities: Tensor, names: tuple[str, ...], top_k: int) -> Ranked:
    """The ``top_k`` most probable steps."""
    best = probabilities.topk(min(top_k, len(names)))
    return tuple((names[i], p) for i, p in zip(best.indices.tolist(), best.values.tolist()))


def bars(places: tuple[Ranked, ...]) -> Table:
    """The most probable steps at each position, with bars."""
    table = Table(box=None, show_header=False, padding=(0, 1))
    for number, place in enumerate(places, 1):
        for rank, (name, probability) in enumerate(place):
            style = "dim" if rank else "bold green"
            bar = Text("━" * max(1, round(30 * probability)), style=style)
            table.add_row(Text("" if rank else f"{number}."), Text(name), bar, Text(f"{probability:6.1%}"))
    return table


def render(found: VideoForecast, width: int = 80) -> RenderableType:
    """A forecast as text: the steps expected after the video, then the next step expected after each clip."""
    title = Text.assemble((found.path, "bold"), "  after its end:")
    moments = [Moment(at.start, at.end, *at.next[0][0]) for at in found.timeline]
    along = Text("  next step, as expected after each clip:")
    return Group(title, bars(found.timeline[-1].next), along, *strip(moments, min(width, 100) - 4), Text())


def draw(found: VideoForecast, pictures: list[Tensor], out: Path) -> None:
    """Draw frames of the video above the steps expected after them.

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
    """Draw a frame, ``C H W`` uint8."""
    axes.imshow(frame.permute(1, 2, 0).numpy())
    axes.set_title(title, fontsize=9)
    axes.axis("off")


def show_steps(axes: Axes, place: Ranked, title: str) -> None:
    """Draw the most probable steps at one position, as labelled bars."""
    for row, (name, probability) in enumerate(place):
        axes.barh(-row, probability, color="#8fb8de" if row == 0 else "#dbe4ee")
        axes.text(0.02, -row, f"{name} {probability:.0%}", va="center", fontsize=8)
    axes.set(xlim=(0, 1), ylim=(-len(place) + 0.4, 0.6), xticks=[], yticks=[])
    axes.set_title(title, fontsize=9)


def save(figure: Figure, out: Path) -> None:
    """Write a figure.

    Raises:
        UserError: the extension is not that of an image format.
        OSError: the file cannot be written.
    """
    try:
        with replacing(out) as part:
            figure.savefig(part, dpi=120)
    except ValueError as error:
        raise UserError(f"{out} cannot be written ({error}): name it .png, .svg or .pdf") from None
