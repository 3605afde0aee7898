"""VideoMAE, its second version and its classifier (``recognition.vit``) and the published code, by stored outputs."""

from dataclasses import replace

import pytest
import torch
from published import TOLERANCE, recipe_video, stored

from filmstrip.errors import UserError
from filmstrip.randomness import uniform
from filmstrip.runs.initial_weights import start
from filmstrip.systems.pretraining.videomae import VideoMAEConfig
from filmstrip.systems.recognition.vit import ViTConfig
from filmstrip.weights.released import from_published, published_names

SIZES = dict(width=48, depth=2, num_heads=4, size=32, patch_size=(2, 8, 8))


PRETRAINING = VideoMAEConfig(
    **SIZES, num_frames=16, decoder_width=24, decoder_depth=2, decoder_num_heads=2, mask_ratio=0.9
)


def pretraining():
    return PRETRAINING.build()


def classifier(num_frames=8):
    return ViTConfig(**SIZES, num_frames=num_frames, num_classes=5).build()


@torch.no_grad()
def test_the_pretraining_model_gives_the_published_outputs():
    kept, objective = stored("videomae_pretraining"), pretraining().eval()
    objective.load_state_dict(from_published(kept.weights(), objective), strict=False)
    hidden = torch.arange(128) % 4 != 0
    visible, hidden = ((~hidden).nonzero()[:, 0].expand(2, -1), hidden.nonzero()[:, 0].expand(2, -1))
    said = []
    objective.encoder.norm.register_forward_hook(lambda module, given, out: said.append(out))
    predicted = objective.predict_masked(recipe_video("video", (2, 16, 3, 32, 32)), visible, hidden)
    assert kept.error("encoded", said[0]) < TOLERANCE
    assert kept.error("predicted", predicted) < TOLERANCE
    assert not kept.other_eps(objective, published_names(objective, "pretraining"))


@torch.no_grad()
def test_a_masked_decoder_gives_the_published_outputs_and_loss():
    kept = stored("videomae_v2")
    objective = replace(PRETRAINING, decoder_masking="running_cell").build().eval()
    objective.load_state_dict(from_published(kept.weights(), objective), strict=False)
    starts = (4 * uniform(torch.arange(64), 1, "videomae.running_cell")).long()[:, 0].tolist()
    seeds = torch.tensor([starts.index(1), starts.index(2)])
    hidden = torch.arange(128) % 4 != 0
    visible, hidden = ((~hidden).nonzero()[:, 0].expand(2, -1), hidden.nonzero()[:, 0].expand(2, -1))
    wanted, counted = objective.wanted(seeds, hidden)
    video = recipe_video("video", (2, 16, 3, 32, 32))
    assert kept.error("predicted", objective.predict_masked(video, visible, wanted)) < TOLERANCE
    assert kept.error("loss", objective.loss(video, visible, wanted, counted)) < TOLERANCE
    assert not kept.other_eps(objective, published_names(objective, "pretraining"))


@torch.no_grad()
def test_the_classifier_gives_the_published_logits():
    kept, objective = stored("videomae_classifier"), classifier().eval()
    objective.load_state_dict(from_published(kept.weights(), objective), strict=False)
    assert kept.error("logits", objective.classify(recipe_video("video", (2, 8, 3, 32, 32)))) < TOLERANCE
    assert not kept.other_eps(objective, published_names(objective, "classifier"))


@pytest.mark.parametrize("method", ["videomae_pretraining", "videomae_classifier"])
def test_both_kinds_of_files_start_a_classifier_and_nothing_else_does(method, tmp_path):
    weights, objective, file = stored(method).weights(), classifier(), tmp_path / "checkpoint.pth"
    torch.save({"model": weights}, file)
    head = objective.head.weight.clone()
    start(objective, file)
    names = published_names(objective, method.removeprefix("videomae_"))
    for name in ("encoder.blocks.1.attention.q_bias", "encoder.blocks.0.mlp.fc2.weight"):
        assert torch.equal(objective.state_dict()[name], weights[names[name]])
    assert torch.equal(objective.head.weight, head)
    torch.save({"model": weights | {"encoder.blocks.2.norm1.bias": torch.ones(48)}}, file)
    with pytest.raises(UserError, match=r"checkpoint\.pth: .*(no place for|lacks)"):
        start(objective, file)
    lost = names["encoder.blocks.1.attention.v_bias"]
    torch.save({"model": {name: tensor for name, tensor in weights.items() if name != lost}}, file)
    with pytest.raises(UserError, match=f"lacks {lost};"):
        start(objective, file)


def test_a_file_of_the_pretraining_model_starts_the_decoder_too(tmp_path):
    weights, objective, file = stored("videomae_pretraining").weights(), pretraining(), tmp_path / "checkpoint.pth"
    torch.save({"model": weights}, file)
    start(objective, file)
    expected = from_published(weights, objective)
    assert any(name.startswith("decoder.blocks.1.") for name in expected)
    assert all(torch.equal(value, objective.state_dict()[name]) for name, value in expected.items())
    torch.save({"model": {name: tensor for name, tensor in weights.items() if name != "decoder.norm.bias"}}, file)
    with pytest.raises(UserError, match=r"decoder\.norm\.bias"):
        start(objective, file)
