import pytest
import torch

from filmstrip.models.resnet import ResNet, ResNet2Plus1DArchitecture, ResNetArchitecture
from filmstrip.protocols import Encoder, Grid

SMALL = dict(widths=(8, 12, 16), depths=(1, 2, 1))
RESNET18 = dict(widths=(64, 128, 256, 512), depths=(2, 2, 2, 2))


def build(kind, **options):
    if kind == "2d":
        return ResNet(ResNetArchitecture(**SMALL | options))
    return ResNet(ResNet2Plus1DArchitecture(**SMALL | {"stem_width": 6} | options))


@pytest.fixture(params=["2d", "2plus1d"])
def kind(request):
    return request.param


def test_it_is_an_encoder_with_the_grid_of_its_strides(kind):
    network = build(kind)
    assert isinstance(network, Encoder)
    features = network(torch.randint(0, 256, (2, 8, 3, 32, 32), dtype=torch.uint8), layers=True)
    assert features.grid == Grid(8 if kind == "2d" else 2, 4, 4)
    assert features.tokens.shape == (2, features.grid.t * 16, 16)
    assert [layer.shape[-1] for layer in features.layers] == [8, 12, 16]
    assert torch.equal(features.layers[-1], features.tokens)


def test_early_stride_halves_every_grid(kind):
    video = torch.rand(1, 8, 3, 32, 32)
    grid = build(kind, early_stride=2)(video).grid
    assert grid == Grid(8 if kind == "2d" else 1, 2, 2)


@pytest.mark.parametrize(("kind", "mixes"), [("2d", False), ("2plus1d", True)])
def test_only_the_factorised_network_mixes_frames(kind, mixes):
    network = build(kind).eval()
    video = torch.rand(1, 4, 3, 16, 16)
    shuffled = network(video[:, [2, 0, 3, 1]]).pooled()
    assert torch.allclose(shuffled, network(video).pooled(), rtol=1e-4, atol=1e-5) != mixes


def test_sizes_of_18_layers_are_the_published_ones():
    with torch.device("meta"):
        network = build("2plus1d", **RESNET18, stem_width=45)
    # torchvision's r2plus1d_18 has 31,505,325 parameters, of which 512 * 400 + 400 are its classifier's.
    assert sum(p.numel() for p in network.parameters()) == 31_505_325 - 512 * 400 - 400
    with torch.device("meta"):
        network = build("2d", **RESNET18)
    # Its resnet18 has 11,689,512, of which 512 * 1000 + 1000 are its classifier's; and one max pooling.
    assert sum(p.numel() for p in network.parameters()) == 11_689_512 - 512 * 1000 - 1000


def test_depths_count_stages():
    network = build("2plus1d")
    assert network.depth_of("stem.0.weight") == 0
    assert network.depth_of("stages.2.0.body.0.0.weight") == 3
    assert network.depth == 3


def test_without_its_mean_frame_a_still_background_does_not_matter():
    torch.manual_seed(0)
    network = build("2plus1d", subtract_mean_frame=True).eval()
    moving = torch.rand(1, 8, 3, 32, 32) / 2
    background = torch.rand(1, 1, 3, 32, 32) / 2
    with torch.no_grad():
        assert torch.allclose(network(moving + background).tokens, network(moving).tokens, atol=1e-4)
        assert not torch.allclose(network(moving.flip(1)).tokens, network(moving).tokens, atol=1e-2)
