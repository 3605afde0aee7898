"""MeMViT (``recognition.memvit``) and the published code, by stored outputs of clips that are read in a row."""

import pytest
import torch
from published import TOLERANCE, recipe_video, stored

from filmstrip.errors import UserError
from filmstrip.systems.recognition.memvit import MeMViTConfig
from filmstrip.weights.released import from_published, published_names

CONFIG = MeMViTConfig(
    width=16,
    depth=4,
    stages=(1,),
    kv_stride=(1, 2, 2),
    num_frames=8,
    size=32,
    memory=2,
    memory_every=2,
    num_classes=5,
)


@torch.no_grad()
def test_published_weights_give_the_published_outputs():
    kept, objective = stored("memvit"), CONFIG.build().eval()
    objective.load_state_dict(from_published(kept.weights(), objective), strict=False)
    encoder, memory = objective.encoder, objective.encoder.new_memory()
    for i, clip in enumerate(recipe_video("video", (1, 32, 3, 32, 32)).split(8, dim=1)):
        logits = objective.head(encoder.read(clip, memory).pooled())
        assert kept.error(f"clip{i}", logits) < TOLERANCE
    other = encoder.read(recipe_video("other", (1, 8, 3, 32, 32)), memory, new_video=torch.tensor([True]))
    assert kept.error("other", objective.head(other.pooled())) < TOLERANCE
    assert not kept.other_eps(objective, published_names(objective))


def test_parameters_of_memory_in_layers_without_any_are_left_out_and_only_there():
    weights, objective = stored("memvit").weights(), CONFIG.build()
    assert "blocks.1.attn.compress_k.weight" in weights
    assert from_published(weights, objective).keys() == {
        name for name in objective.state_dict() if "normalise" not in name
    }
    for name in ("blocks.2.attn.compress_q.weight", "blocks.1.attn.rel_pos_mem_x"):
        with pytest.raises(UserError, match="no place for"):
            from_published(weights | {name: torch.ones(1)}, objective)
