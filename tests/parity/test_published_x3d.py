"""X3D (``recognition.x3d``) and the published code, by stored outputs."""

import torch
from einops import rearrange
from published import TOLERANCE, recipe_video, stored

from filmstrip.systems.recognition.x3d import X3DConfig
from filmstrip.weights.released import from_published, published_names


@torch.no_grad()
def test_published_weights_give_the_published_outputs():
    kept = stored("x3d")
    objective = X3DConfig(width=8, deeper=1.0, bottleneck=2.25, hidden=32, shortcut_norm=True, num_classes=5).build()
    objective.eval().load_state_dict(from_published(kept.weights(), objective), strict=False)
    video, seen = recipe_video("video", (2, 6, 3, 64, 64)), objective.encoder.stages
    last = rearrange(
        objective.encoder(video, layers=True).layers[len(seen) - 1], "b (t h w) c -> b c t h w", t=6, h=2
    )
    assert kept.error("last", last) < TOLERANCE
    assert kept.error("logits", objective.classify(video)) < TOLERANCE
    assert not kept.other_eps(objective, published_names(objective, "SlowFast"))
