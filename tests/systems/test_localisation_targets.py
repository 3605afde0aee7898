"""Which point finds which action, and what its answer costs, on cases worked out by hand."""

import pytest
import torch

from filmstrip.systems.localisation.actionformer import Points, assign, diou_loss, focal_loss


def points(*rows):
    """Each of (time, stride, least reach, most reach)."""
    time, stride, least, most = torch.tensor(rows, dtype=torch.float32).unbind(1)
    return Points(time, stride, torch.stack([least, most], dim=1))


def test_points_near_the_middle_find_actions_of_their_levels_size():
    level = [(float(t), 1.0, 0.0, 4.0) for t in range(10)] + [(float(t), 2.0, 4.0, 99.0) for t in range(0, 10, 2)]
    segments = torch.tensor([[[2.0, 6.0], [0.0, 9.0], [0.0, 0.0]]])
    found = assign(points(*level), segments, torch.tensor([[1, 2, -1]]), num_classes=3, radius=1.5)
    # The short one lies around 4: rows 3, 4, 5 of the fine level. The long one around 4.5, within 3: 2, 4, 6 of the
    # coarse one, whose reach it has.
    assert found.classes[0, :, 1].nonzero()[:, 0].tolist() == [3, 4, 5]
    assert found.classes[0, :, 2].nonzero()[:, 0].tolist() == [10 + 1, 10 + 2, 10 + 3]
    assert not found.classes[..., 0].any()
    assert found.distances[0, 3].tolist() == [1.0, 3.0]
    assert found.distances[0, 11].tolist() == [1.0, 3.5]


def test_of_several_actions_the_shortest_is_found_and_equal_ones_together():
    here = points((5.0, 1.0, 0.0, 99.0))
    segments = torch.tensor([[[3.0, 7.0], [4.0, 6.0], [4.0, 6.0]]])
    found = assign(here, segments, torch.tensor([[0, 1, 2]]), num_classes=3, radius=1.5)
    assert found.classes.tolist() == [[[0, 1, 1]]] and found.distances.tolist() == [[[1, 1]]]


def test_a_video_without_actions_has_nothing_to_find():
    found = assign(
        points((1.0, 1.0, 0.0, 9.0)), torch.zeros(1, 2, 2), torch.full((1, 2), -1), num_classes=2, radius=2
    )
    assert not found.positive.any() and found.distances.isfinite().all()


def test_distance_iou_of_segments_around_a_point():
    loss = diou_loss(
        torch.tensor([[1.0, 1.0], [2.0, 0.0], [0.0, 0.0]]), torch.tensor([[1.0, 1.0], [0.0, 2.0], [1, 1]])
    )
    # The second two only touch: nothing is shared of 4, and the middles lie 2 of 4 apart.
    assert loss.tolist() == pytest.approx([0.0, 1 + 0.25, 1.0])


def test_focal_loss_counts_little_what_is_easy():
    logits = torch.tensor([0.0, 4.0, -4.0])
    half = 0.25 * 0.5**2 * torch.tensor(2.0).log()
    easy = 0.25 * (1 - logits[1].sigmoid()) ** 2 * -logits[1].sigmoid().log()
    hard = 0.25 * (1 - logits[2].sigmoid()) ** 2 * -logits[2].sigmoid().log()
    torch.testing.assert_close(focal_loss(logits, torch.ones(3)), torch.stack([half, easy, hard]))
    torch.testing.assert_close(focal_loss(logits, torch.zeros(3)), 3 * focal_loss(-logits, torch.ones(3)))
