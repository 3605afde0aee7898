from dataclasses import replace

import pytest
import torch

from filmstrip.models.plain_cnn import ConvLayer, PlainCNN
from filmstrip.objectives.classification import ClassificationConfig
from filmstrip.objectives.mlp_head import MLPClassification
from filmstrip.protocols import Grid

LAYERS = (ConvLayer(width=6, kernel=(1, 3, 3), pool=(1, 4, 4)),)
FIVE, TWO = (ClassificationConfig(num_classes=count) for count in (5, 2))


def test_fully_connected_layers_tell_the_order_of_frames_and_the_mean_does_not():
    torch.manual_seed(0)
    encoder = PlainCNN(LAYERS)
    flat = MLPClassification(encoder, FIVE, hidden=(16,), grid=encoder.grid_of(4, 16)).eval()
    mean = MLPClassification(encoder, FIVE, hidden=(16,)).eval()
    video = torch.rand(2, 4, 3, 16, 16)
    assert flat.classify(video).shape == mean.classify(video).shape == (2, 5)
    assert torch.allclose(mean.classify(video.flip(1)), mean.classify(video), atol=1e-5)
    assert not torch.allclose(flat.classify(video.flip(1)), flat.classify(video), atol=1e-5)


def test_maps_are_flattened_channels_first():
    encoder = PlainCNN(LAYERS).eval()
    objective = MLPClassification(encoder, TWO, hidden=(3,), grid=Grid(1, 2, 2)).eval()
    video = torch.rand(1, 1, 3, 8, 8)
    tokens = encoder(video).tokens[0]
    hidden = objective.hidden[0](torch.cat([tokens[:, channel] for channel in range(6)])).relu()
    torch.testing.assert_close(objective.classify(video)[0], objective.head(hidden))


def test_clips_of_another_size_are_refused_by_name():
    encoder = PlainCNN(LAYERS)
    objective = MLPClassification(encoder, TWO, hidden=(3,), grid=encoder.grid_of(4, 16))
    with pytest.raises(ValueError, match=r"\(8, 3, 16, 16\).*\(8, 4, 4\).*\(4, 4, 4\)"):
        objective.classify(torch.rand(1, 8, 3, 16, 16))


def test_depth_and_dropout_between_layers():
    objective = MLPClassification(PlainCNN(LAYERS), replace(TWO, dropout=0.5), hidden=(3, 4))
    assert [type(module).__name__ for module in objective.hidden] == ["Linear", "ReLU", "Dropout", "Linear", "ReLU"]
    assert objective.depth_of("hidden.0.weight") == objective.depth_of("head.weight") == 1
