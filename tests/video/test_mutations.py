"""Damaged files give frames or a ``DecodeError``; ``mutations.py`` tries as many as one likes."""

import pytest
from mutations import try_copy


@pytest.mark.parametrize("first", range(0, 200, 50))
def test_some_damaged_files(first):
    outcomes = {number: try_copy(number)[1] for number in range(first, first + 50)}
    failures = {number: outcome for number, outcome in outcomes.items() if outcome not in ("frames", "DecodeError")}
    assert not failures
    assert len(set(outcomes.values())) == 2, "both readable and unreadable ones"


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_many_damaged_files():
    failures = [outcome for outcome in map(try_copy, range(200, 5000)) if outcome[1] not in ("frames", "DecodeError")]
    assert not failures
