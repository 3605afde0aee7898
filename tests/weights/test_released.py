"""Key maps of the transformers' systems, tried on files in the released layouts."""

import pytest
import torch

from filmstrip.errors import UserError
from filmstrip.systems.recognition.memvit import MeMViTConfig
from filmstrip.systems.recognition.mvit import MViTConfig
from filmstrip.systems.recognition.uniformer import UniFormerConfig
from filmstrip.systems.recognition.uniformer_v2 import UniFormerV2Config
from filmstrip.systems.recognition.video_swin import VideoSwinConfig
from filmstrip.weights.released import load_published, published_names, to_published

_MVIT = {"width": 16, "depth": 3, "stages": (1,), "kv_stride": (1, 4, 4), "num_frames": 8, "size": 32}
CONFIGS = {
    "mvit v1": MViTConfig(**_MVIT, improved=False, num_classes=5),
    "mvit v2": MViTConfig(**_MVIT, num_classes=5),
    "memvit": MeMViTConfig(**_MVIT, memory=2, memory_every=2, num_classes=5),
    "swin": VideoSwinConfig(
        width=16, depths=(2, 2), num_heads=(2, 4), window=(2, 4, 4), patch_size=(2, 4, 4), num_classes=5
    ),
    "uniformer": UniFormerConfig(
        widths=(16, 16, 32, 32), depths=(1, 1, 1, 1), head_dim=16, local_stages=2, num_classes=5
    ),
    "uniformer v2": UniFormerV2Config(
        width=32,
        depth=2,
        num_heads=2,
        patch_size=16,
        size=32,
        global_layers=(1,),
        reduction=1.5,
        halve_time=True,
        start_as_image=False,
        num_classes=5,
    ),
}


def build(name, seed=0):
    torch.manual_seed(seed)
    objective = CONFIGS[name].build().eval()
    for tensor in [*objective.parameters(), *(b for n, b in objective.named_buffers() if "running" in n)]:
        torch.nn.init.uniform_(tensor, 0.1, 0.3)
    return objective


@torch.no_grad()
@pytest.mark.parametrize("name", CONFIGS)
def test_there_and_back_through_a_file(name, tmp_path):
    objective, other = build(name), build(name, seed=1)
    state = to_published(objective)
    assert set(state) == set(published_names(objective).values())
    torch.save({"model_state": state}, tmp_path / "released.pyth")
    load_published(tmp_path / "released.pyth", other)
    assert all(torch.equal(a, b) for a, b in zip(objective.state_dict().values(), other.state_dict().values()))
    video = torch.rand(1, 8, 3, 32, 32)
    assert torch.equal(objective.classify(video), other.classify(video))


NAMES = {
    "mvit v1": {
        "patch_embed.proj.weight": (16, 3, 3, 7, 7),
        "pos_embed_spatial": (1, 64, 16),
        "pos_embed_class": (1, 1, 16),
        "blocks.0.proj.weight": (32, 16),
        "blocks.0.attn.qkv.weight": (48, 16),
        "blocks.1.attn.pool_q.weight": (16, 1, 3, 3, 3),
        "blocks.2.attn.norm_k.weight": (16,),
        "head.projection.weight": (5, 32),
    },
    "mvit v2": {
        "cls_token": (1, 1, 16),
        "blocks.1.attn.rel_pos_h": (7, 16),
        "blocks.0.attn.rel_pos_t": (7, 16),
        "blocks.1.attn.proj.bias": (32,),
        "norm.weight": (32,),
    },
    "memvit": {
        "blocks.0.attn.k.weight": (16, 16),
        "blocks.0.attn.compress_v.weight": (16, 1, 7, 3, 3),
        "blocks.2.attn.norm_compress_k.weight": (32,),
        "blocks.0.attn.rel_pos_mem_t": (11, 16),
        "blocks.0.attn.rel_pos_mem_w": (15, 16),
    },
    "swin": {
        "backbone.patch_embed.proj.weight": (16, 3, 2, 4, 4),
        "backbone.patch_embed.norm.weight": (16,),
        "backbone.layers.0.blocks.1.attn.relative_position_bias_table": (3 * 7 * 7, 2),
        "backbone.layers.0.downsample.reduction.weight": (32, 64),
        "backbone.layers.1.blocks.0.mlp.fc1.weight": (128, 32),
        "cls_head.fc_cls.weight": (5, 32),
    },
    "uniformer": {
        "patch_embed1.proj.weight": (16, 3, 3, 4, 4),
        "patch_embed3.norm.bias": (32,),
        "blocks1.0.conv1.weight": (16, 16, 1, 1, 1),
        "blocks2.0.attn.weight": (16, 1, 5, 5, 5),
        "blocks2.0.mlp.fc2.weight": (16, 64, 1, 1, 1),
        "blocks3.0.pos_embed.weight": (32, 1, 3, 3, 3),
        "blocks4.0.attn.qkv.weight": (96, 32),
        "blocks4.0.mlp.fc2.weight": (32, 128),
        "norm.running_var": (32,),
        "head.weight": (5, 32),
    },
    "uniformer v2": {
        "backbone.conv1.weight": (32, 3, 3, 16, 16),
        "backbone.positional_embedding": (5, 32),
        "backbone.transformer.resblocks.0.lmhra1.pos_embed.2.weight": (21, 1, 3, 1, 1),
        "backbone.transformer.resblocks.1.attn.in_proj_weight": (96, 32),
        "backbone.transformer.resblocks.1.mlp.c_fc.bias": (128,),
        "backbone.transformer.temporal_cls_token": (1, 1, 32),
        "backbone.transformer.dpe.0.weight": (32, 1, 3, 3, 3),
        "backbone.transformer.dec.0.attn.in_proj_bias": (96,),
        "backbone.transformer.dec.0.ln_3.weight": (32,),
        "backbone.transformer.proj.2.weight": (5, 32),
    },
}


@pytest.mark.parametrize("name", NAMES)
def test_names_and_shapes_are_the_released_ones(name):
    state = to_published(build(name))
    assert {key: tuple(state[key].shape) for key in NAMES[name]} == NAMES[name]


def test_another_network_is_refused(tmp_path):
    torch.save(to_published(build("mvit v1")), tmp_path / "v1.pyth")
    with pytest.raises(
        UserError, match=r"released VideoSwin of this size: the file lacks backbone\.patch_embed\.proj\.weight"
    ):
        load_published(tmp_path / "v1.pyth", build("swin"))
    with pytest.raises(UserError, match=r"lacks blocks\.0\.attn\.pool_q\.weight"):
        load_published(tmp_path / "v1.pyth", build("mvit v2"))
