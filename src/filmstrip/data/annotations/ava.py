"""AVA (Gu et al. 2018): films in which, once a second, every person has a box with labels of their actions.

A folder as it was released holds, for versions 2.1 and 2.2, ``ava_train_v2.2.csv`` and ``ava_val_v2.2.csv`` (here
``test``) with rows of video, second, left, top, right, bottom (fractions of the frame), class number and person;
the names of the 80 classes in ``ava_action_list_v2.2.pbtxt`` and of the 60 that are evaluated in
``ava_action_list_v2.2_for_activitynet_2019.pbtxt``; seconds that do not count in
``ava_val_excluded_timestamps_v2.2.csv``. Files without a version in their names are of a set of one's own. Only the
tables and one list must be there.

Detectors' boxes come in the same columns, with scores in place of persons, and maybe without classes; and so does
what a network says of boxes, for AVA's public evaluation.
"""

from __future__ import annotations

import csv
import gzip
import io
import logging
import math
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from filmstrip.data.annotations.files import find, maybe
from filmstrip.data.detection.types import Actor, ActorAnnotations, Box, Boxes, Moment
from filmstrip.errors import UserError
from filmstrip.files import replacing

log = logging.getLogger(__name__)

SPLITS = {"train": "train", "val": "test"}
"""AVA's names and ours."""
CHALLENGES = {"_v2.1": "2018", "_v2.2": "2019", "": ""}
"""Year of the list of evaluated classes, by version."""
OUTSIDE = 0.05
"""Maximum extent of a detector's box beyond the frame, as a fraction of the frame; boxes are clipped to the frame."""
_ITEM = re.compile(r'name:\s*"(?P<name>[^"]*)"\s*(?:label_)?id:\s*(?P<id>\d+)')


def read_ava(root: Path, version: str = "") -> ActorAnnotations:
    """The annotations in ``root``: ``version`` is ``_v2.1``, ``_v2.2``, or nothing.

    Raises:
        UserError: a file is missing, or a row is invalid; the message says which.
    """
    every = maybe(root, f"ava_action_list{version}.pbtxt")
    challenge = f"ava_action_list{version}_for_activitynet_{CHALLENGES[version]}.pbtxt"
    counted = maybe(root, challenge) if version else every
    listed = every or counted or find(root, f"ava_action_list{version}.pbtxt", challenge)
    names = read_label_map(listed)
    ids = {number: place for place, number in enumerate(sorted(names))}
    evaluated = read_label_map(counted or listed)
    if not evaluated.keys() <= names.keys():
        raise UserError(f"{counted} lists classes that {every} does not: they are of different versions")
    tables = {split: find(root, f"ava_{name}{version}.csv") for name, split in SPLITS.items()}
    excluded: set[Moment] = set()
    for name in SPLITS:
        if (path := maybe(root, f"ava_{name}_excluded_timestamps{version}.csv")) is not None:
            excluded |= read_moments(path)
    return ActorAnnotations(
        root=root,
        classes=tuple(names[number] for number in sorted(names)),
        evaluated=frozenset(ids[number] for number in evaluated),
        # Where only the list of evaluated classes is there, the others are not asked for.
        splits={split: read_boxes(path, ids, others=every is None) for split, path in tables.items()},
        excluded=frozenset(excluded),
        ids=ids,
    )


def read_label_map(path: Path) -> dict[int, str]:
    """The numbers and names of classes in a list (``item { name: "sit" id: 11 }``).

    Raises:
        UserError: there are none, or a number occurs twice.
    """
    try:
        found = [(int(item["id"]), item["name"]) for item in _ITEM.finditer(path.read_text(encoding="utf-8"))]
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read: {error}") from None
    if not found:
        raise UserError(f'{path} lists no classes: expected item {{ name: "..." id: 1 }} for each')
    numbers = [number for number, _ in found]
    if twice := next((number for number in numbers if numbers.count(number) > 1), None):
        raise UserError(f"{path} has two classes with the number {twice}")
    return dict(found)


def read_moments(path: Path) -> set[Moment]:
    """The rows of a table of videos and times in seconds.

    Raises:
        UserError: a row is invalid.
    """
    found = set()
    for line, row in _rows(path):
        if len(row) != 2:
            raise UserError(f"{path}, line {line}: expected a video and a second, got {','.join(row)}")
        found.add((row[0], _number(path, line, row[1], "second")))
    return found


def read_boxes(path: Path, ids: Mapping[int, int] | None = None, *, others: bool = False) -> Boxes:
    """The actors of each key frame in a table: annotated ones, or boxes of a detector.

    Columns are video, second, left, top, right, bottom; then, where there are any, the number of a class (which may
    be empty, or -1) and a person or a score: persons if all of them are whole numbers. Rows of one box of one person
    are one actor, who does several things. A row whose box is empty states that no actor is present. ``ids`` gives
    the places of classes; without it they are left out, and with ``others`` those that it does not know.

    Raises:
        UserError: a row is invalid; the message names the file and the line.
    """
    scored = any(len(row) > 7 and not re.fullmatch(r"-?\d*", row[7].strip()) for _, row in _rows(path))
    found: dict[Moment, dict[tuple[Box, int | None], tuple[set[int], float]]] = defaultdict(dict)
    flat = 0
    for line, row in _rows(path):
        if not 6 <= len(row) <= 8 and not (len(row) >= 2 and not any(row[2:])):
            raise UserError(
                f"{path}, line {line}: expected video, second, left, top, right, bottom and then maybe a class and a "
                f"person or score, got {len(row)} columns"
            )
        actors = found[row[0], _number(path, line, row[1], "second")]
        if not any(row[2:6]):
            continue
        box = _box(path, line, row[2:6])
        if box[0] == box[2] or box[1] == box[3]:
            flat += 1
            continue
        last = row[7].strip() if len(row) > 7 else ""
        person = int(last) if last and not scored else None
        score = _number(path, line, last, "score") if last and scored else 1.0
        place = _class(path, line, row[6] if len(row) > 6 else "", ids, others)
        classes, best = actors.setdefault((box, person), (set(), score))
        actors[box, person] = classes | ({place} if place is not None else set()), max(best, score)
    if flat:
        log.warning("%s: %d boxes without an area are ignored", path, flat)
    return {
        moment: tuple(
            Actor(box, tuple(sorted(classes)), person, score) for (box, person), (classes, score) in actors.items()
        )
        for moment, actors in found.items()
    }


def write_scores(
    path: Path,
    said: Iterable[tuple[Moment, Sequence[Sequence[float]], Sequence[Sequence[float]]]],
    numbers: Sequence[int],
) -> None:
    """Write the scores of the boxes of key frames in the format of AVA's evaluation: a row for each box and class.

    ``said`` gives key frames with their boxes (``N 4``, shares of the frame) and the scores of these (``N K``);
    ``numbers`` are those of the ``K`` classes in the set's list. Boxes come back as they were to the last bit, and so
    do float32 scores. Seconds that are whole have four digits; the public evaluation takes no others.

    Raises:
        OSError: the file cannot be written.
    """
    with replacing(path) as part, part.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        for (video, second), boxes, scores in said:
            moment = f"{second:04.0f}" if second == int(second) else repr(second)
            for box, row in zip(boxes, scores, strict=True):
                # Nine digits are enough for a float32 to come back, and a point says that it is no person.
                kept = [float(f"{score:.9g}") for score in row]
                writer.writerows((video, moment, *box, n, p) for n, p in zip(numbers, kept, strict=True))


def write_boxes(path: Path, boxes: Boxes) -> None:
    """Write boxes without classes, as :func:`read_boxes` reads them: with persons, where they have any, or scores.

    Raises:
        OSError: the file cannot be written.
    """
    with replacing(path) as part, part.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        for (video, second), actors in sorted(boxes.items()):
            for actor in actors:
                last = f"{actor.score:.6f}" if actor.person is None else actor.person
                writer.writerow((video, round(second, 6), *(f"{side:.6f}" for side in actor.box), "", last))


def _rows(path: Path) -> Iterator[tuple[int, Sequence[str]]]:
    """The rows of a table, compressed or not, with their line numbers; empty ones are skipped."""
    try:
        data = path.read_bytes()
        text = (gzip.decompress(data) if path.suffix == ".gz" else data).decode("utf-8")
    except OSError as error:  # gzip's complaints too, which have no error of the system
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from None
    except (EOFError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not a table: {error}") from None
    reader = csv.reader(io.StringIO(text))
    yield from ((reader.line_num, row) for row in reader if row)


def _number(path: Path, line: int, text: str, what: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise UserError(f"{path}, line {line}: the {what} is {text!r}, which is not a number")
    return number


def _box(path: Path, line: int, cells: Sequence[str]) -> Box:
    sides = ("left", "top", "right", "bottom")
    left, top, right, bottom = box = [_number(path, line, cell, side) for cell, side in zip(cells, sides)]
    if min(box) < -OUTSIDE or max(box) > 1 + OUTSIDE:
        raise UserError(
            f"{path}, line {line}: the box {','.join(cells)} is outside the frame; sides are fractions of its width "
            "and height, from 0 to 1"
        )
    if left > right or top > bottom:
        raise UserError(
            f"{path}, line {line}: the box {','.join(cells)} ends before it begins (left, top, right, bottom)"
        )
    left, top, right, bottom = (min(max(side, 0.0), 1.0) for side in box)
    return left, top, right, bottom


def _class(path: Path, line: int, text: str, ids: Mapping[int, int] | None, others: bool) -> int | None:
    """The index of a class; None if the cell holds none."""
    if ids is None or text.strip() in ("", "-1"):
        return None
    number = _number(path, line, text, "class")
    if number not in ids and not others:
        raise UserError(f"{path}, line {line}: there is no class {text}; the list has {len(ids)}, from {min(ids)} on")
    return ids.get(int(number))
