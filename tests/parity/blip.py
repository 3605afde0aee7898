"""Sizes of the small BLIP-2 and InstructBLIP of the parity tests, as ``transformers`` and as we state them."""

import torch

from filmstrip.models.image_tower import ImageTowerArchitecture
from filmstrip.models.query_transformer import QueryTransformerConfig
from filmstrip.nn.normalise import CLIP_MEAN, CLIP_STD

VISION = dict(hidden_size=20, intermediate_size=40, num_hidden_layers=2, num_attention_heads=2, image_size=16)
QUERIES = dict(
    hidden_size=24,
    intermediate_size=40,
    num_hidden_layers=3,
    num_attention_heads=4,
    encoder_hidden_size=20,
    cross_attention_frequency=2,
    vocab_size=31,
    max_position_embeddings=12,
)
TEXT = dict(vocab_size=40, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2)
TOWER = ImageTowerArchitecture(
    width=20,
    depth=2,
    num_heads=2,
    mlp_ratio=2,
    num_frames=1,
    size=16,
    patch_size=8,
    pool="class",
    mean=CLIP_MEAN,
    std=CLIP_STD,
)
BRIDGE = QueryTransformerConfig(
    num_queries=5, width=24, depth=3, num_heads=4, mlp_dim=40, cross_every=2, vocab_size=31, max_length=12
)


def randomise(module):
    for name, parameter in module.named_parameters():
        torch.nn.init.normal_(
            parameter, mean=1.0 if "norm" in name.lower() and name.endswith("weight") else 0, std=0.3
        )
    return module.eval()
