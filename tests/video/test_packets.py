"""Times of frames from stamps that cannot be taken as they are."""

import numpy as np
import pytest

from filmstrip.video.packets import possible, repair_times


@pytest.mark.parametrize(
    ("pts", "dts", "expected"),
    [
        pytest.param([0, 10, 20], [0, 10, 20], [0, 10, 20], id="sound"),
        pytest.param([0, None, 20, None, None, 50], [None] * 6, [0, 10, 20, 30, 40, 50], id="gaps"),
        pytest.param([None, 10, 20, None], [None] * 4, [0, 10, 20, 30], id="both ends missing"),
        pytest.param(
            [0, 10, 40, 20, 30, 50], [None, 10, 20, 30, 40, 50], [0, 10, 20, 30, 40, 50], id="decoding times"
        ),
        pytest.param([0, 10, 10, 30], [None] * 4, [0, 10, 20, 30], id="a repeat"),
        pytest.param([None] * 3, [None] * 3, [0, 7, 14], id="nothing known"),
        pytest.param([5, None], [None] * 2, [5, 12], id="one known"),
        pytest.param([], [], [], id="no frames"),
    ],
)
def test_repaired_times(pts, dts, expected):
    times, absurd = repair_times(pts, dts, 7.0)
    np.testing.assert_allclose(times, expected)
    assert not absurd.any()


def test_times_that_no_double_holds_are_none():
    assert [possible(ticks) for ticks in (None, 0, -5, 2**51, 2**53, -(2**62))] == [None, 0, -5, 2**51, None, None]
