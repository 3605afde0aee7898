"""UniFormer (``recognition.uniformer``) and the published code, by stored outputs."""

import torch
from einops import rearrange
from published import TOLERANCE, recipe_video, stored

from filmstrip.systems.recognition.uniformer import UniFormerConfig
from filmstrip.weights.released import from_published, published_names


@torch.no_grad()
def test_published_weights_give_the_published_outputs():
    kept = stored("uniformer")
    objective = UniFormerConfig(
        widths=(16, 16, 32, 32), depths=(1, 1, 2, 1), head_dim=16, local_stages=2, num_classes=5
    ).build()
    objective.eval().load_state_dict(from_published(kept.weights(), objective), strict=False)
    video = recipe_video("video", (2, 8, 3, 64, 64))
    features = rearrange(objective.encoder(video).tokens, "b (t h w) c -> b c t h w", t=4, h=2)
    assert kept.error("features", features) < TOLERANCE
    assert kept.error("logits", objective.classify(video)) < TOLERANCE
    assert not kept.other_eps(objective, published_names(objective))
