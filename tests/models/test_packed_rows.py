"""Examples that share rows of the language model: nothing changes but the rows."""

import copy
from dataclasses import replace

import pytest
import torch

from filmstrip import systems
from filmstrip.data.reading.packing import first_fit
from filmstrip.errors import UserError
from filmstrip.objectives.language import averaged
from filmstrip.runs.language import with_visual_tokens
from thread_rings import around

PLACE = 119
LENGTHS = (12, 5, 9, 7, 12, 4)
METHODS = (
    "language.llava",
    "language.llava_onevision",
    "language.qwen_vl",
    "language.qwen2_vl",
    "language.video_llama",
    "language.video_llama2",
    "language.video_llama3",
    "language.blip2:tiny_stage2",
    "language.instructblip",
    "language.internvideo2_chat",
)


def drawn(run, lengths=LENGTHS):
    """Conversations of several lengths, all but the last with a place of a video, and the rows that they share."""
    clip, generator = run.data.clip, torch.Generator().manual_seed(2)
    count, longest = len(lengths), max(lengths)
    size = (count, clip.num_frames, 3, clip.size, clip.size)
    at, length = torch.arange(longest), torch.tensor(lengths)
    text = torch.randint(3, 100, (count, longest), generator=generator)
    text[torch.arange(count - 1), torch.arange(count - 1) % 3] = PLACE
    takes = [n + run.data.reads.visual_tokens - 1 for n in lengths[:-1]] + [lengths[-1]]
    room = 2 * max(takes)
    document = torch.zeros(0, room, dtype=torch.int64)
    for row in first_fit(takes, room):
        numbers = torch.tensor(row) + 1
        places = numbers.repeat_interleave(torch.tensor([takes[i] for i in row]))
        document = torch.cat([document, torch.nn.functional.pad(places, (0, room - len(places)))[None]])
    return {
        "video": torch.randint(0, 256, size, dtype=torch.uint8, generator=generator),
        "text": text.where(at < length[:, None], 0),
        "text_length": length,
        "learnt": (at >= length[:, None] // 2 + 2) & (at < length[:, None]),
        "document": document,
        "step_means": torch.tensor([count, sum(n - n // 2 - 2 for n in lengths)], dtype=torch.float32),
    }


def built(address, **changes):
    run = with_visual_tokens(systems.find(address))
    torch.manual_seed(0)
    return run, replace(run.objective, placeholders=(PLACE,), **changes).build()


def gradients(model, batch):
    model.zero_grad()
    loss = model(batch).total
    loss.backward()
    return loss.detach(), {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("address", METHODS)
def test_loss_and_gradients_are_those_of_padded_rows(address):
    run, model = built(address)
    model.eval()  # nothing is dropped at random
    batch = drawn(run)
    assert len(batch["document"]) < len(LENGTHS)
    own = {key: value for key, value in batch.items() if key not in ("document", "step_means")}
    (packed, got), (padded, expected) = gradients(model, batch), gradients(model, own)
    torch.testing.assert_close(packed, padded, rtol=1e-6, atol=1e-6)
    assert got.keys() == expected.keys() and any(each.abs().max() > 1e-3 for each in got.values())
    for name, value in expected.items():
        torch.testing.assert_close(got[name], value, rtol=1e-5, atol=1e-6, msg=name)


def test_no_example_sees_another_that_shares_its_row():
    run, model = built("language.llava")
    batch = drawn(run)
    first = batch["document"] == 1
    assert (batch["document"][first.any(dim=1)] > 1).any()
    weight = batch["learnt"][:, 1:].float()
    with torch.no_grad():
        seen = model.see(batch["video"])
        changed = seen.clone()
        changed[0] = 1e3
        for counted, same in ((weight * (torch.arange(len(weight)) > 0)[:, None], True), (weight, False)):
            arguments = batch["text"], batch["text_length"], counted, batch["document"]
            one, other = (model.packed_losses(visual, *arguments)[0] for visual in (seen, changed))
            assert torch.equal(one, other) == same


@pytest.mark.parametrize("length", [12, 60])
def test_losses_are_the_same_where_texts_or_rows_are_the_shorter(length):
    run, model = built("language.llava")
    batch = drawn(run, (length, 5, 5, 4, 6, 4, 5))
    assert (batch["text"][:, 1:].numel() > batch["document"].numel()) == (length == 60)
    with torch.no_grad():
        packed = model(batch)
        padded = model({key: value for key, value in batch.items() if key not in ("document", "step_means")})
    torch.testing.assert_close(packed.total, padded.total, rtol=1e-6, atol=1e-6)
    assert packed.metrics["top1"] == padded.metrics["top1"]


@pytest.mark.parametrize("average", ["tokens", "examples"])
def test_means_are_those_of_the_whole_step(average):
    losses = torch.rand(7, 5, generator=torch.Generator().manual_seed(0))
    learnt = torch.arange(5) < torch.tensor([1, 5, 2, 4, 3, 1, 5])[:, None]
    means = torch.tensor([7.0, 21.0]) / 3
    parts = [slice(0, 1), slice(1, 5), slice(5, 7)]
    got = sum(averaged(losses[part] * learnt[part], learnt[part], average, means) for part in parts) / 3
    torch.testing.assert_close(got, averaged(losses * learnt, learnt, average))
    of_batches = sum(averaged(losses[part] * learnt[part], learnt[part], average) for part in parts) / 3
    assert abs(of_batches - got) > 1e-3


def gradients_of(model, total):
    total.backward()
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize(
    ("packed", "striped"), [(True, True), (False, False)], ids=["shared rows, striped", "padded rows, in pieces"]
)
@pytest.mark.parametrize(
    ("address", "average", "window"),
    [("language.llava", "examples", None), ("language.llava", "tokens", 5), ("language.qwen2_vl", "tokens", None)],
)
def test_processes_that_share_rows_tokens_have_the_loss_and_gradient_of_one(
    address, average, window, packed, striped
):
    decoder = replace(systems.find(address).objective.decoder, window=window)
    run, model = built(address, average=average, label_smoothing=0.1, decoder=decoder)
    model.eval()
    batch = drawn(run)
    if not packed:
        batch = {key: value for key, value in batch.items() if key not in ("document", "step_means")}
    expected, of_one = gradients(model, batch)
    top1 = model(batch).metrics["top1"]
    copies = [copy.deepcopy(model) for _ in range(3)]

    def work(place):
        own = copies[place.rank]
        own.use_ring(place)
        own.training = True  # and no part of it, so that nothing is dropped at random
        loss = own(batch)
        return loss.total.item(), loss.metrics, gradients_of(own, loss.total)

    parts = around(work, 3, striped)
    for loss, metrics, _ in parts:
        assert loss == pytest.approx(expected.item(), rel=1e-5) and metrics["top1"] == pytest.approx(top1.item())
    for name, value in of_one.items():
        got = torch.stack([own.get(name, torch.zeros_like(value)) for *_, own in parts]).mean(dim=0)
        torch.testing.assert_close(got, value, rtol=1e-4, atol=2e-6, msg=name)


def test_a_language_model_whose_attention_cannot_be_shared_says_so():
    _, model = built("language.internvideo2_5")
    with pytest.raises(UserError, match="no attention that processes can share"):
        model.use_ring(None)
