"""Conversations that share rows: each once in a pass, resumed where it stopped, and what is refused."""

import itertools
import json
from collections import Counter
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from small_videos import encode, settings_of, take

from filmstrip import systems
from filmstrip.data.kinds.conversations import Conversations
from filmstrip.data.reading.loader import EvalLoader, TrainLoader
from filmstrip.data.reading.packing import first_fit
from filmstrip.data.sources import open_source
from filmstrip.errors import UserError
from filmstrip.runs import experiment
from filmstrip.runs.language import with_visual_tokens
from filmstrip.text.tokenizers import Bytes
from filmstrip.train.config import Loop
from filmstrip.train.lengths import Steps

COUNT = 23


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("dialogues")
    for i in range(3):
        encode(root / f"v{i}.mp4", 30 * i)
    return root


@pytest.fixture
def data(folder, tmp_path):
    """Conversations of many lengths about three videos; rows of 80 tokens."""
    records = [
        {
            "id": f"q{i}",
            "video": f"v{i % 3}.mp4",
            "split": "train",
            "conversations": [
                {"from": "human", "value": "<image>\nhow?"},
                {"from": "gpt", "value": "a" * (1 + 7 * i % 19)},
            ],
        }
        for i in range(COUNT)
    ]
    (tmp_path / "llava.json").write_text(json.dumps(records))
    reads = Conversations(media=folder, tokenizer=Bytes(), visual_tokens=6, pack=80)
    return replace(settings_of(tmp_path / "llava.json", reads=reads), batch_size=4)


@pytest.fixture
def mixed(data, tmp_path):
    """The same beside seven conversations without a video, in three rows of ten."""
    talk = [{"from": "human", "value": "say"}]
    records = [
        {"id": f"t{i}", "split": "train", "conversations": [*talk, {"from": "gpt", "value": "b" * (3 + 5 * i)}]}
        for i in range(7)
    ]
    (tmp_path / "talk.json").write_text(json.dumps(records))
    return replace(data, path=None, mixture=(data.path, tmp_path / "talk.json"), weights=(7.0, 3.0), batch_size=10)


def loader(data, **share):
    return TrainLoader(open_source(data), data, seed=5, **share)


def taken(data, count, start=0, **share):
    return take(loader(data, **share), count, start)


@given(st.lists(st.integers(1, 50), min_size=1, max_size=700), st.integers(50, 60))
def test_first_fit_loses_nothing_and_fills_rows(lengths, room):
    rows = first_fit(lengths, room)
    assert sorted(itertools.chain.from_iterable(rows)) == list(range(len(lengths)))
    taken = [sum(lengths[i] for i in row) for row in rows]
    assert max(taken) <= room
    assert sum(used <= room / 2 for used in taken) <= 1  # two such rows would have been one


def test_first_fit_takes_the_oldest_row_with_room():
    assert first_fit([6, 7, 4, 3, 10, 1], 10) == [[0, 2], [1, 3], [4], [5]]


def test_a_batch_is_as_declared_and_says_where_each_lies(data):
    source = open_source(data)
    (batch,) = taken(data, 1)
    assert list(source.kind.specification.faults(batch)) == []
    visual = batch["text"] == source.serialiser.places["<image>"]
    assert (visual.sum(dim=1) == 1).all()
    counts = Counter(batch["document"].flatten().tolist())
    assert batch["document"].shape == (4, 80) and counts.pop(0) < 4 * 80 / 2
    assert [counts[i + 1] for i in range(len(batch["name"]))] == (batch["text_length"] + 5).tolist()
    for row in batch["document"]:
        assert (row[row > 0].diff() >= 0).all()


def test_an_epoch_over_processes_and_micro_batches_has_every_conversation_once(data):
    steps = loader(data).steps_per_epoch
    rows = round(4 * steps)
    assert rows == 4 * steps
    one_row = replace(data, batch_size=1)
    for epoch in range(2):
        names = [name for batch in taken(one_row, rows, start=rows * epoch) for name in batch["name"]]
        assert sorted(names) == sorted(f"q{i}" for i in range(COUNT))
    alone = taken(data, 3)
    shared = [taken(data, 6, rank=rank, world=2, accumulate=2) for rank in range(2)]
    for step, whole in enumerate(alone):
        parts = [shared[rank][2 * step + a] for a in range(2) for rank in range(2)]
        assert [name for part in parts for name in part["name"]] == whole["name"]
        assert all(torch.equal(part["step_means"], whole["step_means"] / 4) for part in parts)
        assert whole["step_means"].tolist() == [len(whole["name"]), whole["learnt"][:, 1:].sum()]


def test_sources_of_a_mixture_share_rows_apart_in_the_ratio_of_their_weights(mixed):
    counts = [Counter(), Counter()]
    batches = taken(mixed, 12)
    for batch in batches:
        of_row = [{int(number) for number in row} - {0} for row in batch["document"]]
        talk = ["talk.json" in name for name in batch["name"]]
        sources = [{talk[number - 1] for number in row} for row in of_row]
        assert all(len(source) == 1 for source in sources)
        assert sum(source == {True} for source in sources) == 3
        for name, own in zip(batch["name"], talk):
            counts[own][name] += 1
        assert batch["step_means"].tolist() == [len(batch["name"]), batch["learnt"][:, 1:].sum()]
    for found, total in zip(counts, (COUNT, 7)):  # in whole passes, each once
        assert len(found) == total and max(found.values()) - min(found.values()) <= 1
    (third,) = taken(mixed, 1, start=2)
    assert third["name"] == batches[2]["name"] and torch.equal(third["document"], batches[2]["document"])
    source = open_source(mixed)
    rows = source.packing(mixed, 5).rows
    assert loader(mixed).steps_per_epoch == sum(map(len, rows)) / 10
    alone = replace(mixed, path=mixed.mixture[0], mixture=(), weights=())
    assert open_source(alone).packing(alone, 5).rows == rows[:1]  # another source beside it changes no row


def test_it_resumes_anywhere_with_any_number_of_workers(data):
    whole = taken(data, 8)
    for start, workers in ((3, 0), (6, 2)):
        for got, expected in zip(taken(replace(data, num_workers=workers), 2, start=start), whole[start:]):
            assert got["name"] == expected["name"]
            assert all(torch.equal(got[key], expected[key]) for key in ("document", "video", "step_means"))


def test_a_bad_file_gives_way_to_a_conversation_that_fits_in_its_place(data, folder):
    broken = replace(data, max_unreadable=0.9)
    source = open_source(broken)
    bad = folder / "broken.mp4"
    bad.write_bytes(b"no video")
    none = {"q0", "q19"}  # the shortest, in place of which nothing fits
    names = {"q1", "q4", *none}
    samples = tuple(replace(s, path=str(bad)) if s.name in names else s for s in source.samples)
    stream = TrainLoader(replace(source, samples=samples), broken, seed=5)
    for got, planned in zip(take(stream, 4), taken(data, 4)):
        there = [(name, length) for name, length in zip(planned["name"], planned["text_length"]) if name not in none]
        assert len(got["name"]) == len(there) == int(got["document"].max())
        for name, length, (other, most) in zip(got["name"], got["text_length"], there):
            assert name == other or (other in names and length <= most)
        counts = got["document"].flatten().bincount()[1:]
        assert counts.tolist() == (got["text_length"] + 5).tolist()
    assert {entry.name for entry in stream.unreadable} == names


def test_evaluation_has_a_row_each(data):
    (batch,) = EvalLoader(open_source(data), data, "train", batch_size=COUNT)
    assert "document" not in batch and len(batch["text"]) == COUNT


def test_one_longer_than_a_row_is_named_before_the_first_step(data):
    short = replace(data, reads=replace(data.reads, pack=30))
    with pytest.raises(
        UserError, match=r"of 23 samples are longer than a row of 30 tokens:\n  q\d+ takes \d+ tokens"
    ):
        loader(short)


def test_lengths_that_are_known_only_when_read_are_refused(data):
    with pytest.raises(UserError, match="leave out"):
        open_source(replace(data, reads=replace(data.reads, timestamps=True)))
    with pytest.raises(UserError, match="clips_per_video"):
        open_source(replace(data, clips_per_video=2))


def packed(address, steps):
    run = with_visual_tokens(systems.find(address))
    data = replace(run.data, reads=replace(run.data.reads, pack=96), batch_size=2, num_workers=0)
    return replace(run, data=data, evals=(), train=Loop(length=Steps(steps), log_every=1))


@pytest.mark.parametrize("average", ["tokens", "examples"])
@pytest.mark.parametrize("several", [False, True], ids=["one source", "mixture"])
def test_a_step_is_that_of_padded_rows_however_it_is_shared_out(data, mixed, average, several):
    run = systems.find("language.llava")
    reads = replace(data.reads, visual_tokens=16, pack=100)
    given = mixed if several else data
    data = replace(
        run.data,
        path=given.path,
        mixture=given.mixture,
        weights=given.weights,
        reads=reads,
        batch_size=4,
        num_workers=0,
    )
    source = open_source(data)
    torch.manual_seed(0)
    run = replace(run, data=data, objective=replace(run.objective, average=average))
    model = run.bound(source.info("train")).objective.build()

    def gradient(batches):
        losses = [model(batch).total for batch in batches]
        loss = torch.stack(losses).mean()
        return loss.detach(), torch.autograd.grad(loss, list(model.parameters()))

    parts = [
        batch
        for rank in range(2)
        for batch in take(TrainLoader(source, data, seed=1, rank=rank, world=2, accumulate=2), 2)
    ]
    assert len({len(part["name"]) for part in parts}) > 1  # as many rows, and not as many conversations
    (whole,) = take(TrainLoader(source, data, seed=1), 1)
    padded = {key: value for key, value in whole.items() if key not in ("document", "step_means")}
    (got, gradients), (expected, others) = gradient(parts), gradient([padded])
    torch.testing.assert_close(got, expected, rtol=1e-6, atol=1e-6)
    for one, other in zip(gradients, others):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


def test_training_logs_how_full_rows_are(tmp_path):
    experiment.train(packed("language.llava", 2), tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert len(lines) == 2 and all(0.5 < line["fill"] <= 1 for line in lines)


def test_a_method_that_takes_no_shared_rows_says_so(tmp_path):
    with pytest.raises(UserError, match="InternVideo25 takes a row for each conversation"):
        experiment.train(packed("language.internvideo2_5", 1), tmp_path / "out")
