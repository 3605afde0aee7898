"""Names of the layers of SigLIP's image tower in ``transformers``' files, alone or in a larger model."""

from __future__ import annotations

from filmstrip.weights.layers import layers

QKV = ("q_proj", "k_proj", "v_proj")
"""Their layers of queries, keys and values, which are one here."""
TOWER = (
    ("embeddings.patch_embedding.weight", "embed.proj.weight"),
    ("embeddings.patch_embedding.bias", "embed.proj.bias"),
    *layers(
        "encoder.layers",
        "blocks",
        (
            ("layer_norm1.weight", "norm1.weight"),
            ("layer_norm1.bias", "norm1.bias"),
            ("self_attn.qkv.weight", "attention.qkv.weight"),
            ("self_attn.qkv.bias", "attention.qkv.bias"),
            ("self_attn.out_proj.weight", "attention.out.weight"),
            ("self_attn.out_proj.bias", "attention.out.bias"),
            ("layer_norm2.weight", "norm2.weight"),
            ("layer_norm2.bias", "norm2.bias"),
            ("mlp.fc1.weight", "mlp.fc1.weight"),
            ("mlp.fc1.bias", "mlp.fc1.bias"),
            ("mlp.fc2.weight", "mlp.fc2.weight"),
            ("mlp.fc2.bias", "mlp.fc2.bias"),
        ),
    ),
)
"""The embedding of patches and the blocks, once queries, keys and values are one; not positions and the last norm."""
