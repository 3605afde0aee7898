"""Video Swin (``recognition.video_swin``) and the published code, by stored outputs, where windows tile the grid."""

import torch
from einops import rearrange
from published import TOLERANCE, recipe_video, stored

from filmstrip.systems.recognition.video_swin import VideoSwinConfig
from filmstrip.weights.released import from_published, published_names


@torch.no_grad()
def test_published_weights_give_the_published_outputs():
    kept = stored("video_swin")
    objective = VideoSwinConfig(
        width=16, depths=(2, 2), num_heads=(2, 4), window=(2, 4, 4), patch_size=(2, 4, 4), num_classes=5
    ).build()
    objective.eval().load_state_dict(from_published(kept.weights(), objective), strict=False)
    video = recipe_video("video", (2, 8, 3, 32, 32))
    features = rearrange(objective.encoder(video).tokens, "b (t h w) c -> b c t h w", t=4, h=4)
    assert kept.error("features", features) < TOLERANCE
    assert kept.error("logits", objective.classify(video)) < TOLERANCE
    assert not kept.other_eps(objective, published_names(objective))
