"""Moment-DETR (``grounding.moment_detr``) and the published code, by stored outputs: inputs have padding."""

import pytest
import torch
from published import TOLERANCE, recipe_input, stored

from filmstrip.errors import UserError
from filmstrip.objectives.highlights import Pairs, ranking_loss
from filmstrip.objectives.set_prediction import foreground_loss, matched_losses, targets_of
from filmstrip.runs.initial_weights import start
from filmstrip.systems.grounding.moment_detr import NAMES, MomentDetrConfig
from filmstrip.weights.keymap import renamed

CONFIG = MomentDetrConfig(
    feature_width=12,
    text_width=10,
    width=32,
    num_heads=4,
    hidden=48,
    encoder_depth=2,
    decoder_depth=2,
    num_queries=5,
    dropout=0.1,
    input_dropout=0.5,
    span_weight=10.0,
    overlap_weight=1.0,
    class_weight=4.0,
    background=0.1,
    saliency_weight=1.0,
    margin=0.2,
)
LENGTH, WORDS = torch.tensor([12, 9]), torch.tensor([6, 4])
SPANS = torch.tensor([[[0.3, 0.2], [0.7, 0.4], [0.55, 0.1]], [[0.45, 0.5], [0.0, 0.0], [0.0, 0.0]]])
BATCH = {
    "sequence": recipe_input("video", (2, 12, 12)),
    "length": LENGTH,
    "query": recipe_input("text", (2, 6, 10)),
    "query_length": WORDS,
    "seconds": torch.tensor([24.0, 18.0], dtype=torch.float64),
    "moments": torch.stack([SPANS[..., 0] - SPANS[..., 1] / 2, SPANS[..., 0] + SPANS[..., 1] / 2], dim=-1),
    "query_of": torch.tensor([[0, 0, 0], [0, -1, -1]]),
}


@pytest.fixture
def model():
    model = CONFIG.build()
    model.load_state_dict(model.from_published(stored("moment_detr").weights()))
    return model.eval()


@torch.no_grad()
def test_moments_highlights_and_losses_are_the_published_ones(model):
    kept = stored("moment_detr")
    seen = model.look(BATCH)
    assert kept.error("logits", seen.predicted.logits) < TOLERANCE
    assert kept.error("spans", seen.predicted.spans) < TOLERANCE
    bias = kept.weights()["saliency_proj.bias"]  # which ranks nothing, and is left out
    assert kept.error("saliency", seen.saliency[seen.valid] + bias) < TOLERANCE
    matched = matched_losses(seen.predicted, targets_of(BATCH), CONFIG)
    classes = foreground_loss(seen.predicted.logits, matched.chosen, CONFIG.background)
    there = torch.ones(2, 2, dtype=torch.bool)
    ranking = ranking_loss(
        seen.saliency, Pairs(torch.tensor([[3, 7], [2, 4]]), torch.tensor([[5, 0], [6, 8]]), there), CONFIG.margin
    )
    total = 10 * matched.span + matched.overlap + 4 * classes + ranking
    losses = {
        "span": matched.span,
        "overlap": matched.overlap,
        "classes": classes,
        "ranking": ranking,
        "total": total,
    }
    for name, loss in losses.items():
        assert kept.error(name, loss[None]) < TOLERANCE, name


def test_what_is_found_is_what_the_published_code_finds(model):
    kept = stored("moment_detr").outputs
    for i, (found,) in enumerate(model.ground(BATCH)):
        order = kept["scores"].view(2, 5)[i].argsort(descending=True)
        torch.testing.assert_close(found.scores, kept["scores"].view(2, 5)[i][order], rtol=1e-5, atol=1e-6)
        segments = kept["segments"].view(2, 5, 2)[i][order].clamp(0, 1).double() * BATCH["seconds"][i]
        torch.testing.assert_close(found.segments, segments, rtol=1e-5, atol=1e-5)
        assert len(found.saliency) == LENGTH[i]


def test_released_files_start_it_whole_or_not_at_all(model, tmp_path):
    weights, other, file = stored("moment_detr").weights(), CONFIG.build(), tmp_path / "model_best.ckpt"
    torch.save({"model": weights, "epoch": 97}, file)
    start(other, file)
    assert all(torch.equal(tensor, model.state_dict()[name]) for name, tensor in other.state_dict().items())
    del weights["saliency_proj.weight"]
    torch.save({"model": weights}, file)
    with pytest.raises(UserError, match=r"lacks saliency_proj\.weight"):
        start(other, file)


def test_norms_add_what_the_published_ones_do(model):
    assert stored("moment_detr").other_eps(model, {name: renamed(name, NAMES) for name in model.state_dict()}) == {}
