"""BLIP: what each loss trains, what a queue holds, and that text reads only what it may."""

import dataclasses

import pytest
import torch
import torch.nn.functional as F

from filmstrip.data.config import DataInfo
from filmstrip.data.kinds.captioned import CaptionInfo
from filmstrip.data.texts import Vocabulary
from filmstrip.errors import UserError
from filmstrip.models.image_tower import ImageTowerArchitecture
from filmstrip.models.text_transformer import TextArchitecture
from filmstrip.nn.decoding import Writing
from filmstrip.nn.sampling import Sampling
from filmstrip.objectives.momentum import KeyQueue, Keys
from filmstrip.protocols import Captioner, DualEncoder, Matcher, SharesRows
from filmstrip.systems.language.blip import BlipConfig

CONFIG = BlipConfig(
    vision=ImageTowerArchitecture(
        width=16, depth=1, num_heads=2, num_frames=2, size=16, patch_size=8, pool="class", linear_init="glorot"
    ),
    text=TextArchitecture(
        width=16, depth=2, num_heads=2, norm="post", vocab_size=22, max_length=8, linear_init="glorot"
    ),
    embed_dim=8,
    queue_size=6,
    momentum=0.5,
)


def built(**changed):
    torch.manual_seed(0)
    return dataclasses.replace(CONFIG, **changed).build()


def batch(count=4):
    generator = torch.Generator().manual_seed(1)
    return {
        "video": torch.randint(0, 256, (count, 2, 3, 16, 16), dtype=torch.uint8, generator=generator),
        "text": torch.randint(3, 19, (count, 7), generator=generator),
        "text_length": torch.tensor([7, 5, 6, 3])[:count],
        "index": torch.arange(count),
        "seed": torch.arange(count) + 7,
    }


def trained_by(model):
    model(batch()).total.backward()
    return {name for name, p in model.named_parameters() if p.grad is not None and p.grad.any()}


def test_it_is_what_commands_ask_for():
    model = built()
    assert all(isinstance(model, kind) for kind in (DualEncoder, Matcher, Captioner, SharesRows))


@pytest.mark.parametrize("losses", [("captioning",), ("contrast",), ("contrast", "matching")])
def test_what_the_losses_do_not_reach_is_not_trained(losses):
    model = built(losses=losses)
    wanted = {name for name, p in model.named_parameters() if p.requires_grad}
    # Keys have no bias that matters after the softmax, nor a gradient that is more than rounding.
    assert wanted - trained_by(model) <= {name for name in wanted if name.endswith("qkv.bias")}
    assert any(name.startswith("words.") for name in wanted) == ("captioning" in losses)
    assert any(name.startswith("match_head.") for name in wanted) == ("matching" in losses)


def test_encoder_and_decoder_share_all_but_self_attention():
    model = built()
    own = sum(p.numel() for p in model.decoder_attention.parameters())
    assert own == sum(p.numel() for b in model.text.blocks for m in (b.attention, b.norm1) for p in m.parameters())
    assert built(share_self_attention=True).decoder_attention is None


@torch.no_grad()
def test_a_caption_reads_what_was_said_before_and_what_is_seen():
    model = built().eval()
    told = batch(1)
    ids, seen = told["text"], model.see(told["video"])
    logits = model.caption_logits(seen, ids)
    later, other = ids.clone(), ids.clone()
    later[0, 5] += 1
    other[0, 0] += 1
    assert torch.equal(model.caption_logits(seen, later)[:, :5], logits[:, :5])
    assert not torch.equal(model.caption_logits(seen, later)[:, 5], logits[:, 5])
    assert torch.equal(model.caption_logits(seen, other), logits)  # the first is the start of a caption
    assert not torch.allclose(model.caption_logits(seen * 0, ids), logits)


@torch.no_grad()
def test_padding_changes_no_vector_and_no_match():
    model = built().eval()
    told = batch()
    other = torch.where(torch.arange(7) < told["text_length"][:, None], told["text"], 3)
    lengths, seen = told["text_length"], model.see(told["video"])
    torch.testing.assert_close(model.encode_text(other, lengths), model.encode_text(told["text"], lengths))
    torch.testing.assert_close(model.match(seen, other, lengths), model.match(seen, told["text"], lengths))


def test_the_queue_holds_what_the_copies_made_of_the_latest_samples():
    model = built().train()
    told = batch()
    want = model._keys(told)
    model(told).total.backward()
    assert (model.queue.index == -1).all()
    model.after_step(1)
    assert model.queue.index.tolist() == [0, 1, 2, 3, -1, -1]
    assert torch.equal(model.queue.video[:4], want.video) and torch.equal(model.queue.ids[:4, :7], told["text"])
    model(told | {"index": told["index"] + 4})
    model.after_step(2)
    assert model.queue.index.tolist() == [6, 7, 2, 3, 4, 5]


def test_more_keys_than_places_leave_the_last():
    queue = KeyQueue(3, 2, 4)
    keys = Keys(torch.ones(5, 2), torch.ones(5, 2), torch.arange(5)[:, None], torch.arange(5))
    queue.push(keys)
    assert queue.index.tolist() == [2, 3, 4] and queue.ids[:, 0].tolist() == [2, 3, 4]


def test_a_sample_in_the_queue_is_no_negative_of_itself():
    model = built(softness=0.0, losses=("contrast",)).train()
    told = batch()
    model(told)
    model.after_step(1)
    again = model(told).metrics["contrast"]
    keys, before = model._keys(told), model.queue.keys()
    video = model.encode_video(told["video"])
    logits = model.similarity(video, torch.cat([keys.text, before.text]))
    right = torch.cat([torch.eye(4), torch.eye(4), torch.zeros(4, 2)], dim=1) / 2
    text = model.encode_text(told["text"], told["text_length"])
    others = model.similarity(text, torch.cat([keys.video, before.video]))
    want = (F.cross_entropy(logits, right) + F.cross_entropy(others, right)) / 2
    torch.testing.assert_close(again, want.detach())


def test_copies_follow_and_targets_become_soft():
    model = built(soften_over=4).train()
    assert model.softness == 0
    before = model.copies[0].pos_embed.clone()
    with torch.no_grad():
        model.encoder.pos_embed += 1
    model.after_step(1)
    assert torch.equal(model.copies[0].pos_embed, before + 1)  # the first step takes all
    with torch.no_grad():
        model.encoder.pos_embed += 1
    model.after_step(2)
    torch.testing.assert_close(model.copies[0].pos_embed, before + 1.5)
    assert model.softness == pytest.approx(0.2) and not model.copies.training
    assert all(block.cross_attention is None for block in model.copies[1].blocks)


@torch.no_grad()
def test_captions_do_not_depend_on_their_batch_and_end():
    model = built().eval()
    seen = model.see(batch()["video"])
    writing = Writing(max_tokens=6, sampling=Sampling(temperature=1.0, top_p=0.9))
    said = model.caption(seen, end=2, seed=5, writing=writing)
    alone = model.caption(seen[2:3], end=2, seed=7, writing=writing)
    assert said[2, : alone.shape[1]].tolist() == alone[0].tolist()
    assert not torch.isin(said, torch.tensor(model.config.begins)).any()
    ended = (said == 2).cumsum(dim=1) > 0
    assert (said[ended] == 2).all()
    with pytest.raises(UserError, match="are longer than the 8 tokens"):
        model.caption(seen, end=2, writing=Writing(max_tokens=8))


def test_what_does_not_go_together_is_refused():
    with pytest.raises(UserError, match="matching needs contrast"):
        built(losses=("matching",))
    with pytest.raises(UserError, match="a frame is contrasted by its class token"):
        built(vision=dataclasses.replace(CONFIG.vision, pool="none"))
    with pytest.raises(UserError, match="read data with captions"):
        CONFIG.bind(DataInfo(classes=(), num_train=1, directional=False))
    words = Vocabulary(size=20, pad=0, start=None, end=2)
    info = CaptionInfo(classes=(), num_train=1, directional=True, tokenizer=words, max_length=8)
    with pytest.raises(UserError, match="their tokenizer has none"):
        CONFIG.bind(info)
    words = Vocabulary(size=30, pad=0, start=1, end=2)
    info = dataclasses.replace(info, tokenizer=words)
    assert CONFIG.bind(info).begins == (30, 31)
    with pytest.raises(UserError, match="give the tokenizer of its weights"):
        dataclasses.replace(CONFIG, starts=(20, 21)).bind(info)
    with pytest.raises(UserError, match="captions of 9 tokens are longer"):
        CONFIG.bind(dataclasses.replace(info, max_length=9))
