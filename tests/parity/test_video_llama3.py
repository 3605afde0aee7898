"""Video-LLaMA 3 against transformers: which tokens are kept, logits of images and video, sizes, names."""

import importlib
import sys
import types
from dataclasses import replace

import pytest
import torch

from filmstrip.models.decoder import DecoderConfig
from filmstrip.systems.language.video_llama3 import (
    PUBLISHED,
    NativeSiglipConfig,
    VideoLlama3Config,
    changed,
    from_video_llama3,
    to_video_llama3,
)

transformers = pytest.importorskip("transformers")

PATCH, VOCAB, IMAGE, VIDEO = 4, 60, 57, 58


@pytest.fixture(scope="module")
def models():
    torch.manual_seed(0)
    vision = dict(hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, patch_size=PATCH)
    text = dict(
        model_type="qwen2",
        vocab_size=VOCAB,
        hidden_size=24,
        intermediate_size=40,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
    )
    config = transformers.VideoLlama3Config(
        vision_config=vision, text_config=text, image_token_id=IMAGE, video_token_id=VIDEO
    )
    theirs = transformers.VideoLlama3ForConditionalGeneration(config).eval()
    for name, parameter in theirs.named_parameters():
        torch.nn.init.normal_(parameter, mean=1.0 if "norm" in name and "weight" in name else 0.0, std=0.2)
    decoder = DecoderConfig(
        vocab_size=VOCAB, width=24, depth=2, num_heads=4, num_kv_heads=2, mlp_dim=40, qkv_bias=True, norm_eps=1e-6
    )
    ours = VideoLlama3Config(
        encoder=NativeSiglipConfig(width=32, depth=2, num_heads=4, mlp_dim=48, patch_size=(1, PATCH, PATCH)),
        decoder=decoder,
        image_pixels=(64, 4096),
        placeholders=(IMAGE, VIDEO),
    ).build()
    ours.load_state_dict(from_video_llama3(theirs.state_dict(), ours))
    return ours.eval(), theirs


def film(frames, height, width, seed=0):
    """A still picture in which a square of 8 pixels moves; the last frame does not change."""
    generator = torch.Generator().manual_seed(seed)
    video = torch.randint(0, 256, (1, 1, 3, height, width), dtype=torch.uint8, generator=generator)
    video = video.repeat(1, frames, 1, 1, 1)
    for t in range(1, frames - 1):
        video[:, t, :, :8, 8 * t - 8 : 8 * t] = 255 - video[:, t, :, :8, 8 * t - 8 : 8 * t]
    if frames > 1:
        video[:, -1] = video[:, -2]
    return video


def compared(ours, theirs, video, place):
    text = torch.arange(3, 12)[None]
    text[0, 2] = place
    inputs = ours.in_transformers(video, text)
    inputs["input_ids"] = inputs["input_ids"].masked_fill(inputs["input_ids"] == -1, place)
    if place == IMAGE:
        names = {"pixel_values_videos": "pixel_values"}
        names |= {f"video_{name}": f"image_{name}" for name in ("grid_thw", "merge_sizes")}
        del inputs["video_compression_mask"]
        inputs = {names.get(name, name): value for name, value in inputs.items()}
    want = theirs(**inputs, attention_mask=torch.ones_like(inputs["input_ids"])).logits
    seen = ours.see(video)
    count = inputs["input_ids"].shape[1] - 8
    assert seen.shape[1] == count
    found = ours.logits(seen, text, torch.tensor([9]))
    before = torch.tensor([0, 1, *range(count + 1, count + 7)])
    return found, want[:, before]


@torch.no_grad()
@pytest.mark.parametrize("shape", [(5, 24, 40), (3, 16, 32), (4, 40, 24)])
def test_video(models, shape, assert_close):
    ours, theirs = models
    video = film(*shape)
    kept = ours.kept(video)
    assert kept[0, 0].all() and kept.sum() < kept.numel() and kept[0, -1].sum() == 1
    assert_close(*compared(ours, theirs, video, VIDEO), 1e-4)


@torch.no_grad()
@pytest.mark.parametrize("height, width", [(16, 40), (24, 8)])
def test_an_image_of_any_shape(models, height, width, assert_close):
    ours, theirs = models
    assert_close(*compared(ours, theirs, film(1, height, width), IMAGE), 1e-4)


@pytest.fixture
def their_mask(monkeypatch):
    """The mask of transformers' processor of videos, whose file asks for torchvision that this part does not use."""
    if importlib.util.find_spec("torchvision") is None:
        for name in ("torchvision", "torchvision.transforms", "torchvision.transforms.v2"):
            monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
        functional = types.ModuleType("torchvision.transforms.v2.functional")
        monkeypatch.setitem(sys.modules, "torchvision.transforms.v2.functional", functional)
        sys.modules["torchvision.transforms.v2"].functional = functional
        sys.modules["torchvision.transforms"].v2 = sys.modules["torchvision.transforms.v2"]
        sys.modules["torchvision"].transforms = sys.modules["torchvision.transforms"]
    name = "transformers.models.video_llama_3.video_processing_video_llama_3"
    before = sys.modules.get(name)
    module = importlib.import_module(name)
    yield module.VideoLlama3VideoProcessor._get_compression_mask
    if before is None:
        sys.modules.pop(name, None)


@pytest.mark.parametrize("seed", range(3))
def test_the_same_tokens_are_kept(models, their_mask, seed):
    ours, _ = models
    generator = torch.Generator().manual_seed(seed)
    video = film(6, 24, 40, seed)
    noise = torch.randint(0, 2, video.shape, dtype=torch.uint8, generator=generator)
    sparse = torch.rand(video.shape, generator=generator) < 0.002 * (1 + seed)
    video = torch.where(sparse, video ^ noise, video)
    inputs = ours.in_transformers(video, torch.tensor([[VIDEO, 3]]))
    theirs = their_mask(
        None,
        pixel_values_videos=inputs["pixel_values_videos"],
        video_grid_thw=inputs["video_grid_thw"],
        video_merge_sizes=inputs["video_merge_sizes"],
    )
    assert torch.equal(theirs, inputs["video_compression_mask"])
    assert 0.2 < theirs.float().mean() < 0.95


def test_thresholds_have_the_unit_of_a_pixels_range():
    video = torch.full((1, 3, 3, 8, 8), 0.5)
    video[:, 1, :, :4, :4] += 0.1
    video[:, 2] = video[:, 1]
    video[:, 2, 0, 4:, 4:] += 0.3  # one colour of three: 0.1 in the mean
    assert changed(video, 4, 0.09)[0, 1:].tolist() == [
        [[True, False], [False, False]],
        [[False, False], [False, True]],
    ]
    assert changed(video, 4, 0.11)[0, 1:].tolist() == [[[True, False], [False, False]]] * 2
    assert changed(video, 4, -1.0).all() and changed(video[:, :1], 4, 1.0).all()
    assert pytest.approx(1.96e-4, rel=0.001) == PUBLISHED


@torch.no_grad()
def test_frames_stand_at_their_own_places(models):
    ours, _ = models
    video = torch.cat([film(4, 16, 32), film(4, 16, 32, seed=1).flip(1)])
    text = torch.arange(3, 19).repeat(2, 1)
    text[0, [2, 4, 6, 9]] = text[1, 3] = VIDEO
    lengths = torch.tensor([16, 11])
    x, where = ours.sequence(ours.see(video), text, lengths)
    for row, places in enumerate(([2, 4, 6, 9], [3])):
        frames = ours.frames(video[row : row + 1])[0]
        frames = frames if len(places) > 1 else [torch.cat(frames)]
        own, number = [], 0
        for i, word in enumerate(text[row, : lengths[row]]):
            own.append(frames[number] if i in places else ours.decoder.embed(word[None]))
            number += i in places
        want = torch.cat(own)
        assert where.length[row] == len(want)
        torch.testing.assert_close(x[row, : len(want)], want, atol=1e-5, rtol=1e-5)


def test_names_go_both_ways(models):
    ours, theirs = models
    back, want = to_video_llama3(ours), theirs.state_dict()
    assert set(back) == set(want) and all(torch.equal(back[name], want[name]) for name in want)


def test_a_budget_makes_frames_smaller(models):
    ours, _ = models
    assert ours.size_of(1, 64, 64) == ours.size_of(4, 64, 64) == (64, 64)
    small = replace(ours.config, video_tokens=64).build()
    assert small.size_of(16, 64, 64) == (16, 16)
