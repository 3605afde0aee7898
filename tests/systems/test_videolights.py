"""VideoLights' own parts, on cases worked out by hand."""

import pytest
import torch
import torch.nn.functional as F
from drawn import draw_batch, info_for

from filmstrip import systems
from filmstrip.objectives.set_prediction import Predicted
from filmstrip.systems.grounding.videolights import CONTRAST, PARTS, _differences, _shape, level_contrast


@pytest.fixture
def model():
    run = systems.find("grounding.videolights:tiny")
    torch.manual_seed(0)
    return run.bound(info_for(run.data.reads)).objective.build().eval()


def test_the_weight_of_hard_clips_grows_with_the_steps(model):
    assert model.growth == 1
    model.after_step(99)
    assert model.growth == 1
    model.after_step(250)
    assert model.growth == 3


def test_the_likeliest_moment_is_cut_off_at_the_ends_of_its_video(model):
    video, clips = torch.randn(2, 6, 48), torch.randn(2, 6, 48)
    logits = torch.tensor([[[5.0, 0.0], [0.0, 5.0]], [[0.0, 5.0], [5.0, 0.0]]])[None]
    spans = torch.tensor([[[0.0, 0.5], [0.9, 0.1]], [[0.1, 0.1], [1.0, 0.5]]])[None]
    found = model._by_moment(Predicted(spans, logits), video, clips, torch.tensor([6, 4]))
    # Of six clips those from 0 to 0.25 of them, the last included; of four, from 0.75 to the end.
    for row, kept in enumerate((video[:1, :2], video[1:, 3:4])):
        _, state = model.moment(F.pad(kept, (0, 0, 0, 6 - kept.shape[1])))
        similar = video[row] @ state[-1, 0]
        expected = model.moment_scores(clips[row] * (1 + similar[:, None])).sum(dim=-1) / 48**0.5
        torch.testing.assert_close(found[row], expected)


def test_levels_of_ratings_are_contrasted_with_all_other_clips():
    scores, other = torch.tensor([[1.0, 0.0, 9.0]]), torch.tensor([[0.5, 0.0, 9.0]])
    ratings, valid = torch.tensor([[2.0, 0.0, 0.0]]), torch.tensor([[True, True, False]])
    chance = (torch.tensor([1.0, 0.0, 0.5, 0.0]) / CONTRAST).log_softmax(dim=0)[0]
    assert level_contrast(scores, other, ratings, valid).item() == pytest.approx(-2 * chance.item() / PARTS, rel=1e-4)
    assert level_contrast(scores, other, 0 * ratings, valid) == 0


def test_scores_are_compared_with_ratings_by_their_shape():
    ratings, valid = torch.tensor([[0.0, 6.0, 12.0], [3.0, 0.0, 0.0]]), torch.tensor([[1, 1, 1], [1, 1, 0]]).bool()
    scores = torch.tensor([[-1.0, 1.0, 3.0], [4.0, -1.0, 50.0]])
    assert _differences(scores, ratings, valid).item() == pytest.approx(0.0, abs=1e-6)
    assert not _shape(scores, valid)[1, 2] and _differences(-scores, ratings, valid) > 0.5


def test_highlights_teach_the_moments_network_too(model):
    run = systems.find("grounding.videolights:tiny")
    batch = draw_batch(run.data, size=4, seed=0)
    model.train()
    loss = model._highlights(batch, model.look(batch), torch.zeros(4, 48))
    loss.backward()
    assert model.moment.weight_ih_l0.grad.any() and model.video[0].linear.weight.grad.any()
    assert model.fusion[0].linear5.weight.grad.any() and model.spans.layers[0].weight.grad is None
