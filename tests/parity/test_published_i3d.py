"""I3D (``recognition.i3d``) and the published code, by stored outputs."""

import torch
from einops import rearrange
from published import TOLERANCE, recipe_video, stored

from filmstrip.systems.recognition.i3d import I3DConfig
from filmstrip.weights.released import from_published, published_names


@torch.no_grad()
def test_published_weights_give_the_published_outputs():
    kept = stored("i3d")
    objective = I3DConfig(share=1 / 16, num_classes=5).build().eval()
    objective.load_state_dict(from_published(kept.weights(), objective), strict=False)
    video = recipe_video("video", (2, 20, 3, 224, 224))
    last = rearrange(objective.encoder(video).tokens, "b (t h w) c -> b c t h w", t=3, h=7)
    assert kept.error("last", last) < TOLERANCE
    assert kept.error("logits", objective.classify(video)) < TOLERANCE
    assert not kept.other_eps(objective, published_names(objective))
