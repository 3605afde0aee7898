"""People's votes on edited films, beside the films: ``votes.csv``, to which each vote is added at once.

A vote compares two methods' edits of one source, side by side without names, and answers three questions. Votes are
never mixed with measures: they have files, tables and words of their own.
"""

from __future__ import annotations

import csv
import io
import os
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import astuple, dataclass, fields
from datetime import datetime
from pathlib import Path

from filmstrip.data.edited_films import EditedFilm
from filmstrip.errors import UserError
from filmstrip.files import append_line

VOTES = "votes.csv"
QUESTIONS = {
    "better": "Which one is the better edit?",
    "text": "Which one is nearer to what was asked?",
    "source": "Which one keeps more of the source: its motion, and all that was not to change?",
}
"""Questions by their columns. The first must be answered; the others are the reasons that people are asked for (MoCA,
appendix F: matches the prompt, is consistent with the source), and may find no difference."""
LONGEST = 40
"""Maximum length of a judge's name."""


@dataclass(frozen=True)
class Vote:
    """One person's answers about two edits; an answer is one of the two methods."""

    time: str
    judge: str
    number: int
    """Number of the edit."""
    left: str
    """Method whose film was on the left."""
    right: str
    better: str
    text: str = ""
    """Method that is nearer to the text; empty where no difference was seen."""
    source: str = ""
    """Method that keeps more of the source; empty where no difference was seen."""

    @property
    def about(self) -> tuple[int, frozenset[str]]:
        """The edit and the two methods, wherever they were shown."""
        return self.number, frozenset((self.left, self.right))


COLUMNS = tuple(each.name for each in fields(Vote))


def read_votes(folder: Path) -> list[Vote]:
    """The votes of a folder, the last one of each person about the same two films; none without a file.

    Raises:
        UserError: the file is no such table, or a row is wrong; names it.
    """
    path = folder / VOTES
    if not path.is_file():
        return []
    found: dict[tuple[str, int, frozenset[str]], Vote] = {}
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        if missing := [name for name in COLUMNS if name not in (reader.fieldnames or ())]:
            raise UserError(f"{path} lacks the columns {', '.join(missing)}")
        for line, row in enumerate(reader, 2):
            vote = _vote(path, line, row)
            found[(vote.judge, *vote.about)] = vote
    return list(found.values())


def add_vote(folder: Path, vote: Vote) -> None:
    """Write a vote behind the others; it is on disk when this returns.

    Raises:
        OSError: it cannot be written; the file is as before.
    """
    path = folder / VOTES
    if not path.exists() or not path.stat().st_size:
        append_line(",".join(COLUMNS), path)
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="").writerow(astuple(vote))
    append_line(text.getvalue(), path)
    with path.open("rb") as file:
        os.fsync(file.fileno())


def now() -> str:
    """The time of a vote."""
    return datetime.now().astimezone().isoformat(timespec="seconds")


def judge_name(given: str) -> str:
    """A judge's name as the table has it.

    Raises:
        UserError: it is empty or too long.
    """
    name = " ".join(given.split())
    if not name or len(name) > LONGEST or not name.isprintable():
        raise UserError(f"give a name of 1 to {LONGEST} letters, so that nobody is asked the same twice")
    return name


def check_votes(votes: Sequence[Vote], films: Collection[EditedFilm], folder: Path) -> None:
    """See that votes are about films that a folder has.

    Raises:
        UserError: one is not.
    """
    there = {(film.number, film.method) for film in films}
    for vote in votes:
        if not {(vote.number, method) for method in (vote.left, vote.right)} <= there:
            raise UserError(
                f"{folder / VOTES} has a vote of {vote.judge} about edit {vote.number} by {vote.left} and "
                f"{vote.right}, and such films are not there: keep votes with the films that they are about"
            )


def majorities(votes: Sequence[Vote], first: str, second: str, question: str = "better") -> dict[int, str]:
    """The method of two that most people chose, by the edit's number; empty where as many chose either. Edits that
    nobody answered the question about are left out."""
    counts: dict[int, Counter[str]] = {}
    for vote in votes:
        answer: str = getattr(vote, question)
        if vote.about[1] == {first, second} and answer:
            counts.setdefault(vote.number, Counter())[answer] += 1
    return {
        number: "" if of[first] == of[second] else max((first, second), key=lambda method: of[method])
        for number, of in counts.items()
    }


def _vote(path: Path, line: int, row: dict[str, str | None]) -> Vote:
    cells = {name: (row[name] or "").strip() for name in COLUMNS}
    pair = (cells["left"], cells["right"])
    right = (
        cells["number"].isdecimal()
        and all(pair)
        and pair[0] != pair[1]
        and cells["better"] in pair
        and all(cells[name] in ("", *pair) for name in ("text", "source"))
    )
    if not right:
        raise UserError(f"{path}, row {line} is no vote: answers are one of its two methods, and better has one")
    texts = {name: cell for name, cell in cells.items() if name != "number"}
    return Vote(number=int(cells["number"]), **texts)
