"""ActivityNet 1.3 (Heilbron et al. 2015): 200 classes of activity in untrimmed videos, mostly one or two in each.

Its own ``activity_net.v1-3.min.json`` holds everything; other sets are published in the same layout. Public code for
proposals uses ``anet_anno_action.json`` with the subsets in ``video_info_new.csv``. The test set has no annotations
and is left out; ``validation`` is what is evaluated on, here ``test``.
"""

from __future__ import annotations

import csv
import gzip
import io
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from filmstrip.data.annotations.files import find, maybe, read_json
from filmstrip.data.procedures.types import Annotations, Procedure, Step, distinct, in_order
from filmstrip.errors import UserError

RELEASED = ("activity_net.v1-3.min.json", "activity_net.v1-3.json")
ACTIONS, VIDEOS = "anet_anno_action.json", "video_info_new.csv"
SPLITS = {"training": "train", "train": "train", "validation": "test", "val": "test", "test": "test"}
"""The subsets with annotations; ``testing`` has none."""


def read_activitynet(root: Path) -> Annotations:
    """ActivityNet's annotations in ``root``, compressed (``.gz``) or not.

    Raises:
        UserError: a file is missing or invalid.
    """
    released = maybe(root, *RELEASED)
    if released is not None:
        return read_database(released)
    path = find(root, ACTIONS)
    subsets = _read_subsets(find(root, VIDEOS))
    try:
        entries = {
            video: {"subset": subsets[video], "duration": entry["duration_second"], **entry}
            for video, entry in read_json(path).items()
        }
    except (AttributeError, KeyError, TypeError) as error:
        raise UserError(f"{path} and {VIDEOS} disagree: {error!r}") from None
    return _annotations(path, entries)


def read_database(path: Path, *, without: Collection[str] = (), ambiguous: str | None = None) -> Annotations:
    """A file ``{"database": {VIDEO: {"subset", "annotations": [{"segment", "label"}], "duration", "fps"}}}``.

    Videos in ``without`` and actions named ``ambiguous`` are omitted; duration and frame rate are optional.

    Raises:
        UserError: the file has another form.
    """
    try:
        entries = {video: entry for video, entry in read_json(path)["database"].items() if video not in without}
    except (AttributeError, KeyError, TypeError) as error:
        raise UserError(f'{path} holds no "database" of videos: {error!r}') from None
    return _annotations(path, entries, ambiguous)


def _annotations(path: Path, entries: Mapping[str, Any], ambiguous: str | None = None) -> Annotations:
    """Videos with at least one action of positive duration; a few annotations have none."""
    found, names = [], set()
    for video, entry in entries.items():
        try:
            actions = [(a["label"], *map(float, a["segment"])) for a in entry["annotations"]]
            split = SPLITS.get(entry["subset"].lower())
            seconds, fps = (float(entry[key]) if key in entry else None for key in ("duration", "fps"))
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise UserError(f"{path}: {video} is not annotated as in ActivityNet ({error!r})") from None
        actions = [action for action in actions if action[0] != ambiguous and 0 <= action[1] < action[2]]
        if split and actions:
            found.append((video, split, actions, seconds, fps))
            names |= {action[0] for action in actions}
    classes = tuple(sorted(names))
    number = {name: i for i, name in enumerate(classes)}
    procedures = tuple(
        Procedure(
            video=video,
            split=split,
            steps=distinct(in_order([Step(number[name], start, end) for name, start, end in actions])),
            seconds=seconds,
            fps=fps,
        )
        for video, split, actions, seconds, fps in found
    )
    return Annotations(root=path.parent, steps=classes, tasks=(), procedures=procedures)


def _read_subsets(path: Path) -> dict[str, str]:
    try:
        data = path.read_bytes()
        text = (gzip.decompress(data) if path.suffix == ".gz" else data).decode("utf-8")
        return {row["video"]: row["subset"] for row in csv.DictReader(io.StringIO(text))}
    except (OSError, EOFError, KeyError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not a table of videos and their subsets: {error!r}") from None
