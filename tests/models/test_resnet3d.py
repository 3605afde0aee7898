import torch

from filmstrip.models.resnet3d import Bottleneck


def test_a_bottleneck_starts_as_its_shortcut():
    x = torch.rand(1, 8, 2, 4, 4)
    assert torch.equal(Bottleneck(8, 2, 8, frames=3)(x), x)
