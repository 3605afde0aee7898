import itertools

import pytest
import torch

from filmstrip.nn.attention import attend
from filmstrip.systems.recognition.video_swin import WindowAttention, fitted, join, neighbours, partition


def dense(attention, x, sizes, window, shift):
    """The same as attention over all places, with who sees whom written out for each pair."""
    b, heads = len(x), attention.num_heads
    q, k, v = attention.qkv(x.flatten(1, 3)).view(b, -1, 3, heads, attention.head_dim).permute(2, 0, 3, 1, 4)
    places = list(itertools.product(*map(range, sizes)))
    bias = torch.full((heads, len(places), len(places)), float("-inf"))
    for (n, here), (m, there) in itertools.product(enumerate(places), enumerate(places)):
        # Windows begin at the shift; what lies before it forms windows of its own.
        same = all((i - s) // size == (j - s) // size for i, j, size, s in zip(here, there, window, shift))
        if same:
            t, h, w = (i - j + full - 1 for i, j, full in zip(here, there, attention.window))
            bias[:, n, m] = attention.relative.bias[:, t, h, w]
    y = attend(q, k, v, bias=bias[None]).transpose(1, 2).flatten(2)
    return attention.out(y).view_as(x)


@pytest.mark.parametrize(
    ("sizes", "window", "shift"),
    [
        ((4, 4, 6), (2, 2, 3), (0, 0, 0)),
        ((4, 4, 6), (2, 2, 3), (1, 1, 1)),
        ((2, 4, 4), (4, 2, 2), (2, 1, 1)),  # a window longer than the clip
        ((3, 5, 4), (2, 2, 3), (0, 0, 0)),  # windows that do not tile the grid
        ((3, 5, 4), (2, 2, 3), (1, 1, 1)),
    ],
)
def test_window_attention_equals_dense_attention_with_a_mask(sizes, window, shift):
    torch.manual_seed(0)
    attention = WindowAttention(8, 2, window, shift)
    x = torch.randn(2, *sizes, 8)
    cut, moved = fitted(sizes, window, shift)
    got = attention(x, neighbours(sizes, cut, moved, x.device))
    torch.testing.assert_close(got, dense(attention, x, sizes, cut, moved), rtol=1e-4, atol=1e-5)
    weights = torch.randn_like(got)
    parameters = [p for name, p in attention.named_parameters() if name != "qkv.bias"]
    for ours, theirs in zip(
        torch.autograd.grad((got * weights).sum(), parameters),
        torch.autograd.grad((dense(attention, x, sizes, cut, moved) * weights).sum(), parameters),
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)


def test_windows_come_back_as_they_were():
    x = torch.randn(2, 4, 6, 4, 3)
    windows = partition(x, (2, 3, 2))
    assert windows.shape == (2, 8, 12, 3)
    assert torch.equal(windows[:, 1], x[:, :2, :3, 2:].flatten(1, 3))
    assert torch.equal(join(windows, (2, 3, 2), (4, 6, 4)), x)


def test_no_mask_where_every_place_of_a_window_sees_every_other():
    assert neighbours((4, 4, 4), (2, 2, 2), (0, 0, 0), torch.device("cpu")) is None
    assert fitted((2, 8, 8), (4, 8, 2), (2, 4, 1)) == ((2, 8, 2), (0, 0, 1))
