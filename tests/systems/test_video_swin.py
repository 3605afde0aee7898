import itertools

import pytest
import torch

from filmstrip.models.video_swin import WindowAttention, fitted, inflate_swin, join, neighbours, partition
from filmstrip.nn.attention import attend
from filmstrip.systems.recognition.video_swin import VideoSwinConfig


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


@torch.no_grad()
def test_an_inflated_swin_sees_in_a_still_video_what_the_flat_one_sees_in_a_frame():
    torch.manual_seed(0)
    options = {"width": 16, "depths": (2, 2), "num_heads": (2, 4), "dropout": 0.0, "num_classes": 5}
    # A 2D Swin is one whose clips, patches and windows are a frame long.
    flat = VideoSwinConfig(**options, window=(1, 4, 4), patch_size=(1, 4, 4)).build().encoder.eval()
    for parameter in flat.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    solid = VideoSwinConfig(**options, window=(2, 4, 4), patch_size=(2, 4, 4)).build().encoder.eval()
    state = {}
    for name, tensor in flat.state_dict().items():
        if "normalise" in name:
            continue
        name = name.replace("embed_norm", "patch_embed.norm").replace("embed.proj", "patch_embed.proj")
        name = name.replace("patch_patch_", "patch_").replace("stages.", "layers.")
        name = name.replace("merges.0.reduce", "layers.0.downsample.reduction")
        name = name.replace("merges.0.norm", "layers.0.downsample.norm").replace("attention.out", "attn.proj")
        name = name.replace("attention.relative.bias", "attn.relative_position_bias_table")
        name = name.replace("attention.", "attn.")
        if name.endswith("table"):
            tensor = tensor.flatten(1).T
        if name == "patch_embed.proj.weight":
            tensor = tensor.view(16, 4, 4, 3).permute(0, 3, 1, 2)
        state[name] = tensor
    solid.load_state_dict(inflate_swin({"model": state}, solid), strict=False)
    frame = torch.rand(1, 1, 3, 32, 32)
    seen, whole = flat(frame), solid(frame.expand(1, 8, 3, 32, 32))
    assert whole.grid == (4, 4, 4)
    torch.testing.assert_close(
        whole.tokens.view(1, 4, 16, 32), seen.tokens[:, None].expand(1, 4, 16, 32), rtol=1e-4, atol=1e-4
    )
