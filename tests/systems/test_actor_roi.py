"""Actors are told by what lies in their boxes, on any backbone with places in space."""

from dataclasses import replace

import pytest
import torch
from drawn import NUM_CLASSES, draw_batch

from filmstrip import systems
from filmstrip.data.config import DataInfo
from filmstrip.errors import UserError
from filmstrip.objectives.config import ObjectiveConfig
from filmstrip.protocols import Detector, Features, Grid, Objective
from filmstrip.systems.detection.actor_roi import ActorRoI, slowfast_r50_4x16_ava, slowfast_r101_8x8_ava, tiny


class Colours(torch.nn.Module):
    """Each place of 8 x 8 pixels is its mean colour."""

    width, depth = 3, 0

    def forward(self, video, layers=False):
        pooled = torch.nn.functional.avg_pool2d(video.float().flatten(0, 1) / 255, 8).unflatten(0, video.shape[:2])
        t, h, w = pooled.shape[1], *pooled.shape[3:]
        return Features(pooled.permute(0, 1, 3, 4, 2).flatten(1, 3), Grid(t, h, w))


def test_a_box_is_told_by_what_lies_in_it():
    model = ActorRoI(Colours(), replace(tiny().objective, num_classes=3)).eval()
    torch.nn.init.eye_(model.head.weight)
    video = torch.zeros(1, 2, 3, 64, 96, dtype=torch.uint8)  # half as high again as wide: sides are not mixed up
    video[:, :, 0, :, :48] = 255  # the left half is red, for the whole time
    video[:, 1, 1, :32, 48:] = 255  # the upper right is green for half the time
    boxes = torch.tensor([[[0.0, 0.0, 0.4, 1.0], [0.6, 0.0, 1.0, 0.4], [0.6, 0.6, 1.0, 1.0]]])
    expected = torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.5, 0.0], [0.0, 0.0, 0.0]])
    torch.testing.assert_close(model.logits(video, boxes)[0].detach(), expected)
    torch.testing.assert_close(model.detect(video, boxes)[0].detach(), expected.sigmoid())


@pytest.fixture
def model():
    torch.manual_seed(0)
    return tiny().objective.build()


@pytest.fixture
def batch():
    return draw_batch(tiny().data, size=2, seed=0)


def test_it_is_a_detector(model, batch):
    assert isinstance(model, Detector)
    found = model.detect(batch["video"], batch["boxes"])
    assert found.shape == (2, 3, NUM_CLASSES) and found.min() > 0 and found.max() < 1


def test_padding_teaches_nothing(model, batch):
    model.eval()
    once = model(batch)
    other = dict(batch, boxes=batch["boxes"].clone(), box_labels=batch["box_labels"].clone())
    other["boxes"][:, 2] = 0.5
    other["box_labels"][:, 2] = 1.0
    torch.testing.assert_close(model(other).total, once.total)
    more = {
        key: torch.cat([batch[key], batch[key][:, 2:].expand(-1, 4, *batch[key].shape[2:])], dim=1)
        for key in ("boxes", "is_actor", "box_labels")
    }
    torch.testing.assert_close(model({**batch, **more}).total, once.total)
    nobody = model(dict(batch, is_actor=torch.zeros_like(batch["is_actor"])))
    assert nobody.total == 0 and nobody.metrics["actors"] == 0


def test_the_last_stage_is_twice_as_fine(model, batch):
    coarse = systems.find("recognition.slowfast:tiny").objective.build()
    fine = model.encoder(batch["video"]).grid
    assert fine == Grid(2, 8, 8) and coarse.encoder(batch["video"]).grid == Grid(2, 4, 4)
    assert {k: v.shape for k, v in coarse.encoder.state_dict().items()} == {
        k: v.shape for k, v in model.encoder.state_dict().items()
    }


@pytest.mark.parametrize("address", ["recognition.vit:tiny", "recognition.x3d:tiny", "recognition.single_frame:tiny"])
def test_other_backbones(address, batch):
    config = replace(tiny().objective, backbone=systems.find(address).objective)
    loss = config.build()(batch)
    loss.total.backward()
    assert loss.total.isfinite()


class Headless(ObjectiveConfig):
    """Builds no encoder."""

    def build(self):
        return Objective()


def test_sizes_come_from_the_data_and_a_backbone_needs_an_encoder():
    info = DataInfo(classes=("sit", "stand"), num_train=1, directional=False)
    assert slowfast_r50_4x16_ava().objective.bind(info).num_classes == 2
    assert slowfast_r101_8x8_ava().objective.backbone.fusion_frames == 5
    with pytest.raises(UserError, match="builds no encoder"):
        replace(tiny().objective, backbone=Headless()).build()
