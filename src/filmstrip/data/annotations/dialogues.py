"""Conversations about images and videos, from the files of public instruction data.

JSON or JSON Lines as LLaVA, ShareGPT4V and LLaVA-Video write them, with a list of paths where a conversation is
about several images or videos; or a table (CSV, TSV) with the columns ``video`` (or ``image``), ``question`` and
``answer``. Of text alone also as ShareGPT and UltraChat are: turns in ``conversations``, ``messages``, or the bare
texts of both sides in turn in ``data``.
"""

from __future__ import annotations

import csv
import json
import logging
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filmstrip.data.labels import listed
from filmstrip.errors import UserError
from filmstrip.text.boxes import box_text, time_text
from filmstrip.text.conversation import PLACES, Role, Turn, check_turns, count_places
from filmstrip.text.tokenizers import IMAGE, VIDEO

log = logging.getLogger(__name__)

NAMES = ("dialogues", "conversations", "train", "validation", "val", "test")
"""Names of the files of a folder that are read; of the last four also the names of splits."""
SUFFIXES = (".jsonl", ".json", ".csv", ".tsv")
ROLES: dict[str, Role] = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "chatgpt": "assistant",
    "bing": "assistant",
    "bard": "assistant",
    "system": "system",
}
_TURNS = ("conversations", "messages", "data")
"""Names in records of the turns, by the layouts of LLaVA and ShareGPT, of UltraChat 200k, and of UltraChat."""
_COLUMNS = {
    "visual": ("video", "image", "path", "video_path", "video_id", "video_name"),
    "question": ("question", "instruction", "query"),
    "answer": ("answer", "response"),
    "split": ("split", "subset"),
    "kind": ("kind", "type", "question_type", "category"),
    "options": ("options", "choices"),
}
SHOWN = 5


@dataclass(frozen=True, kw_only=True)
class Dialogue:
    """One conversation."""

    name: str
    visuals: tuple[str, ...] = ()
    """Paths of its images and videos, in the order of their places, as the file states them; none for text alone."""
    turns: tuple[Turn, ...]
    split: str = ""
    kind: str = ""
    """Kind of its question, for evaluation."""
    options: tuple[str, ...] = ()
    """Answers to choose from, for evaluation."""
    start: float | None = None
    end: float | None = None
    """Part of the video, in seconds."""

    @property
    def visual(self) -> str | None:
        """The first of its images and videos, if there is any."""
        return self.visuals[0] if self.visuals else None


def files_of(path: Path) -> list[Path]:
    """The files of conversations at a path: itself, or those in a folder by :data:`NAMES`.

    Raises:
        UserError: there are none.
    """
    if path.is_file() and path.suffix.lower() in SUFFIXES:
        return [path]
    found = [
        path / f"{name}{suffix}" for name in NAMES for suffix in SUFFIXES if (path / f"{name}{suffix}").is_file()
    ]
    if path.is_dir() and found:
        return found
    raise UserError(
        f"{path} holds no conversations: give a file ({', '.join(SUFFIXES)}) in LLaVA's layout or with the columns "
        f"video, question and answer, or a folder with one called {', '.join(NAMES[:2])}, or train and test"
    )


def read_dialogues(file: Path, *, text_alone: bool = False) -> list[Dialogue]:
    """The conversations of one file.

    Of ``text_alone`` they are as people had them: what the assistant says before the first question and a last
    question without an answer are left out, conversations without any answer too (a warning counts these), and what
    looks like the place of a visual is text.

    Raises:
        UserError: it is damaged, or some are none; the message lists the first of them.
    """
    split = file.stem if file.stem in NAMES[2:] else ""
    table = file.suffix.lower() in (".csv", ".tsv")
    found: list[Dialogue] = []
    errors: list[str] = []
    unanswered = 0
    records = _table(file) if table else _records(file)
    for number, record in records:
        where = f"row {number}" if table else f"conversation {number}"
        try:
            made = _from_row(record, where, split) if table else _from_record(record, where, split, text_alone)
            unanswered += made is None
            found += [] if made is None else [made]
        except UserError as error:
            errors.append(str(error))
    if errors:
        more = f"\n  and {len(errors) - SHOWN} more" if len(errors) > SHOWN else ""
        raise UserError(
            f"{file}: {len(errors)} of {len(errors) + len(found)} conversations cannot be used:\n"
            + "\n".join(f"  {error}" for error in errors[:SHOWN])
            + more
        )
    if not found:
        raise UserError(f"{file} holds no conversation")
    if unanswered:
        log.warning(
            "%s: %d of %d conversations have no answer, and are left out", file, unanswered, unanswered + len(found)
        )
    return found


def _records(file: Path) -> Iterable[tuple[int, Any]]:
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{file} cannot be read: {error}") from None
    if file.suffix.lower() == ".json":
        try:
            values = json.loads(text)
        except ValueError as error:
            raise UserError(f"{file} is not JSON: {error}") from None
        if not isinstance(values, list):
            raise UserError(f"{file} should hold a list of conversations")
        return enumerate(values, 1)
    return _lines(file, text)


def _lines(file: Path, text: str) -> Iterator[tuple[int, Any]]:
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip():
            try:
                yield number, json.loads(line)
            except ValueError as error:
                raise UserError(f"{file}, line {number}, is not JSON: {error}") from None


def _from_record(record: Any, where: str, split: str, text_alone: bool) -> Dialogue | None:
    """A conversation; none if it is of text alone and has no answer."""
    told = next((record[n] for n in _TURNS if record.get(n) is not None), None) if isinstance(record, dict) else None
    if isinstance(told, str) and told.startswith("["):  # a table's cell holds JSON
        told = json.loads(told)
    if not isinstance(told, list):
        raise UserError(f'{where} has no "conversations"')
    name = str(record.get("id", record.get("prompt_id", where)))
    where = f"{where} ({name})"
    shows = record.get("video") or record.get("image") or None
    visuals = tuple(shows) if isinstance(shows, list) else () if shows is None else (shows,)
    if odd := [each for each in visuals if not isinstance(each, str)]:
        raise UserError(f"{where} has a visual that is no path: {odd[0]!r}")
    turns = _turns(told, where)
    alone = text_alone and not visuals
    if alone and not (turns := _answered(turns)):
        return None
    shown = VIDEO if record.get("video") else IMAGE
    return _checked(
        Dialogue(
            name=name,
            visuals=visuals,
            turns=grounded(_placed(turns, shown, len(visuals)), record, where),
            split=str(record.get("split", split)),
            kind=str(record.get("kind", record.get("type", ""))),
            options=tuple(map(str, record.get("options", ()))),
        ),
        where,
        alone=alone,
    )


def _turns(told: list[Any], where: str) -> list[Turn]:
    """The turns of a record; bare texts are of the user and the assistant in turn."""
    if told and all(isinstance(text, str) for text in told):
        return [Turn("assistant" if i % 2 else "user", text) for i, text in enumerate(told)]
    turns = []
    for turn in told:
        role = ROLES.get(str(turn.get("from", turn.get("role")))) if isinstance(turn, dict) else None
        text = turn.get("value", turn.get("content")) if isinstance(turn, dict) else None
        if role is None or not isinstance(text, str):
            raise UserError(f'{where} has a turn without "from" (human or gpt) and "value": {turn!r}'[:200])
        turns.append(Turn(role, text))
    return turns


def _answered(turns: list[Turn]) -> list[Turn]:
    """Turns from the first question, or what the system says before it, to the last answer; several of one side in a
    row are one."""
    system = [turn for turn in turns[:1] if turn.role == "system"]
    own = turns[len(system) :]
    asks = [i for i, turn in enumerate(own) if turn.role == "user"]
    says = [i for i, turn in enumerate(own) if turn.role == "assistant"]
    if not asks or not says or says[-1] < asks[0]:
        return []
    found: list[Turn] = []
    for turn in own[asks[0] : says[-1] + 1]:
        if found and found[-1].role == turn.role:
            found[-1] = Turn(turn.role, f"{found[-1].text}\n\n{turn.text}")
        else:
            found.append(turn)
    return [*system, *found]


def _table(file: Path) -> Iterator[tuple[int, dict[str, str]]]:
    try:
        with file.open(newline="", encoding="utf-8-sig") as opened:
            reader = csv.reader(opened, delimiter="\t" if file.suffix.lower() == ".tsv" else ",")
            header = [name.strip().lower() for name in next(reader, [])]
            places = {
                key: next((header.index(name) for name in names if name in header), None)
                for key, names in _COLUMNS.items()
            }
            if missing := [key for key in ("visual", "question", "answer") if places[key] is None]:
                wanted = ", ".join(f"{key} ({' or '.join(_COLUMNS[key][:3])})" for key in missing)
                raise UserError(f"{file} has no column of {wanted}; it has {', '.join(header) or 'nothing'}")
            for number, row in enumerate(reader, 2):
                if any(cell.strip() for cell in row):
                    yield (
                        number,
                        {k: row[i].strip() for k, i in places.items() if i is not None and i < len(row)},
                    )
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{file} cannot be read: {error}") from None


def _from_row(row: dict[str, str], where: str, split: str) -> Dialogue:
    if missing := [key for key in ("visual", "question", "answer") if not row.get(key)]:
        raise UserError(f"{where} has no {' and no '.join(missing)}")
    turns = [Turn("user", row["question"]), Turn("assistant", row["answer"])]
    return _checked(
        Dialogue(
            name=f"{row['visual']} {where}",
            visuals=(row["visual"],),
            turns=_placed(turns, VIDEO, 1),
            split=row.get("split") or split,
            kind=row.get("kind", ""),
            options=tuple(listed(row.get("options", ""), "|")),
        ),
        where,
    )


def _placed(turns: list[Turn], visual: str, count: int) -> tuple[Turn, ...]:
    """Turns in which the visuals, if there are any, have their places: first, where no text says otherwise.

    Videos may stand at ``<image>`` too (LLaVA-Video).
    """
    if not count or count_places(turns):
        return tuple(turns)
    first, shown = next((i for i, turn in enumerate(turns) if turn.role == "user"), None), f"{visual}\n" * count
    return tuple(Turn(turn.role, f"{shown}{turn.text}") if i == first else turn for i, turn in enumerate(turns))


def grounded(turns: Sequence[Turn], record: Mapping[str, Any], where: str) -> tuple[Turn, ...]:
    """Turns in which ``<box>`` and ``<time>`` are the record's ``boxes`` and ``times``, in their order, as text.

    Boxes are left, top, right and bottom: shares of the frame, or pixels where the record has ``width`` and
    ``height``. Times are seconds. Both may also stand in the text as they are.

    Raises:
        UserError: there are other numbers of them than places, or one is none.
    """
    if "boxes" not in record and "times" not in record:
        return tuple(turns)
    boxes, times = list(record.get("boxes", ())), list(record.get("times", ()))
    size = (record.get("width", 1), record.get("height", 1))
    texts = [turn.text for turn in turns]
    for name, given, written in (
        ("<box>", boxes, lambda box: box_text(box, size)),
        ("<time>", times, time_text),
    ):
        bare = re.compile(re.escape(name) + r"(?!\s*\()")
        if (places := sum(len(bare.findall(text)) for text in texts)) != len(given):
            raise UserError(f"{where} has {places} places {name} and {len(given)} of what stands there")
        try:
            said = [written(each) for each in given]
        except (TypeError, ValueError) as error:
            raise UserError(f"{where} has what is no {name[1:-1]}: {error}") from None
        pieces = [bare.split(text) for text in texts]
        filled = iter(said)
        texts = ["".join([first, *(next(filled) + rest for rest in others)]) for first, *others in pieces]
    return tuple(Turn(turn.role, text) for turn, text in zip(turns, texts))


def _checked(dialogue: Dialogue, where: str, *, alone: bool = False) -> Dialogue:
    """The conversation, seen to be one; of text ``alone`` there are no places of visuals."""
    check_turns(dialogue.turns, where, visuals=not alone)
    if dialogue.turns[-1].role != "assistant":
        raise UserError(f"{where} ends with a question that has no answer")
    places = 0 if alone else count_places(dialogue.turns)
    if places and dialogue.visual is None:
        raise UserError(f"{where} has a place of a visual ({' or '.join(PLACES)}) and no image or video")
    if places != (count := len(dialogue.visuals)):
        raise UserError(f"{where} has {places} places of visuals, and {count} visual{'s' if count > 1 else ''}")
    if dialogue.options and dialogue.turns[-1].text not in dialogue.options:
        raise UserError(f"{where}: the answer {dialogue.turns[-1].text!r} is none of its options")
    return dialogue
