import math
from dataclasses import replace

import pytest
import torch
from in_memory import MemorySource, Video
from torch import nn

from filmstrip.errors import UserError
from filmstrip.evals.multi_view import MultiView
from filmstrip.protocols import Objective


class Table(Objective):
    """Looks up the logits of a video's value."""

    def __init__(self, logits):
        super().__init__()
        self.table = nn.Parameter(torch.tensor(logits, dtype=torch.float32))
        self.frozen = nn.Dropout()
        self.frozen.eval()

    def classify(self, video):
        assert not self.training and torch.is_inference_mode_enabled()
        return self.table[video[:, 0, 0, 0, 0].long()]


def log(*rows):
    return [[math.log(p) for p in row] for row in rows]


def values(subject, **options):
    return dict(MultiView(**options)(subject))


def test_perfect_classifier(subject_of):
    source = MemorySource("abc", test=[Video(str(i), i % 3, (i % 3,)) for i in range(7)])
    found = values(subject_of(Table(torch.eye(3).tolist()), source), num_clips=1, num_crops=1)
    assert found == {"top1": 1.0, "mean_class_accuracy": 1.0, "count": 7.0, "unreadable": 0.0}


def test_constant_classifier_is_at_chance(subject_of):
    """Always class 0: right on its 6 of 8 videos, but on one class of two."""
    source = MemorySource("ab", test=[Video(str(i), int(i >= 6), (0,)) for i in range(8)])
    found = values(subject_of(Table([[1.0, 0.0]]), source), num_clips=1, num_crops=1)
    assert found["top1"] == 0.75
    assert found["mean_class_accuracy"] == 0.5


def test_probabilities_are_averaged_not_logits_nor_votes(subject_of):
    """One view is sure of class 1, two lean to class 0: the mean of probabilities says 1, a vote would say 0."""
    objective = Table(log((0.6, 0.4), (0.05, 0.95)))
    source = MemorySource("ab", test=[Video("x", 1, (0, 1, 0))])
    predictions = MultiView(num_clips=3, num_crops=1, batch_size=2).predictions(subject_of(objective, source))
    assert predictions.probabilities[0].tolist() == pytest.approx([1.25 / 3, 1.75 / 3])
    assert predictions.accuracy() == 1.0


def test_mean_of_probabilities_differs_from_mean_of_logits(subject_of):
    """Extreme logits of one view would win a mean of logits; probabilities bound what one view can say."""
    objective = Table([[100.0, 0.0], *log((0.2, 0.8))])
    source = MemorySource("ab", test=[Video("x", 1, (0, 1, 1))])
    predictions = MultiView(num_clips=3, num_crops=1).predictions(subject_of(objective, source))
    assert predictions.probabilities[0].tolist() == pytest.approx([1.4 / 3, 1.6 / 3])


def test_top5_counts_the_fifth_and_not_the_sixth(subject_of):
    objective = Table([[6.0, 5.0, 4.0, 3.0, 2.0, 1.0]])
    source = MemorySource("abcdef", test=[Video(str(label), label, (0,)) for label in (0, 4, 5)])
    found = values(subject_of(objective, source), num_clips=1, num_crops=1)
    assert found["top1"] == pytest.approx(1 / 3)
    assert found["top5"] == pytest.approx(2 / 3)


def test_mean_class_accuracy_ignores_classes_without_videos(subject_of):
    """Class 2 has no video, though one video is mistaken for it: it counts neither as right nor as wrong."""
    source = MemorySource("abc", test=[Video("x", 0, (0,)), Video("y", 1, (1,)), Video("z", 1, (2,))])
    found = values(subject_of(Table(torch.eye(3).tolist()), source), num_clips=1, num_crops=1)
    assert found["mean_class_accuracy"] == pytest.approx((1 + 0.5) / 2)


def test_unreadable_and_unlabelled_videos(subject_of):
    videos = [Video("good", 1, (1,)), Video("broken", 0, ()), Video("unlabelled", None, (0,))]
    subject = subject_of(Table(torch.eye(2).tolist()), MemorySource("ab", test=videos))
    found = values(subject, num_clips=1, num_crops=1)
    assert (found["top1"], found["count"], found["unreadable"]) == (1.0, 1.0, 1.0)
    assert MultiView().predictions(subject).names == ("good",)


def test_confusion_has_truth_in_rows(subject_of):
    source = MemorySource("ab", test=[Video("x", 0, (1,)), Video("y", 0, (1,)), Video("z", 1, (1,))])
    predictions = MultiView().predictions(subject_of(Table(torch.eye(2).tolist()), source))
    assert predictions.confusion().tolist() == [[0, 2], [0, 1]]


def test_predictions_are_handed_on_and_clips_only_where_asked_for(subject_of):
    """Two clips of two crops: views 0, 1 | 1, 1 of a video, after one without a label; batches split clips."""
    videos = [Video("unlabelled", None, (0, 0, 0, 0)), Video("x", 1, (0, 1, 1, 1)), Video("y", 0, (0, 0, 0, 1))]
    subject = subject_of(Table(log((0.8, 0.2), (0.4, 0.6))), MemorySource("ab", test=videos))
    kept = []
    values(replace(subject, keep=kept.append), num_clips=2, num_crops=2, batch_size=3)
    assert kept[0].names == ("x", "y") and kept[0].clips is None
    found = MultiView(num_clips=2, num_crops=2, batch_size=3).predictions(replace(subject, per_clip=True))
    assert torch.equal(found.probabilities, kept[0].probabilities)
    assert found.clips.video.tolist() == [0, 0, 1, 1]
    assert found.clips.spans.tolist() == [[0.0, 0.5], [1.0, 1.5]] * 2
    assert found.clips.probabilities[:, 0].tolist() == pytest.approx([0.6, 0.4, 0.8, 0.6])


def test_modes_are_restored_and_inference_does_not_leak(subject_of):
    objective = Table(torch.eye(2).tolist()).train()
    objective.frozen.eval()
    stream = MultiView()(subject_of(objective, MemorySource("ab", test=[Video("x", 0, (0,))])))
    next(stream)
    assert not torch.is_inference_mode_enabled()
    assert objective.training and not objective.frozen.training


@pytest.mark.parametrize(
    ("objective", "videos", "words"),
    [
        (Objective(), [Video("x", 0, (0,))], "not a classifier"),
        (Table([[1.0, 2.0, 3.0]]), [Video("x", 0, (0,))], "3 classes, but the data has 2"),
        (Table([[1.0, float("nan")]]), [Video("x", 0, (0,))], "not finite"),
        (Table([[1.0, 2.0]]), [Video("x", 0, ())], "nothing to evaluate"),
    ],
)
def test_errors_for_people(subject_of, objective, videos, words):
    with pytest.raises(UserError, match=words):
        MultiView().predictions(subject_of(objective, MemorySource("ab", test=videos)))
