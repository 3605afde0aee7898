"""BLIP against transformers: contrast, matching, logits of captions, what beam search writes, and the key maps."""

import json
from dataclasses import replace

import pytest
import torch
from blip import randomise
from safetensors.torch import save_file

from filmstrip.errors import UserError
from filmstrip.models.image_tower import ImageTowerArchitecture
from filmstrip.models.text_transformer import TextArchitecture
from filmstrip.nn.decoding import Writing
from filmstrip.nn.normalise import CLIP_MEAN, CLIP_STD
from filmstrip.runs.initial_weights import start
from filmstrip.systems.language.blip import BlipConfig
from filmstrip.systems.language.blip.in_transformers import blip_in_hub, from_blip, to_captioner, to_retrieval

transformers = pytest.importorskip("transformers")

TEXT = dict(
    vocab_size=32,
    hidden_size=24,
    encoder_hidden_size=20,
    intermediate_size=40,
    num_hidden_layers=2,
    num_attention_heads=4,
    max_position_embeddings=14,
    bos_token_id=30,
    sep_token_id=2,
    eos_token_id=2,
)
VISION = dict(
    hidden_size=20, intermediate_size=40, num_hidden_layers=2, num_attention_heads=2, image_size=16, patch_size=8
)
CONFIG = BlipConfig(
    vision=ImageTowerArchitecture(
        width=20,
        depth=2,
        num_heads=2,
        mlp_ratio=2,
        num_frames=1,
        size=16,
        patch_size=8,
        pool="class",
        norm_eps=1e-5,
        mean=CLIP_MEAN,
        std=CLIP_STD,
    ),
    text=TextArchitecture(
        width=24,
        depth=2,
        num_heads=4,
        mlp_ratio=40 / 24,
        norm="post",
        norm_eps=1e-12,
        vocab_size=32,
        max_length=14,
    ),
    embed_dim=6,
    queue_size=8,
)


def theirs(kind):
    torch.manual_seed(0)
    config = transformers.BlipConfig(text_config=TEXT, vision_config=VISION, image_text_hidden_size=6)
    return randomise(getattr(transformers, kind)(config))


@pytest.fixture(scope="module")
def retrieval():
    other = theirs("BlipForImageTextRetrieval")
    ours = CONFIG.build().eval()
    ours.load_state_dict(ours.from_transformers(other.state_dict()))
    return ours, other


@pytest.fixture(scope="module")
def writers():
    other = theirs("BlipForConditionalGeneration")
    with torch.no_grad():  # ours never writes the two starts
        other.text_decoder.cls.predictions.bias[30:] = -1e4
    ours = CONFIG.build().eval()
    ours.load_state_dict(ours.from_transformers(other.state_dict()))
    return ours, other


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(1)
    video = torch.randint(0, 256, (3, 1, 3, 16, 16), dtype=torch.uint8, generator=generator)
    lengths = torch.tensor([7, 4, 6])
    ids = torch.randint(3, 30, (3, 7), generator=generator)
    return video, torch.where(torch.arange(7) < lengths[:, None], ids, 0), lengths


def asked(ours, batch, first=None):
    video, ids, lengths = batch
    if first is not None:
        ids = torch.cat([torch.full_like(ids[:, :1], first), ids[:, 1:]], dim=1)
    seen = (torch.arange(7) < lengths[:, None]).long()
    return dict(pixel_values=ours.encoder.embed.normalise(video)[:, 0], input_ids=ids, attention_mask=seen)


@torch.no_grad()
def test_what_is_seen_and_contrasted_agrees(retrieval, batch, assert_close):
    ours, other = retrieval
    want = other(**asked(ours, batch), use_itm_head=False)
    assert_close(ours.see(batch[0]), want.last_hidden_state)
    found = ours.similarity(ours.encode_video(batch[0]), ours.encode_text(*batch[1:]))
    assert_close(found / ours.log_scale.exp(), want.itm_score)


@torch.no_grad()
def test_matching_agrees(retrieval, batch, assert_close):
    ours, other = retrieval
    want = other(**asked(ours, batch, first=31)).itm_score
    assert_close(ours.match(ours.see(batch[0]), *batch[1:]), want[:, 1] - want[:, 0], 1e-4)


@torch.no_grad()
def test_towers_agree_with_the_bare_model(retrieval, batch, assert_close):
    """``BlipModel`` has the same towers under a pooling that no released weights have."""
    ours, _ = retrieval
    bare = theirs("BlipModel")
    state = to_retrieval(ours.state_dict(), 8)
    for part, prefix in ((bare.vision_model, "vision_model."), (bare.text_model, "text_encoder.")):
        own = {name.removeprefix(prefix): x for name, x in state.items() if name.startswith(prefix)}
        missing, _ = part.load_state_dict(own, strict=False)
        assert all(name.startswith("pooler.") for name in missing)
    told = asked(ours, batch)
    assert_close(ours.see(batch[0]), bare.vision_model(told["pixel_values"]).last_hidden_state)
    del told["pixel_values"]
    want = bare.text_model(**told).last_hidden_state[:, 0]
    found = torch.nn.functional.normalize(ours.text_head(want), dim=-1)
    assert_close(ours.encode_text(*batch[1:]), found)


@torch.no_grad()
def test_logits_of_captions_agree(writers, batch, assert_close):
    ours, other = writers
    want = other(**asked(ours, batch, first=30)).logits
    found = ours.caption_logits(ours.see(batch[0]), batch[1])
    for row, length in enumerate(batch[2].tolist()):
        assert_close(found[row, :length], want[row, :length], 1e-4)


@torch.no_grad()
@pytest.mark.parametrize("beams", [1, 3])
@pytest.mark.parametrize("repetition", [1.0, 1.3])
def test_captions_are_written_as_theirs(writers, batch, beams, repetition):
    ours, other = writers
    video = torch.cat([batch[0], batch[0].flip(-1), 255 - batch[0]])
    prompt = (7, 9)
    want = other.generate(
        pixel_values=ours.encoder.embed.normalise(video)[:, 0],
        input_ids=torch.tensor([[30, *prompt, 2]]).repeat(len(video), 1),
        num_beams=beams,
        do_sample=False,
        max_length=11,
        min_length=6,
        repetition_penalty=repetition,
    )
    writing = Writing(beams=beams, max_tokens=8, min_tokens=3, repetition=repetition)
    found = ours.caption(ours.see(video), prompt, end=2, writing=writing)
    for own, their in zip(found.tolist(), want[:, 3:].tolist()):
        cut = [row[: row.index(2)] if 2 in row else row for row in (own, their)]
        assert cut[0] == cut[1]


def test_key_maps_are_invertible(retrieval, writers):
    for (ours, other), back in ((retrieval, to_retrieval), (writers, to_captioner)):
        found, want = back(ours.state_dict(), 8), other.state_dict()
        assert set(found) == set(want)
        assert all(torch.equal(found[name], tensor) for name, tensor in want.items())


def test_shared_self_attention_is_the_decoders_too(writers, batch, assert_close):
    _, other = writers
    ours = replace(CONFIG, share_self_attention=True).build().eval()
    ours.load_state_dict(ours.from_transformers(other.state_dict()))
    with torch.no_grad():
        want = other(**asked(ours, batch, first=30)).logits
        assert_close(ours.caption_logits(ours.see(batch[0]), batch[1])[0, :7], want[0, :7], 1e-4)
    assert set(to_captioner(ours.state_dict(), 8)) == set(other.state_dict())


def test_copies_begin_with_released_weights(retrieval):
    ours, _ = retrieval
    encoder, text, *_ = ours.copies
    assert torch.equal(encoder.pos_embed, ours.encoder.pos_embed)
    assert torch.equal(text.embed.weight, ours.text.embed.weight)


def test_a_released_folder_says_how_large_it_is(tmp_path, writers):
    _, other = writers
    (tmp_path / "config.json").write_text(json.dumps(other.config.to_dict()))
    found = blip_in_hub(other.config.to_dict(), {"mean": CLIP_MEAN, "std": CLIP_STD}, "it")
    assert (found.vision, found.embed_dim, found.starts) == (CONFIG.vision, 6, (30, 31))
    assert found.text == CONFIG.text
    state = {name: x.clone() for name, x in other.state_dict().items() if not name.endswith("decoder.weight")}
    save_file(state, tmp_path / "model.safetensors")
    ours = CONFIG.build()
    start(ours, str(tmp_path))
    assert torch.equal(ours.words.bias, other.text_decoder.cls.predictions.bias)


def test_models_of_another_kind_are_refused():
    with pytest.raises(UserError, match="no BLIP for retrieval"):
        from_blip({"vision_model.post_layernorm.weight": torch.ones(20)})
