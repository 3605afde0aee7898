"""InstructBLIP against transformers' InstructBlipVideoForConditionalGeneration: logits, greedy text, names."""

from dataclasses import fields, replace

import pytest
import torch
from blip import BRIDGE, QUERIES, TEXT, TOWER, VISION, randomise

from filmstrip.models.decoder import DecoderConfig
from filmstrip.models.query_connector import QueryConnectorConfig
from filmstrip.nn.sampling import Sampling
from filmstrip.objectives.teachers import ImageTowerConfig
from filmstrip.systems.language.instructblip import InstructBlipConfig, from_instructblip, to_instructblip

transformers = pytest.importorskip("transformers")

PLACE, FRAMES, TOKENS = 37, 4, 20


@pytest.fixture(scope="module")
def models():
    torch.manual_seed(0)
    config = transformers.InstructBlipVideoConfig(
        vision_config=VISION | {"patch_size": 8},
        qformer_config=QUERIES | {"vocab_size": 40},
        text_config=TEXT | {"model_type": "llama"},
        num_query_tokens=5,
        video_token_index=PLACE,
    )
    theirs = randomise(transformers.InstructBlipVideoForConditionalGeneration(config))
    told = config.text_config
    decoder = DecoderConfig(
        vocab_size=told.vocab_size,
        width=told.hidden_size,
        depth=told.num_hidden_layers,
        num_heads=told.num_attention_heads,
        mlp_dim=told.intermediate_size,
        norm_eps=told.rms_norm_eps,
    )
    ours = InstructBlipConfig(
        encoder=ImageTowerConfig(**{field.name: getattr(TOWER, field.name) for field in fields(TOWER)}),
        connector=QueryConnectorConfig(queries=replace(BRIDGE, vocab_size=40), per_frame=True),
        decoder=decoder,
        placeholders=(PLACE,),
    ).build()
    ours.load_state_dict(from_instructblip(theirs.state_dict(), ours))
    return ours.eval(), theirs


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(1)
    text = torch.randint(1, 30, (2, 7), generator=generator)
    text[:, 0] = PLACE
    video = torch.randint(0, 256, (2, FRAMES, 3, 16, 16), dtype=torch.uint8, generator=generator)
    return {"text": text, "text_length": torch.tensor([7, 7]), "video": video}


def inputs_of(ours, batch):
    """A batch as transformers takes it; the query transformer reads all but the place of the video, as ours does."""
    text = batch["text"]
    ids = torch.cat([torch.full((2, TOKENS), PLACE), text[:, 1:]], dim=1)
    return {
        "pixel_values": ours.encoder.embed.normalise(batch["video"]),
        "qformer_input_ids": text,
        "qformer_attention_mask": (text != PLACE).long(),
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
    }


@torch.no_grad()
def test_logits_agree(models, batch, assert_close):
    ours, theirs = models
    visual = ours.in_text(ours.see(batch["video"]), batch)
    assert visual.shape == (2, TOKENS, 16)
    want = theirs(**inputs_of(ours, batch)).logits[:, TOKENS - 1 : -1]
    assert_close(ours.logits(visual, batch["text"], batch["text_length"]), want, 1e-4)


@torch.no_grad()
def test_greedy_text_is_the_same(models, batch):
    ours, theirs = models
    greedy = Sampling(temperature=0.0)
    made = torch.stack(list(ours.answer(ours.see(batch["video"]), batch, count=6, sampling=greedy)), dim=1)
    options = {"do_sample": False, "min_new_tokens": 6, "max_new_tokens": 6, "pad_token_id": 0, "eos_token_id": None}
    said = theirs.generate(**inputs_of(ours, batch), **options)
    assert torch.equal(made, said[:, -6:])


def test_names_go_both_ways(models):
    ours, theirs = models
    back, want = to_instructblip(ours), theirs.state_dict()
    unread = {name for name in want if name not in back}
    assert all(".layer.2.intermediate." in name or ".layer.2.output." in name for name in unread)
    assert set(back) == set(want) - unread and all(torch.equal(back[name], want[name]) for name in back)
