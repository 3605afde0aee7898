import pytest
import torch

from filmstrip.nn.axial import AxialAttention, AxialPositions


def test_each_place_sees_its_three_lines_and_nothing_else():
    torch.manual_seed(0)
    attention = AxialAttention(12, 2)
    x = torch.randn(1, 3, 4, 5, 12, requires_grad=True)
    attention(x)[0, 1, 2, 3].sum().backward()
    seen = x.grad[0].abs().sum(-1) > 0
    t, h, w = torch.meshgrid(torch.arange(3), torch.arange(4), torch.arange(5), indexing="ij")
    same = torch.stack([t == 1, h == 2, w == 3]).sum(0)
    assert torch.equal(seen, same >= 2)


def test_it_is_the_sum_of_attention_along_each_axis():
    torch.manual_seed(0)
    attention = AxialAttention(12, 2)
    x = torch.randn(2, 3, 4, 5, 12)
    out = attention(x)
    b, t, h, w = 1, 2, 3, 4
    lines = (
        (attention.time, x[b, :, h, w], t),
        (attention.height, x[b, t, :, w], h),
        (attention.across, x[b, t, h, :], w),
    )
    expected = sum(layer(line[None])[0, place] for layer, line, place in lines)
    torch.testing.assert_close(out[b, t, h, w], expected)


def test_positions_give_a_third_of_the_channels_to_each_axis():
    positions = AxialPositions((2, 3, 4), 6)
    out = positions((2, 3, 4))
    assert out.shape == (2, 3, 4, 6)
    torch.testing.assert_close(
        out[1, 2, 3], torch.cat([positions.axes[0][1], positions.axes[1][2], positions.axes[2][3]])
    )
    torch.testing.assert_close(positions((1, 2, 2)), out[:1, :2, :2])


def test_positions_refuse_what_they_have_not_learnt():
    with pytest.raises(ValueError, match=r"\(3, 3, 4\).*exceeds the \(2, 3, 4\)"):
        AxialPositions((2, 3, 4), 6)((3, 3, 4))
    with pytest.raises(ValueError, match="width 8"):
        AxialPositions((2, 3, 4), 8)
