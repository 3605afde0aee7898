"""All-in-one: rolled tokens carry time at no cost; words are masked by seed; texts and clips match or do not."""

import dataclasses

import pytest
import torch
from drawn import draw_batch, info_for

from filmstrip import systems
from filmstrip.errors import UserError
from filmstrip.objectives.masked_words import mask_words
from filmstrip.objectives.matching import valid_tokens
from filmstrip.protocols import DualEncoder, Matcher
from filmstrip.systems.language.all_in_one import rolled


def built(**settings):
    run = systems.find("language.all_in_one")
    run = run.bound(info_for(run.data.reads))
    torch.manual_seed(0)
    return dataclasses.replace(run.objective, **settings).build().eval(), run


def test_an_eighth_of_the_tokens_rolls_on_and_an_eighth_back_in_a_circle():
    frames = torch.arange(3 * 17).view(1, 3, 17, 1)
    got = rolled(frames, 0.125)[0, :, :, 0]
    assert got[1].tolist() == [17, 1, 2, *range(20, 32), 49, 50]  # class token, two of frame 0, own, two of frame 2
    assert got[0, 1] == 35 and got[2, 16] == 16  # the last frame stands before the first
    assert rolled(frames, 0.0) is frames


@torch.no_grad()
def test_without_rolling_the_order_of_frames_is_lost():
    for share in (0.125, 0.0):
        objective, run = built(roll_share=share)
        video = draw_batch(run.data, size=2, seed=0)["video"]
        same = torch.allclose(objective.encode_video(video), objective.encode_video(video.flip(1)), atol=1e-6)
        assert same == (share == 0)


@torch.no_grad()
def test_padding_changes_nothing():
    objective, run = built()
    batch = draw_batch(run.data, size=3, seed=0)
    lengths = torch.tensor([4, 7, 5])
    texts = [batch["text"].where(torch.arange(12) < lengths[:, None], pad) for pad in (0, 9)]
    visual = objective.see(batch["video"])
    torch.testing.assert_close(*(objective.encode_text(ids, lengths) for ids in texts))
    torch.testing.assert_close(*(objective.match(visual, ids, lengths) for ids in texts))
    assert isinstance(objective, DualEncoder) and isinstance(objective, Matcher)


def test_words_between_the_first_and_the_last_are_masked_by_seed():
    generator = torch.Generator().manual_seed(0)
    ids, lengths = torch.randint(3, 40, (400, 20), generator=generator), torch.full((400,), 15)
    valid, seeds = valid_tokens(ids, lengths), torch.arange(400)
    shown, chosen = mask_words(ids, valid, seeds, "test", mask_id=99, vocab_size=40)
    assert not chosen[:, 0].any() and not chosen[:, 14:].any()
    assert torch.equal(shown[~chosen], ids[~chosen])
    assert 0.13 < chosen[:, 1:14].float().mean() < 0.17
    assert 0.76 < (shown[chosen] == 99).float().mean() < 0.84
    assert 0.08 < (shown[chosen] == ids[chosen]).float().mean() < 0.16
    again = mask_words(ids[7:9], valid[7:9], seeds[7:9], "test", mask_id=99, vocab_size=40)
    assert torch.equal(again[0], shown[7:9]) and torch.equal(again[1], chosen[7:9])
    always, chosen = mask_words(ids, valid, seeds, "test", mask_id=99, vocab_size=40, shown=0.0, replaced=0.0)
    assert (always[chosen] == 99).all()


def test_other_clips_with_the_same_caption_match():
    objective, run = built()
    batch = draw_batch(run.data, size=6, seed=0)
    batch["text"] = batch["text"][:1].expand(6, -1)
    batch["text_length"] = batch["text_length"][:1].expand(6)
    with torch.no_grad():
        objective.match_head.weight.zero_()
        objective.match_head.bias.copy_(torch.tensor([0.0, 1.0]))  # says yes to everything
    assert objective(batch).metrics["matched_right"] == 1


def test_captions_that_are_too_long_are_refused():
    run = systems.find("language.all_in_one")
    with pytest.raises(
        UserError, match=r"longer than the network's 16: lower data.reads.max_length, or raise object"
    ):
        run.bound(dataclasses.replace(info_for(run.data.reads), max_length=99))
