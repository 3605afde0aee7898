import math

import pytest
import torch

from filmstrip.nn.positions import sincos_axes
from filmstrip.protocols import Grid


def test_axes_lie_side_by_side_as_published():
    grid, width = Grid(3, 4, 5), 32
    table = sincos_axes(grid, width)
    assert table.shape == (60, 32)
    t, y, x = 2, 3, 1
    expected = []
    for position, channels in ((t, 8), (x, 12), (y, 12)):
        angles = [position / 10_000 ** (i / (channels / 2)) for i in range(channels // 2)]
        expected += [*map(math.sin, angles), *map(math.cos, angles)]
    torch.testing.assert_close(table[(t * 4 + y) * 5 + x], torch.tensor(expected))


def test_axes_need_a_width_that_they_divide():
    with pytest.raises(ValueError, match="multiple of 16, got 24"):
        sincos_axes(Grid(1, 2, 2), 24)
