"""Action detection in a video: the actor boxes of its key frames classified, linked into tracks, and drawn."""

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

from filmstrip.commands.detect import Detect
from filmstrip.data.annotations.ava import read_boxes, write_boxes, write_scores
from filmstrip.data.detection.interpolation import interpolated
from filmstrip.data.detection.tubes import link
from filmstrip.data.detection.types import Actor, Moment
from filmstrip.data.kinds.actors import ActorInfo, clip_times, sure, whole_size
from filmstrip.data.reading.views import opened
from filmstrip.errors import UserError
from filmstrip.inference import device_of, inference
from filmstrip.progress import counted, tracked
from filmstrip.protocols import Detector, Objective
from filmstrip.runs.config import Run
from filmstrip.runs.loading import load_data_info, load_objective
from filmstrip.runs.person_detectors import PersonDetector, load_person_detector
from filmstrip.video.batched_reading import read_batched
from filmstrip.video.decode import Backend, open_video
from filmstrip.video.decoder import Request
from filmstrip.video.write import Mp4File, write_video

MARGIN = 0.5
"""Time that a box is shown before its first key frame and after its last, in seconds."""
SHORT_SIDE = 360
"""Short side of the drawn video, in pixels: smaller videos are enlarged by the integer factor that comes nearest to
it, so that class names are legible."""

Box = tuple[float, float, float, float]
"""Left, top, right, bottom, as fractions of the frame."""


@dataclass(frozen=True)
class Detection:
    """An actor in one key frame, with the probabilities of its actions."""

    second: float
    box: Box
    scores: Tensor
    """Probability of each class, ``K``."""
    is_key: bool = True
    """Whether the table has this box; others lie on a straight line between two key frames."""


@dataclass(frozen=True)
class Span:
    """A moment of one actor: where the probability of a class is high."""

    start: float
    end: float
    """End, in seconds."""
    label: int
    """Class index."""
    probability: float
    """Highest probability within the moment."""


@dataclass(frozen=True)
class Track:
    """One actor through the key frames of a video, and perhaps between them."""

    detections: tuple[Detection, ...]

    @property
    def key_frames(self) -> tuple[Detection, ...]:
        """The detections of the table's boxes."""
        return tuple(detection for detection in self.detections if detection.is_key)

    def moments(self, threshold: float) -> list[Span]:
        """Where each class has at least a probability, in temporal order.

        Probabilities lie on straight lines between detections; a track begins and ends half a typical distance of
        detections before its first and after its last, as probable as those are.
        """
        seconds = np.array([detection.second for detection in self.detections])
        around = float(np.median(np.diff(seconds))) / 2 if len(seconds) > 1 else MARGIN
        times = np.array([seconds[0] - around, *seconds, seconds[-1] + around]).clip(min=0.0)
        scores = torch.stack([detection.scores for detection in self.detections]).double().numpy()
        scores = np.concatenate([scores[:1], scores, scores[-1:]])
        found = [
            span for label in range(scores.shape[1]) for span in _above(times, scores[:, label], threshold, label)
        ]
        return sorted(found, key=lambda span: (span.start, -span.probability))

    @property
    def scores(self) -> Tensor:
        """The mean probability of each class, ``K``."""
        return torch.stack([detection.scores for detection in self.detections]).mean(dim=0)

    def nearest(self, second: float) -> Detection | None:
        """The detection nearest to a time; None if the track does not cover that time."""
        if not self.detections[0].second - MARGIN <= second <= self.detections[-1].second + MARGIN:
            return None
        return min(self.detections, key=lambda detection: abs(detection.second - second))

    def box_at(self, second: float) -> tuple[float, ...]:
        """The box at a time, linearly interpolated between key frames."""
        seconds = [detection.second for detection in self.detections]
        return tuple(
            float(np.interp(second, seconds, side)) for side in zip(*(detection.box for detection in self.detections))
        )


def detect(command: Detect) -> None:
    """Print the actions of all actors in a file as text or JSON, draw them into ``out``, and write them to ``csv`` in
    the format of AVA's evaluation.

    Raises:
        UserError: the run is not a detector, the table or the detector has no boxes for this file, the file cannot be
            read, or an output cannot be written.
    """
    file, out, csv, offset = command.video, command.out, command.csv, command.offset
    objective, run = load_objective(command.run)
    info = load_data_info(command.run)
    classes = info.classes
    found = wanted_boxes(command, run.data.backend)
    between = None if command.boxes is None else command.every
    tracks = follow(objective, run, file, found, min_iou=command.min_iou, max_gap=command.max_gap, every=between)
    if out is not None:
        with counted("drawing"):
            draw(file, tracks, classes, out, threshold=command.threshold, backend=run.data.backend)
    if csv is not None:
        assert isinstance(info, ActorInfo), "a detector is trained on actors"
        write_scores(csv, key_frames(file, tracks, offset), info.class_numbers or range(1, len(classes) + 1))
    if command.json:
        actors = _as_json(tracks, classes, command.top_k, command.threshold)
        json.dump({"run": str(command.run), "path": str(file), "actors": actors}, sys.stdout, indent=2)
        print()
        return
    Console().print(_table(tracks, classes, command.top_k, command.threshold))
    for written in (out, csv, command.save_boxes):
        if written is not None:
            print(written)


def key_frames(
    file: Path, tracks: Sequence[Track], offset: float = 0.0
) -> Iterator[tuple[Moment, list[Box], list[list[float]]]]:
    """Each key frame in order, with its boxes and their class probabilities; times as in the table of boxes."""
    seconds: dict[float, list[Detection]] = defaultdict(list)
    for track in tracks:
        for detection in track.key_frames:
            seconds[detection.second].append(detection)
    for second, detections in sorted(seconds.items()):
        key = (file.stem, round(second + offset, 6))
        yield (
            key,
            [detection.box for detection in detections],
            [detection.scores.tolist() for detection in detections],
        )


def wanted_boxes(command: Detect, backend: Backend) -> dict[float, tuple[Actor, ...]]:
    """The boxes of the table or of the detector, by their times in the file, in seconds.

    Raises:
        UserError: there are none, or the table, the detector or the file cannot be read.
    """
    file, offset = command.video, command.offset
    if command.boxes is not None:
        return boxes_of(file, command.boxes, min_score=command.min_score, offset=offset)
    detector = load_person_detector(
        command.detector,
        name=command.detector_class,
        min_score=command.min_score,
        trusted=command.trust_detector,
    )
    found = detected(file, detector, command.every or 1.0, backend)
    if command.save_boxes is not None:
        write_boxes(command.save_boxes, {(file.stem, second + offset): actors for second, actors in found.items()})
    if not any(found.values()):
        raise UserError(
            f"{command.detector} finds no {command.detector_class} in {file} with a score of at least "
            f"{command.min_score:g} (--min-score)"
        )
    return found


def boxes_of(file: Path, boxes: Path, *, min_score: float, offset: float = 0.0) -> dict[float, tuple[Actor, ...]]:
    """The boxes that a table holds for a file, by the times of their key frames in the file, in seconds.

    Raises:
        UserError: the table cannot be read, or has no boxes with scores of at least ``min_score``.
    """
    table = read_boxes(boxes)
    found = {
        second - offset: actors for (name, second), actors in sure(table, min_score).items() if name == file.stem
    }
    if not any(found.values()):
        names = sorted({name for name, _ in table})
        raise UserError(
            f"{boxes} has no boxes of {file.stem} with scores of at least {min_score:g}; it has boxes of "
            f"{', '.join(names[:5]) or 'nothing'}{f' and {len(names) - 5} more' if len(names) > 5 else ''}"
        )
    return found


def detected(
    file: Path, detector: PersonDetector, every: float, backend: Backend = "auto"
) -> dict[float, tuple[Actor, ...]]:
    """What a detector finds in a frame of each ``every`` seconds of a file, in its middle, by its time in seconds.

    Raises:
        UserError: the file cannot be read.
    """
    found = {}
    with opened(file, backend) as decoder:
        lasts = decoder.info.duration
        seconds = np.arange(every / 2, lasts, every) if lasts > every / 2 else np.array([lasts / 2])
        asked = [[Request([second])] for second in seconds]
        for second, (frames,) in tracked(zip(seconds.tolist(), read_batched(decoder, asked)), "finding", len(asked)):
            found[round(second, 6)] = detector(frames.video)[0]
    return found


def follow(
    objective: Objective,
    run: Run,
    file: Path,
    boxes: dict[float, tuple[Actor, ...]],
    *,
    min_iou: float = 0.3,
    max_gap: float = 2.0,
    every: float | None = None,
) -> list[Track]:
    """Classify the actions in every box, and link the boxes through the file.

    With ``every``, the boxes of an actor are classified between key frames too, so many seconds apart.

    Raises:
        UserError: the objective is not a detector, or the file cannot be read.
    """
    if not isinstance(objective, Detector):
        raise UserError(f"{type(objective).__name__} is not a detector: detect needs a run of detection.*")
    found = boxes if every is None else interpolated(boxes, every, min_iou=min_iou, max_gap=max_gap)
    places = {
        second: torch.tensor([actor.box for actor in actors], dtype=torch.float64)
        for second, actors in sorted(found.items())
        if actors
    }
    scores = _classified(objective, run, file, places)

    def detection(second: float, place: int) -> Detection:
        is_key = place < len(boxes.get(second, ()))  # those between key frames come after a moment's own
        return Detection(second, found[second][place].box, scores[second][place], is_key)

    return [
        Track(tuple(detection(second, place) for second, place in zip(tube.seconds, tube.places)))
        for tube in link(places, min_iou=min_iou, max_gap=max_gap)
    ]


def _classified(objective: Objective, run: Run, file: Path, places: dict[float, Tensor]) -> dict[float, Tensor]:
    """The class probabilities ``M K`` of the boxes (``M 4``) at each time."""
    assert isinstance(objective, Detector), "follow refuses other objectives"
    clip, device = run.data.clip, device_of(objective)
    scores: dict[float, Tensor] = {}
    with opened(file, run.data.backend) as decoder:
        info = decoder.info
        asked = [[Request(clip_times(info, second, clip), size=whole_size(info, clip))] for second in places]
        for second, (frames,) in tracked(zip(places, read_batched(decoder, asked)), "looking", total=len(places)):
            with inference(objective):
                found = objective.detect(frames.video[None].to(device), places[second][None].float().to(device))
            scores[second] = found[0].cpu()
    return scores


def _above(times: np.ndarray, values: np.ndarray, threshold: float, label: int) -> Iterator[Span]:
    """Where a piecewise linear curve is at least ``threshold``."""
    start, most = None, 0.0
    for i, (time, value) in enumerate(zip(times.tolist(), values.tolist())):
        if value >= threshold and start is None:
            start, most = time if i == 0 else _crossing(times, values, i, threshold), 0.0
        if start is not None and value >= threshold:
            most = max(most, value)
        elif start is not None:
            yield Span(start, _crossing(times, values, i, threshold), label, most)
            start = None
    if start is not None:
        yield Span(start, float(times[-1]), label, most)


def _crossing(times: np.ndarray, values: np.ndarray, i: int, threshold: float) -> float:
    """The time between points ``i - 1`` and ``i`` at which the curve is ``threshold``."""
    share = (threshold - values[i - 1]) / (values[i] - values[i - 1])
    return float(times[i - 1] + share * (times[i] - times[i - 1]))


def draw(
    file: Path,
    tracks: Sequence[Track],
    classes: Sequence[str],
    out: Path,
    *,
    threshold: float = 0.5,
    backend: Backend = "auto",
) -> None:
    """Write the part of a file that has tracks, with boxes and class names drawn in.

    Classes whose probability in the nearest key frame is at least ``threshold`` are named, and always the most
    probable one.

    Raises:
        UserError: the file cannot be read, or the output format is unknown.
    """
    start = min(track.detections[0].second for track in tracks) - MARGIN
    stop = max(track.detections[-1].second for track in tracks) + MARGIN
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
    """A frame (``C H W`` uint8) with the boxes and class names of its time."""
    image = Image.fromarray(frame.permute(1, 2, 0).contiguous().numpy())
    pen = ImageDraw.Draw(image)
    height, width = frame.shape[1:]
    text = max(10, height // 28)
    font = ImageFont.load_default(text)
    for number, track in enumerate(tracks):
        detection = track.nearest(second)
        if detection is None:
            continue
        left, top, right, bottom = (side * length for side, length in zip(track.box_at(second), (width, height) * 2))
        colour = _colour(number)
        pen.rectangle((left, top, right - 1, bottom - 1), outline=colour, width=max(2, height // 180))
        lines = [f"{name} {p:.0%}" for name, p in _best(detection.scores, classes, len(classes)) if p >= threshold]
        lines = lines or [f"{name} {p:.0%}" for name, p in _best(detection.scores, classes, 1)]
        above = top - len(lines) * (text + 2)
        y = above if above >= 0 else min(bottom, height - len(lines) * (text + 2))
        for line in lines:
            x = min(left, max(0.0, width - pen.textlength(line, font=font) - 4))
            pen.rectangle((x, y, x + pen.textlength(line, font=font) + 3, y + text + 1), fill=colour)
            pen.text((x + 2, y), line, fill="white", font=font)
            y += text + 2
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


def _colour(number: int) -> tuple[int, ...]:
    """One of ten colours, all dark enough for white text."""
    import matplotlib

    return tuple(round(200 * channel) for channel in matplotlib.colormaps["tab10"](number % 10)[:3])


def _best(scores: Tensor, classes: Sequence[str], top_k: int) -> Iterator[tuple[str, float]]:
    """The most probable classes with their probabilities."""
    best = scores.topk(min(top_k, len(classes)))
    yield from ((classes[i], p) for i, p in zip(best.indices.tolist(), best.values.tolist()))


def _as_json(tracks: Sequence[Track], classes: Sequence[str], top_k: int, threshold: float) -> list[dict[str, Any]]:
    def named(scores: Tensor) -> list[dict[str, Any]]:
        return [{"name": name, "probability": round(p, 4)} for name, p in _best(scores, classes, top_k)]

    return [
        {
            "actor": number,
            "start": track.detections[0].second,
            "end": track.detections[-1].second,
            "actions": named(track.scores),
            "moments": [
                {
                    "name": classes[span.label],
                    "start": round(span.start, 3),
                    "end": round(span.end, 3),
                    "probability": round(span.probability, 4),
                }
                for span in track.moments(threshold)
            ],
            "key_frames": [
                {"second": detection.second, "box": list(detection.box), "actions": named(detection.scores)}
                for detection in track.key_frames
            ],
        }
        for number, track in enumerate(tracks, 1)
    ]


def _table(tracks: Sequence[Track], classes: Sequence[str], top_k: int, threshold: float) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0))
    for head in ("actor", "seconds", "key frames", "does", "moments"):
        table.add_column(head)
    for number, track in enumerate(tracks, 1):
        does = ", ".join(f"{name} {p:.0%}" for name, p in _best(track.scores, classes, top_k))
        span = f"{track.detections[0].second:g}-{track.detections[-1].second:g}"
        moments = ", ".join(
            f"{classes[moment.label]} {moment.start:.1f}-{moment.end:.1f}" for moment in track.moments(threshold)
        )
        table.add_row(str(number), span, str(len(track.key_frames)), does, moments or "-")
    return table
