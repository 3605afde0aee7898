"""Hiera (``recognition.hiera``, ``pretraining.hiera``) and the published code, by stored outputs."""

import pytest
import torch
from published import TOLERANCE, recipe_video, stored

from filmstrip.errors import UserError
from filmstrip.runs.initial_weights import start
from filmstrip.systems.pretraining.hiera import HieraMAEConfig
from filmstrip.systems.recognition.hiera import HieraConfig
from filmstrip.weights.released import from_published, published_names, to_published

SIZES = dict(width=16, depths=(1, 2, 2, 1), num_frames=8, size=64)
VISIBLE = torch.tensor([[1, 6, 7, 12], [0, 3, 9, 10]])
MASKED = torch.stack([torch.tensor([i for i in range(16) if i not in row]) for row in VISIBLE.tolist()])


def pretraining(**changes):
    decoder = dict(decoder_width=24, decoder_depth=2, decoder_num_heads=4)
    return HieraMAEConfig(**SIZES | changes, pools=2, **decoder, mask_ratio=0.75).build()


def classifier():
    return HieraConfig(**SIZES, num_classes=5).build()


@pytest.fixture
def video():
    return recipe_video("video", (2, 8, 3, 64, 64))


@torch.no_grad()
def test_the_classifier_gives_the_published_outputs(video):
    kept, objective = stored("hiera"), classifier().eval()
    objective.load_state_dict(from_published(kept.weights(), objective), strict=False)
    assert kept.error("logits", objective.classify(video)) < TOLERANCE
    layers = objective.encoder(video, layers=True).layers
    for stage, end in enumerate(objective.encoder.ends):
        assert kept.error(f"stage{stage}", layers[end]) < TOLERANCE
    assert kept.error("visible", objective.encoder(video, visible=VISIBLE).tokens) < TOLERANCE
    assert not kept.other_eps(objective, published_names(objective))


@torch.no_grad()
def test_the_pretraining_model_gives_the_published_outputs(video):
    kept, objective = stored("hiera_mae"), pretraining().eval()
    objective.load_state_dict(from_published(kept.weights(), objective), strict=False)
    assert kept.error("fused", objective.fused(video, VISIBLE)) < TOLERANCE
    assert kept.error("loss", objective.loss(video, VISIBLE, MASKED)[None]) < TOLERANCE
    assert not kept.other_eps(objective, published_names(objective, "pretraining"))


@torch.no_grad()
def test_predictions_and_targets_are_the_published_ones_in_their_order(video):
    """There: row-major over the whole grid of 4 x 4 x 4, of predictions visible ones too, of targets masked ones."""
    kept, objective = stored("hiera_mae"), pretraining().eval()
    objective.load_state_dict(from_published(kept.weights(), objective), strict=False)
    everything = torch.cat([VISIBLE, MASKED], dim=1)
    units = torch.arange(16).view(4, 2, 1, 2, 1).expand(4, 2, 2, 2, 2).reshape(64)
    within = torch.arange(4).view(1, 1, 2, 1, 2).expand(4, 2, 2, 2, 2).reshape(64)
    place = torch.stack([row.argsort() for row in everything])[:, units]
    clip = torch.arange(2)[:, None]
    targets = objective.targets(video, everything)[clip, place, within]
    hidden = torch.stack([(units[:, None] == row).any(dim=1) for row in MASKED])
    assert kept.error("targets", targets[hidden]) < TOLERANCE
    # Ours computes the last layers of masked tokens alone; the decoder's blocks give all, visible ones first.
    said = {}
    objective.decoder.blocks[-1].register_forward_hook(lambda module, given, out: said.update(tokens=out))
    objective.predict_masked(video, VISIBLE, MASKED)
    predicted = objective.decoder.head(objective.decoder.norm(said["tokens"])).unflatten(1, (16, 4))
    assert kept.error("predicted", predicted[clip, place, within]) < TOLERANCE


@pytest.mark.parametrize("method", ["hiera", "hiera_mae"])
def test_both_kinds_of_files_start_a_classifier_and_nothing_else_does(method, tmp_path):
    weights, objective, file = stored(method).weights(), classifier(), tmp_path / "checkpoint.pth"
    torch.save({"model_state": weights}, file)
    head = objective.head.weight.clone()
    start(objective, file)
    for ours, theirs in (
        ("encoder.blocks.3.attention.qkv.bias", "blocks.3.attn.qkv.bias"),
        ("encoder.blocks.1.widen.weight", "blocks.1.proj.weight"),
        ("encoder.time_pos_embed", "pos_embed_temporal"),
    ):
        assert torch.equal(objective.state_dict()[ours], weights[theirs])
    assert torch.equal(objective.head.weight, head)
    torch.save({"model_state": weights | {"blocks.9.norm1.bias": torch.ones(48)}}, file)
    with pytest.raises(UserError, match=r"checkpoint\.pth: .*no place for"):
        start(objective, file)
    torch.save({"model_state": {name: w for name, w in weights.items() if name != "blocks.0.norm1.bias"}}, file)
    with pytest.raises(UserError, match=r"lacks blocks\.0\.norm1\.bias"):
        start(objective, file)


def test_a_file_of_the_pretraining_model_starts_the_decoder_too_and_is_written_as_it_was(tmp_path):
    weights, objective, file = stored("hiera_mae").weights(), pretraining(), tmp_path / "checkpoint.pth"
    torch.save({"model_state": weights}, file)
    start(objective, file)
    expected = from_published(weights, objective)
    assert any(name.startswith("decoder.blocks.1.") for name in expected) and "fusion.1.weight" in expected
    assert all(torch.equal(value, objective.state_dict()[name]) for name, value in expected.items())
    written = to_published(objective, "pretraining")
    assert written.keys() == weights.keys() and all(torch.equal(written[name], weights[name]) for name in weights)
    with pytest.raises(UserError, match=r"does not fit|other shapes"):
        start(pretraining(width=24), file)
