"""Sets of moments are matched and learned from as worked out by hand, and pairs of clips are what they should be."""

from types import SimpleNamespace

import pytest
import torch

from filmstrip.objectives.highlights import Pairs, draw_pairs, ranking_loss
from filmstrip.objectives.set_prediction import Predicted, Targets, foreground_loss, groundings, matched_losses

WEIGHTS = SimpleNamespace(span_weight=10.0, overlap_weight=1.0, class_weight=4.0)


def test_each_moment_is_matched_with_the_prediction_that_costs_least():
    spans = torch.tensor([[[[0.8, 0.2], [0.31, 0.2], [0.5, 0.9]]]], requires_grad=True)
    predicted = Predicted(spans, torch.zeros(1, 1, 3, 2))
    true = Targets(
        torch.tensor([[[0.3, 0.2], [0.75, 0.3], [0.5, 0.9]]]),
        torch.zeros(1, 3, dtype=torch.int64),
        torch.tensor([[True, True, False]]),
    )
    matched = matched_losses(predicted, true, WEIGHTS)
    assert matched.chosen.tolist() == [[[True, True, False]]]  # padding has none, though the third would fit it
    assert matched.span.item() == pytest.approx((0.01 + 0 + 0.05 + 0.1) / 4)
    (matched.span + matched.overlap).backward()
    assert spans.grad.isfinite().all() and not spans.grad[0, 0, 2].any() and spans.grad[0, 0, 0].any()


def test_sure_predictions_are_preferred_and_others_count_less():
    spans = torch.tensor([[[[0.3, 0.2], [0.3, 0.2]]]])
    logits = torch.tensor([[[[0.0, 0.0], [3.0, 0.0]]]])
    true = Targets(spans[0, :, :1], torch.zeros(1, 1, dtype=torch.int64), torch.ones(1, 1, dtype=torch.bool))
    matched = matched_losses(Predicted(spans, logits), true, WEIGHTS)
    assert matched.chosen.tolist() == [[[False, True]]]
    expected = (torch.tensor(2.0).log() * 0.1 + torch.tensor(1 + torch.e**-3.0).log()) / 2
    assert foreground_loss(logits, matched.chosen, 0.1).item() == pytest.approx(expected.item())
    none = Targets(true.spans, true.classes, ~true.valid)
    nothing = matched_losses(Predicted(spans, logits), none, WEIGHTS)
    assert nothing.span == nothing.overlap == 0 and not nothing.chosen.any()


def test_what_is_found_lies_within_the_video_and_comes_best_first():
    batch = {"seconds": torch.tensor([10.0], dtype=torch.float64), "length": torch.tensor([2])}
    ((found,),) = groundings(
        torch.tensor([[[0.5, 0.2], [0.1, 0.4]]]), torch.tensor([[0.2, 0.9]]), batch, torch.tensor([[3.0, 4.0, 5.0]])
    )
    torch.testing.assert_close(found.segments, torch.tensor([[0.0, 3.0], [4.0, 6.0]], dtype=torch.float64))
    assert found.scores.tolist() == pytest.approx([0.9, 0.2]) and found.saliency.tolist() == [3.0, 4.0]


def batch_of(ratings, relevant, rows=200):
    ratings = torch.tensor(ratings, dtype=torch.float32)
    return {
        "saliency": ratings[:, None].expand(rows, -1, 1),
        "relevant": torch.tensor(relevant, dtype=torch.bool).expand(rows, -1),
        "seed": torch.arange(rows),
    }


def test_rated_clips_are_compared_at_their_best_and_worst_and_with_others():
    batch, valid = batch_of([0, 5, 9, 1, 0, 0], [0, 1, 1, 1, 0, 0]), torch.tensor([1, 1, 1, 1, 1, 0]).bool()
    pairs = draw_pairs(batch, valid.expand(200, -1), rated=True)
    assert (pairs.better[:, 0] == 2).all() and (pairs.worse[:, 0] == 3).all() and pairs.there.all()
    assert set(pairs.better[:, 1].tolist()) == {1, 2, 3} and set(pairs.worse[:, 1].tolist()) == {0, 4}
    again = draw_pairs(batch, valid.expand(200, -1), rated=True)
    assert torch.equal(pairs.better, again.better) and torch.equal(pairs.worse, again.worse)


def test_videos_without_rest_have_the_first_pair_twice_and_those_without_moments_none():
    valid = torch.ones(200, 3, dtype=torch.bool)
    pairs = draw_pairs(batch_of([4, 2, 3], [1, 1, 1]), valid, rated=True)
    assert (pairs.better == 0).all() and (pairs.worse == 1).all() and pairs.there.all()
    assert not draw_pairs(batch_of([0, 0, 0], [0, 0, 0]), valid, rated=True).there.any()
    assert not draw_pairs(batch_of([1, 1, 1], [1, 1, 1]), valid, rated=False).there.any()


def test_unrated_clips_within_moments_are_compared_with_others():
    pairs = draw_pairs(batch_of([0, 1, 1, 0], [0, 1, 1, 0]), torch.ones(200, 4, dtype=torch.bool), rated=False)
    assert (pairs.better.sort(dim=1).values == torch.tensor([1, 2])).all()
    assert (pairs.worse.sort(dim=1).values == torch.tensor([0, 3])).all()
    lone = draw_pairs(batch_of([0, 1, 0, 0], [0, 1, 0, 0]), torch.ones(200, 4, dtype=torch.bool), rated=False)
    assert (lone.better == 1).all() and lone.there.all()


def test_the_better_clip_is_to_be_a_margin_above():
    scores = torch.tensor([[1.0, 0.9, 0.0], [5.0, 0.0, 0.0]])
    pairs = Pairs(
        torch.tensor([[0, 0], [0, 1]]), torch.tensor([[1, 2], [1, 0]]), torch.tensor([[1, 1], [1, 0]]).bool()
    )
    assert ranking_loss(scores, pairs, 0.2).item() == pytest.approx((0.2 - 0.1) / 2)
