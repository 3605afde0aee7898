"""Pairs of edited films that people judge: who is asked about which next, and which method is on which side."""

from __future__ import annotations

import hashlib
import threading
from collections import Counter
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

from filmstrip.data.edited_films import EditedFilm, read_edited
from filmstrip.data.side_by_side import by_edit
from filmstrip.data.votes import QUESTIONS, Vote, add_vote, check_votes, judge_name, now, read_votes
from filmstrip.errors import UserError
from filmstrip.studio.places import Missing

SIDES = ("left", "right")
SAME = "same"
"""Answer that sees no difference."""


@dataclass(frozen=True)
class Pair:
    """Two methods' edits of one source."""

    a: EditedFilm
    b: EditedFilm

    @property
    def about(self) -> tuple[int, frozenset[str]]:
        """The edit and the two methods, as votes have them."""
        return self.a.number, frozenset((self.a.method, self.b.method))

    @property
    def key(self) -> str:
        """A name of the pair that says nothing of the methods."""
        return _digest(self.a.number, *sorted((self.a.method, self.b.method)))

    def sides(self, judge: str) -> tuple[EditedFilm, EditedFilm]:
        """What a judge sees on the left and on the right."""
        return (self.a, self.b) if int(_digest(judge, self.key, "side"), 16) % 2 else (self.b, self.a)


class Rating:
    """The pairs of a folder of edited films, and the votes on them, which are on disk when they are counted."""

    def __init__(self, folder: Path, against: str | None = None) -> None:
        """``against`` restricts the pairs to those with this method.

        Raises:
            UserError: the folder holds no edited films, or not of two methods; there is no such method; or votes
                cannot be read.
        """
        films = read_edited(folder)
        methods = list(dict.fromkeys(film.method for film in films))
        if against is not None and against not in methods:
            raise UserError(f"there are no edits by {against}; there are some by {', '.join(methods)}")
        self.folder = folder
        self.pairs = {
            pair.key: pair
            for of_edit in by_edit(films).values()
            for pair in (Pair(a, b) for a, b in combinations(of_edit.values(), 2))
            if against is None or against in pair.about[1]
        }
        if not self.pairs:
            raise UserError(
                f"{folder} has edits by {', '.join(methods)}, and no two of one edit to compare: add some with "
                f"`filmstrip eval RUN --protocol video_edit --by SYSTEM --out {folder}`"
            )
        votes = read_votes(folder)
        check_votes(votes, films, folder)
        self._votes = {(vote.judge, *vote.about): vote for vote in votes}
        self._lock = threading.Lock()

    def done(self, judge: str) -> int:
        """How many of the pairs a judge has judged."""
        with self._lock:
            return sum((judge, *pair.about) in self._votes for pair in self.pairs.values())

    def next(self, judge: str) -> Pair | None:
        """A pair that a judge has not judged: one of those with the fewest votes, in an order of the judge's own."""
        with self._lock:
            counts = Counter(vote.about for vote in self._votes.values())
            left = [pair for pair in self.pairs.values() if (judge, *pair.about) not in self._votes]
        return min(left, key=lambda pair: (counts[pair.about], _digest(judge, pair.key, "order")), default=None)

    def pair(self, key: str) -> Pair:
        """A pair by its key.

        Raises:
            Missing: there is none.
        """
        if key not in self.pairs:
            raise Missing("there is no such pair of films")
        return self.pairs[key]

    def vote(self, judge: str, key: str, answers: dict[str, str]) -> Vote:
        """Write a judge's answers, by sides; a second vote of the same judge about the pair replaces the first.

        Raises:
            UserError: an answer is missing or unknown, or the name is none.
            OSError: it cannot be written.
        """
        judge, pair = judge_name(judge), self.pair(key)
        left, right = pair.sides(judge)
        named = {"left": left.method, "right": right.method, SAME: ""}
        if answers.get("better") not in SIDES or any(answers.get(name) not in named for name in QUESTIONS):
            raise UserError("answer the first question by left or right, and the others by these or no difference")
        chosen = {name: named[answers[name]] for name in QUESTIONS}
        vote = Vote(time=now(), judge=judge, number=pair.a.number, left=left.method, right=right.method, **chosen)
        with self._lock:
            add_vote(self.folder, vote)
            self._votes[(judge, *vote.about)] = vote
        return vote


def _digest(*told: object) -> str:
    return hashlib.blake2b(repr(told).encode("utf-8", "surrogateescape"), digest_size=8).hexdigest()
