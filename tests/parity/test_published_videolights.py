"""VideoLights (``grounding.videolights``) and the published code, by stored outputs.

The likeliest moments were cut off at the videos' ends there, as they are here.
"""

from dataclasses import replace

import pytest
import torch
from published import TOLERANCE, recipe_input, stored

from filmstrip.errors import UserError
from filmstrip.objectives.highlights import Pairs
from filmstrip.runs.initial_weights import start
from filmstrip.systems.grounding import videolights
from filmstrip.systems.grounding.videolights import NAMES, VideoLightsConfig
from filmstrip.weights.keymap import renamed

CONFIG = VideoLightsConfig(
    feature_width=12,
    text_width=10,
    width=256,
    num_heads=8,
    hidden=64,
    fusion_depth=1,
    encoder_depth=2,
    decoder_depth=2,
    num_queries=5,
    align_width=8,
    dropout=0.1,
    input_dropout=0.5,
    span_weight=10.0,
    overlap_weight=1.0,
    class_weight=4.0,
    background=0.1,
    saliency_weight=1.0,
    margin=0.2,
    growth_steps=1,
    align_weight=0.2,
)
SPANS = torch.tensor(
    [[[0.3, 0.2], [0.7, 0.4], [0.55, 0.1]], [[0.45, 0.5], [0, 0], [0, 0]], [[0.9, 0.2], [0, 0], [0, 0]]]
)
RATINGS = torch.tensor(
    [[0, 0, 0, 5, 9, 12, 0, 0, 2, 3, 11, 0], [0, 1, 4, 6, 7, 8, 3, 0, 0, 0, 0, 0], [0.0] * 10 + [10.0, 6.0]]
)
BATCH = {
    "sequence": recipe_input("video", (3, 12, 12)),
    "length": torch.tensor([12, 12, 12]),
    "query": recipe_input("text", (3, 6, 10)),
    "query_length": torch.tensor([6, 6, 6]),
    "seconds": torch.tensor([24.0, 24.0, 24.0], dtype=torch.float64),
    "moments": torch.stack([SPANS[..., 0] - SPANS[..., 1] / 2, SPANS[..., 0] + SPANS[..., 1] / 2], dim=-1),
    "query_of": torch.tensor([[0, 0, 0], [0, -1, -1], [0, -1, -1]]),
    "saliency": RATINGS[..., None],
}
PAIRS = Pairs(
    torch.tensor([[5, 8], [5, 2], [10, 11]]),
    torch.tensor([[11, 0], [1, 8], [11, 4]]),
    torch.ones(3, 2, dtype=torch.bool),
)


def published(**settings):
    model = replace(CONFIG, **settings).build()
    model.load_state_dict(model.from_published(stored("videolights").weights()))
    return model.eval()


@torch.no_grad()
def test_moments_and_highlights_are_the_published_ones():
    kept, model = stored("videolights"), published()
    seen = model.look(BATCH)
    assert kept.error("refined", seen.refined) < TOLERANCE
    assert kept.error("logits", seen.predicted.logits) < TOLERANCE
    assert kept.error("spans", seen.predicted.spans) < TOLERANCE
    assert kept.error("saliency", seen.saliency) < TOLERANCE
    bias = kept.weights()["saliency_proj_mr.bias"].sum() / 16  # which ranks nothing, and is left out
    assert kept.error("saliency_moment", seen.by_moment + bias) < TOLERANCE
    other = model.encode(seen.refined, seen.text.roll(-1, dims=0), seen.valid, seen.asked)
    assert kept.error("saliency_other", model.saliency(other)) < TOLERANCE


@torch.no_grad()
def test_losses_are_the_published_ones(monkeypatch):
    kept, model = stored("videolights"), published()
    monkeypatch.setattr(videolights, "draw_pairs", lambda *_, **__: PAIRS)
    model.after_step(2)
    loss = model(BATCH)
    names = {"span": "span", "overlap": "overlap", "class": "classes", "align": "align", "highlights": "highlights"}
    for ours, theirs in names.items():
        assert kept.error(theirs, loss.metrics[ours][None]) < TOLERANCE, theirs
    assert kept.error("total", loss.total[None]) < TOLERANCE
    easy = published(hard_weight=0.0)(BATCH)
    assert kept.error("without_hard", easy.metrics["highlights"][None]) < TOLERANCE


@torch.no_grad()
def test_padding_is_not_seen():
    """The published code mixes up which heads of which videos a mask of padding is for."""
    model = published()
    short = {**BATCH, "sequence": BATCH["sequence"][:, :9], "length": torch.tensor([9, 9, 9])}
    short |= {"query": BATCH["query"][:, :4], "query_length": torch.tensor([4, 4, 4])}
    short |= {"saliency": BATCH["saliency"][:, :9]}
    long = {**short, "sequence": BATCH["sequence"], "query": BATCH["query"], "saliency": BATCH["saliency"]}
    one, other = model.look(short), model.look(long)
    torch.testing.assert_close(one.predicted.spans, other.predicted.spans, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(one.saliency, other.saliency[:, :9], rtol=1e-5, atol=1e-5)


def test_released_files_start_it_whole_or_not_at_all(tmp_path):
    weights, other, file = stored("videolights").weights(), CONFIG.build(), tmp_path / "model_best.ckpt"
    torch.save({"model": weights, "epoch": 97}, file)
    start(other, file)
    expected = published().state_dict()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in other.state_dict().items())
    del weights["gru_extractor.gru.weight_ih_l0"]
    torch.save({"model": weights}, file)
    with pytest.raises(UserError, match=r"lacks gru_extractor\.gru\.weight_ih_l0"):
        start(other, file)


def test_norms_add_what_the_published_ones_do():
    model = published()
    names = {name: renamed(name, NAMES) for name in model.state_dict()}
    assert stored("videolights").other_eps(model, names) == {}
