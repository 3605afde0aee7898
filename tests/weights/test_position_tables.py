import torch

from filmstrip.weights.positions import side_by_side


def test_tables_add_up_to_what_lies_side_by_side():
    axes = [torch.randn(size, width) for size, width in ((3, 2), (1, 1), (4, 3))]
    first, last = side_by_side(axes)
    assert first.shape == (3, 6) and last.shape == (4, 6)
    for i in range(3):
        for j in range(4):
            torch.testing.assert_close(first[i] + last[j], torch.cat([axes[0][i], axes[1][0], axes[2][j]]))
