"""UniFormerV2 (``recognition.uniformer_v2``) and the published code, by stored outputs."""

import torch
from einops import rearrange
from published import TOLERANCE, recipe_video, stored

from filmstrip.systems.recognition.uniformer_v2 import UniFormerV2Config
from filmstrip.weights.released import from_published, published_names


@torch.no_grad()
def test_published_weights_give_the_published_outputs():
    kept = stored("uniformer_v2")
    objective = UniFormerV2Config(
        width=32,
        depth=3,
        num_heads=2,
        patch_size=16,
        size=64,
        global_layers=(1, 2),
        reduction=1.5,
        halve_time=True,
        num_classes=5,
    ).build()
    objective.eval().load_state_dict(from_published(kept.weights(), objective), strict=False)
    video = recipe_video("video", (2, 8, 3, 64, 64))
    last = []
    objective.encoder.blocks[-1].register_forward_hook(lambda module, given, out: last.append(out))
    assert kept.error("pooled", objective.encoder(video).pooled()) < TOLERANCE
    assert kept.error("blocks", rearrange(last[0], "bt n d -> n bt d")) < TOLERANCE
    assert kept.error("logits", objective.classify(video)) < TOLERANCE
    assert not kept.other_eps(objective, published_names(objective))
