"""OmniVL's parts against transformers: clips as TimeSformer's, images as a ViT's, texts as BLIP's stacks of BERT.

No code of OmniVL is public; these are the networks that it says it is made of.
"""

from dataclasses import replace

import pytest
import torch
from blip import randomise

from filmstrip.models.text_transformer import TextArchitecture
from filmstrip.models.video_transformer import TransformerArchitecture
from filmstrip.runs.encoders import load
from filmstrip.systems.language.blip.in_transformers import from_blip
from filmstrip.systems.language.omnivl import OmniVLConfig

transformers = pytest.importorskip("transformers")

SIZES = dict(image_size=32, patch_size=8, hidden_size=48, num_hidden_layers=2, num_attention_heads=4)
CONFIG = OmniVLConfig(
    vision=TransformerArchitecture(width=48, depth=2, num_heads=4, num_frames=4, size=32, patch_size=8),
    text=TextArchitecture(
        width=24, depth=2, num_heads=4, mlp_ratio=2, norm_eps=1e-12, vocab_size=32, max_length=14, dropout=0.1
    ),
    embed_dim=6,
    queue_size=8,
)
TEXT = dict(
    vocab_size=32,
    hidden_size=24,
    encoder_hidden_size=48,
    intermediate_size=48,
    num_hidden_layers=2,
    num_attention_heads=4,
    max_position_embeddings=14,
    bos_token_id=30,
)


@pytest.fixture
def ours():
    torch.manual_seed(2)
    return CONFIG.build().eval()


def blip(kind):
    torch.manual_seed(3)
    vision = dict(SIZES, intermediate_size=96)
    return randomise(
        getattr(transformers, kind)(
            transformers.BlipConfig(text_config=TEXT, vision_config=vision, image_text_hidden_size=6)
        )
    )


@torch.no_grad()
def test_clips_are_seen_as_by_timesformer(ours, video, pixels, assert_close, tmp_path):
    config = transformers.TimesformerConfig(**SIZES, intermediate_size=192, num_frames=4)
    theirs = randomise(transformers.TimesformerModel(config))
    theirs.save_pretrained(tmp_path)
    given = load(tmp_path, "cpu").encoder.state_dict()
    ours.encoder.load_state_dict({n: x for n, x in given.items() if "normalise" not in n}, strict=False)
    expected = theirs(pixels).last_hidden_state
    pooled, _ = ours.seen(video)
    assert_close(pooled, expected[:, 0])


@torch.no_grad()
def test_images_are_seen_as_by_an_image_transformer(ours, video, pixels, assert_close, tmp_path):
    theirs = randomise(transformers.ViTModel(transformers.ViTConfig(**SIZES, intermediate_size=192)))
    theirs.save_pretrained(tmp_path)
    ours.encoder.load_image(load(tmp_path, "cpu").encoder.state_dict())
    for name, parameter in ours.encoder.named_parameters():
        if "time" in name:
            torch.nn.init.normal_(parameter)
    expected = theirs(ours.encoder.embed.normalise(video)[:, 0]).last_hidden_state
    for image in (video[:, :1], video[:, :1].expand(-1, 4, -1, -1, -1)):
        pooled, patches = ours.seen(image)
        assert_close(pooled, expected[:, 0])
        assert_close(patches, expected[:, 1:].repeat(1, image.shape[1], 1))


@pytest.fixture
def told():
    generator = torch.Generator().manual_seed(1)
    lengths = torch.tensor([7, 4])
    ids = torch.where(torch.arange(7) < lengths[:, None], torch.randint(3, 30, (2, 7), generator=generator), 0)
    return ids, lengths, torch.randn(2, 9, 48, generator=generator)


def begun(ids, first):
    return torch.cat([torch.full_like(ids[:, :1], first), ids[:, 1:]], dim=1)


@torch.no_grad()
def test_texts_are_encoded_and_judged_as_by_blip(ours, told, assert_close):
    theirs, (ids, lengths, visual) = blip("BlipForImageTextRetrieval"), told
    given = from_blip(theirs.state_dict())
    heads = {name: x for name, x in given.items() if name.startswith(("text_head.", "match_head."))}
    alone = {name: x for name, x in given.items() if name.startswith("text.") and "cross" not in name}
    reads = {f"alignment_decoder.{n.removeprefix('text.')}": x for n, x in given.items() if n.startswith("text.")}
    _, unexpected = ours.load_state_dict({**alone, **reads, **heads}, strict=False)
    assert not unexpected
    seen = (torch.arange(7) < lengths[:, None]).long()
    want = theirs.text_proj(theirs.text_encoder(input_ids=ids, attention_mask=seen).last_hidden_state[:, 0])
    assert_close(ours.encode_text(ids, lengths), torch.nn.functional.normalize(want, dim=-1))
    read = theirs.text_encoder(input_ids=begun(ids, 31), attention_mask=seen, encoder_hidden_states=visual)
    want = theirs.itm_head(read.last_hidden_state[:, 0])
    assert_close(ours.match(visual, ids, lengths), want[:, 1] - want[:, 0], 1e-4)


@torch.no_grad()
def test_texts_are_written_as_by_blip(ours, told, assert_close):
    theirs, (ids, lengths, visual) = blip("BlipForConditionalGeneration"), told
    given = from_blip(theirs.state_dict(), shared=True)
    words = {name: x for name, x in given.items() if name.startswith("words.")}
    writes = {f"generation_decoder.{n.removeprefix('text.')}": x for n, x in given.items() if n.startswith("text.")}
    _, unexpected = ours.load_state_dict({**writes, **words}, strict=False)
    assert not unexpected
    seen = (torch.arange(7) < lengths[:, None]).long()
    want = theirs.text_decoder(input_ids=begun(ids, 30), attention_mask=seen, encoder_hidden_states=visual).logits
    found = ours.caption_logits(visual, ids)
    for row, length in enumerate(lengths.tolist()):
        assert_close(found[row, :length], want[row, :length], 1e-4)


def test_stacks_of_text_are_three():
    model = replace(CONFIG, momentum=None).build()
    embeddings = [part.embed.weight for part in (model.text, model.alignment_decoder, model.generation_decoder)]
    assert len({id(weight) for weight in embeddings}) == 3
