"""What the 3D residual networks have in common: SlowFast, X3D and the nonlocal network."""

import pytest
import torch
from torch import nn

from filmstrip.models.i3d import I3D, I3DArchitecture
from filmstrip.protocols import Encoder, Grid
from filmstrip.systems.recognition.nonlocal_net import NonLocal, NonLocalNetConfig, ResNet3D, insert_nonlocal
from filmstrip.systems.recognition.slowfast import SlowFast, SlowFastConfig
from filmstrip.systems.recognition.x3d import X3D, X3DConfig


def slowfast(**sizes):
    return SlowFastConfig(**sizes, fusion_frames=5, num_classes=5)


BUILD = {
    "i3d": lambda: ResNet3D(
        NonLocalNetConfig(
            stem_width=8,
            depths=(1, 2, 1),
            stem_frames=5,
            frames=((3,), (3, 1), (1,)),
            nonlocal_after=((), (0,), ()),
            pool_frames=True,
            num_classes=5,
        )
    ),
    "slowfast": lambda: SlowFast(slowfast(stem_width=16, depths=(1, 1, 1), speed_ratio=4, narrower=4)),
    "x3d": lambda: X3D(X3DConfig(width=8, deeper=1.0, bottleneck=2.25, hidden=8, num_classes=5)),
}
GRIDS = {"i3d": Grid(4, 4, 4), "slowfast": Grid(2, 4, 4), "x3d": Grid(8, 2, 2)}


@pytest.fixture(params=BUILD)
def name(request):
    return request.param


@pytest.fixture
def network(name):
    torch.manual_seed(0)
    return BUILD[name]()


def lively(network):
    """Scales that start at zero set to one, so that every block counts."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm3d):
            nn.init.ones_(module.weight)
    return network.eval()


def test_it_is_an_encoder_with_the_grid_of_its_strides(name, network):
    assert isinstance(network, Encoder)
    features = network(torch.randint(0, 256, (2, 8, 3, 64, 64), dtype=torch.uint8), layers=True)
    assert features.grid == GRIDS[name]
    assert features.tokens.shape == (2, features.grid.t * features.grid.h * features.grid.w, network.width)
    assert len(features.layers) == network.depth
    assert torch.equal(features.layers[-1], features.tokens)
    depths = {network.depth_of(parameter) for parameter, _ in network.named_parameters()}
    assert depths == set(range(network.depth + 1))


@torch.no_grad()
def test_the_order_of_frames_matters(network):
    network = lively(network)
    video = torch.rand(1, 8, 3, 64, 64)
    shuffled = video[:, [3, 0, 6, 1, 7, 2, 5, 4]]
    assert not torch.allclose(network(shuffled).pooled(), network(video).pooled(), rtol=1e-2)


@torch.no_grad()
def test_slow_frames_are_spread_from_the_first_to_the_last():
    network = SlowFast(slowfast(stem_width=8, depths=(1,), speed_ratio=8, narrower=8))
    numbers = torch.arange(32.0).view(1, 1, 32, 1, 1)
    # What torch.linspace(0, 31, 4).long() gives, by which the published networks choose.
    assert network._every_nth(numbers).flatten().tolist() == [0, 10, 20, 31]
    with pytest.raises(ValueError, match="12 frames are not a multiple of the speed ratio, 8"):
        network(torch.rand(1, 12, 3, 32, 32))


@torch.no_grad()
def test_pooled_slowfast_is_both_networks_means():
    network = lively(SlowFast(slowfast(stem_width=16, depths=(1, 1), speed_ratio=4, narrower=4)))
    ends = {}
    for part in ("slow", "fast"):
        stage = getattr(network, f"{part}_stages")[-1]
        stage.register_forward_hook(lambda m, x, y, part=part: ends.update({part: y.mean(dim=(2, 3, 4))}))
    pooled = network(torch.rand(2, 8, 3, 32, 32)).pooled()
    torch.testing.assert_close(pooled, torch.cat([ends["slow"], ends["fast"]], dim=1))
    assert ends["fast"].shape[1] * 4 == ends["slow"].shape[1]


@torch.no_grad()
@pytest.mark.parametrize("pairwise", ["embedded_gaussian", "dot_product", "concatenation"])
def test_an_inserted_block_changes_nothing_until_it_has_learnt(pairwise):
    torch.manual_seed(0)
    networks = {
        "stages.1.0": BUILD["i3d"](),
        "stages.2.1": X3D(X3DConfig(width=8, deeper=2.2, bottleneck=2.25, hidden=8, num_classes=5)),
        "stages.1.2": I3D(I3DArchitecture(num_classes=3, share=1 / 16)),
    }
    video = torch.rand(1, 8, 3, 64, 64)
    for name, network in networks.items():
        before = network.eval()(video).tokens
        width = network.get_submodule(name)(torch.zeros(1, _inputs(network, name), 2, 4, 4)).shape[1]
        block = NonLocal(width, pairwise=pairwise).eval()
        insert_nonlocal(network, name, block)
        assert torch.equal(network(video).tokens, before)
        block.norm.weight.fill_(10.0)
        assert not torch.allclose(network(video).tokens, before)


def _inputs(network, name):
    return next(m for m in network.get_submodule(name).modules() if isinstance(m, (nn.Conv2d, nn.Conv3d))).in_channels
