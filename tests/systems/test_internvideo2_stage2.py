"""InternVideo2's second stage: what is masked, what is compared, and where it starts."""

import dataclasses
import json

import pytest
import torch
import torch.nn.functional as F
from drawn import draw_batch, info_for

from filmstrip import systems
from filmstrip.__main__ import main
from filmstrip.data.config import DataInfo
from filmstrip.errors import UserError
from filmstrip.models.aligned_encoder import resized_positions
from filmstrip.objectives.matching import pairs_loss
from filmstrip.protocols import DualEncoder, Grid, Matcher, SharesRows

RUN = systems.find("language.internvideo2")
RUN = RUN.bound(info_for(RUN.data.reads))


def built(**changes):
    torch.manual_seed(0)
    return dataclasses.replace(RUN.objective, **changes).build()


def test_training_sees_some_tokens_and_search_all():
    objective, lengths = built(mask_ratio=0.8), []
    assert isinstance(objective, DualEncoder) and isinstance(objective, Matcher) and isinstance(objective, SharesRows)
    objective.encoder.blocks[0].register_forward_hook(lambda module, x, out: lengths.append(out.shape[1]))
    batch = draw_batch(RUN.data, size=3, seed=0)
    loss = objective(batch)
    video = objective.encode_video(batch["video"])
    assert lengths == [1 + 144 - int(144 * 0.8), 1 + 144]
    assert set(loss.metrics) >= {"contrast", "matching", "words", "matched", "matched_right"}
    torch.testing.assert_close(video.norm(dim=1), torch.ones(3))
    assert objective.match(objective.see(batch["video"]), batch["text"], batch["text_length"]).shape == (3,)


def test_words_are_masked_in_bert_s_shares_and_neither_start_nor_end_nor_padding():
    objective = built(word_ratio=0.5)
    ids = torch.full((4000, 16), 7)
    ids[:, 0], ids[:, 12:] = 1, 0
    valid = torch.arange(16).expand(4000, 16) < 12
    given, wanted = objective.masked(ids, valid, torch.arange(4000))
    assert not wanted[:, 0].any() and not wanted[:, 11:].any() and torch.equal(given[~wanted], ids[~wanted])
    assert wanted[:, 1:11].float().mean().item() == pytest.approx(0.5, abs=0.01)
    chosen = given[wanted]
    assert (chosen == objective.masked_word).float().mean().item() == pytest.approx(0.8, abs=0.01)
    assert (chosen == 7).float().mean().item() == pytest.approx(0.1, abs=0.01)
    assert torch.equal(given[5:6], objective.masked(ids[5:6], valid[5:6], torch.tensor([5]))[0])


@torch.no_grad()
def test_losses_are_those_of_torch():
    objective = built(mask_ratio=0.0, word_ratio=1.0).eval()
    batch = draw_batch(RUN.data, size=4, seed=1)
    ids, lengths = batch["text"], batch["text_length"]
    logits = objective.similarity(objective.encode_video(batch["video"]), objective.encode_text(ids, lengths))
    label = torch.arange(4)
    loss = objective(batch)
    both = (F.cross_entropy(logits, label) + F.cross_entropy(logits.T, label)) / 2
    torch.testing.assert_close(loss.metrics["contrast"], both)
    terms = [loss.metrics[name] for name in ("contrast", "matching", "words")]
    torch.testing.assert_close(loss.total, torch.stack(terms).sum())
    # Told that they belong together or not: once with its own, twice with another.
    context = objective.see(batch["video"])
    odds = objective.match(context, ids, lengths)
    valid = torch.arange(ids.shape[1]) < lengths[:, None]
    tokens, other = objective.read(ids, valid), torch.tensor([1, 0, 3, 2])
    same = torch.eye(4, dtype=torch.bool)
    found, _ = pairs_loss(objective.matched, context, tokens, valid, same, other, other)
    swapped = objective.match(context[other], ids, lengths), objective.match(context, ids[other], lengths[other])
    expected = [-F.logsigmoid(odds), *(-F.logsigmoid(-one) for one in swapped)]
    torch.testing.assert_close(found, torch.cat(expected).mean())


def test_a_loss_that_weighs_nothing_is_not_computed():
    objective = built(words_weight=0.0, matching_weight=0.0)
    loss = objective(draw_batch(RUN.data, size=2, seed=0))
    assert "words" not in loss.metrics and "matching" not in loss.metrics
    loss.total.backward()
    assert objective.words.bias.grad is None and objective.match_head.weight.grad is None


def test_the_first_stage_starts_it_with_its_positions_in_between():
    torch.manual_seed(1)
    first = systems.find("pretraining.internvideo2:tiny").objective
    vision = dataclasses.replace(
        RUN.objective.vision, **{name: getattr(first, name) for name in ("width", "depth", "num_heads", "size")}
    )
    stage1, stage2 = first.build(), built(vision=dataclasses.replace(vision, pool_width=first.pool_width))
    taken = stage2.taken_from(stage1)
    assert {name for name in stage2.state_dict() if name.startswith("encoder.")} == set(taken)
    stage2.load_state_dict(taken, strict=False)
    assert torch.equal(stage2.encoder.blocks[2].mlp.fc1.weight, stage1.encoder.blocks[2].mlp.fc1.weight)
    assert stage1.encoder.grid == stage2.encoder.grid and torch.equal(
        stage2.encoder.pos_embed, stage1.encoder.pos_embed
    )
    assert stage2.taken_from(systems.find("language.siglip").objective.build()) is None
    steps = torch.arange(4.0).repeat_interleave(4)[:, None]
    table = resized_positions(torch.cat([torch.full((1, 1), 9.0), steps]), Grid(4, 2, 2), Grid(2, 2, 2))
    assert table[:, 0].tolist() == [9.0] + [0.5] * 4 + [2.5] * 4


def test_bad_input_is_refused():
    with pytest.raises(UserError, match="read data with captions"):
        RUN.bound(DataInfo(classes=(), num_train=1, directional=False))
    info = info_for(RUN.data.reads)
    with pytest.raises(UserError, match="captions of 17 tokens are longer than the network's 16"):
        RUN.bound(dataclasses.replace(info, max_length=17))
    for layers in ({"cross_from": 0}, {"cross_from": 3}, {"cross_every": None}):
        with pytest.raises(UserError, match="cross_from between 1 and the last"):
            built(text=dataclasses.replace(RUN.objective.text, **layers))
    masked = dataclasses.replace(info, tokenizer=dataclasses.replace(info.tokenizer, mask=5))
    assert RUN.bound(info).objective.masked_word == info.tokenizer.size
    assert RUN.bound(masked).objective.masked_word == 5


def test_a_run_is_trained_evaluated_and_searched_with(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("FILMSTRIP_CACHE", str(tmp_path / "cache"))
    run, small = str(tmp_path / "run"), ["--data.synthetic.num-train", "16", "--data.synthetic.num-test", "4"]
    settings = ["--train.steps", "2", "--data.batch-size", "4", "--data.num-workers", "0"]
    assert main(["train", "language.internvideo2:tiny", "--out", run, *small, *settings]) == 0
    videos = next((tmp_path / "cache").rglob("*.mp4")).parent
    capsys.readouterr()
    index = str(tmp_path / "index")
    assert main(["search", run, str(videos), "a red disc", "--index", index, "--json", "--top-k", "2"]) == 0
    (found,) = json.loads(capsys.readouterr().out)["results"]
    assert len(found["found"]) == 2 and -1 <= found["found"][0]["similarity"] <= 1
