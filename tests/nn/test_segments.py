"""Segments of time, on cases worked out by hand."""

import math

import pytest
import torch

from filmstrip.nn.segments import centre_and_length, generalised_iou, iou, soft_nms, start_and_end


def test_iou_of_pairs():
    one = torch.tensor([[0.0, 4.0], [2.0, 2.0]])
    other = torch.tensor([[2.0, 6.0], [4.0, 5.0], [0.0, 4.0], [2.0, 2.0]])
    assert iou(one, other).tolist() == [[pytest.approx(2 / 6), 0, 1, 0], [0, 0, 0, 0]]


def test_suppression_lowers_what_overlaps_and_is_of_the_same_class():
    segments = torch.tensor([[0.0, 4.0], [0.0, 4.0], [2.0, 6.0], [0.0, 4.0], [9.0, 10.0]])
    scores, classes = torch.tensor([0.9, 0.8, 0.7, 0.6, 0.5]), torch.tensor([0, 0, 0, 1, 0])
    which, kept = soft_nms(segments, scores, classes, sigma=0.5, min_score=0.01, max_segments=10)
    # The second is the first again, e^-2 of its score is left; the third shares a third of the time with both.
    third = 0.7 * math.exp(-(1 / 9) / 0.5)
    second = 0.8 * math.exp(-1 / 0.5) * math.exp(-(1 / 9) / 0.5)
    assert which.tolist() == [0, 3, 2, 4, 1]
    assert kept.tolist() == pytest.approx([0.9, 0.6, third, 0.5, second])
    assert scores.tolist() == pytest.approx([0.9, 0.8, 0.7, 0.6, 0.5])


def test_suppression_stops_at_the_least_score_and_at_the_most_segments():
    segments = torch.tensor([[0.0, 1.0], [0.0, 1.0], [5.0, 6.0]])
    scores, classes = torch.tensor([0.9, 0.1, 0.3]), torch.zeros(3, dtype=torch.int64)
    assert soft_nms(segments, scores, classes, sigma=0.5, min_score=0.2, max_segments=9)[0].tolist() == [0, 2]
    assert soft_nms(segments, scores, classes, sigma=0.5, min_score=0.0, max_segments=1)[0].tolist() == [0]
    which, kept = soft_nms(segments[:0], scores[:0], classes[:0], sigma=0.5, min_score=0.0, max_segments=1)
    assert which.shape == kept.shape == (0,)


def test_generalised_iou_takes_off_the_gap():
    one = torch.tensor([[0.0, 0.2], [0.5, 1.0], [0.3, 0.3]])
    other = torch.tensor([[0.0, 0.3], [0.0, 0.3], [0.3, 0.3]])
    assert generalised_iou(one, other).tolist() == [pytest.approx(2 / 3), pytest.approx(-0.2), 0.0]
    assert generalised_iou(one[:, None], other[None, :2]).shape == (3, 2)


def test_centres_and_lengths_are_ends_seen_otherwise():
    ends = torch.tensor([[0.2, 0.6], [0.0, 1.0]])
    assert centre_and_length(ends).tolist() == [[pytest.approx(0.4), pytest.approx(0.4)], [0.5, 1.0]]
    torch.testing.assert_close(start_and_end(centre_and_length(ends)), ends)
