"""Exports of CVAT: XML (for video, for images) and Datumaro's JSON, as files or in the archives that CVAT makes of
them.

A track is a segment for as long as it is shown (not ``outside``), with boxes at its key frames; a tag is one for as
many frames in a row as have it. CVAT numbers frames as the film does, also where a task leaves some out.
"""

from __future__ import annotations

import io
import json
import re
import zipfile
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from filmstrip.data.annotations.labelled import Export, KeyBox, Segment, runs, shown, within
from filmstrip.errors import UserError

MOST_BYTES = 2**30
"""Maximum size of an unpacked file of annotations, in bytes."""
_STEP = re.compile(r"step\s*=\s*(\d+)")


def read_cvat(path: Path) -> Export:
    """The tracks and tags of an export.

    Raises:
        UserError: it is none, it is damaged, or it has neither tracks nor tags.
    """
    name, content = _content(path)
    try:
        if name.lower().endswith(".json"):
            found = _from_datumaro(json.loads(content))
        else:
            if b"<!DOCTYPE" in content[:4096] or b"<!ENTITY" in content:
                raise UserError(f"{path} defines entities of XML, which CVAT does not: export it anew")
            found = _from_xml(ElementTree.parse(io.BytesIO(content)).getroot())
    except (ElementTree.ParseError, KeyError, ValueError, TypeError, AttributeError, IndexError) as error:
        raise UserError(
            f"{path} is not an export of CVAT (CVAT for video 1.1, CVAT for images 1.1 or Datumaro): "
            f"{type(error).__name__} {error}"
        ) from None
    if not found.segments:
        raise UserError(f"{path} has no tracks of shapes and no tags: label some frames, and export it again")
    return found


def _content(path: Path) -> tuple[str, bytes]:
    """The annotations in a file or in an archive, and the name of their file."""
    if not path.is_file():
        raise UserError(f"there is no file {path}: provide what CVAT exported, an .xml, .json or .zip")
    if path.suffix.lower() != ".zip":
        return path.name, path.read_bytes()
    try:
        with zipfile.ZipFile(path) as archive:
            inside = [info for info in archive.infolist() if _is_annotations(info.filename)]
            if not inside:
                raise UserError(f"{path} holds no annotations.xml and no annotations/*.json: export it as CVAT 1.1")
            if len(inside) > 1 or inside[0].file_size > MOST_BYTES:
                raise UserError(f"{path} holds {len(inside)} files of annotations: unpack it and provide one of them")
            return inside[0].filename, archive.read(inside[0])
    except (zipfile.BadZipFile, OSError, RuntimeError) as error:
        raise UserError(f"{path} is not an archive that can be read: {error}") from None


def _is_annotations(name: str) -> bool:
    return name == "annotations.xml" or (name.startswith("annotations/") and name.endswith(".json"))


def _from_xml(root: ElementTree.Element) -> Export:
    films = _films(root)
    step = _step(root)
    segments: list[Segment] = []
    boxes: list[KeyBox] = []
    for number, track in enumerate(root.iter("track")):
        label, film = track.attrib["label"], films.get(track.get("task_id", ""), "")
        shapes = sorted(track, key=lambda shape: int(shape.attrib["frame"]))
        frames = [(int(shape.attrib["frame"]), shape.get("outside") != "1") for shape in shapes]
        if not frames:
            continue
        end = frames[-1][0] + step
        segments += [Segment(film, label, *span, in_frames=True) for span in shown(frames, end)]
        size = _size(root, track.get("task_id", ""))
        for shape, (frame, is_shown) in zip(shapes, frames):
            if shape.tag == "box" and is_shown and shape.get("keyframe", "1") == "1" and size is not None:
                left, top, right, bottom = (float(shape.attrib[key]) for key in ("xtl", "ytl", "xbr", "ybr"))
                box = within(left / size[0], top / size[1], right / size[0], bottom / size[1])
                if box is not None:
                    boxes.append(KeyBox(film, label, number, frame, True, box))
    tagged: dict[tuple[str, str], list[int]] = defaultdict(list)
    for image in root.iter("image"):
        for tag in image.iter("tag"):
            place = films.get(image.get("task_id", ""), "")
            tagged[place, tag.attrib["label"]].append(_frame_of(image.attrib["name"], int(image.attrib["id"])))
    segments += [
        Segment(film, label, *span, in_frames=True)
        for (film, label), frames_of in tagged.items()
        for span in runs(frames_of, step)
    ]
    return Export(tuple(segments), tuple(boxes))


def _tasks(root: ElementTree.Element) -> Iterator[ElementTree.Element]:
    """What an export says of its task, job, or the tasks of a project."""
    meta = root.find("meta")
    if meta is not None:
        yield from (element for kind in ("task", "job") for element in meta.iter(kind))


def _films(root: ElementTree.Element) -> dict[str, str]:
    """The name of the film of each task, and of the only one by no name."""
    found = {}
    for task in _tasks(root):
        film = task.findtext("source") or root.findtext("meta/source") or task.findtext("name") or ""
        found[task.findtext("id") or ""] = film
    if len(set(found.values())) == 1:
        found[""] = next(iter(found.values()))
    elif not found and (only := root.findtext("meta/source")):
        found[""] = only
    return found


def _step(root: ElementTree.Element) -> int:
    """Frames from one frame of a task to the next."""
    steps = [_STEP.search(task.findtext("frame_filter") or "") for task in _tasks(root)]
    return max((int(step[1]) for step in steps if step), default=1)


def _size(root: ElementTree.Element, task_id: str) -> tuple[float, float] | None:
    """Width and height of the film of a task."""
    sizes = [(task.findtext("id"), task.find("original_size")) for task in _tasks(root)]
    sizes += [(None, root.find("meta/original_size"))]
    own = [size for id, size in sizes if size is not None and (not task_id or id == task_id)]
    if not own:
        return None
    return float(own[0].findtext("width") or 0), float(own[0].findtext("height") or 0)


def _frame_of(name: str, place: int) -> int:
    """The number of a frame, of which CVAT makes the name of its image; where there is none, its place."""
    found = re.fullmatch(r"frame_(\d+)", Path(name).stem)
    return int(found[1]) if found else place


def _from_datumaro(content: Mapping[str, Any]) -> Export:
    labels = [label["name"] for label in content["categories"]["label"]["labels"]]
    followed: dict[tuple[int, str], list[tuple[int, bool, Any, Any]]] = defaultdict(list)
    tagged: dict[str, list[int]] = defaultdict(list)
    frames = []
    for place, item in enumerate(content["items"]):
        frame = int(item.get("attr", {}).get("frame", _frame_of(item["id"], place)))
        frames.append(frame)
        size = (item.get("image") or {}).get("size")
        for found in item["annotations"]:
            label, told = labels[found["label_id"]], found.get("attributes", {})
            if found["type"] == "label":
                tagged[label].append(frame)
            elif "track_id" in told:
                box = found["bbox"] if found["type"] == "bbox" and told.get("keyframe", True) else None
                followed[int(told["track_id"]), label].append((frame, not told.get("outside", False), box, size))
    steps = [after - before for before, after in zip(sorted(frames), sorted(frames)[1:])]
    step = min((distance for distance in steps if distance > 0), default=1)
    segments = [
        Segment("", label, *span, in_frames=True) for label, tags in tagged.items() for span in runs(tags, step)
    ]
    boxes = []
    for (number, label), shapes in followed.items():
        there = [frame for frame, is_shown, _, _ in shapes if is_shown]
        segments += [Segment("", label, *span, in_frames=True) for span in runs(there, step)]
        for frame, is_shown, bbox, size in shapes:
            if is_shown and bbox and size:
                (left, top, width, height), (rows, columns) = bbox, size
                box = within(left / columns, top / rows, (left + width) / columns, (top + height) / rows)
                if box is not None:
                    boxes.append(KeyBox("", label, number, frame, True, box))
    return Export(tuple(segments), tuple(boxes))
