"""Models of images and texts in two towers: what their losses are, and what they are of."""

import dataclasses
import math

import pytest
import torch
import torch.nn.functional as F
from drawn import draw_batch, info_for

from filmstrip import systems
from filmstrip.data.config import DataInfo
from filmstrip.errors import UserError
from filmstrip.objectives.contrastive import choice_loss, sigmoid_loss, softmax_loss
from filmstrip.protocols import DualEncoder


def pairs(n, seed=0, width=8):
    torch.manual_seed(seed)
    return F.normalize(torch.randn(n, width), dim=1), F.normalize(torch.randn(n, width), dim=1)


def test_the_sigmoid_loss_is_a_mean_over_rows_and_a_sum_within():
    for n in (2, 5, 16):
        x, y = pairs(n)
        assert sigmoid_loss(0 * (x @ y.T), torch.eye(n, dtype=torch.bool)) == pytest.approx(n * math.log(2))
        logits = 10 * x @ y.T - 10
        by_hand = sum(
            math.log1p(math.exp(-(1 if i == j else -1) * float(logits[i, j]))) for i in range(n) for j in range(n)
        )
        assert sigmoid_loss(logits, torch.eye(n, dtype=torch.bool)) == pytest.approx(by_hand / n, rel=1e-5)


def test_with_the_published_bias_negatives_cost_little_at_first():
    x, y = pairs(64)
    loss = sigmoid_loss(10 * x @ y.T - 10, torch.eye(64, dtype=torch.bool))
    assert 7 < loss < 13  # a positive about 10 each, all negatives of a row together less than a tenth of that


def test_the_softmax_loss_is_the_mean_of_both_directions():
    x, y = pairs(6)
    logits, right = 5 * x @ y.T, torch.arange(6)
    expected = (F.cross_entropy(logits, right) + F.cross_entropy(logits.T, right)) / 2
    torch.testing.assert_close(softmax_loss(logits, torch.eye(6, dtype=torch.bool)), expected)


def test_pairs_that_match_share_the_choice():
    logits = torch.tensor([[2.0, 2.0, 0.0]])
    same = torch.tensor([[True, True, False]])
    assert choice_loss(logits, same) == pytest.approx(-math.log(math.e**2 / (2 * math.e**2 + 1)), rel=1e-6)


@pytest.fixture(params=["sigmoid", "softmax"])
def trained(request):
    run = systems.find("language.siglip")
    run = run.bound(info_for(run.data.reads))
    torch.manual_seed(0)
    return dataclasses.replace(run.objective, loss=request.param).build(), run


def test_an_objective_of_both_losses_encodes_video_and_text(trained):
    objective, run = trained
    assert isinstance(objective, DualEncoder)
    batch = draw_batch(run.data, size=5, seed=0)
    video, text = objective.encode_video(batch["video"]), objective.encode_text(batch["text"], batch["text_length"])
    assert video.shape == text.shape == (5, 96)
    torch.testing.assert_close(video.norm(dim=1), torch.ones(5))
    torch.testing.assert_close(text.norm(dim=1), torch.ones(5))
    assert objective.similarity(video, text[:3]).shape == (5, 3)


def test_shuffling_pairs_changes_no_loss(trained):
    objective, run = trained
    batch = draw_batch(run.data, size=6, seed=0)
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    shuffled = {key: value[order] if isinstance(value, torch.Tensor) else value for key, value in batch.items()}
    torch.testing.assert_close(objective(batch).total, objective(shuffled).total, rtol=1e-5, atol=1e-6)


def test_equal_captions_are_no_negatives(trained):
    objective, run = trained
    batch = draw_batch(run.data, size=4, seed=0)
    twice = {key: torch.cat([value, value]) for key, value in batch.items() if isinstance(value, torch.Tensor)}
    twice["index"] = torch.arange(8)
    loss = objective(twice)
    loss.total.backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in objective.parameters())
    rows = [objective.encode_video(twice["video"]), objective.encode_text(twice["text"], twice["text_length"])]
    logits, same = objective.similarity(*rows), torch.eye(4, dtype=torch.bool).repeat(2, 2)
    expected = sigmoid_loss(logits, same) if objective.bias is not None else softmax_loss(logits, same)
    torch.testing.assert_close(loss.total, expected)


def test_what_has_no_captions_is_refused():
    run = systems.find("language.siglip")
    with pytest.raises(UserError, match="read data with captions"):
        run.bound(DataInfo(classes=(), num_train=1, directional=False))
    info = dataclasses.replace(info_for(run.data.reads), max_length=17)
    with pytest.raises(UserError, match="captions of 17 tokens are longer than the network's 16"):
        run.bound(info)


def test_sigmoid_padding_is_read_by_design():
    """SigLIP's text tower attends to padding, as in training: the vector is that of the last position."""
    run = systems.find("language.siglip")
    objective = run.bound(info_for(run.data.reads)).objective.build()
    ids = torch.tensor([[1, 5, 6, 2] + [0] * 12])
    other = ids.clone()
    other[0, -1] = 7
    length = torch.tensor([4])
    assert not torch.allclose(objective.encode_text(ids, length), objective.encode_text(other, length))
