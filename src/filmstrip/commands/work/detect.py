"""Who does what, and where: the boxes of a video's key frames named, linked through the video, and drawn."""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from rich.console import Console
from rich.table import Table
from torch import Tensor

from filmstrip.commands.detect import Detect as Wanted
from filmstrip.data.annotations.ava import read_boxes, write_scores
from filmstrip.data.detection.tubes import link
from filmstrip.data.detection.types import Actor, Moment
from filmstrip.data.kinds.actors import clip_times, sure, whole_size
from filmstrip.data.reading.views import opened
from filmstrip.errors import UserError
from filmstrip.inference import device_of, inference
from filmstrip.progress import counted, tracked
from filmstrip.protocols import Detector, Objective
from filmstrip.runs.config import Run
from filmstrip.runs.loading import load_data_info, load_objective
from filmstrip.video.batched_reading import read_batched
from filmstrip.video.decode import open_video
from filmstrip.video.decoder import Request
from filmstrip.video.write import Mp4File, write_video

AROUND = 0.5
"""Seconds that a box is shown before its first key frame, and after its last."""
SHORT_SIDE = 360
"""Smaller videos are drawn as many times larger as brings them nearest to that, pixels: for names to be legible."""

Box = tuple[float, float, float, float]
"""Left, top, right, bottom, as shares of the frame."""


@dataclass(frozen=True)
class Sight:
    """An actor in one key frame."""

    second: float
    box: Box
    scores: Tensor
    """``K``, the probability of each class."""


@dataclass(frozen=True)
class Track:
    """One actor through the key frames of a video."""

    sights: tuple[Sight, ...]

    @property
    def scores(self) -> Tensor:
        """The mean probability of each class, ``K``."""
        return torch.stack([sight.scores for sight in self.sights]).mean(dim=0)

    def nearest(self, second: float) -> Sight | None:
        """What is shown of the actor at a moment; none where they are not there."""
        if not self.sights[0].second - AROUND <= second <= self.sights[-1].second + AROUND:
            return None
        return min(self.sights, key=lambda sight: abs(sight.second - second))

    def box_at(self, second: float) -> tuple[float, ...]:
        """The box at a moment: on a straight line from one key frame to the next."""
        seconds = [sight.second for sight in self.sights]
        return tuple(float(np.interp(second, seconds, side)) for side in zip(*(sight.box for sight in self.sights)))


def detect(wanted: Wanted) -> None:
    """Print what everybody in a file does, in text or as JSON, draw it into ``out``, and write it into ``csv`` as
    AVA's evaluation reads it.

    Raises:
        UserError: the run says nothing of boxes, there are none for this file, it cannot be read, or what was asked
            for cannot be written.
    """
    file, out, csv, offset = wanted.video, wanted.out, wanted.csv, wanted.offset
    objective, run = load_objective(wanted.run)
    info = load_data_info(wanted.run)
    classes = info.classes
    found = boxes_of(file, wanted.boxes, min_score=wanted.min_score, offset=offset)
    tracks = follow(objective, run, file, found, min_iou=wanted.min_iou, max_gap=wanted.max_gap)
    if out is not None:
        with counted("drawing"):
            draw(file, tracks, classes, out, threshold=wanted.threshold, backend=run.data.backend)
    if csv is not None:
        write_scores(csv, said_of(file, tracks, offset), info.class_numbers or range(1, len(classes) + 1))
    if wanted.json:
        actors = _as_json(tracks, classes, wanted.top_k)
        json.dump({"run": str(wanted.run), "path": str(file), "actors": actors}, sys.stdout, indent=2)
        print()
        return
    Console().print(_table(tracks, classes, wanted.top_k))
    for written in (out, csv):
        if written is not None:
            print(written)


def said_of(
    file: Path, tracks: Sequence[Track], offset: float = 0.0
) -> Iterator[tuple[Moment, list[Box], list[list[float]]]]:
    """Each key frame, in order, with its boxes and what was said of them; its second as the table of boxes counts."""
    seconds: dict[float, list[Sight]] = defaultdict(list)
    for track in tracks:
        for sight in track.sights:
            seconds[sight.second].append(sight)
    for second, sights in sorted(seconds.items()):
        key = (file.stem, round(second + offset, 6))
        yield key, [sight.box for sight in sights], [sight.scores.tolist() for sight in sights]


def boxes_of(file: Path, boxes: Path, *, min_score: float, offset: float = 0.0) -> dict[float, tuple[Actor, ...]]:
    """The boxes that a table holds of a file's key frames, by their seconds in the file.

    Raises:
        UserError: it cannot be read, or has none that are sure enough.
    """
    table = read_boxes(boxes)
    found = {
        second - offset: actors for (name, second), actors in sure(table, min_score).items() if name == file.stem
    }
    if not any(found.values()):
        names = sorted({name for name, _ in table})
        raise UserError(
            f"{boxes} has no boxes of {file.stem} with scores of {min_score:g} or more; it is about "
            f"{', '.join(names[:5]) or 'nothing'}{f' and {len(names) - 5} more' if len(names) > 5 else ''}"
        )
    return found


def follow(
    objective: Objective,
    run: Run,
    file: Path,
    boxes: dict[float, tuple[Actor, ...]],
    *,
    min_iou: float = 0.3,
    max_gap: float = 2.0,
) -> list[Track]:
    """Say what is done in every box, and link them through the file.

    Raises:
        UserError: the objective says nothing of boxes, or the file cannot be read.
    """
    if not isinstance(objective, Detector):
        raise UserError(f"{type(objective).__name__} says nothing of boxes: detect needs a run of detection.*")
    places = {
        second: torch.tensor([actor.box for actor in actors], dtype=torch.float64)
        for second, actors in sorted(boxes.items())
        if actors
    }
    clip, device = run.data.clip, device_of(objective)
    scores: dict[float, Tensor] = {}
    with opened(file, run.data.backend) as decoder:
        info = decoder.info
        asked = [[Request(clip_times(info, second, clip), size=whole_size(info, clip))] for second in places]
        for second, (frames,) in tracked(zip(places, read_batched(decoder, asked)), "looking", total=len(places)):
            with inference(objective):
                found = objective.detect(frames.video[None].to(device), places[second][None].float().to(device))
            scores[second] = found[0].cpu()
    tubes = link(places, min_iou=min_iou, max_gap=max_gap)
    return [
        Track(tuple(Sight(s, boxes[s][p].box, scores[s][p]) for s, p in zip(tube.seconds, tube.places)))
        for tube in tubes
    ]


def draw(
    file: Path,
    tracks: Sequence[Track],
    classes: Sequence[str],
    out: Path,
    *,
    threshold: float = 0.5,
    backend: str = "auto",
) -> None:
    """Write the part of a file in which somebody was followed, with their boxes and what they do.

    Classes are named whose probability in the nearest key frame is ``threshold`` or more, and always the likeliest.

    Raises:
        UserError: the file cannot be read, or the format written.
    """
    start = min(track.sights[0].second for track in tracks) - AROUND
    stop = max(track.sights[-1].second for track in tracks) + AROUND
    with open_video(file, backend=backend) as decoder:
        info = decoder.info
        larger = max(1, round(SHORT_SIDE / min(info.height, info.width)))
        size = (larger * info.height, larger * info.width)
        pieces = (
            torch.stack(
                [_drawn(frame, float(t), tracks, classes, threshold) for frame, t in zip(part.video, part.times)]
            )
            for part in decoder.frames(max(0.0, start), stop, size=size)
        )
        if out.suffix.lower() == ".mp4":
            with Mp4File(out, info.fps) as mp4:
                for piece in pieces:
                    mp4.add(piece)
        else:
            write_video(out, torch.cat(list(pieces)), info.fps)


def _drawn(frame: Tensor, second: float, tracks: Sequence[Track], classes: Sequence[str], threshold: float) -> Tensor:
    """A frame (``C H W`` uint8) with what is known at its moment."""
    image = Image.fromarray(frame.permute(1, 2, 0).contiguous().numpy())
    pen = ImageDraw.Draw(image)
    height, width = frame.shape[1:]
    text = max(10, height // 28)
    font = ImageFont.load_default(text)
    for number, track in enumerate(tracks):
        sight = track.nearest(second)
        if sight is None:
            continue
        left, top, right, bottom = (side * length for side, length in zip(track.box_at(second), (width, height) * 2))
        colour = _colour(number)
        pen.rectangle((left, top, right - 1, bottom - 1), outline=colour, width=max(2, height // 180))
        lines = [f"{name} {p:.0%}" for name, p in _best(sight.scores, classes, len(classes)) if p >= threshold]
        lines = lines or [f"{name} {p:.0%}" for name, p in _best(sight.scores, classes, 1)]
        above = top - len(lines) * (text + 2)
        y = above if above >= 0 else min(bottom, height - len(lines) * (text + 2))
        for line in lines:
            x = min(left, max(0.0, width - pen.textlength(line, font=font) - 4))
            pen.rectangle((x, y, x + pen.textlength(line, font=font) + 3, y + text + 1), fill=colour)
            pen.text((x + 2, y), line, fill="white", font=font)
            y += text + 2
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


def _colour(number: int) -> tuple[int, ...]:
    """One of ten colours, all of them dark enough for white letters."""
    import matplotlib

    return tuple(round(200 * channel) for channel in matplotlib.colormaps["tab10"](number % 10)[:3])


def _best(scores: Tensor, classes: Sequence[str], top_k: int) -> Iterator[tuple[str, float]]:
    """The likeliest classes with their probabilities."""
    best = scores.topk(min(top_k, len(classes)))
    yield from ((classes[i], p) for i, p in zip(best.indices.tolist(), best.values.tolist()))


def _as_json(tracks: Sequence[Track], classes: Sequence[str], top_k: int) -> list[dict[str, Any]]:
    def named(scores: Tensor) -> list[dict[str, Any]]:
        return [{"name": name, "probability": round(p, 4)} for name, p in _best(scores, classes, top_k)]

    return [
        {
            "actor": number,
            "start": track.sights[0].second,
            "end": track.sights[-1].second,
            "actions": named(track.scores),
            "key_frames": [
                {"second": sight.second, "box": list(sight.box), "actions": named(sight.scores)}
                for sight in track.sights
            ],
        }
        for number, track in enumerate(tracks, 1)
    ]


def _table(tracks: Sequence[Track], classes: Sequence[str], top_k: int) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0))
    for head in ("actor", "seconds", "key frames", "does"):
        table.add_column(head)
    for number, track in enumerate(tracks, 1):
        does = ", ".join(f"{name} {p:.0%}" for name, p in _best(track.scores, classes, top_k))
        span = f"{track.sights[0].second:g}-{track.sights[-1].second:g}"
        table.add_row(str(number), span, str(len(track.sights)), does)
    return table
