"""The dense probe and the boxes of phrases: cells and overlaps by hand, and both protocols on real files."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from filmstrip import systems
from filmstrip.data.config import Clip, Data
from filmstrip.data.kinds.captioned import Captioned
from filmstrip.data.kinds.regions import Regions
from filmstrip.data.sources import open_source
from filmstrip.data.synthetic.narrated import NarratedShapes
from filmstrip.errors import UserError
from filmstrip.evals.dense_probe import DenseProbe, cell_classes, mean_iou, probed
from filmstrip.evals.referring import Referring, overlap
from filmstrip.protocols import Features, Grid, Objective
from filmstrip.runs.evaluation import Subject

SET = NarratedShapes(num_train=24, num_test=8, num_frames=2, size=48, labels="form")


@pytest.fixture(scope="module")
def subject(tmp_path_factory):
    folder = SET.generate(tmp_path_factory.mktemp("dense") / "set")
    clip = Clip(num_frames=2, sampling="uniform", size=48, short_side=(48, 48))
    data = Data(path=folder, reads=Regions(max_length=16), clip=clip, num_workers=0)
    return Subject(objective=Seeing(), source=open_source(data), data=data, device=torch.device("cpu"))


class Colours(torch.nn.Module):
    """An encoder whose tokens are the mean colours of patches of 8 x 8 pixels."""

    width = 3

    def forward(self, video, layers=False):
        rows = video.float().unflatten(4, (-1, 8)).unflatten(3, (-1, 8)).mean(dim=(4, 6))
        batch, frames, _, h, w = rows.shape
        return Features(rows.permute(0, 1, 3, 4, 2).reshape(batch, -1, 3), Grid(frames, h, w))


class Seeing(Objective):
    """Finds the box of what is bright, whatever the phrase says."""

    def __init__(self):
        super().__init__()
        self.encoder = Colours()

    def locate(self, video, phrase, lengths, *native):
        bright = video.amax(dim=2) > 90
        boxes = torch.zeros(*bright.shape[:2], 4)
        for i, clip in enumerate(bright):
            for t, frame in enumerate(clip):
                rows, columns = frame.any(dim=1).nonzero()[:, 0], frame.any(dim=0).nonzero()[:, 0]
                if len(rows):
                    ends = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
                    boxes[i, t] = torch.stack(ends) / frame.shape[-1]
        return boxes[:, None].expand(-1, phrase.shape[1], -1, -1)


def test_cells_have_the_class_of_the_smallest_box_around_their_middle():
    boxes = torch.tensor([[[0, 0, 1, 0.5], [0.5, 0.25, 1, 0.5], [0, 0, 0, 0]]])
    found = cell_classes(boxes, torch.tensor([[1, 2, 0]]), Grid(1, 4, 4)).view(4, 4)
    assert found.tolist() == [[1, 1, 1, 1], [1, 1, 2, 2], [0, 0, 0, 0], [0, 0, 0, 0]]


def test_intersections_over_unions_are_those_by_hand():
    predicted, truth = torch.tensor([0, 0, 1, 1, 2, 2]), torch.tensor([0, 1, 1, 1, 2, 0])
    assert mean_iou(predicted, truth, 4) == pytest.approx(
        (1 / 3 + 2 / 3 + 1 / 2) / 3
    )  # the fourth class is not there
    one = torch.tensor([[0.0, 0, 2, 2], [0, 0, 1, 1], [0, 0, 0, 0]])
    other = torch.tensor([[1.0, 1, 3, 3], [0, 0, 1, 1], [0, 0, 0, 0]])
    assert overlap(one, other).tolist() == pytest.approx([1 / 7, 1, 0])


def test_a_linear_probe_finds_what_is_linear():
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randn(200, 4, generator=generator)
    classes = (tokens[:, 1] > 0).long() + 2 * (tokens[:, 2] > 0).long()
    predicted = probed(tokens[:150], classes[:150], tokens[150:], 4, 1e-4)
    assert (predicted == classes[150:]).float().mean() > 0.9


def test_colours_of_patches_tell_shapes_from_the_background_and_another_clips_do_not(subject):
    protocol = DenseProbe(batch_size=8)
    protocol.check(subject)
    found = dict(protocol(subject))
    assert set(found) == {f"dense/{blind}{name}" for blind in ("", "blind_") for name in ("cell_accuracy", "miou")}
    assert found["dense/miou"] > found["dense/blind_miou"]
    one_class = dataclasses.replace(subject, source=dataclasses.replace(subject.source, classes=("thing",)))
    assert "compares classes" in protocol.lacking(one_class.source, subject.data)


def test_boxes_of_what_is_bright_are_found_in_their_own_clip_alone(subject):
    protocol = Referring(batch_size=8)
    protocol.check(subject)
    found = dict(protocol(subject))
    assert found["referring/accuracy"] > 0.9 > 0.5 > found["referring/blind_accuracy"]
    assert found["referring/mean_iou"] > 0.8
    strict = dict(dataclasses.replace(protocol, iou=1.0)(subject))
    assert strict["referring/accuracy"] < found["referring/accuracy"]


def test_what_they_cannot_ask_is_refused(subject):
    plain = systems.find("language.siglip").objective.build()
    with pytest.raises(UserError, match="finds nothing by phrases"):
        Referring().check(dataclasses.replace(subject, objective=plain))
    captions = dataclasses.replace(subject.data, reads=Captioned(max_length=16))
    assert "boxes" in Referring().lacking(open_source(captions), captions)
