"""InternVideo2.5: how many tokens a clip has, which the language model drops, and what text makes of them."""

import dataclasses

import pytest
import torch
from drawn import draw_batch, info_for

from filmstrip import systems
from filmstrip.errors import UserError
from filmstrip.protocols import Grid
from filmstrip.systems.language.internvideo2_5 import CompressionConfig

RUN = systems.find("language.internvideo2_5")
RUN = RUN.bound(info_for(RUN.data.reads))


def built(**changes):
    torch.manual_seed(0)
    model = dataclasses.replace(RUN.objective, **changes).build().eval()
    for parameter in model.decoder.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return model


@torch.no_grad()
@pytest.mark.parametrize("how", ["merged", "pooled", "strided"])
def test_clips_have_as_many_tokens_as_promised(how):
    connector = CompressionConfig(steps=4, per_step=3, num_heads=2, how=how).build(8, 16)
    for steps in (1, 3, 4, 10):
        grid = Grid(steps, 3, 4)
        tokens = torch.randn(2, steps * 12, 8, generator=torch.Generator().manual_seed(0))
        seen = connector(tokens, grid)
        assert seen.shape == (2, connector.num_tokens(grid), 16)
        changed = tokens.clone()
        changed[:, -1] += 5  # of the last group alone
        first = (steps - 1) // 4 * 4 * 3
        assert torch.equal(connector(changed, grid)[:, :first], seen[:, :first])
    assert CompressionConfig(per_step=16).build(8, 16).num_tokens(Grid(2, 3, 4)) == 24


def test_pooled_tokens_are_means_of_equal_parts():
    connector = CompressionConfig(steps=2, per_step=2, how="pooled").build(1, 1)
    tokens = torch.arange(12.0).view(1, 12, 1)
    assert connector._compressed(tokens, 2).flatten().tolist() == [1.0, 4.0, 7.0, 10.0]


@torch.no_grad()
def test_the_language_model_drops_tokens_and_answers_as_its_logits_say():
    model, lengths = built(), []
    batch = draw_batch(RUN.data, size=3, seed=0)
    hooks = [
        b.register_forward_hook(lambda module, x, out: lengths.append(out.shape[1])) for b in model.decoder.blocks
    ]
    model(batch)
    whole = batch["text"].shape[1] + 16 - 1
    assert lengths == [whole, whole - 15 + 7, whole - 15 + 3]
    for hook in hooks:
        hook.remove()
    first = int(batch["learnt"][0].int().argmax())
    prompt = {"text": batch["text"][:1, :first], "text_length": torch.tensor([first])}
    visual = model.see(batch["video"][:1])
    (said,) = model.answer(visual, prompt, count=1)
    logits = model.logits(visual, *(batch[key][:1] for key in ("text", "text_length", "learnt")))
    assert said[0] == logits[0, first - 1].argmax()
    score, count = model.score(visual, {key: batch[key][:1] for key in ("text", "text_length", "learnt")})
    assert count == batch["learnt"][0].sum() and score.isfinite()


@torch.no_grad()
def test_answers_change_no_choice_and_padding_no_logit():
    model, batch = built(), draw_batch(RUN.data, size=2, seed=0)
    visual, keys = model.see(batch["video"]), ("text", "text_length", "learnt")
    before = model.logits(visual, *(batch[key] for key in keys))
    first, other = batch["learnt"].int().argmax(dim=1), batch["text"].clone()
    for row, place in enumerate(first.tolist()):
        other[row, place:] = 6 + (other[row, place:] + 1) % (RUN.objective.decoder.vocab_size - 6)
    after = model.logits(visual, other, *(batch[key] for key in keys[1:]))
    for row, place in enumerate(first.tolist()):
        torch.testing.assert_close(after[row, :place], before[row, :place])
    longer = [torch.nn.functional.pad(batch[key], (0, 3)) if key != "text_length" else batch[key] for key in keys]
    torch.testing.assert_close(model.logits(visual, *longer)[:, :-3], before, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_text_alone_is_learnt_and_asked_only_with_a_video():
    model, batch = built(), draw_batch(RUN.data, size=2, seed=0)
    visual, place = model.see(batch["video"]), int(model.placeholders[0])
    text = batch["text"].masked_fill(torch.isin(batch["text"], model.placeholders), 7)
    alone = model.logits(visual, text, batch["text_length"], batch["learnt"])
    plain = built(dropping=None)
    plain.load_state_dict(model.state_dict())
    wanted = plain.logits(visual, text, batch["text_length"])
    for row, length in enumerate(batch["text_length"].tolist()):
        torch.testing.assert_close(alone[row, : length - 1], wanted[row, : length - 1], rtol=1e-4, atol=1e-5)
    assert place not in text
    with pytest.raises(UserError, match="no place of a video"):
        list(model.answer(visual, {"text": text[:, :4], "text_length": torch.tensor([4, 4])}, count=1))


def test_dropping_that_does_not_fit_is_refused():
    dropping = dataclasses.replace(RUN.objective.dropping, after=(1, 3))
    with pytest.raises(UserError, match="the last of 3 blocks must come after it"):
        dataclasses.replace(RUN.objective, dropping=dropping).build()
