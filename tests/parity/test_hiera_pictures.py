"""Hiera on pictures, which are videos of one frame, and ``transformers``' classifier with the same weights."""

import pytest
import torch
from torch.testing import assert_close

from filmstrip.systems.recognition.hiera import HieraConfig

transformers = pytest.importorskip("transformers")
DEPTHS = (1, 2, 2, 1)
BLOCK = {
    "layernorm_before": "norm1",
    "layernorm_after": "norm2",
    "attn.qkv": "attention.qkv",
    "attn.proj": "attention.out",
    "mlp.fc1": "mlp.fc1",
    "mlp.fc2": "mlp.fc2",
    "proj": "widen",
}


def ours_of(theirs):
    """Our weights from those of ``HieraForImageClassification``."""
    names = {
        "hiera.embeddings.patch_embeddings.projection": "encoder.embed",
        "hiera.pooler.layernorm": "norm",
        "classifier": "head",
    }
    for stage, depth in enumerate(DEPTHS):
        for i in range(depth):
            prefix = f"hiera.encoder.stages.{stage}.layers.{i}."
            names |= {prefix + part: f"encoder.blocks.{sum(DEPTHS[:stage]) + i}.{own}" for part, own in BLOCK.items()}
    ours = {"encoder.pos_embed": theirs.pop("hiera.embeddings.position_embeddings")}
    for name, tensor in theirs.items():
        layer, _, kind = name.rpartition(".")
        tensor = tensor[:, :, None] if layer.endswith("projection") and kind == "weight" else tensor
        ours[f"{names[layer]}.{kind}"] = tensor
    return ours


def test_a_picture_has_the_logits_and_gradients_of_transformers():
    torch.manual_seed(0)
    reference = transformers.HieraForImageClassification(
        transformers.HieraConfig(
            image_size=[64, 64], embed_dim=16, depths=list(DEPTHS), num_heads=[1, 2, 4, 8], num_labels=5
        )
    ).eval()
    for parameter in reference.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    objective = HieraConfig(
        width=16,
        depths=DEPTHS,
        num_frames=1,
        size=64,
        patch_kernel=(1, 7, 7),
        patch_size=(1, 4, 4),
        positions="joint",
        num_classes=5,
    ).build()
    missing, unexpected = objective.load_state_dict(ours_of(reference.state_dict()), strict=False)
    assert not unexpected and all("normalise." in name for name in missing)
    video = torch.rand(2, 1, 3, 64, 64)
    expected = reference(pixel_values=(video[:, 0] - 0.45) / 0.225).logits
    logits = objective.eval().classify(video)
    assert_close(logits, expected, rtol=1e-4, atol=1e-5 * expected.abs().max().item())
    expected.square().sum().backward()
    logits.square().sum().backward()
    theirs = reference.hiera.encoder.stages[0].layers[0].attn.qkv.weight.grad
    ours = objective.encoder.blocks[0].attention.qkv.weight.grad
    assert_close(ours, theirs, rtol=1e-3, atol=1e-4 * theirs.abs().max().item())
