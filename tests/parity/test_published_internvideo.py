"""InternVideo's encoder of video and text (a ``recognition.uniformer_v2``) and the published code, by stored outputs.

Of the coordination nothing is published: cross-model attention is compared with torch's own attention instead.
"""

import torch
import torch.nn.functional as F
from einops import rearrange
from published import TOLERANCE, recipe_video, recipe_weights, shapes_of, stored

from filmstrip.runs.initial_weights import start
from filmstrip.systems.recognition.internvideo import CrossModelAttention
from filmstrip.systems.recognition.uniformer_v2 import UniFormerV2Config
from filmstrip.weights.released import from_published, published_names, to_published

CONFIG = UniFormerV2Config(
    width=32, depth=3, num_heads=2, patch_size=16, size=64, global_layers=(1, 2), num_classes=5
)


@torch.no_grad()
def test_published_weights_give_the_published_outputs():
    kept, objective = stored("internvideo"), CONFIG.build().eval()
    objective.load_state_dict(from_published(kept.weights(), objective, head=False), strict=False)
    last = []
    objective.encoder.blocks[-1].register_forward_hook(lambda module, given, out: last.append(out))
    video = recipe_video("video", (2, 8, 3, 64, 64))
    pooled = objective.encoder(video).pooled()
    assert kept.error("pooled", pooled) < TOLERANCE
    assert kept.error("blocks", rearrange(last[0], "(b t) n d -> n b t d", b=2)) < TOLERANCE
    weights = kept.weights()
    normed = F.layer_norm(pooled, (32,), weights["visual_ln_post.weight"], weights["visual_ln_post.bias"])
    assert kept.error("projected", normed @ weights["visual_proj"]) < TOLERANCE
    names = published_names(objective, "InternVideo")
    assert not kept.other_eps(objective.encoder, {k.removeprefix("encoder."): v for k, v in names.items()})


def test_released_weights_start_a_run_and_are_written_back(tmp_path):
    weights, objective = stored("internvideo").weights(), CONFIG.build()
    file = tmp_path / "InternVideo-MM.ckpt"
    torch.save({"state_dict": {f"clip.{name}": value for name, value in weights.items()}}, file)
    start(objective, file)
    back = to_published(objective, "InternVideo")
    theirs = [name for name in weights if name.startswith("visual.")]
    assert all(torch.equal(back[name], weights[name]) for name in theirs)


@torch.no_grad()
def test_cross_model_attention_is_that_of_torch():
    ours = CrossModelAttention(24, 40, 4, 2.0)
    ours.load_state_dict(recipe_weights(shapes_of(ours.state_dict())))
    theirs = torch.nn.MultiheadAttention(24, 4, kdim=40, vdim=40, batch_first=True)
    state, (key, value) = ours.attention.state_dict(), ours.attention.kv.weight.chunk(2)
    theirs.load_state_dict(
        {
            "q_proj_weight": state["q.weight"],
            "k_proj_weight": key,
            "v_proj_weight": value,
            "in_proj_bias": torch.cat([state["q.bias"], state["kv.bias"]]),
            "out_proj.weight": state["out.weight"],
            "out_proj.bias": state["out.bias"],
        }
    )
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(2, 5, 24, generator=generator), torch.randn(2, 7, 40, generator=generator)
    expected = x + ours.norm1(theirs(x, y, y)[0])
    expected = expected + ours.norm2(ours.mlp.fc2(F.gelu(ours.mlp.fc1(expected))))
    assert (ours(x, y) - expected).abs().max() < 1e-5
