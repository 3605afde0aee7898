"""MAE-ST (``pretraining.mae_st``) and the published code, by stored outputs."""

import pytest
import torch
from published import TOLERANCE, recipe_video, stored

from filmstrip.errors import UserError
from filmstrip.runs.initial_weights import start
from filmstrip.systems.pretraining.mae_st import MAESTConfig
from filmstrip.weights.released import from_published, published_names, to_published

SIZES = dict(width=48, depth=2, num_heads=4, num_frames=8, size=32, patch_size=(2, 8, 8))
PIXELS = dict(mean=(0.45,) * 3, std=(0.225,) * 3)
CONFIG = MAESTConfig(**SIZES, **PIXELS, decoder_width=24, decoder_depth=2, decoder_num_heads=2, mask_ratio=0.75)


def loaded():
    objective = CONFIG.build().eval()
    objective.load_state_dict(from_published(stored("mae_st").weights(), objective), strict=False)
    return objective


@torch.no_grad()
def test_features_predictions_and_loss_are_the_published_ones():
    kept, objective = stored("mae_st"), loaded()
    video, masked = recipe_video("video", (2, 8, 3, 32, 32)), torch.arange(64) % 4 != 0
    visible, masked = ((~masked).nonzero()[:, 0].expand(2, -1), masked.nonzero()[:, 0].expand(2, -1))
    assert kept.error("encoded", objective.encoder(video, visible=visible).tokens) < TOLERANCE
    assert kept.error("predicted", objective.predict_masked(video, visible, masked)) < TOLERANCE
    assert kept.error("loss", objective.loss(video, visible, masked)) < TOLERANCE
    assert not kept.other_eps(objective, published_names(objective))


def test_released_weights_start_a_run_and_are_written_back(tmp_path):
    weights, file = stored("mae_st").weights(), tmp_path / "checkpoint.pth"
    torch.save({"model": weights}, file)
    objective = CONFIG.build()
    start(objective, file)
    back = to_published(objective)
    assert back.keys() == weights.keys()
    assert all(torch.equal(back[name], tensor) for name, tensor in weights.items())
    del weights["decoder_blocks.1.attn.k.weight"]
    torch.save({"model": weights}, file)
    with pytest.raises(UserError, match=r"decoder_blocks\.1\.attn\.k\.weight"):
        start(CONFIG.build(), file)
