"""VIOLET with text: what is masked, what is chosen among, and pairs that are judged."""

import dataclasses

import pytest
import torch
from drawn import draw_batch, info_for

from filmstrip import systems
from filmstrip.errors import UserError
from filmstrip.objectives.matching import valid_tokens
from filmstrip.protocols import Matcher


def built(**settings):
    run = systems.find("language.violet")
    run = run.bound(info_for(run.data.reads))
    torch.manual_seed(0)
    return dataclasses.replace(run.objective, **settings).build().eval(), draw_batch(run.data, size=6, seed=0)


@torch.no_grad()
@pytest.mark.parametrize("masking", ["blocks", "attended", "both"])
def test_first_and_last_tokens_are_never_masked(masking):
    objective, batch = built(masking=masking)
    ids, valid = batch["text"], valid_tokens(batch["text"], batch["text_length"])
    patches, shown, chosen = objective._masked(batch["video"], ids, valid, batch["seed"])
    assert patches.shape == (6, 4, 4, 4) and patches.any()
    assert not chosen[:, 0].any() and not chosen.gather(1, batch["text_length"][:, None] - 1).any()
    assert torch.equal(shown[~chosen], ids[~chosen]) and (shown[chosen] == objective.text.mask_id).all()
    again = objective._masked(batch["video"][2:4], ids[2:4], valid[2:4], batch["seed"][2:4])
    assert torch.equal(again[0], patches[2:4]) and torch.equal(again[1], shown[2:4])
    if masking == "attended":
        assert (patches.flatten(1).sum(dim=1) + chosen.sum(dim=1) <= objective._count(ids)).all()


@torch.no_grad()
def test_equal_captions_are_no_choices():
    objective, batch = built()
    batch["text"] = batch["text"][:1].expand(6, -1).contiguous()
    batch["text_length"] = batch["text_length"][:1].expand(6).contiguous()
    metrics = objective(batch).metrics
    assert metrics["matched_right"] == 1 and metrics["matching"] == 0


@torch.no_grad()
def test_padding_changes_no_judgement():
    objective, batch = built()
    lengths = torch.tensor([4, 7, 5, 3, 9, 6])
    texts = [batch["text"].where(torch.arange(12) < lengths[:, None], pad) for pad in (0, 9)]
    visual = objective.see(batch["video"])
    torch.testing.assert_close(*(objective.match(visual, ids, lengths) for ids in texts))
    assert isinstance(objective, Matcher)


def test_without_masked_visual_tokens_no_patch_is_black_and_none_is_named():
    objective, batch = built(visual_weight=0.0)
    loss = objective(batch)
    assert "visual" not in loss.metrics
    loss.total.backward()
    assert all(p.grad is None for p in objective.head.parameters())


def test_captions_that_are_too_long_are_refused():
    run = systems.find("language.violet")
    with pytest.raises(UserError, match=r"longer than the network's 16: .*or raise objective\.max_length"):
        run.bound(dataclasses.replace(info_for(run.data.reads), max_length=99))
