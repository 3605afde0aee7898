"""Ego4D's short-term anticipation (Grauman et al. 2022): objects that are touched next, in single frames.

``fho_sta_train.json`` and ``fho_sta_val.json`` of versions 1 and 2, ``{"info": {"video_metadata": {...}},
"annotations": [{"uid", "video_id", "frame", "objects": [{"box": [left, top, right, bottom], "noun_category_id",
"verb_category_id", "time_to_contact"}]}]}``, with the names of classes in ``noun_categories`` and
``verb_categories`` where they are given. The validation split is ``test`` here; the benchmark's own test annotations
have no objects.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filmstrip.data.annotations.files import maybe, read_json
from filmstrip.errors import UserError

log = logging.getLogger(__name__)

FILES = {"train": "fho_sta_train.json", "test": "fho_sta_val.json"}


@dataclass(frozen=True, kw_only=True)
class Contact:
    """One object that will be touched."""

    box: tuple[float, float, float, float]
    """Left, top, right and bottom, in pixels of the original video."""
    noun: int
    verb: int
    seconds: float
    """Time from the frame to the contact, in seconds."""


@dataclass(frozen=True, kw_only=True)
class ContactFrame:
    """One frame of a video, and the objects that are touched next."""

    uid: str
    video: str
    frame: int
    """Number of the frame in the original video."""
    height: int | None
    width: int | None
    """Size of the original video in pixels, if stated."""
    contacts: tuple[Contact, ...]


@dataclass(frozen=True, kw_only=True)
class ContactAnnotations:
    """The frames of each split, and the names of classes by their numbers."""

    frames: dict[str, tuple[ContactFrame, ...]]
    nouns: dict[int, str]
    verbs: dict[int, str]


def read_contacts(root: Path) -> ContactAnnotations:
    """The annotations below ``root``; boxes without an area are left out, and frames without any others.

    Raises:
        UserError: there is no file, it is invalid, or its files name classes differently.
    """
    frames: dict[str, tuple[ContactFrame, ...]] = {}
    nouns: dict[int, str] = {}
    verbs: dict[int, str] = {}
    for split, name in FILES.items():
        path = maybe(root, name)
        if path is None:
            continue
        contents = read_json(path)
        try:
            sizes = contents.get("info", {}).get("video_metadata", {})
            found = [_frame(each, sizes.get(each["video_id"], {})) for each in contents["annotations"]]
            for names, key in ((nouns, "noun_categories"), (verbs, "verb_categories")):
                for category in contents.get(key, ()):
                    number, word = int(category["id"]), str(category["name"])
                    if names.setdefault(number, word) != word:
                        raise UserError(f"{path} calls class {number} {word}, and another file {names[number]}")
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise UserError(f"{path} is not annotated as Ego4D's short-term anticipation: {error!r}") from None
        frames[split] = tuple(frame for frame in found if frame.contacts)
        if dropped := len(found) - len(frames[split]):
            log.warning("%s: %d frames have no object with an area, and are left out", path, dropped)
    if not frames:
        raise UserError(f"{root} holds no {' or '.join(FILES.values())}: provide the folder of Ego4D's annotations")
    return ContactAnnotations(frames=frames, nouns=nouns, verbs=verbs)


def _frame(row: dict[str, Any], size: dict[str, Any]) -> ContactFrame:
    contacts = []
    for each in row.get("objects", ()):
        left, top, right, bottom = (float(side) for side in each["box"])
        if right <= left or bottom <= top:
            continue
        contacts.append(
            Contact(
                box=(left, top, right, bottom),
                noun=int(each["noun_category_id"]),
                verb=int(each["verb_category_id"]),
                seconds=float(each["time_to_contact"]),
            )
        )
    return ContactFrame(
        uid=str(row["uid"]),
        video=str(row["video_id"]),
        frame=int(row["frame"]),
        height=None if "frame_height" not in size else int(size["frame_height"]),
        width=None if "frame_width" not in size else int(size["frame_width"]),
        contacts=tuple(contacts),
    )
