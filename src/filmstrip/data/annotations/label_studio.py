"""Exports of Label Studio (JSON or JSON_MIN): labels of the timeline, boxes of films, regions of sound, and choices.

Frames of the timeline and of boxes are numbered from 1 on there, at the rate that the labelling page assumes
(``frameRate`` of its ``Video``), which need not be the film's: say it where it differs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from filmstrip.data.annotations.labelled import Export, KeyBox, Segment, one_of, read_export, shown, within
from filmstrip.errors import UserError

LABELS = ("timelinelabels", "labels", "videorectangle", "rectanglelabels")
"""Keys under which a region lists its labels."""


def read_label_studio(path: Path, control: str = "") -> Export:
    """The labelled parts of films, and the boxes in them, by the ``control`` of the labelling page of this name
    (``from_name``), by default by the only one that labels any.

    Raises:
        UserError: it is no export of Label Studio, nothing in it is labelled, or several controls label films.
    """
    tasks = read_export(path)
    segments: dict[str, list[Segment]] = {}
    boxes: dict[str, list[KeyBox]] = {}
    try:
        for task in tasks if isinstance(tasks, list) else [tasks]:
            film = _film(task)
            for number, (name, value) in enumerate(_values(task)):
                if "sequence" in value:
                    found, own = _followed(film, number, value)
                    boxes.setdefault(name, []).extend(own)
                else:
                    found = _parts(film, value)
                if found:
                    segments.setdefault(name, []).extend(found)
    except (KeyError, ValueError, TypeError, AttributeError, IndexError) as error:
        raise UserError(f"{path} is not an export of Label Studio in JSON: {type(error).__name__} {error}") from None
    if not segments:
        raise UserError(
            f"{path} has no labels of a timeline, of boxes or of whole films: label some, and export again"
        )
    name = one_of(path, set(segments), control, "control")
    return Export(tuple(segments[name]), tuple(boxes.get(name, ())))


def _film(task: Mapping[str, Any]) -> str:
    """The film of a task: what it calls its video, or else the first of its data that names a file."""
    data = task.get("data", task)
    named = {key: value for key, value in data.items() if isinstance(value, str) and ("/" in value or "." in value)}
    if "video" not in named and not named:
        raise KeyError("video")
    return str(named.get("video") or next(iter(named.values())))


def _values(task: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The regions and choices of a task, each with the name of its control: those of its annotations, or of the short
    form."""
    if "annotations" in task:
        for annotation in task["annotations"]:
            if not annotation.get("was_cancelled"):
                for result in annotation["result"]:
                    if "value" in result:
                        yield str(result.get("from_name") or result.get("type") or ""), result["value"]
        return
    for key, told in task.items():
        if isinstance(told, list):
            yield from ((key, value) for value in told if isinstance(value, Mapping))
        elif isinstance(told, Mapping) and "choices" in told:
            yield key, told
        elif key in ("choice", "choices", "label") and isinstance(told, str):
            yield key, {"choices": [told]}


def _labels(value: Mapping[str, Any]) -> list[str]:
    return next(([str(name) for name in value[key]] for key in LABELS if value.get(key)), [])


def _parts(film: str, value: Mapping[str, Any]) -> list[Segment]:
    """Spans of frames of the timeline, seconds of sound, or a choice for the whole film."""
    if "ranges" in value:
        spans = [(float(span["start"]) - 1, float(span["end"])) for span in value["ranges"]]
        return [Segment(film, label, *span, in_frames=True) for span in spans for label in _labels(value)]
    if "start" in value and "end" in value:
        return [Segment(film, label, float(value["start"]), float(value["end"])) for label in _labels(value)]
    return [Segment(film, str(choice)) for choice in value.get("choices", ())]


def _followed(film: str, number: int, value: Mapping[str, Any]) -> tuple[list[Segment], list[KeyBox]]:
    """The spans in which a box is shown, and its key frames."""
    keys = sorted(value["sequence"], key=lambda key: key["frame"])
    # An enabled key frame holds until the next one, or to the film's end.
    frames = [(int(key["frame"]) - 1, bool(key.get("enabled", True))) for key in keys]
    end = int(value["framesCount"]) if value.get("framesCount") else None
    segments, boxes = [], []
    for label in _labels(value):
        # Disabled from the frame after it: that frame is still shown.
        spans = shown([(frame + (not is_shown), is_shown) for frame, is_shown in frames], end) if frames else ()
        segments += [Segment(film, label, *span, in_frames=True) for span in spans]
        for key, (frame, _) in zip(keys, frames):
            left, top, width, height = (float(key[side]) / 100 for side in ("x", "y", "width", "height"))
            box = within(left, top, left + width, top + height)
            if box is not None:
                boxes.append(KeyBox(film, label, number, frame, True, box))
    return segments, boxes
