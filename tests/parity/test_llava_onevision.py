"""LLaVA-OneVision against transformers: logits of images, several images and video, sizes, token counts, names."""

from types import SimpleNamespace

import pytest
import torch

from filmstrip.models.decoder import DecoderConfig
from filmstrip.models.video_language import Visuals
from filmstrip.systems.language.llava_onevision import (
    SIGLIP_SO,
    LlavaOnevisionConfig,
    best_grid,
    from_onevision,
    to_onevision,
)

transformers = pytest.importorskip("transformers")
from dataclasses import replace  # noqa: E402

from transformers.image_processing_utils import select_best_resolution  # noqa: E402
from transformers.models.llava_onevision.image_processing_pil_llava_onevision import (  # noqa: E402
    LlavaOnevisionImageProcessorPil,
)
from transformers.models.llava_onevision.processing_llava_onevision import LlavaOnevisionProcessor  # noqa: E402

TILE, PATCH, VOCAB, IMAGE, VIDEO, MOST = 22, 4, 60, 57, 58, 4
PINPOINTS = [[TILE * rows, TILE * columns] for rows in range(1, MOST + 1) for columns in range(1, MOST + 1)]
SHAPES = [(30, 50), (22, 22), (88, 20), (200, 190), (21, 67)]


@pytest.fixture(scope="module")
def models():
    torch.manual_seed(0)
    vision = transformers.SiglipVisionConfig(
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        image_size=TILE,
        patch_size=PATCH,
        vision_use_head=False,
    )
    text = transformers.Qwen2Config(
        vocab_size=VOCAB,
        hidden_size=24,
        intermediate_size=40,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
    )
    config = transformers.LlavaOnevisionConfig(
        vision_config=vision,
        text_config=text,
        image_token_index=IMAGE,
        video_token_index=VIDEO,
        image_grid_pinpoints=PINPOINTS,
        vision_aspect_ratio="anyres_max_4",
    )
    theirs = transformers.LlavaOnevisionForConditionalGeneration(config).eval()
    for name, parameter in theirs.named_parameters():
        torch.nn.init.normal_(parameter, mean=1.0 if "norm" in name and "weight" in name else 0.0, std=0.2)
    decoder = DecoderConfig(
        vocab_size=VOCAB, width=24, depth=2, num_heads=4, num_kv_heads=2, mlp_dim=40, qkv_bias=True, norm_eps=1e-6
    )
    tower = replace(
        SIGLIP_SO, width=32, depth=2, num_heads=4, mlp_ratio=1.5, size=TILE // PATCH * PATCH, patch_size=PATCH
    )
    ours = LlavaOnevisionConfig(
        encoder=tower, decoder=decoder, tile=TILE, most_rows=MOST, most_tiles=4, placeholders=(IMAGE, VIDEO)
    ).build()
    ours.load_state_dict(from_onevision(theirs.state_dict(), ours))
    return ours.eval(), theirs


def drawn(*shape):
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(sum(shape)))


def compared(ours, theirs, visual, counts, inputs, place):
    """Logits of a text in which visuals of so many tokens stand, by ours and by theirs."""
    text = torch.arange(3, 12)[None]
    where = [1, 5, 6][: len(counts)]
    text[0, where] = place
    repeats = torch.ones_like(text)
    repeats[0, where] = torch.tensor(counts)
    ids = text[0].repeat_interleave(repeats[0])[None]
    want = theirs(**inputs, input_ids=ids, attention_mask=torch.ones_like(ids)).logits
    before = (repeats.cumsum(dim=1) - repeats)[:, 1:] - 1
    return ours.logits(visual, text, torch.tensor([9])), want.gather(1, before[..., None].expand(-1, -1, VOCAB))


@torch.no_grad()
@pytest.mark.parametrize("height, width", SHAPES)
def test_an_image_of_any_shape(models, height, width, assert_close):
    ours, theirs = models
    image = drawn(1, 1, 3, height, width)
    inputs = ours.in_transformers(image, torch.tensor([[IMAGE]]))
    del inputs["input_ids"]
    seen = ours.see(image)
    found, want = compared(ours, theirs, seen, [seen.shape[1]], inputs, IMAGE)
    assert_close(found, want, 1e-4)


@torch.no_grad()
def test_two_images_are_seen_as_wholes(models, assert_close):
    ours, theirs = models
    images = [drawn(1, 1, 3, TILE, TILE), drawn(1, 1, 3, TILE, TILE).flip(3)]
    visual = Visuals.of_rows([[ours.see_among(image)[0] for image in images]])
    pixels = ours.encoder.embed.normalise(torch.cat(images))
    inputs = {
        "pixel_values": pixels,
        "image_sizes": torch.tensor([[TILE, TILE]] * 2),
        "batch_num_images": torch.tensor([2]),
    }
    found, want = compared(ours, theirs, visual, visual.sizes[0].tolist(), inputs, IMAGE)
    assert visual.sizes.tolist() == [[26, 26]]
    assert_close(found, want, 1e-4)


@torch.no_grad()
def test_video_is_pooled(models, assert_close):
    ours, theirs = models
    video = drawn(1, 3, 3, TILE, TILE)
    seen = ours.see(video)
    assert seen.shape[1] == 3 * 9 + 1
    inputs = ours.in_transformers(video, torch.tensor([[VIDEO]]))
    del inputs["input_ids"]
    assert_close(*compared(ours, theirs, seen, [seen.shape[1]], inputs, VIDEO), 1e-4)


def test_grids_and_numbers_of_tokens_are_theirs(models):
    ours, _ = models
    generator = torch.Generator().manual_seed(0)
    sizes = [*SHAPES, *torch.randint(8, 300, (200, 2), generator=generator).tolist()]
    processor = SimpleNamespace(
        image_processor=SimpleNamespace(image_grid_pinpoints=PINPOINTS),
        num_image_tokens=25,
        vision_aspect_ratio="anyres_max_4",
    )
    processor._get_unpadded_features = LlavaOnevisionProcessor._get_unpadded_features.__get__(processor)
    for height, width in sizes:
        rows, columns = best_grid(height, width, TILE, MOST)
        assert (rows * TILE, columns * TILE) == tuple(select_best_resolution((height, width), PINPOINTS))
        theirs = LlavaOnevisionProcessor._get_number_of_features(processor, height, width, TILE, TILE)
        rows, columns = ours.map_of(height, width)
        assert 25 + rows * (columns + 1) == theirs, (height, width)


@pytest.mark.parametrize("height, width", SHAPES[:3])
def test_tiles_are_theirs(models, height, width):
    ours, _ = models
    coarse = torch.rand(1, 3, 4, 4, generator=torch.Generator().manual_seed(height))
    smooth = torch.nn.functional.interpolate(coarse, size=(height, width), mode="bilinear")
    image = (255 * smooth).to(torch.uint8)
    processor = LlavaOnevisionImageProcessorPil(
        size={"height": TILE, "width": TILE}, image_grid_pinpoints=PINPOINTS, do_normalize=False
    )
    theirs = processor(image[0], return_tensors="pt", input_data_format="channels_first").pixel_values[0]
    tiles = ours.tiles(image)[0].flatten(0, 1)
    tiles = tiles / 255 if tiles.dtype == torch.uint8 else tiles
    assert theirs[1:].shape == tiles.shape
    # Pillow resizes in whole numbers.
    assert (theirs[1:] - tiles).abs().max() < 2 / 255


def test_names_go_both_ways(models):
    ours, theirs = models
    again = from_onevision(to_onevision(ours), ours)
    state = ours.state_dict()
    assert set(again) == set(state) and all(torch.equal(again[name], state[name]) for name in state)
    files = {name.replace("model.vision_tower", "vision_tower") for name in theirs.state_dict()}
    assert len(to_onevision(ours)) == len(files)
