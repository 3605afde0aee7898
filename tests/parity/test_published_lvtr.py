"""LVTR (``grounding.lvtr``) and the published code, by stored outputs: three sentences about each video."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from published import TOLERANCE, recipe_input, stored

from filmstrip.errors import UserError
from filmstrip.models.detr import PUBLISHED
from filmstrip.runs.initial_weights import start
from filmstrip.systems.grounding.lvtr import LvtrConfig
from filmstrip.weights.keymap import renamed

CONFIG = LvtrConfig(
    feature_width=12,
    text_width=10,
    width=32,
    num_heads=4,
    hidden=48,
    encoder_depth=2,
    decoder_depth=2,
    num_queries=12,
    dropout=0.1,
    input_dropout=0.5,
    span_weight=1.0,
    overlap_weight=3.0,
    class_weight=2.0,
)
SPANS = torch.tensor([[[0.3, 0.2], [0.55, 0.1], [0.7, 0.4]], [[0.45, 0.5], [0.2, 0.3], [0.9, 0.2]]])
BATCH = {
    "sequence": recipe_input("video", (2, 12, 12)),
    "length": torch.tensor([12, 12]),
    "query": recipe_input("text", (2, 3, 10)),
    "query_length": torch.tensor([3, 3]),
    "seconds": torch.tensor([24.0, 18.0], dtype=torch.float64),
    "moments": torch.stack([SPANS[..., 0] - SPANS[..., 1] / 2, SPANS[..., 0] + SPANS[..., 1] / 2], dim=-1),
    "query_of": torch.arange(3).expand(2, 3),
}


def published(**settings):
    model = replace(CONFIG, **settings).build()
    model.load_state_dict(model.from_published(stored("lvtr").weights()))
    return model.eval()


@torch.no_grad()
@pytest.mark.parametrize(("similarity", "name"), [("over_queries", "cos"), ("dot", "sim")])
def test_similarities_moments_and_losses_are_the_published_ones(similarity, name):
    kept, model = stored("lvtr"), published(similarity=similarity)
    predicted = model.look(BATCH)
    assert kept.error(f"{name}_logits", predicted.logits) < TOLERANCE
    assert kept.error("spans", predicted.spans) < TOLERANCE
    loss = model(BATCH)
    for key, value in {**loss.metrics, "total": loss.total}.items():
        assert kept.error(f"{name}_{key}", value[None]) < TOLERANCE, key


def test_proposals_are_shared_out_as_published():
    model = published()
    for count in (1, 2, 3, 5, 7, 11, 12):
        shares = torch.zeros(12, dtype=torch.int64)
        for i, group in enumerate(shares.chunk(count)):
            group.fill_(i)
        assert torch.equal(model.guided(torch.tensor([count]))[0], shares), count


def test_padding_of_sentences_and_videos_changes_nothing():
    model = published(similarity="over_queries")
    more = {
        **BATCH,
        "sequence": F.pad(BATCH["sequence"], (0, 0, 0, 5), value=3.0),
        "query": F.pad(BATCH["query"], (0, 0, 0, 2), value=3.0),
        "moments": F.pad(BATCH["moments"], (0, 0, 0, 2)),
        "query_of": F.pad(BATCH["query_of"], (0, 2), value=-1),
    }
    torch.testing.assert_close(model(more).total, model(BATCH).total)
    for one, other in zip(model.ground(BATCH), model.ground(more)):
        assert len(one) == len(other) == 3
        torch.testing.assert_close(one[2].segments, other[2].segments, rtol=1e-5, atol=1e-5)


def test_released_files_start_it_whole_or_not_at_all(tmp_path):
    weights, other, file = stored("lvtr").weights(), CONFIG.build(), tmp_path / "best.ckpt"
    torch.save({"model": {f"head.{name}": tensor for name, tensor in weights.items()}}, file)
    start(other, file)
    expected = published().state_dict()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in other.state_dict().items())
    torch.save({"model": weights | {"more.weight": torch.ones(1)}}, file)
    with pytest.raises(UserError, match=r"no place for: more\.weight"):
        start(other, file)


def test_norms_add_what_the_published_ones_do():
    model = published()
    assert stored("lvtr").other_eps(model, {name: renamed(name, PUBLISHED) for name in model.state_dict()}) == {}
