import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from filmstrip.nn.rotary import Rotary, grid_positions, rope_ids, rotate
from filmstrip.protocols import Grid


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


@pytest.mark.parametrize("base", [1e4, 5e7])
def test_angles_of_a_million_positions_are_those_of_float64(base):
    at = torch.tensor([[0], [1], [4095], [131_071], [2**20 - 1]])
    angles = Rotary(128, base=base)(at).double()
    exact = at.double() * base ** (-torch.arange(64, dtype=torch.float64) / 64)
    # Half of the last bit of a float32: of the frequency, times the position, and of the angle.
    bound = 2**-23 * exact + 1e-9
    assert ((angles - exact).abs() <= 2 * bound).all()
    assert (angles - exact).abs().max() < 0.2  # radians, of 2.6 where frequencies were bfloat16
    turned = (angles.cos() - exact.cos()).abs().amax(dim=1)
    assert turned[:3].max() < 1e-3 and turned.max() < 0.15


def test_frequencies_stay_float32_in_a_network_of_bfloat16():
    rotary = Rotary(128, base=5e7)
    before = rotary(torch.tensor([[2**20 - 1]]))
    assert torch.equal(torch.nn.Sequential(rotary).bfloat16()[0](torch.tensor([[2**20 - 1]])), before)
    assert rotary.frequencies.dtype == torch.float32


def test_a_larger_base_is_not_a_division_of_positions():
    at = torch.arange(9)[:, None]
    plain, base, index = Rotary(32)(at), Rotary(32, base=8 * 10_000.0)(at), Rotary(32, index_scale=8)(at)
    torch.testing.assert_close(index, plain / 8)
    pair = torch.arange(16) / 16
    torch.testing.assert_close(base, plain / 8**pair)  # s^(2i/d): none for the first, nearly s for the last
    assert torch.equal(base[:, 0], plain[:, 0]) and (base[1:, 1:] > 1.1 * index[1:, 1:]).all()
    # What a query sees of its neighbour.
    q, k = torch.randn(2, 1, 1, 1, 32, generator=torch.Generator().manual_seed(0))
    near = [product(rotary, q, k, [5], [4]) for rotary in (Rotary(32), Rotary(32, base=80_000.0))]
    assert abs(near[0] - near[1]) < abs(near[0] - product(Rotary(32, index_scale=8), q, k, [5], [4]))


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


def test_sections_with_equal_positions_are_one_axis():
    at = torch.tensor([[0], [3], [41]])
    one, three = Rotary(16, base=1e6), Rotary(16, base=1e6, sections=(2, 3, 3))
    assert torch.equal(three(at.expand(3, 3)), one(at))


def test_sections_cut_one_ladder():
    angles = Rotary(8, base=16.0, sections=(1, 2, 1))(torch.tensor([[1, 10, 100]]))
    torch.testing.assert_close(angles, torch.tensor([[1.0, 10 * 16**-0.25, 10 * 16**-0.5, 100 * 16**-0.75]]))


def test_sections_that_do_not_fill_a_head_are_refused():
    with pytest.raises(ValueError, match="need a head_dim of 8, got 16"):
        Rotary(16, sections=(1, 2, 1))


def marks(*runs):
    """A row of marks from runs of visual (positive) and of text (negative) tokens."""
    return torch.cat([torch.full((abs(run),), run > 0) for run in runs])[None]


def written_out(layout):
    """Positions by the rule itself: text counts up, a visual starts at the next free position on each axis."""
    found, free = [], 0
    for part in layout:
        if isinstance(part, int):
            found += [(free + i,) * 3 for i in range(part)]
        else:
            found += [
                (free + t, free + h, free + w) for t in range(part.t) for h in range(part.h) for w in range(part.w)
            ]
        free = 1 + max(max(at) for at in found) if found else 0
    return found


def test_ids_of_the_published_example():
    ids = rope_ids(marks(-1, 8, -2), [Grid(2, 2, 2)])[0].T.tolist()
    assert ids[0] == [0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 4]
    assert ids[1] == [0, 1, 1, 2, 2, 1, 1, 2, 2, 3, 4]
    assert ids[2] == [0, 1, 2, 1, 2, 1, 2, 1, 2, 3, 4]


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_ids_of_any_row_follow_the_rule(data):
    grids = [Grid(*data.draw(st.tuples(*[st.integers(1, 4)] * 3))) for _ in range(data.draw(st.integers(1, 3)))]
    texts = data.draw(st.lists(st.integers(0, 4), min_size=len(grids) + 1, max_size=len(grids) + 1))
    layout, runs = [texts[0]], [-texts[0]]
    for grid, text in zip(grids, texts[1:]):
        layout += [grid, text]
        runs += [grid.t * grid.h * grid.w, -text]
    assert [tuple(at) for at in rope_ids(marks(*runs), grids)[0].tolist()] == written_out(layout)


def test_rows_may_have_fewer_visuals():
    visual = torch.cat([marks(-2, 4, -1, 2), marks(-9), marks(4, -5)])
    ids = rope_ids(visual, [Grid(1, 2, 2), Grid(2, 1, 1)])
    assert [tuple(at) for at in ids[0].tolist()] == written_out([2, Grid(1, 2, 2), 1, Grid(2, 1, 1)])
    assert ids[1].tolist() == [[i] * 3 for i in range(9)]
    assert [tuple(at) for at in ids[2].tolist()] == written_out([Grid(1, 2, 2), 5])


def test_text_after_a_long_video_is_later_than_its_last_frame():
    ids = rope_ids(marks(5, -1), [Grid(5, 1, 1)])
    assert ids[0, -1].tolist() == [5, 5, 5]
