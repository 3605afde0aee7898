"""Votes on edited films: on disk at once, the last one of each person counts, and what is wrong is said."""

from dataclasses import replace

import pytest

from filmstrip.data.votes import Vote, add_vote, check_votes, judge_name, majorities, read_votes
from filmstrip.errors import UserError

VOTE = Vote("2026-01-01T00:00:00", 'Ann, "the judge"', 3, "moca", "masactrl", better="moca", source="masactrl")


def votes(*answers, pair=("moca", "masactrl"), number=0):
    return [replace(VOTE, judge=f"judge {i}", number=number, left=pair[0], right=pair[1], better=b, source="")
            for i, b in enumerate(answers)]  # fmt: skip


def test_votes_are_read_as_they_were_written(tmp_path):
    assert read_votes(tmp_path) == []
    add_vote(tmp_path, VOTE)
    other = replace(VOTE, judge="Bob")
    add_vote(tmp_path, other)
    assert read_votes(tmp_path) == [VOTE, other]


def test_the_last_vote_of_a_person_about_two_films_counts(tmp_path):
    add_vote(tmp_path, VOTE)
    changed = replace(VOTE, left="masactrl", right="moca", better="masactrl")
    add_vote(tmp_path, changed)
    assert read_votes(tmp_path) == [changed]
    assert len((tmp_path / "votes.csv").read_text().splitlines()) == 3


def test_a_line_that_a_crash_left_torn_is_named_and_later_votes_are_whole_lines(tmp_path):
    add_vote(tmp_path, VOTE)
    path = tmp_path / "votes.csv"
    path.write_bytes(path.read_bytes() + b"2026-01-01,Eve,4,mo")
    add_vote(tmp_path, replace(VOTE, judge="Bob"))
    with pytest.raises(UserError, match="row 3 is no vote"):
        read_votes(tmp_path)
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines[:2], lines[3]]) + "\n")
    assert [vote.judge for vote in read_votes(tmp_path)] == [VOTE.judge, "Bob"]


def test_majorities_are_of_edits_and_ties_are_told():
    all_votes = [
        *votes("moca", "moca", "masactrl", number=0),
        *votes("masactrl", number=1),
        *votes("moca", "masactrl", number=2),
        *votes("moca", pair=("moca", "sdedit"), number=3),
    ]
    assert majorities(all_votes, "moca", "masactrl") == {0: "moca", 1: "masactrl", 2: ""}
    assert majorities(all_votes, "masactrl", "moca") == {0: "moca", 1: "masactrl", 2: ""}
    assert majorities(all_votes, "moca", "masactrl", "source") == {}  # nobody saw a difference


def test_what_is_no_vote_is_refused(tmp_path):
    add_vote(tmp_path, replace(VOTE, better="another"))
    with pytest.raises(UserError, match="row 2 is no vote"):
        read_votes(tmp_path)
    (tmp_path / "votes.csv").write_text("time,who\n")
    with pytest.raises(UserError, match="lacks the columns judge"):
        read_votes(tmp_path)
    with pytest.raises(UserError, match="such films are not there"):
        check_votes([VOTE], [], tmp_path)


@pytest.mark.parametrize("name", ["", " \n", "x" * 41, "a\x00b"])
def test_names_of_judges(name):
    assert judge_name("  Ann \n Lee ") == "Ann Lee"
    with pytest.raises(UserError, match="give a name"):
        judge_name(name)
