import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from filmstrip.nn.rotary import Rotary, grid_positions, rotate


def product(rotary, q, k, at_q, at_k):
    """The attention score of a query and a key at two positions."""
    rotated_q = rotate(q, rotary(torch.tensor([at_q])))
    rotated_k = rotate(k, rotary(torch.tensor([at_k])))
    return (rotated_q * rotated_k).sum()


@settings(max_examples=40, deadline=None)
@given(data=st.data(), axes=st.sampled_from([1, 2, 3]))
def test_scores_depend_on_relative_position_alone(data, axes):
    place = st.lists(st.integers(0, 50), min_size=axes, max_size=axes)
    at_q, at_k, shift = (data.draw(place) for _ in range(3))
    generator = torch.Generator().manual_seed(axes)
    q, k = torch.randn(2, 1, 1, 1, 20, generator=generator, dtype=torch.float32)
    rotary = Rotary(20, axes=axes)
    here = product(rotary, q, k, at_q, at_k)
    there = product(rotary, q, k, [a + s for a, s in zip(at_q, shift)], [a + s for a, s in zip(at_k, shift)])
    torch.testing.assert_close(here, there, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_every_axis_matters_and_lengths_stay(axes):
    rotary = Rotary(16, axes=axes)
    x = torch.randn(1, 1, 1, 16)
    origin = rotate(x, rotary(torch.zeros(1, axes)))
    torch.testing.assert_close(origin, x)
    for axis in range(axes):
        position = torch.zeros(1, axes)
        position[0, axis] = 1
        moved = rotate(x, rotary(position))
        assert not torch.allclose(moved, x)
        torch.testing.assert_close(moved.norm(), x.norm())


def test_one_axis_is_the_published_ladder():
    angles = Rotary(8, base=100.0)(torch.tensor([[3]]))
    torch.testing.assert_close(angles, 3 * torch.tensor([[1.0, 100**-0.25, 100**-0.5, 100**-0.75]]))


def test_positions_may_differ_between_samples():
    rotary = Rotary(8)
    x = torch.randn(2, 3, 4, 8)
    positions = torch.tensor([[[0], [1], [2], [3]], [[5], [6], [7], [8]]])
    both = rotate(x, rotary(positions))
    for sample in range(2):
        torch.testing.assert_close(both[sample], rotate(x[sample : sample + 1], rotary(positions[sample]))[0])


def test_head_too_small_for_axes():
    with pytest.raises(ValueError, match="at least 6 for 3 axes"):
        Rotary(4, axes=3)


def test_grid_positions_are_row_major():
    assert grid_positions((2, 3)).tolist() == [[0, 0], [0, 1], [0, 2], [1, 0], [1, 1], [1, 2]]
