import math

import pytest
import torch
from in_memory import MemorySource, Video
from torch import nn

from filmstrip.evals.knn import KNN
from filmstrip.protocols import Features, Grid, Objective


def directions(*degrees):
    """Points at these angles, each at another distance: only their direction may matter."""
    angles = torch.deg2rad(torch.tensor(degrees, dtype=torch.float32))
    distance = torch.arange(1, len(degrees) + 1)
    return torch.stack([angles.cos() * distance, angles.sin() * distance], dim=1)


def test_votes_are_the_weights_of_the_nearest():
    train, labels = directions(0, 10, 180), torch.tensor([0, 1, 1])
    votes = KNN(k=2, temperature=0.5).votes(train, labels, directions(2), 2)
    expected = [math.exp(math.cos(math.radians(d)) / 0.5) for d in (2, 8)]
    assert votes[0].tolist() == pytest.approx(expected, rel=1e-5)


def test_scale_does_not_matter():
    train, labels = directions(0, 90), torch.tensor([0, 1])
    one = KNN(k=1).votes(train, labels, directions(30), 2)
    other = KNN(k=1).votes(7 * train, labels, 0.01 * directions(30), 2)
    torch.testing.assert_close(one, other)


def test_ties_for_the_last_place_share_it_whatever_the_order():
    """One place is left for two equally near videos of different classes: half a vote each."""
    train, labels = directions(0, 20, -20), torch.tensor([2, 0, 1])
    votes = KNN(k=2, temperature=1.0).votes(train, labels, directions(0), 3)[0]
    half = math.exp(math.cos(math.radians(20))) / 2
    assert votes.tolist() == pytest.approx([half, half, math.e], rel=1e-5)
    order = [2, 0, 1]
    again = KNN(k=2, temperature=1.0).votes(train[order], labels[order], directions(0), 3)[0]
    torch.testing.assert_close(votes, again)


def test_many_identical_neighbours_count_as_k():
    train, labels = torch.ones(10, 2), torch.tensor([0] * 4 + [1] * 6)
    votes = KNN(k=5, temperature=1.0).votes(train, labels, torch.ones(1, 2), 2)[0]
    assert votes.tolist() == pytest.approx([2 * math.e, 3 * math.e], rel=1e-5)


def test_k_is_bounded_by_the_training_set():
    votes = KNN(k=20).votes(directions(0, 90), torch.tensor([0, 1]), directions(80), 2)
    assert votes.argmax(dim=1).tolist() == [1]


class Circle(nn.Module):
    """A video of value ``v`` lies at ``v`` degrees in the only layer."""

    width = 2

    def __call__(self, video, layers=False):
        angle = torch.deg2rad(video[:, 0, 0, 0, 0].float())
        return Features(torch.stack([angle.cos(), angle.sin()], dim=1)[:, None], Grid(1, 1, 1))


def test_through_the_protocol(subject_of):
    objective = Objective()
    objective.encoder = Circle()
    source = MemorySource(
        "ab",
        train=[Video("r", 0, (0,)), Video("s", 0, (20,)), Video("t", 1, (160,)), Video("u", 1, (180,))],
        test=[Video("v", 0, (10,)), Video("w", 1, (170,)), Video("x", 0, (165,)), Video("broken", 0, ())],
    )
    found = dict(KNN(k=1)(subject_of(objective, source)))
    assert found == {
        "knn/layer_0/top1": pytest.approx(2 / 3),
        "knn/best_top1": pytest.approx(2 / 3),
        "knn/best_layer": 0,
    }
