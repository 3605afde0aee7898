import pytest
import torch
from torch import nn

from filmstrip import systems
from filmstrip.data.config import Clip
from filmstrip.measure import receptive_field
from filmstrip.models.resnet import ResNet, ResNet2Plus1DArchitecture
from filmstrip.nn.conv import SpatialConv
from filmstrip.protocols import Features, Grid

# The lecture's table: what each layer puts out (C, then T x H x W), and what a place of it sees.
LECTURE = {
    "recognition.late_fusion:tiny_pooling": [
        (12, (20, 64, 64), (1, 3, 3)),
        (12, (20, 16, 16), (1, 6, 6)),
        (24, (20, 16, 16), (1, 14, 14)),
        (24, (1, 1, 1), (20, 64, 64)),
    ],
    "recognition.early_fusion:tiny": [
        (12, (1, 64, 64), (20, 3, 3)),
        (12, (1, 16, 16), (20, 6, 6)),
        (24, (1, 16, 16), (20, 14, 14)),
        (24, (1, 1, 1), (20, 64, 64)),
    ],
    "recognition.slow_fusion_3d:tiny": [
        (12, (20, 64, 64), (3, 3, 3)),
        (12, (5, 16, 16), (6, 6, 6)),
        (24, (5, 16, 16), (14, 14, 14)),
        (24, (1, 1, 1), (20, 64, 64)),
    ],
}


@pytest.mark.parametrize("address", LECTURE)
def test_the_lectures_table(address):
    layers = receptive_field.of_run(systems.find(address))
    assert [(layer.channels, layer.size, layer.field) for layer in layers] == LECTURE[address]
    assert receptive_field.is_chain(layers)


class Tower(nn.Module):
    width = 4
    depth = 0

    def __init__(self, *layers):
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def forward(self, video, layers=False):
        x = self.layers(video.transpose(1, 2))
        return Features(x.flatten(2).transpose(1, 2), Grid(*x.shape[2:]))


def test_it_is_what_gradients_show():
    """Every weight 1 and means for maxima: a place depends on exactly the pixels that its gradient reaches."""
    tower = Tower(
        nn.Conv3d(3, 4, (3, 5, 3), stride=(1, 2, 1), padding=(1, 2, 1)),
        nn.AvgPool3d((1, 2, 3)),
        nn.Conv3d(4, 4, 3, dilation=(2, 1, 1), padding=(2, 1, 1)),
        SpatialConv(4, 4, dilation=2),
        nn.Conv3d(4, 4, (1, 3, 2), stride=(2, 1, 1)),
    )
    for parameter in tower.parameters():
        nn.init.ones_(parameter)
    clip = Clip(num_frames=16, size=48)
    video = torch.zeros(1, 16, 3, 48, 48, requires_grad=True)
    seen = receptive_field.layers_of(tower, clip)[-2]
    tokens = tower(video).tokens.unflatten(1, seen.size)
    tokens[0, 3, seen.size[1] // 2, seen.size[2] // 2].sum().backward()
    touched = video.grad[0].sum(dim=1).nonzero()
    assert tuple((touched.amax(0) - touched.amin(0) + 1).tolist()) == seen.field


def test_branches_see_as_much_as_the_widest():
    clip = Clip(num_frames=8, size=32)
    layers = receptive_field.layers_of(
        ResNet(ResNet2Plus1DArchitecture(widths=(8, 8), depths=(1, 1), stem_width=8)), clip
    )
    # 7 x 7 with stride 2, four of 3 x 3 with the third of stride 2; in time five of 3, the fourth of stride 2.
    assert max(layer.field for layer in layers[:-1]) == (1 + 2 + 2 + 2 + 2 + 4, 7 + 4 + 4 + 4 + 8, 7 + 4 + 4 + 4 + 8)
    assert not receptive_field.is_chain(layers)


class Shuffled(Tower):
    def forward(self, video, layers=False):
        return super().forward(video.sort(dim=1).values)


def test_what_mixes_places_unseen_is_not_guessed():
    clip = Clip(num_frames=4, size=8)
    assert receptive_field.layers_of(Shuffled(nn.Conv3d(3, 4, 1)), clip) == []
    assert receptive_field.of_run(systems.find("recognition.vit:tiny")) == []


def test_the_table_is_for_a_person():
    run = systems.find("recognition.slow_fusion_3d:tiny")
    table = receptive_field.table(receptive_field.of_run(run), run.data.clip)
    cells = [cell for column in table.columns for cell in column.cells]
    assert {"max pool 4 x 4 x 4", "24 x 5 x 16 x 16", "14 x 14 x 14", "input"} <= set(cells)
