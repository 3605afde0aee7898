"""People's votes on edited films: how often one method is preferred to another, with Wilson's intervals."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

from filmstrip.data.edited_films import EditedFilm
from filmstrip.data.edits import TYPES
from filmstrip.data.votes import Vote, check_votes, majorities, read_votes
from filmstrip.report.comparison import wilson_interval
from filmstrip.report.sections import Cell, Column, Table

_SHARES = {"better": "better edit", "text": "nearer to the text", "source": "keeps the source"}
_LESS_IS_BETTER = ("flow_error",)
_OF_SOURCE = ("source_", "true_", "m_dir_undefined@", "m_geo_clamped@")
"""Beginnings of measures that say nothing of which edit is better."""


def vote_tables(folder: Path, films: Sequence[EditedFilm]) -> list[Table]:
    """Shares of edits of which most people prefer one method to another, over all and by type; none without votes.

    Raises:
        UserError: the votes cannot be read, or are about other films.
    """
    votes = read_votes(folder)
    check_votes(votes, films, folder)
    kinds = {film.number: film.type for film in films}
    methods = list(dict.fromkeys(film.method for film in films))
    pairs = [pair for pair in combinations(methods, 2) if majorities(votes, *pair)]
    if not pairs:
        return []
    judges = {vote.judge for vote in votes}
    columns = [Column("method"), Column("against"), Column("edits"), Column("ties")]
    for name in _SHARES.values():
        columns += [Column(name, ".0%"), Column("95% interval")]
    rows: list[list[Cell]] = []
    for first, second in pairs:
        found = majorities(votes, first, second)
        row: list[Cell] = [first, second, len(found), sum(not chosen for chosen in found.values())]
        for question in _SHARES:
            row += _share(list(majorities(votes, first, second, question).values()), first)
        rows.append(row)
    people = f"{len(judges)} {'people' if len(judges) > 1 else 'person'}"
    notes = (
        f"{len(votes):,} votes of {people}, who saw two edits of one source side by side without names, in random "
        "order. Edits are counted, not votes: of each, what most of those who judged it chose; where as many chose "
        "either it is a tie, and is left out of the share. The interval is Wilson's, for this many edits.",
        "The last two questions may be answered by no difference; those answers do not count.",
    )
    tables = [Table("Votes of people", columns, rows, notes)]
    present = [kind for kind in TYPES if kind in {kinds[vote.number] for vote in votes}]
    if len(present) > 1:
        heads = [Column(kind.replace("_", "-")) for kind in present]
        rows = [
            [first, second, *(_of_type(votes, first, second, kind, kinds) for kind in present)]
            for first, second in pairs
        ]
        note = "Share of edits whose majority prefers the method to the other, and how many edits that is of."
        tables.append(Table("Votes of people by type", [Column("method"), Column("against"), *heads], rows, (note,)))
    agreement = agreement_table(votes, films, pairs)
    return tables if agreement is None else [*tables, agreement]


def agreement_table(
    votes: Sequence[Vote], films: Sequence[EditedFilm], pairs: Sequence[tuple[str, str]]
) -> Table | None:
    """How often a measure prefers the edit that most people prefer (the metric accuracy of MoCA, table 7.3), over all
    edits and pairs of methods without ties; none where nothing was measured of them."""
    measured = {(film.number, film.method): film.measures for film in films}
    chosen = [
        (measured[number, preferred], measured[number, second if preferred == first else first])
        for first, second in pairs
        for number, preferred in majorities(votes, first, second).items()
        if preferred
    ]
    rows: list[list[Cell]] = []
    for name in dict.fromkeys(name for ours, theirs in chosen for name in ours if name in theirs):
        if name.startswith(_OF_SOURCE):
            continue
        differences = [ours[name] - theirs[name] for ours, theirs in chosen if name in ours and name in theirs]
        right = [(each < 0) if name in _LESS_IS_BETTER else (each > 0) for each in differences if each]
        if right:
            low, high = wilson_interval(sum(right) / len(right), len(right))
            rows.append([name, len(right), sum(right) / len(right), _interval(low, high)])
    if not rows:
        return None
    note = (
        "The share of pairs of edits in which the measure is better for the one that most people prefer; half is "
        "what chance has. Pairs with equal measures are left out. The votes above do not depend on any of this."
    )
    columns = [Column("measure"), Column("pairs"), Column("agrees", ".0%"), Column("95% interval")]
    return Table("How far measures agree with people", columns, rows, (note,))


def _share(chosen: Sequence[str], method: str) -> list[Cell]:
    """The share of decided edits in which a method was chosen, and its interval."""
    decided = [choice for choice in chosen if choice]
    if not decided:
        return [None, None]
    share = sum(choice == method for choice in decided) / len(decided)
    low, high = wilson_interval(share, len(decided))
    return [share, _interval(low, high)]


def _interval(low: float, high: float) -> str:
    return f"{low:.0%} to {high:.0%}".replace(" ", "\N{NO-BREAK SPACE}")


def _of_type(votes: Sequence[Vote], first: str, second: str, kind: str, kinds: dict[int, str]) -> str | None:
    found = majorities(votes, first, second)
    decided = [chosen for number, chosen in found.items() if chosen and kinds[number] == kind]
    return f"{sum(each == first for each in decided) / len(decided):.0%} ({len(decided)})" if decided else None
