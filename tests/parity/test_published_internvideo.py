"""InternVideo's model of video and text (``language.internvideo``) and the published code, by stored outputs.

Its encoder is a ``recognition.uniformer_v2``. Of the coordination nothing is published: cross-model attention is
compared with torch's own attention instead.
"""

import torch
import torch.nn.functional as F
from einops import rearrange
from published import TOLERANCE, recipe_input, recipe_video, recipe_weights, shapes_of, stored

from filmstrip.models.text_transformer import TextArchitecture
from filmstrip.runs.initial_weights import start
from filmstrip.systems.language.internvideo import CaptionerArchitecture, InternVideoTextConfig
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


@torch.no_grad()
def test_the_model_of_video_and_text_and_its_captioner_are_the_published_ones(tmp_path):
    pair, captioner = stored("internvideo"), stored("internvideo_captioner")
    text = TextArchitecture(vocab_size=20, width=16, depth=1, num_heads=2, max_length=11, gelu="quick", norm_eps=1e-5)
    config = InternVideoTextConfig(
        vision=CONFIG,
        text=text,
        captioner=CaptionerArchitecture(depth=2, num_heads=2, num_queries=5),
        embed_dim=24,
    )
    weights = {f"clip.{name}": tensor for name, tensor in pair.weights().items()} | captioner.weights()
    pool = "caption_decoder.visual_attn_pooler."
    weights |= {f"{pool}norm.beta": torch.zeros(16), f"{pool}context_norm.beta": torch.zeros(32)}
    objective, file = config.build().eval(), tmp_path / "cotrain.ckpt"
    torch.save({"state_dict": weights}, file)
    start(objective, file)
    projected = pair.outputs["projected"].view(2, 24)
    video = objective.encode_video(recipe_video("video", (2, 8, 3, 64, 64)))
    assert (video - F.normalize(projected, dim=1)).abs().max() < TOLERANCE
    ids = (recipe_video("text", (3, 11)) % 18).long()
    ids[:, 7] = 19
    told = objective.encode_text(ids, torch.full((3,), 8))
    assert (told - F.normalize(pair.outputs["text"].view(3, 24), dim=1)).abs().max() < TOLERANCE
    context = rearrange(recipe_input("context", (7, 2, 1, 32)), "n b 1 d -> b n d")
    assert captioner.error("logits", objective.captioner(recipe_input("tokens", (2, 6, 16)), context)) < TOLERANCE
    theirs = {name.removeprefix("clip."): tensor for name, tensor in weights.items()}
    del theirs["text_mask_embedding"]
    back = to_published(objective)
    assert back.keys() == theirs.keys()
    assert all(torch.equal(back[name], tensor) for name, tensor in theirs.items())
    # Released files have no captioner, which begins anew then.
    torch.save({"state_dict": {name: w for name, w in weights.items() if name.startswith("clip.")}}, file)
    start(config.build(), file)
