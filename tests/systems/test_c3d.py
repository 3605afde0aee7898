"""The lecture's table of C3D, row by row."""

import pytest
import torch

from filmstrip import systems
from filmstrip.measure import receptive_field
from filmstrip.systems.recognition import c3d

CONVOLUTIONS = {  # output, giga multiply-adds
    "conv1": ((64, 16, 112, 112), 1.04),
    "conv2": ((128, 16, 56, 56), 11.10),
    "conv3a": ((256, 8, 28, 28), 5.55),
    "conv3b": ((256, 8, 28, 28), 11.10),
    "conv4a": ((512, 4, 14, 14), 2.77),
    "conv4b": ((512, 4, 14, 14), 5.55),
    "conv5a": ((512, 2, 7, 7), 0.69),
    "conv5b": ((512, 2, 7, 7), 0.69),
}
POOLED = [(64, 16, 56, 56), (128, 8, 28, 28), (256, 4, 14, 14), (512, 2, 7, 7), (512, 1, 3, 3)]


def test_every_row():
    layers = receptive_field.of_run(systems.find("recognition.c3d:sports1m"))
    convolutions = [layer for layer in layers if layer.name.startswith("conv")]
    pools = [layer for layer in layers if layer.name.startswith("max pool")]
    assert [(layer.channels, *layer.size) for layer in convolutions] == [size for size, _ in CONVOLUTIONS.values()]
    assert [(layer.channels, *layer.size) for layer in pools] == POOLED
    inputs = [3, *(layer.channels for layer in convolutions[:-1])]
    counted = [
        27 * c * layer.channels * torch.tensor(layer.size).prod().item() for c, layer in zip(inputs, convolutions)
    ]
    # The lecture cuts some of its figures off instead of rounding them.
    assert [count / 1e9 for count in counted] == pytest.approx([g for _, g in CONVOLUTIONS.values()], abs=0.01)
    assert sum(counted) / 1e9 == pytest.approx(38.497, abs=5e-4)


@pytest.mark.parametrize(("preset", "inputs"), [(c3d.sports1m, 512 * 9), (c3d.sports1m_released, 512 * 16)])
def test_fully_connected_layers(preset, inputs):
    with torch.device("meta"):
        objective = preset().objective.build()
    assert [tuple(m.weight.shape) for m in objective.hidden if hasattr(m, "weight")] == [(4096, inputs), (4096, 4096)]
    assert objective.head.weight.shape == (487, 4096)
