"""Projects of VIA 3 (VGG's video annotator), saved as JSON: segments of its timeline, and labels of whole films."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from filmstrip.data.annotations.labelled import Export, Segment, one_of, read_export
from filmstrip.errors import UserError

TEXT, CHECKBOX = 1, 2
"""Types of attributes whose values are text, or numbers of options, separated by commas; others name one option."""


def read_via(path: Path, attribute: str = "") -> Export:
    """The segments of a project, labelled by the ``attribute`` of this name, by default by the only one that has
    values.

    Raises:
        UserError: it is no project of VIA 3, it has no segments, or several attributes label them.
    """
    project = read_export(path)
    try:
        segments = _segments(project)
    except (KeyError, ValueError, TypeError, AttributeError, IndexError) as error:
        raise UserError(f"{path} is not a project of VIA 3: {type(error).__name__} {error}") from None
    if not segments:
        raise UserError(f"{path} has no segments with a label, and no labels of whole films")
    name = one_of(path, set(segments), attribute, "attribute")
    return Export(tuple(segments[name]))


def _segments(project: Mapping[str, Any]) -> dict[str, list[Segment]]:
    """The segments with their labels, by the names of the attributes that label them."""
    attributes, files, views = project["attribute"], project["file"], project["view"]
    found: dict[bool, dict[str, list[Segment]]] = {True: {}, False: {}}
    for entry in project["metadata"].values():
        if entry["xy"] or len(entry["z"]) not in (0, 2):
            continue  # regions of frames, and single moments
        view = views[str(entry["vid"])]
        file = files[str(view["fid_list"][0])]
        film = str(file.get("fname") or file.get("src") or "")
        times = [float(time) for time in entry["z"]]
        for key, value in entry["av"].items():
            told = attributes[str(key)]
            for label in _labels(told, value):
                segment = Segment(film, label, times[0], times[1]) if times else Segment(film, label)
                found[bool(times)].setdefault(str(told["aname"]), []).append(segment)
    # Labels of whole films count where nothing is labelled on the timeline.
    return found[True] or found[False]


def _labels(told: Mapping[str, Any], value: Any) -> list[str]:
    """The labels that a value of an attribute stands for."""
    text, options = str(value).strip(), told.get("options") or {}
    if int(told["type"]) == TEXT:
        return [text] if text else []
    chosen = text.split(",") if int(told["type"]) == CHECKBOX else [text]
    return [str(options.get(option.strip(), option)).strip() for option in chosen if option.strip()]
