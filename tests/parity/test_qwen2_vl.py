"""Qwen2-VL against transformers' Qwen2VLForConditionalGeneration: logits and greedy text of images, video, text."""

import pytest
import torch
from test_qwen2_vl_parts import IMAGE, SIZES, TEXT, VIDEO, rows

from filmstrip.models.decoder import DecoderConfig
from filmstrip.models.video_language import Visuals
from filmstrip.nn.normalise import CLIP_MEAN, CLIP_STD
from filmstrip.nn.sampling import Sampling
from filmstrip.systems.language.qwen2_vl import Qwen2VLConfig, VisionConfig, from_qwen2_vl, to_qwen2_vl

transformers = pytest.importorskip("transformers")


@pytest.fixture(scope="module")
def models():
    torch.manual_seed(0)
    config = transformers.Qwen2VLConfig(
        vision_config=SIZES, text_config=TEXT, image_token_id=IMAGE, video_token_id=VIDEO, tie_word_embeddings=False
    )
    theirs = transformers.Qwen2VLForConditionalGeneration(config).eval()
    for name, parameter in theirs.named_parameters():
        torch.nn.init.normal_(parameter, mean=1.0 if "norm" in name and name.endswith("weight") else 0.0, std=0.2)
    decoder = DecoderConfig(
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
    ours = Qwen2VLConfig(
        encoder=VisionConfig(width=32, depth=3, num_heads=4, mlp_dim=64, patch_size=(2, 4, 4)),
        decoder=decoder,
        image_pixels=(64, 4096),
        video_pixels=(64, 4096),
        placeholders=(IMAGE, VIDEO),
    ).build()
    ours.load_state_dict(from_qwen2_vl(theirs.state_dict(), ours))
    return ours.eval(), theirs


def asked(ours, place, shape, seed=1):
    """Two prompts of one length with a visual at different places: as ours, and as transformers takes them."""
    generator = torch.Generator().manual_seed(seed)
    text = torch.randint(1, 30, (2, 9), generator=generator)
    video = torch.randint(0, 256, (2, *shape[:1], 3, *shape[1:]), dtype=torch.uint8, generator=generator)
    batch = {"text": text, "text_length": torch.tensor([9, 9]), "video": video}
    if place is None:
        return batch, {"input_ids": text, "attention_mask": torch.ones_like(text)}, torch.ones_like(text)
    text[0, 2] = text[1, 5] = place
    whole = video if shape[0] > 1 else video.expand(-1, 2, -1, -1, -1)
    pixels, grids = zip(*(rows(ours.encoder, clip[None]) for clip in whole))
    repeats = torch.where(text == place, grids[0].prod() // 4, 1)
    ids = torch.stack([row.repeat_interleave(count) for row, count in zip(text, repeats)])
    kind = "image" if place == IMAGE else "video"
    inputs = {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "mm_token_type_ids": (ids == place).int() * (1 if kind == "image" else 2),
        f"{kind}_grid_thw": torch.cat(grids),
        ("pixel_values" if kind == "image" else "pixel_values_videos"): torch.cat(pixels),
    }
    return batch, inputs, repeats


CASES = [(None, (2, 8, 8)), (IMAGE, (1, 16, 24)), (VIDEO, (4, 16, 24)), (VIDEO, (6, 24, 8))]


@torch.no_grad()
@pytest.mark.parametrize("place, shape", CASES)
def test_logits_agree(models, place, shape, assert_close):
    ours, theirs = models
    batch, inputs, repeats = asked(ours, place, shape)
    want = theirs(**inputs).logits
    before = (repeats.cumsum(dim=1) - repeats)[:, 1:] - 1
    want = want.gather(1, before[..., None].expand(-1, -1, 40))
    visual = ours.in_text(ours.see(batch["video"]), batch)
    assert_close(ours.logits(visual, batch["text"], batch["text_length"]), want, 1e-4)


@torch.no_grad()
def test_two_images_and_a_video_agree(models, assert_close):
    ours, theirs = models
    generator = torch.Generator().manual_seed(3)
    clips = [
        torch.randint(0, 256, (1, *shape), dtype=torch.uint8, generator=generator)
        for shape in ((1, 3, 16, 24), (1, 3, 8, 32), (4, 3, 16, 16))
    ]
    text = torch.randint(1, 30, (1, 12), generator=generator)
    text[0, [1, 4, 8]] = torch.tensor([IMAGE, IMAGE, VIDEO])
    pixels, grids = zip(*(rows(ours.encoder, x if x.shape[1] > 1 else x.expand(-1, 2, -1, -1, -1)) for x in clips))
    repeats = torch.ones_like(text)
    repeats[0, [1, 4, 8]] = torch.tensor([int(grid.prod()) // 4 for grid in grids])
    ids = text[0].repeat_interleave(repeats[0])[None]
    want = theirs(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        mm_token_type_ids=(ids == IMAGE).int() + 2 * (ids == VIDEO).int(),
        pixel_values=torch.cat(pixels[:2]),
        image_grid_thw=torch.cat(grids[:2]),
        pixel_values_videos=pixels[2],
        video_grid_thw=grids[2],
    ).logits
    before = (repeats.cumsum(dim=1) - repeats)[:, 1:] - 1
    visual = Visuals.of_rows([[ours.see_among(clip)[0] for clip in clips]])
    found = ours.logits(visual, text, torch.tensor([12]))
    assert_close(found, want.gather(1, before[..., None].expand(-1, -1, 40)), 1e-4)


@torch.no_grad()
def test_a_batch_of_images_and_videos_of_their_own_sizes_agrees(models, assert_close):
    """Two images and a video, an image, and a video before an image: what their processor makes of each alone."""
    ours, theirs = models
    processor = transformers.Qwen2VLImageProcessorPil(
        patch_size=4, min_pixels=64, max_pixels=4096, image_mean=CLIP_MEAN, image_std=CLIP_STD
    )
    generator = torch.Generator().manual_seed(4)
    shapes = [[(1, 16, 24), (1, 8, 32), (4, 16, 16)], [(1, 24, 16)], [(4, 24, 8), (1, 8, 16)]]
    kinds = [[IMAGE, IMAGE, VIDEO], [IMAGE], [VIDEO, IMAGE]]
    text = torch.randint(1, 30, (3, 12), generator=generator)
    text[0, [1, 4, 8]], text[1, [5]], text[2, [2, 6]] = (torch.tensor(row) for row in kinds)
    lengths = torch.tensor([12, 9, 10])
    video = torch.zeros(3, 6, 3, 24, 32, dtype=torch.uint8)
    frames, sizes = torch.zeros(3, 3, dtype=torch.int64), torch.zeros(3, 3, 2, dtype=torch.int64)
    wanted = []
    for row, (own, places) in enumerate(zip(shapes, kinds)):
        pixels, grids = {IMAGE: [], VIDEO: []}, {IMAGE: [], VIDEO: []}
        repeats = torch.ones(int(lengths[row]), dtype=torch.int64)
        ids = text[row, : lengths[row]]
        for number, ((count, height, width), place) in enumerate(zip(own, places)):
            clip = torch.randint(0, 256, (count, 3, height, width), dtype=torch.uint8, generator=generator)
            start = int(frames[row].sum())
            video[row, start : start + count, :, :height, :width] = clip
            frames[row, number], sizes[row, number] = count, torch.tensor([height, width])
            if place == IMAGE:
                made = processor(clip[0].movedim(0, -1).numpy(), return_tensors="pt")
                values, grid = made["pixel_values"], made["image_grid_thw"]
            else:
                values, grid = rows(ours.encoder, clip[None])
            assert ours.size_of(count, height, width) == (height, width)
            pixels[place].append(values)
            grids[place].append(grid)
            repeats[((ids == IMAGE) | (ids == VIDEO)).nonzero()[number]] = grid.prod() // 4
        given = ids.repeat_interleave(repeats)[None]
        inputs = {
            "input_ids": given,
            "attention_mask": torch.ones_like(given),
            "mm_token_type_ids": (given == IMAGE).int() + 2 * (given == VIDEO).int(),
        }
        for place, key, grid_key in (
            (IMAGE, "pixel_values", "image_grid_thw"),
            (VIDEO, "pixel_values_videos", "video_grid_thw"),
        ):
            if pixels[place]:
                inputs |= {key: torch.cat(pixels[place]), grid_key: torch.cat(grids[place])}
        wanted.append(theirs(**inputs).logits[0, (repeats.cumsum(0) - repeats)[1:] - 1])
    batch = {"video": video, "frames": frames, "frame_size": sizes, "text": text, "text_length": lengths}
    found = ours.logits(ours.watch(batch), text, lengths)
    for row, want in enumerate(wanted):
        assert_close(found[row, : len(want)], want, 1e-4)
    batch["learnt"] = torch.arange(12) < lengths[:, None]
    assert ours(batch).total.isfinite()


@torch.no_grad()
@pytest.mark.parametrize("place, shape", CASES[1:])
def test_greedy_text_is_the_same(models, place, shape):
    ours, theirs = models
    batch, inputs, _ = asked(ours, place, shape)
    made = ours.answer(ours.see(batch["video"]), batch, count=6, sampling=Sampling(temperature=0.0))
    options = {"do_sample": False, "min_new_tokens": 6, "max_new_tokens": 6, "pad_token_id": 0, "eos_token_id": None}
    assert torch.equal(torch.stack(list(made), dim=1), theirs.generate(**inputs, **options)[:, -6:])


def test_names_go_both_ways(models):
    ours, theirs = models
    back, want = to_qwen2_vl(ours), theirs.state_dict()
    assert set(back) == set(want) and all(torch.equal(back[name], want[name]) for name in want)


def test_clips_of_several_sizes_in_one_batch_are_read_as_each_alone(models):
    ours, _ = models
    sizes = torch.tensor([[16, 24], [24, 8], [8, 32]])
    batch, _, _ = asked(ours, VIDEO, (4, 24, 32))
    video = torch.cat([batch["video"], batch["video"][:1]])
    text, lengths = torch.cat([batch["text"], batch["text"][:1]]), torch.tensor([9, 9, 7])
    room = 30
    is_patch = torch.arange(room) < (sizes // 4).prod(dim=1, keepdim=True)
    native = {"video": video, "frame_size": sizes, "is_patch": is_patch, "text": text, "text_length": lengths}
    native["learnt"] = torch.arange(9) < lengths[:, None]
    with torch.no_grad():
        seen = ours.watch(native)
        together = ours.logits(seen, text, lengths)
        for i, (height, width) in enumerate(sizes.tolist()):
            own = video[i : i + 1, ..., :height, :width]
            assert ours.size_of(4, height, width) == (height, width)
            alone = ours.logits(ours.see(own), text[i : i + 1], lengths[i : i + 1])
            count = int(lengths[i]) - 1
            torch.testing.assert_close(together[i, :count], alone[0, :count], rtol=1e-4, atol=1e-4)
        assert ours(native).total.isfinite()
