"""UniRepLKNet (``recognition.unireplknet``) and the published code, by stored outputs."""

import pytest
import torch
from published import TOLERANCE, recipe_video, stored

from filmstrip.errors import UserError
from filmstrip.runs.initial_weights import start
from filmstrip.systems.recognition.unireplknet import DILATED, LargeKernel, UniRepLKNetConfig
from filmstrip.weights.released import from_published, published_names

SIZES = dict(width=8, depths=(1, 1, 2, 1), large_every=(1, 2, 1), num_frames=4, size=64)


def network(**changes):
    return UniRepLKNetConfig(**SIZES | changes, num_classes=5).build()


@torch.no_grad()
def test_published_weights_give_the_published_outputs():
    kept, objective = stored("unireplknet"), network()
    objective.load_state_dict(from_published(kept.weights(), objective), strict=False)
    video = recipe_video("video", (2, 4, 3, 64, 64))
    features = objective.eval().encoder(video)
    assert features.grid == (1, 4, 4)
    assert kept.error("features", features.tokens) < TOLERANCE
    assert kept.error("logits", objective.classify(video)) < TOLERANCE
    assert kept.error("trained", objective.train().classify(video)) < TOLERANCE
    assert not kept.other_eps(objective, published_names(objective))


@torch.no_grad()
@pytest.mark.parametrize("kernel", DILATED)
def test_branches_are_one_convolution_in_evaluation(kernel):
    layer = LargeKernel(6, kernel)
    for branch in [layer.large, *layer.dilated.values()]:
        branch.norm.running_mean.normal_()
        branch.norm.running_var.uniform_(0.5, 2)
        branch.norm.weight.normal_()
        branch.norm.bias.normal_()
    x = torch.randn(2, 6, 20, 20)
    apart = sum(branch.eval()(x) for branch in [layer.large, *layer.dilated.values()])
    torch.testing.assert_close(layer.eval()(x), apart, rtol=1e-4, atol=1e-4)


def test_a_clip_is_laid_out_as_the_public_code_reshapes_it():
    video = torch.arange(2 * 9 * 3 * 12 * 12).view(2, 9, 3, 12, 12).float() / 1e4
    encoder = network(num_frames=9, size=12).encoder
    expected = encoder.normalise(video).transpose(1, 2).reshape(2, 3, 36, 36)
    assert torch.equal(encoder.picture(video), expected)


def test_a_released_file_starts_a_classifier_and_another_does_not(tmp_path):
    weights, objective, file = stored("unireplknet").weights(), network(), tmp_path / "checkpoint.pth"
    torch.save({"model": weights}, file)
    start(objective, file)
    theirs = "stages.2.0.dwconv.dil_conv_k3_4.weight"
    assert torch.equal(objective.encoder.stages[2].blocks[0].conv.dilated["k3_4"].conv.weight, weights[theirs])
    torch.save({"model": weights | {"stages.2.2.gamma": torch.ones(32)}}, file)
    with pytest.raises(UserError, match="no place for"):
        start(objective, file)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_frames": 9, "size": 32}, "multiple of 3"),
        ({"kernel": 12}, "expected a kernel of 7, 9, 11, 13, 15, 17"),
        ({"large_every": (1, 1)}, "2 entries for 4 stages"),
    ],
)
def test_sizes_that_do_not_go_together_are_refused(changes, message):
    with pytest.raises(UserError, match=message):
        network(**changes)


def test_learning_rates_fall_by_groups_of_three_blocks():
    encoder = network(depths=(3, 3, 27, 3), large_every=(1, 3, 1)).encoder
    depths = {name: encoder.depth_of(name) for name, _ in encoder.named_parameters()}
    assert encoder.depth == 12 and set(depths.values()) == set(range(13))
    assert depths["stages.2.blocks.26.gamma"] == 11 and depths["stages.3.down.0.weight"] == 12
