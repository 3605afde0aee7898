"""What SwinBERT masks, who sees whom, how captions are written, and how the learned table grows."""

from dataclasses import replace

import pytest
import torch
from drawn import draw_batch, info_for

from filmstrip import systems
from filmstrip.data.config import Clip, DataInfo
from filmstrip.errors import UserError
from filmstrip.nn.decoding import Writing
from filmstrip.nn.sampling import Sampling
from filmstrip.systems.language.swinbert import along_diagonal

TINY = systems.find("language.swinbert:tiny")
OWN = TINY.bound(info_for(TINY.data.reads)).objective


@pytest.fixture(scope="module")
def batch():
    return draw_batch(TINY.data, size=3, seed=0)


def built(**changes):
    torch.manual_seed(0)
    return replace(OWN, **changes).build().eval()


def test_half_of_a_caption_is_masked_and_never_its_start():
    model = built(masked=0.5, most_masked=4)
    lengths = torch.tensor([3, 6, 12, 2]).repeat(500)
    ids = torch.arange(40, 52).repeat(2000, 1)
    seeds = torch.arange(2000)
    chosen, given = model.masked(ids, lengths, seeds)
    assert not chosen[:, 0].any() and not (chosen & (torch.arange(12) >= lengths[:, None])).any()
    assert torch.equal(chosen.sum(dim=1)[:4], torch.tensor([2, 3, 4, 1]))  # at most four, at least one
    assert torch.equal(given[~chosen], ids[~chosen])
    masked, same = (given == model.mask_id)[chosen], (given == ids)[chosen]
    assert masked.float().mean().item() == pytest.approx(0.8, abs=0.02)
    assert same.float().mean().item() == pytest.approx(0.1, abs=0.02)
    assert (given[chosen] <= model.mask_id).all()
    again, _ = model.masked(ids[7:9], lengths[7:9], seeds[7:9])
    assert torch.equal(again, chosen[7:9])


@torch.no_grad()
@pytest.mark.parametrize("mask", ["none", "weights", "scores"])
def test_words_see_the_video_and_earlier_words(batch, mask):
    model = built(mask=mask)
    visual, ids = model.see(batch["video"]), batch["text"]
    logits = model.logits(visual, ids)
    other = ids.clone()
    other[:, 5] = 77
    assert torch.allclose(model.logits(visual, other)[:, :5], logits[:, :5], atol=1e-5)
    assert not torch.allclose(model.logits(visual, other)[:, 5:], logits[:, 5:], atol=1e-3)
    assert not torch.allclose(model.logits(visual.roll(1, 0), ids), logits, atol=1e-3)


@torch.no_grad()
def test_the_mask_weighs_attention(batch):
    """Weights that are multiplied and normalised again, by hand, in the first layer's attention among the video."""
    model = built(joint_depth=1)
    x, own = model.see(batch["video"]), model.blocks[0].attention
    q, k, v = own.qkv(x).unflatten(2, (3, 4, 16)).permute(2, 0, 3, 1, 4)
    weights = (q @ k.mT / 4).softmax(dim=-1) * model.mask().fill_diagonal_(1.0)
    weights = weights / weights.sum(dim=-1, keepdim=True)
    expected = own.out((weights @ v).transpose(1, 2).flatten(2))
    seen = []
    hook = own.out.register_forward_hook(lambda module, given, made: seen.append(made))
    model.logits(x, batch["text"])
    hook.remove()
    assert torch.allclose(seen[0][:, : x.shape[1]], expected, atol=1e-5)
    model.mask_logits.fill_(40.0)
    full = built(joint_depth=1, mask="none")
    full.load_state_dict(model.state_dict(), strict=False)
    assert torch.allclose(model.logits(x, batch["text"]), full.logits(x, batch["text"]), atol=1e-4)


def test_the_loss_is_that_of_masked_words_and_of_the_table(batch):
    model = built()
    loss = model(batch)
    off = model.mask_logits.sigmoid() * (1 - torch.eye(len(model.mask_logits)))
    assert torch.allclose(loss.metrics["mask"], off.mean())
    assert torch.allclose(loss.total, loss.metrics["named"] + 0.5 * off.mean())
    chosen, given = model.masked(batch["text"], batch["text_length"], batch["seed"])
    likely = model.logits(model.see(batch["video"]), given).log_softmax(dim=-1)
    nats = -likely.gather(2, batch["text"][..., None])[..., 0]
    assert torch.allclose(loss.metrics["named"], nats[chosen].mean(), atol=1e-5)
    hard = built(hard=True)
    assert not hard.mask_logits.requires_grad and set(hard.mask().unique().tolist()) == {0.0, 1.0}
    assert "mask" not in built(mask="none")(batch).metrics


@torch.no_grad()
def test_a_caption_is_written_at_the_place_of_a_mask(batch):
    model = built(dropout=0.1)
    visual = model.see(batch["video"])
    said = model.caption(visual, end=2)
    text = torch.full((3, 1), model.config.start)
    for _ in range(said.shape[1]):
        masked = torch.cat([text, torch.full((3, 1), model.mask_id)], dim=1)
        text = torch.cat([text, model.logits(visual, masked)[:, -1].argmax(dim=-1, keepdim=True)], dim=1)
    ended = (text[:, 1:] == 2).cumsum(dim=1) > 0
    assert torch.equal(said, text[:, 1:].masked_fill(ended, 2))
    again = model.caption(visual[1:2], prompt=said[1, :2].tolist(), end=2, writing=writing(18))
    assert torch.equal(again[:, : said.shape[1] - 2], said[1:2, 2 : 2 + again.shape[1]])
    drawn = model.caption(visual, end=2, seed=4, writing=writing(5, Sampling()))
    alone = model.caption(visual[1:2], end=2, seed=5, writing=writing(5, Sampling()))
    assert torch.equal(drawn[1:2, : alone.shape[1]], alone)
    beams = model.caption(visual, end=2, writing=replace(writing(4), beams=3))
    alone = model.caption(visual[2:], end=2, writing=replace(writing(4), beams=3))
    assert torch.equal(beams[2:, : alone.shape[1]], alone)
    with pytest.raises(UserError, match="captions of 32 tokens after a prompt of 1 are longer than the 32"):
        model.caption(visual, end=2, writing=writing(32))


def writing(most, sampling=None):
    return Writing(max_tokens=most, sampling=sampling or Sampling(temperature=0.0))


def test_a_table_serves_clips_of_another_length():
    table, fresh = torch.arange(4.0).view(2, 2), torch.full((5, 5), 9.0)
    expected = torch.full((5, 5), 9.0)
    expected[:2, :2] = expected[2:4, 2:4] = table
    assert torch.equal(along_diagonal(table, fresh), expected)
    assert torch.equal(along_diagonal(expected, fresh[:2, :2]), table)
    short, long = built(), replace(OWN.for_clip(Clip(num_frames=16, size=48))).build()
    long.load_state_dict(long.at_own_length(short.state_dict()))
    count = len(short.mask_logits)
    assert len(long.mask_logits) == 2 * count
    for start in (0, count):
        part = long.mask_logits[start : start + count, start : start + count]
        assert torch.equal(part, short.mask_logits)


def test_a_swin_starts_it():
    swin = replace(systems.find("recognition.video_swin:tiny").objective, **shared()).build()
    taken = built().taken_from(swin)
    model = built()
    model.load_state_dict(taken, strict=False)
    assert torch.equal(model.encoder.norm.weight, swin.encoder.norm.weight) and len(taken) > 20
    assert (
        model.taken_from(systems.find("language.clip:tiny").bound(info_for(TINY.data.reads)).objective.build())
        is None
    )


def shared():
    return {name: getattr(OWN, name) for name in ("width", "depths", "num_heads", "window", "patch_size")}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda info: OWN.bind(DataInfo(classes=(), num_train=1, directional=False)), "learns from captions"),
        (
            lambda info: OWN.bind(replace(info, max_length=99)),
            "captions of 99 tokens are longer than the",
        ),
        (lambda info: OWN.bind(replace(info, tokenizer=replace(info.tokenizer, start=None))), "start of text"),
        (lambda info: replace(OWN, size=40).build(), r"make no whole tokens: \(2, 16, 16\)"),
    ],
)
def test_what_cannot_work_is_refused(make, message):
    with pytest.raises(UserError, match=message):
        make(info_for(TINY.data.reads))
