"""BLIP-2 against transformers: contrast and matching of the first stage, and the language model of the second."""

from dataclasses import fields, replace

import pytest
import torch
from blip import BRIDGE, QUERIES, TEXT, TOWER, VISION, randomise

from filmstrip.models.blip_layout import from_hub, to_hub
from filmstrip.models.decoder import DecoderConfig
from filmstrip.models.query_connector import QueryConnectorConfig
from filmstrip.models.query_transformer import BLIP2
from filmstrip.objectives.teachers import ImageTowerConfig
from filmstrip.systems.language.blip2.alignment import Blip2Config
from filmstrip.systems.language.blip2.generation import Blip2LanguageConfig
from filmstrip.systems.language.blip2.in_transformers import from_retrieval, to_retrieval

transformers = pytest.importorskip("transformers")


@pytest.fixture(scope="module")
def models():
    torch.manual_seed(0)
    config = transformers.Blip2Config(
        vision_config=VISION | {"patch_size": 8},
        qformer_config=QUERIES | {"use_qformer_text_input": True},
        text_config=TEXT | {"model_type": "llama"},
        num_query_tokens=5,
        image_text_hidden_size=6,
    )
    theirs = randomise(transformers.Blip2ForImageTextRetrieval(config))
    ours = Blip2Config(vision=TOWER, queries=BRIDGE, embed_dim=6).build().eval()
    missing, unexpected = ours.load_state_dict(from_retrieval(theirs.state_dict()), strict=False)
    assert not unexpected and all(n.startswith(("words.", "log_scale", "encoder.embed.normalise")) for n in missing)
    return ours, theirs


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(1)
    video = torch.randint(0, 256, (3, 1, 3, 16, 16), dtype=torch.uint8, generator=generator)
    lengths = torch.tensor([7, 4, 6])
    ids = torch.randint(1, 31, (3, 7), generator=generator)
    seen = torch.arange(7) < lengths[:, None]
    return video, torch.where(seen, ids, 0), lengths, seen.long()


def asked(ours, batch):
    video, ids, _, seen = batch
    return dict(pixel_values=ours.encoder.embed.normalise(video)[:, 0], input_ids=ids, attention_mask=seen)


@torch.no_grad()
def test_contrast_agrees(models, batch, assert_close):
    ours, theirs = models
    want = theirs(**asked(ours, batch), use_image_text_matching_head=False)
    video, text = ours.encode_video(batch[0]), ours.encode_text(*batch[1:3])
    # Theirs has one norm where ours has two, of which the first scales by one: 1e-5 apart.
    assert_close(video, want.image_embeds, 5e-5)
    assert_close(text, want.text_embeds)
    assert_close(ours.similarity(video, text) / ours.log_scale.exp(), want.logits_per_image, 5e-5)


@torch.no_grad()
def test_matching_agrees(models, batch, assert_close):
    ours, theirs = models
    want = theirs(**asked(ours, batch), use_image_text_matching_head=True).logits_per_image
    assert_close(ours.match(ours.see(batch[0]), *batch[1:3]), want[:, 1] - want[:, 0], 1e-4)


def test_key_map_is_invertible(models):
    ours, theirs = models
    back, want = to_retrieval(ours.state_dict(), 8), theirs.state_dict()
    assert set(back) == set(want)
    assert all(torch.equal(back[name], tensor) for name, tensor in want.items())


PLACE = 37


@pytest.fixture(scope="module")
def generators():
    torch.manual_seed(0)
    config = transformers.Blip2Config(
        vision_config=VISION | {"patch_size": 8},
        qformer_config=QUERIES,
        text_config=TEXT | {"model_type": "llama"},
        num_query_tokens=5,
        image_token_index=PLACE,
    )
    theirs = randomise(transformers.Blip2ForConditionalGeneration(config))
    told = config.text_config
    decoder = DecoderConfig(
        vocab_size=told.vocab_size,
        width=told.hidden_size,
        depth=told.num_hidden_layers,
        num_heads=told.num_attention_heads,
        mlp_dim=told.intermediate_size,
        norm_eps=told.rms_norm_eps,
    )
    ours = Blip2LanguageConfig(
        encoder=ImageTowerConfig(**{field.name: getattr(TOWER, field.name) for field in fields(TOWER)}),
        connector=QueryConnectorConfig(queries=replace(BRIDGE, vocab_size=None)),
        decoder=decoder,
        placeholders=(PLACE,),
    ).build()
    ours.load_state_dict(from_hub(theirs.state_dict(), decoder, BLIP2), strict=False)
    return ours.eval(), theirs


@torch.no_grad()
def test_logits_of_the_second_stage_agree(generators, assert_close):
    ours, theirs = generators
    generator = torch.Generator().manual_seed(1)
    video = torch.randint(0, 256, (2, 1, 3, 16, 16), dtype=torch.uint8, generator=generator)
    text = torch.randint(1, 30, (2, 6), generator=generator)
    text[:, 0] = PLACE
    pixels = ours.encoder.embed.normalise(video)[:, 0]
    ids = torch.cat([torch.full((2, 5), PLACE), text[:, 1:]], dim=1)
    want = theirs(pixel_values=pixels, input_ids=ids, attention_mask=torch.ones_like(ids)).logits
    visual = ours.in_text(ours.see(video), {})
    assert visual.shape == (2, 5, 16)
    assert_close(ours.logits(visual, text, torch.tensor([6, 6])), want[:, 4:-1], 1e-4)


def test_key_map_of_the_second_stage_is_invertible(generators):
    ours, theirs = generators
    back, want = to_hub(ours.state_dict(), ours.decoder.config, BLIP2, 8), theirs.state_dict()
    assert set(back) == set(want)
    assert all(torch.equal(back[name], tensor) for name, tensor in want.items())
