import pytest
import torch
import torch.nn.functional as F

from filmstrip.models.plain_cnn import ConvLayer, PlainCNN
from filmstrip.protocols import Encoder, Grid

LAYERS = (
    ConvLayer(width=6, kernel=(1, 5, 5), stride=(1, 2, 2), norm="response", pool=(1, 2, 2)),
    ConvLayer(width=8, kernel=(2, 3, 3), stride=(2, 1, 1), valid_time=True, norm="none"),
    ConvLayer(width=10, pool=(2, 2, 2), pool_padding=(0, 1, 1)),
)


@pytest.mark.parametrize(("frames", "size"), [(8, 32), (9, 37)])
def test_it_is_an_encoder_with_the_grid_that_it_foretells(frames, size):
    network = PlainCNN(LAYERS)
    assert isinstance(network, Encoder)
    features = network(torch.randint(0, 256, (2, frames, 3, size, size), dtype=torch.uint8), layers=True)
    assert features.grid == network.grid_of(frames, size)
    assert features.tokens.shape == (2, features.grid.t * features.grid.h * features.grid.w, 10)
    assert [layer.shape[-1] for layer in features.layers] == [6, 8, 10]
    assert [network.depth_of(f"layers.{i}.0.weight") for i in range(3)] == [0, 1, 2] and network.depth == 2


def test_a_kernel_as_long_as_the_clip_is_a_2d_one_on_stacked_frames():
    torch.manual_seed(0)
    network = PlainCNN((ConvLayer(width=12, kernel=(20, 3, 3), valid_time=True, norm="none"),)).eval()
    video = torch.rand(2, 20, 3, 16, 16)
    conv = network.layers[0][0]
    stacked = network.normalise(video).transpose(1, 2).flatten(1, 2)  # B (C T) H W
    expected = F.relu(F.conv2d(stacked, conv.weight.flatten(1, 2), conv.bias, padding=1))
    features = network(video)
    assert features.grid == Grid(1, 16, 16) and conv.weight.flatten(1, 2).shape == (12, 60, 3, 3)
    torch.testing.assert_close(features.tokens.transpose(1, 2).unflatten(2, (16, 16)), expected)


def test_only_time_that_is_looked_across_is_mixed():
    torch.manual_seed(0)
    within = PlainCNN((ConvLayer(width=4, kernel=(1, 3, 3)), ConvLayer(width=4, kernel=(1, 3, 3)))).eval()
    across = PlainCNN((ConvLayer(width=4), ConvLayer(width=4))).eval()
    video = torch.rand(1, 6, 3, 16, 16)
    shuffled = video[:, [2, 0, 5, 1, 4, 3]]
    assert torch.allclose(within(shuffled).pooled(), within(video).pooled(), atol=1e-6)
    assert not torch.allclose(across(shuffled).pooled(), across(video).pooled(), atol=1e-4)
