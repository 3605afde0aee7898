"""SlowFast (``recognition.slowfast``) and the published code, by stored outputs."""

import torch
from einops import rearrange
from published import TOLERANCE, recipe_video, stored

from filmstrip.systems.recognition.slowfast import SlowFastConfig
from filmstrip.weights.released import from_published, published_names


@torch.no_grad()
def test_published_weights_give_the_published_outputs():
    kept = stored("slowfast")
    objective = SlowFastConfig(
        stem_width=16,
        depths=(2, 2, 2, 2),
        speed_ratio=4,
        narrower=8,
        fusion_frames=7,
        with_time=(2, 1, 2, 1),
        num_classes=5,
    ).build()
    objective.eval().load_state_dict(from_published(kept.weights(), objective), strict=False)
    video = recipe_video("video", (2, 16, 3, 64, 64))
    slow = rearrange(objective.encoder(video).tokens[..., :512], "b (t h w) c -> b c t h w", t=4, h=2)
    assert kept.error("slow", slow) < TOLERANCE
    assert kept.error("logits", objective.classify(video)) < TOLERANCE
    assert not kept.other_eps(objective, published_names(objective, "SlowFast"))
