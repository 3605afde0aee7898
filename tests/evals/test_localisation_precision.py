"""Mean average precision of localised actions, on cases worked out by hand."""

from dataclasses import replace

import pytest
import torch

from filmstrip import systems
from filmstrip.data.config import Data
from filmstrip.data.kinds.untrimmed import UntrimmedVideos
from filmstrip.data.sources import open_source
from filmstrip.data.synthetic.untrimmed import Untrimmed
from filmstrip.errors import UserError
from filmstrip.evals.localisation import LocalisationMAP, average_precision, mean_average_precision
from filmstrip.protocols import Detections, Objective
from filmstrip.runs.evaluation import Subject


def precision(true, predictions, thresholds=(0.5,)):
    """``true`` and ``predictions`` as lists of (video, first, last) and (score, video, first, last)."""
    videos = {video: torch.tensor([row[1:] for row in true if row[0] == video]).double() for video, *_ in true}
    made = [(score, video, torch.tensor([first, last]).double()) for score, video, first, last in predictions]
    return average_precision(videos, made, thresholds)


def test_precision_is_the_best_at_a_recall_or_beyond():
    true = [(0, 0.0, 10.0), (0, 20.0, 30.0), (1, 0.0, 10.0)]
    made = [(0.9, 0, 0.0, 10.0), (0.8, 0, 50.0, 60.0), (0.7, 1, 0.0, 9.0), (0.6, 0, 20.0, 29.0)]
    # Right, wrong, right, right: precision 1, 1/2, 2/3, 3/4, made to fall: 1, 3/4, 3/4, 3/4.
    assert precision(true, made) == [pytest.approx((1 + 3 / 4 + 3 / 4) / 3)]
    # Without the last, two thirds of all are found: the rest counts as nothing.
    assert precision(true, made[:3]) == [pytest.approx((1 + 2 / 3) / 3)]


def test_an_action_is_found_once_by_the_surest():
    true = [(0, 0.0, 10.0)]
    assert precision(true, [(0.5, 0, 0.0, 10.0), (0.9, 0, 0.0, 8.0)], (0.5, 0.9)) == [1.0, 0.5]
    assert precision(true, [(0.9, 0, 0.0, 10.0), (0.5, 0, 0.0, 10.0)]) == [1.0]


def test_one_that_was_found_leaves_the_next_best_to_the_next():
    true = [(0, 0.0, 10.0), (0, 2.0, 12.0)]
    assert precision(true, [(0.9, 0, 1.0, 10.0), (0.8, 0, 0.0, 10.0)]) == [1.0]


def test_the_overlap_of_a_threshold_is_enough_and_other_videos_count_as_wrong():
    assert precision([(0, 0.0, 10.0)], [(0.9, 0, 0.0, 5.0)]) == [1.0]
    assert precision([(0, 0.0, 10.0)], [(0.9, 3, 0.0, 10.0), (0.8, 0, 0.0, 10.0)]) == [0.5]
    assert precision([(0, 0.0, 10.0)], []) == [0.0]


def test_classes_that_nobody_did_do_not_count():
    truth = [[(0, 0.0, 10.0)], [(2, 5.0, 6.0)]]
    found = {
        0: Detections(
            torch.tensor([[0.0, 10.0], [0.0, 3.0]]).double(), torch.tensor([0.9, 0.8]), torch.tensor([0, 1])
        ),
        1: Detections(torch.zeros(0, 2).double(), torch.zeros(0), torch.zeros(0, dtype=torch.int64)),
    }
    assert mean_average_precision(truth, found, (0.3, 0.7)) == [0.5, 0.5]


class Oracle(Objective):
    """Says what the annotations say, off by a share of the length."""

    def __init__(self, source, off=0.0):
        super().__init__()
        self.videos = {sample.name: sample.video.steps for sample in source.split("test")}
        self.off = off

    def localise(self, batch):
        return [
            Detections(
                torch.tensor([[s.start, s.end - self.off * (s.end - s.start)] for s in self.videos[name]]).double(),
                torch.ones(len(self.videos[name])),
                torch.tensor([s.step for s in self.videos[name]]),
            )
            for name in batch["name"]
        ]


@pytest.mark.parametrize(("off", "expected"), [(0.0, [1, 1, 1, 1, 1]), (0.45, [1, 1, 1, 0, 0])])
def test_what_the_annotations_say_is_right(off, expected):
    data = Data(synthetic=Untrimmed(num_train=1, num_test=5), reads=UntrimmedVideos(width=4), num_workers=0)
    source = open_source(data)
    subject = Subject(objective=Oracle(source, off), source=source, data=data, device=torch.device("cpu"))
    values = dict(LocalisationMAP()(subject))
    assert [values[f"mAP@{t}"] for t in (0.3, 0.4, 0.5, 0.6, 0.7)] == expected and values["count"] == 5
    assert values["mAP"] == pytest.approx(sum(expected) / 5)


def test_what_cannot_be_evaluated_is_refused():
    data = Data(synthetic=Untrimmed(num_train=1, num_test=1), reads=UntrimmedVideos(width=4), num_workers=0)
    source = open_source(data)
    subject = Subject(objective=Objective(), source=source, data=data, device=torch.device("cpu"))
    with pytest.raises(UserError, match="does not localise"):
        list(LocalisationMAP()(subject))
    steps = open_source(systems.find("procedures.transformer").data)
    with pytest.raises(UserError, match="no untrimmed videos"):
        list(LocalisationMAP()(replace(subject, objective=Oracle(source), source=steps)))
