"""Language models of text: shared rows, tokens that processes share, writing, and where stages begin."""

import copy
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from filmstrip import systems
from filmstrip.data.reading.packing import first_fit
from filmstrip.errors import UserError
from filmstrip.models.decoder import DecoderConfig
from filmstrip.objectives.text import TextModelConfig
from filmstrip.protocols import SharesContext, TextWriter
from thread_rings import around

VOCAB, ROOM = 30, 24
LENGTHS = (12, 5, 9, 4, 6, 17, 5)
DECODER = DecoderConfig(vocab_size=VOCAB, width=32, depth=2, num_heads=4, mlp_dim=48)


def built(**settings):
    torch.manual_seed(0)
    model = TextModelConfig(**{"decoder": DECODER} | settings).build()
    for parameter in model.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.2)
    return model


def drawn():
    """Conversations of several lengths, padded, whose last tokens are learnt, and the rows that they share."""
    generator = torch.Generator().manual_seed(0)
    most = max(LENGTHS)
    text = torch.randint(3, VOCAB, (len(LENGTHS), most), generator=generator)
    length = torch.tensor(LENGTHS)
    at = torch.arange(most)
    learnt = (at < length[:, None]) & (at >= length[:, None] - torch.tensor([2, 1, 5, 2, 3, 9, 1])[:, None])
    order = first_fit(LENGTHS, ROOM)
    document = torch.zeros(len(order), ROOM, dtype=torch.int64)
    for row, members in zip(document, order):
        row[: sum(LENGTHS[i] for i in members)] = torch.cat([torch.full((LENGTHS[i],), i + 1) for i in members])
    text = text.masked_fill(at >= length[:, None], 0)
    means = torch.tensor([len(LENGTHS), learnt[:, 1:].sum()], dtype=torch.float32)
    return {"text": text, "text_length": length, "learnt": learnt, "document": document, "step_means": means}


def padded(batch):
    return {key: value for key, value in batch.items() if key not in ("document", "step_means")}


def gradients_of(model, batch):
    loss = model(batch)
    loss.total.backward()
    found = {name: parameter.grad for name, parameter in model.named_parameters()}
    model.zero_grad()
    return loss, found


def test_it_can_be_asked_to_write_and_shares_context():
    assert isinstance(built(), TextWriter) and isinstance(built(), SharesContext)


@pytest.mark.parametrize("average", ["tokens", "examples"])
def test_shared_rows_have_the_loss_and_gradient_of_padded_ones(average):
    model, batch = built(average=average), drawn()
    (packed, one), (apart, other) = gradients_of(model, batch), gradients_of(model, padded(batch))
    torch.testing.assert_close(packed.total, apart.total, rtol=1e-6, atol=1e-6)
    assert packed.metrics["top1"] == apart.metrics["top1"]
    assert packed.metrics["fill"] == pytest.approx(sum(LENGTHS) / batch["document"].numel())
    for name, value in other.items():
        torch.testing.assert_close(one[name], value, rtol=1e-4, atol=1e-6, msg=name)


def test_each_example_counts_once_where_that_is_asked_for():
    model, batch = built(), padded(drawn())
    losses, learnt = model.text_losses(batch)
    each = losses.sum(dim=1) / learnt.sum(dim=1)
    torch.testing.assert_close(built(average="examples")(batch).total, each.mean())
    torch.testing.assert_close(model(batch).total, losses.sum() / learnt.sum())
    assert abs(each.mean() - losses.sum() / learnt.sum()) > 1e-3


def test_no_conversation_sees_another_that_shares_its_row():
    model, batch = built(average="examples"), drawn()
    only = {**batch, "learnt": batch["learnt"] & (torch.arange(len(LENGTHS)) > 0)[:, None]}
    changed = {**only, "text": batch["text"].clone()}
    changed["text"][0, : LENGTHS[0]] = 29
    shares = batch["document"][(batch["document"] == 1).any(dim=1)]
    assert (shares > 1).any()
    with torch.no_grad():
        assert torch.equal(model(only).total, model(changed).total)


@pytest.mark.parametrize("striped", [False, True], ids=["in pieces", "striped"])
@pytest.mark.parametrize("packed", [True, False], ids=["shared rows", "one text a row"])
@pytest.mark.parametrize("window", [None, 4], ids=["all", "the latest four"])
def test_three_processes_that_share_tokens_have_the_loss_and_gradient_of_one(window, packed, striped):
    model = built(average="examples", decoder=replace(DECODER, window=window))
    batch = drawn() if packed else padded(drawn())
    expected, of_one = gradients_of(model, batch)
    copies = [copy.deepcopy(model) for _ in range(3)]

    def work(place):
        copies[place.rank].use_ring(place)
        return gradients_of(copies[place.rank], batch)

    found = around(work, 3, striped)
    for loss, _ in found:
        torch.testing.assert_close(loss.total, expected.total, rtol=1e-5, atol=1e-6)
        assert loss.metrics["top1"] == pytest.approx(expected.metrics["top1"].item())
    for name, value in of_one.items():
        got = torch.stack([own[name] for _, own in found]).mean(dim=0)
        torch.testing.assert_close(got, value, rtol=1e-4, atol=2e-6, msg=name)


@pytest.mark.parametrize("rows", [slice(0, 1), slice(0, 4)], ids=["one", "several"])
def test_writing_is_what_computing_everything_anew_would_say(rows):
    model, batch = built().eval(), drawn()
    prompt = {"text": batch["text"][rows], "text_length": batch["text_length"][rows]}
    text = prompt["text"][:, : prompt["text_length"].max()]
    prompt["text"] = text
    got = torch.stack(list(model.write_on(prompt, count=5)), dim=1)
    for row, own, length in zip(got, text, prompt["text_length"]):
        ids = own[:length]
        for token in row:
            with torch.no_grad():
                expected = model.decoder.logits(model.decoder(ids[None]).hidden[:, -1]).argmax()
            assert token == expected
            ids = torch.cat([ids, token[None]])


def test_nats_are_cross_entropies_of_learnt_tokens():
    model, batch = built().eval(), padded(drawn())
    losses, learnt = model.text_losses(batch)
    with torch.no_grad():
        logits = model.decoder.logits(model.decoder(batch["text"][:, :-1]).hidden)
    whole = F.cross_entropy(logits.transpose(1, 2), batch["text"][:, 1:], reduction="none")
    torch.testing.assert_close(losses, whole * learnt, rtol=1e-5, atol=1e-6)
    assert torch.equal(learnt, batch["learnt"][:, 1:])


STAGES = {"text_32k": (2**15, 1e6), "text_128k": (2**17, 1e7), "text_256k": (2**18, 1e7), "text_512k": (2**19, 2.5e7)}
STAGES |= {"text_1m": (2**20, 5e7)}


def test_the_stages_are_those_of_the_papers_tables():
    """Tables D.1, D.2, D.7 and D.8."""
    steps = {"text_32k": (1200, 100), "text_128k": (3000, 200), "text_256k": (3000, 200), "text_512k": (720, 50)}
    steps |= {"text_1m": (450, 25)} | {f"chat_{length}": (300, 25) for length in ("128k", "256k", "512k", "1m")}
    before = 1e4
    for name, numbers in steps.items():
        run = systems.find(f"language.lwm_text:{name}")
        length, base = STAGES[name.replace("chat", "text")]
        assert run.objective.decoder.rope_base == base
        assert (run.train.length.steps, run.optim.schedule.warmup.steps) == numbers
        assert (run.optim.lr, run.optim.schedule.factor(10_000, 20_000), run.train.precision) == (4e-5, 1, "float32")
        if name.startswith("text"):
            assert run.data.reads.length * run.data.batch_size == 2**22 and run.data.reads.length == length
            assert run.objective.begins_at_base == before
            before = base
        else:
            assert run.data.reads.pack * run.data.batch_size == 2**22 and run.data.reads.pack == length
            assert run.objective.begins_at_base == base and run.objective.average == "rows"
    totals = [steps[name][0] * 4e6 for name in STAGES]
    assert totals == pytest.approx([4.8e9, 12e9, 12e9, 3e9, 1.8e9], rel=0.05)


def test_a_stage_refuses_a_base_that_is_not_the_one_before_its_own():
    wanted = systems.find("language.lwm_text:text_128k").objective
    found = wanted.of_init(replace(DECODER, rope_base=1e6), "it")
    assert found.decoder == replace(DECODER, rope_base=1e7) and found.keeps_sizes
    with pytest.raises(
        UserError, match=r"rope_theta\) of 50,000,000, and this stage goes on from .* 1,000,000 to 10,"
    ):
        wanted.of_init(replace(DECODER, rope_base=5e7), "it")
    replace(wanted, begins_at_base=None).of_init(replace(DECODER, rope_base=5e7), "it")
