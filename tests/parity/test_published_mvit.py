"""Both MViTs (``recognition.mvit``) and the published code, by stored outputs."""

import pytest
import torch
from published import TOLERANCE, recipe_video, stored

from filmstrip.systems.recognition.mvit import MViTConfig
from filmstrip.weights.released import from_published, published_names


@torch.no_grad()
@pytest.mark.parametrize("version", [1, 2])
def test_published_weights_give_the_published_outputs(version):
    kept = stored(f"mvit_v{version}")
    objective = MViTConfig(
        width=16,
        depth=5,
        stages=(1, 3),
        kv_stride=(1, 4, 4),
        num_frames=8,
        size=64,
        improved=version == 2,
        num_classes=5,
    ).build()
    objective.eval().load_state_dict(from_published(kept.weights(), objective), strict=False)
    video = recipe_video("video", (2, 8, 3, 64, 64))
    features = objective.encoder(video)
    assert kept.error("tokens", torch.cat([features.summary, features.tokens], dim=1)) < TOLERANCE
    assert kept.error("logits", objective.classify(video)) < TOLERANCE
    assert not kept.other_eps(objective, published_names(objective))
