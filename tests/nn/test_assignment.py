"""The assignment of least cost, against another solver."""

import hypothesis.extra.numpy as arrays
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment

from filmstrip.nn.assignment import assign


@st.composite
def problems(draw):
    """Costs ``B Q M``, with many ties or without, and the number of valid targets of each row."""
    rows, predictions = draw(st.integers(1, 3)), draw(st.integers(1, 7))
    targets = draw(st.integers(1, predictions))
    numbers = draw(st.sampled_from([st.integers(-2, 2), st.integers(-(10**6), 10**6)]))
    cost = draw(arrays.arrays(np.float64, (rows, predictions, targets), elements=numbers.map(float)))
    return cost, draw(st.lists(st.integers(0, targets), min_size=rows, max_size=rows))


@settings(max_examples=60, deadline=None)
@given(problems())
def test_the_total_cost_is_the_least(problem):
    cost, counts = problem
    valid = torch.arange(cost.shape[2]) < torch.tensor(counts)[:, None]
    chosen = assign(torch.from_numpy(cost), valid)
    for row, indices, count in zip(cost, chosen.tolist(), counts):
        mine = indices[:count]
        assert len(set(mine)) == count and all(0 <= i < cost.shape[1] for i in mine)
        best = linear_sum_assignment(row[:, :count])
        assert sum(row[i, j] for j, i in enumerate(mine)) == pytest.approx(row[:, :count][best].sum())


def test_more_targets_than_predictions_are_refused():
    with pytest.raises(ValueError, match="3 targets cannot each have one of 2"):
        assign(torch.zeros(1, 2, 3), torch.ones(1, 3, dtype=torch.bool))
