"""Qwen2-VL's parts against transformers': vision tower and merger, positions on three axes, sizes of frames."""

import pytest
import torch

from filmstrip.models.decoder import Decoder, DecoderConfig
from filmstrip.models.llama_layout import from_llama
from filmstrip.models.native_vit import NativeViT, NativeViTConfig, TileMerger, from_tower, to_tower
from filmstrip.nn.rotary import rope_ids
from filmstrip.protocols import Grid
from filmstrip.video.geometry import native_size

transformers = pytest.importorskip("transformers")
qwen = pytest.importorskip("transformers.models.qwen2_vl.modeling_qwen2_vl")

PATCH = (2, 4, 4)
SIZES = dict(depth=3, embed_dim=32, hidden_size=24, mlp_ratio=2, num_heads=4, patch_size=4, temporal_patch_size=2)
TEXT = dict(
    vocab_size=40,
    hidden_size=24,
    intermediate_size=40,
    num_hidden_layers=2,
    num_attention_heads=2,
    num_key_value_heads=1,
    rope_parameters={"rope_type": "default", "rope_theta": 1e6, "mrope_section": [1, 2, 3]},
)
IMAGE, VIDEO = 37, 38


@pytest.fixture(scope="module")
def theirs():
    torch.manual_seed(0)
    config = transformers.Qwen2VLConfig(
        vision_config=SIZES, text_config=TEXT, image_token_id=IMAGE, video_token_id=VIDEO, tie_word_embeddings=False
    )
    model = transformers.Qwen2VLForConditionalGeneration(config).eval()
    for name, parameter in model.named_parameters():
        torch.nn.init.normal_(parameter, mean=1.0 if "norm" in name and name.endswith("weight") else 0.0, std=0.2)
    return model


@pytest.fixture(scope="module")
def ours(theirs):
    config = NativeViTConfig(width=32, depth=3, num_heads=4, mlp_dim=64, patch_size=PATCH)
    tower, merger = NativeViT(config).eval(), TileMerger(32, 24)
    of_tower, of_merger = from_tower(theirs.model.visual.state_dict())
    tower.load_state_dict(of_tower | {k: v for k, v in tower.state_dict().items() if "normalise" in k})
    merger.load_state_dict(of_merger)
    return tower, merger


def rows(tower, video):
    """What their processor makes of a video: rows of normalised pixels, squares of 2 x 2 patches together."""
    x = tower.embed.normalise(video)
    (t, p, q), (_, frames, _, height, width) = PATCH, x.shape
    x = x.reshape(frames // t, t, 3, height // p // 2, 2, p, width // q // 2, 2, q)
    grid = torch.tensor([[frames // t, height // p, width // q]])
    return x.permute(0, 3, 6, 4, 7, 2, 1, 5, 8).reshape(grid.prod(), -1), grid


def video(frames, height, width, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (1, frames, 3, height, width), dtype=torch.uint8, generator=generator)


@torch.no_grad()
@pytest.mark.parametrize("shape", [(2, 16, 16), (6, 24, 8), (4, 8, 40)])
def test_tower_and_merger_agree(ours, theirs, shape, assert_close):
    tower, merger = ours
    clip = video(*shape)
    pixels, grid = rows(tower, clip)
    features = tower(clip)
    assert tuple(features.grid) == tuple(grid[0].tolist())
    assert_close(merger(features.tokens, features.grid)[0], theirs.model.visual(pixels, grid).pooler_output)


@torch.no_grad()
def test_a_still_image_is_two_identical_frames(ours, theirs, assert_close):
    tower, merger = ours
    image = video(1, 16, 24)
    pixels, grid = rows(tower, image.expand(-1, 2, -1, -1, -1))
    features = tower(image)
    assert_close(merger(features.tokens, features.grid)[0], theirs.model.visual(pixels, grid).pooler_output)
    summed = tower.embed.proj.weight.unflatten(1, (2, -1)).sum(dim=1)
    frame = tower.embed.normalise(image)[0, 0]
    patches = frame.unfold(1, 4, 4).unfold(2, 4, 4).permute(1, 2, 3, 4, 0).reshape(24, -1)
    torch.testing.assert_close(tower.embed(image.expand(-1, 2, -1, -1, -1))[0], patches @ summed.T)


def test_key_map_is_invertible(ours, theirs):
    tower, merger = ours
    state = theirs.model.visual.state_dict()
    back = to_tower(tower.state_dict(), merger.state_dict(), PATCH)
    assert set(back) == set(state) and all(torch.equal(back[name], state[name]) for name in state)


def kinds(*runs):
    """Their kinds of tokens (0 text, 1 image, 2 video) from runs (kind, length)."""
    return torch.tensor([[kind for kind, length in runs for _ in range(length)]])


@pytest.mark.parametrize(
    "runs, grids",
    [
        ([(0, 9)], []),
        ([(0, 3), (1, 6), (0, 4)], [Grid(1, 2, 3)]),
        ([(0, 2), (1, 6), (0, 1), (1, 4), (0, 3)], [Grid(1, 3, 2), Grid(1, 1, 4)]),
        ([(0, 2), (2, 18), (0, 5)], [Grid(3, 2, 3)]),
        ([(2, 8), (0, 1), (1, 2), (0, 2)], [Grid(2, 2, 2), Grid(1, 1, 2)]),
    ],
)
def test_ids_agree_where_a_video_is_not_longer_than_wide(theirs, runs, grids):
    types = kinds(*runs)
    whole = {
        kind: [(g.t, 2 * g.h, 2 * g.w) for g, k in zip(grids, [k for k, _ in runs if k]) if k == kind]
        for kind in (1, 2)
    }
    want, _ = theirs.model.get_rope_index(
        torch.zeros_like(types),
        mm_token_type_ids=types,
        image_grid_thw=torch.tensor(whole[1]) if whole[1] else None,
        video_grid_thw=torch.tensor(whole[2]) if whole[2] else None,
    )
    assert torch.equal(rope_ids(types > 0, grids), want.permute(1, 2, 0))


@torch.no_grad()
def test_the_decoder_with_three_axes_agrees(theirs, assert_close):
    config = DecoderConfig(
        vocab_size=40,
        width=24,
        depth=2,
        num_heads=2,
        num_kv_heads=1,
        mlp_dim=40,
        rope_base=1e6,
        rope_sections=(1, 2, 3),
        qkv_bias=True,
        norm_eps=theirs.config.text_config.rms_norm_eps,
    )
    decoder = Decoder(config).eval()
    state = {name.replace("model.language_model.", "model."): x for name, x in theirs.state_dict().items()}
    state = {name: x for name, x in state.items() if ".visual." not in name}
    decoder.load_state_dict(from_llama(state, config))
    visual = kinds((0, 3), (1, 6), (0, 4)) > 0
    ids = rope_ids(visual, [Grid(1, 2, 3)])
    embedded = torch.randn(1, 13, 24)
    want = theirs.model.language_model(inputs_embeds=embedded, position_ids=ids.permute(2, 0, 1)).last_hidden_state
    assert_close(decoder(embedded, positions=ids).hidden, want)
    plain = theirs.model.language_model(inputs_embeds=embedded).last_hidden_state
    assert_close(decoder(embedded).hidden, plain)
    assert not torch.allclose(want, plain, atol=1e-3)


@pytest.mark.parametrize("side", [(28, 28), (480, 640), (1080, 1920), (30, 700), (9, 40), (2000, 300), (100, 41)])
@pytest.mark.parametrize("limits", [(56 * 56, 28 * 28 * 1280), (128 * 784, 768 * 784), (4 * 784, 6 * 784)])
def test_sizes_agree(side, limits):
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize

    least, most = limits
    want = smart_resize(*side, factor=28, min_pixels=least, max_pixels=most)
    assert native_size(*side, multiple=28, min_pixels=least, max_pixels=most) == tuple(want)
