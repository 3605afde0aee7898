import itertools

import pytest
import torch

from filmstrip.nn.relative_positions import DecomposedPositions, RelativeBias

GRIDS = {
    "same": ((2, 3, 4), (2, 3, 4)),
    "pooled keys": ((2, 4, 4), (2, 2, 1)),
    "pooled queries": ((2, 2, 2), (2, 4, 4)),
}


@pytest.mark.parametrize("name", GRIDS)
def test_decomposed_positions_are_a_product_with_the_vector_of_each_distance(name):
    torch.manual_seed(0)
    q_grid, k_grid = GRIDS[name]
    positions = DecomposedPositions(5, [max(pair) for pair in zip(q_grid, k_grid)])
    q = torch.randn(2, 3, q_grid[0] * q_grid[1] * q_grid[2], 5)
    got = positions(q, q_grid, k_grid)
    tables = (positions.time, positions.height, positions.across)
    places = [list(itertools.product(*map(range, grid))) for grid in (q_grid, k_grid)]
    for (n, here), (m, there) in itertools.product(enumerate(places[0]), enumerate(places[1])):
        vector = torch.zeros(5)
        for table, i, j, queries, keys in zip(tables, here, there, q_grid, k_grid):
            finest = max(queries, keys)  # both in steps of the finer grid
            furthest = (keys - 1) * finest // keys
            vector = vector + table[i * finest // queries - j * finest // keys + furthest]
        torch.testing.assert_close(got[:, :, n, m], q[:, :, n] @ vector, rtol=1e-4, atol=1e-6)


def test_larger_grids_interpolate_between_distances():
    positions = DecomposedPositions(4, (1, 2, 2))
    with torch.no_grad():
        for table in positions.parameters():
            table.copy_(torch.arange(float(len(table)))[:, None].expand_as(table))
    scores = positions(torch.ones(1, 1, 9, 4), (1, 3, 3), (1, 3, 3))
    # Distances -2 .. 2 of 3 places, out of the three vectors 0, 1, 2 of 2 places, on a line.
    column = scores[0, 0, :, 0].view(3, 3)[:, 0] - scores[0, 0, 0, 0]
    assert column[0] == 0 and column[1] > 0.5 and column[2] > column[1] + 0.5


def test_bias_is_one_number_for_each_offset():
    torch.manual_seed(0)
    relative = RelativeBias(2, (2, 3, 2))
    got = relative()
    places = list(itertools.product(range(2), range(3), range(2)))
    for (n, here), (m, there) in itertools.product(enumerate(places), enumerate(places)):
        t, h, w = (i - j + full - 1 for i, j, full in zip(here, there, (2, 3, 2)))
        assert torch.equal(got[:, n, m], relative.bias[:, t, h, w])


def test_a_smaller_window_has_the_biases_of_its_offsets():
    relative = RelativeBias(2, (2, 3, 3))
    torch.testing.assert_close(relative((1, 3, 3)), relative()[:, :9, :9])
    places = torch.arange(9).view(3, 3)[:2, :2].flatten()
    torch.testing.assert_close(relative((1, 2, 2)), relative()[:, :9, :9][:, places][:, :, places])
