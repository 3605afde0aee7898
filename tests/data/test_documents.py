"""Documents as rows of tokens: every token once, in order, resumed anywhere, filtered by length; what is refused."""

import json
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_videos import take

from filmstrip.data.config import Data
from filmstrip.data.kinds.documents import Documents
from filmstrip.data.reading.loader import EvalLoader, TrainLoader
from filmstrip.data.sources import open_source
from filmstrip.errors import UserError
from filmstrip.text.tokenizers import Bytes, open_tokenizer

LENGTH = 7


def data_of(path, **reads):
    reads = {"tokenizer": Bytes(), "length": LENGTH} | reads
    return Data(path=path, reads=Documents(**reads), batch_size=4, num_workers=0)


def lines(path, texts, **more):
    path.write_text("".join(json.dumps({"text": text, **more}) + "\n" for text in texts))


@pytest.fixture
def folder(tmp_path):
    """Twelve documents of different lengths and letters for training, and two for evaluation."""
    lines(tmp_path / "train.jsonl", [letter * (5 + 3 * i) for i, letter in enumerate("abcdefghijkl")])
    lines(tmp_path / "test.jsonl", ["yes", "no"])
    return tmp_path


def stream_of(source, split):
    """All tokens of a split, from its rows, of which each but the last ends with the first of the next one."""
    rows = [row.ids for row in source.split(split)]
    assert all(one[-1] == other[0] for one, other in pairwise(rows))
    return np.concatenate([row[:-1] for row in rows[:-1]] + [rows[-1]])


def test_rows_are_the_documents_one_after_another(folder):
    source = open_source(data_of(folder))
    tokenizer = source.text_tokenizer
    ids = stream_of(source, "train").tolist()
    starts = [i for i, token in enumerate(ids) if token == tokenizer.start]
    texts = [tokenizer.decode(ids[a:b]) for a, b in pairwise(starts)]
    whole = {letter: letter * (5 + 3 * i) for i, letter in enumerate("abcdefghijkl")}
    assert len(texts) >= 10 and all(text == whole[text[0]] for text in texts)
    assert [text[0] for text in texts] != sorted(text[0] for text in texts)
    assert all(len(row.ids) == LENGTH + 1 for row in source.split("train"))
    last = source.split("test")[-1]
    assert 2 <= len(last.ids) <= LENGTH + 1
    assert sum(len(row.ids) - 1 for row in source.split("test")) == len("yes") + len("no") + 2 * 2 - 1


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 40), min_size=2, max_size=12), st.integers(1, 9))
def test_no_token_is_lost_or_read_twice(tmp_path_factory, sizes, length):
    path = tmp_path_factory.mktemp("texts") / "train.jsonl"
    lines(path, [chr(97 + i) * size for i, size in enumerate(sizes)])
    source = open_source(data_of(path, length=length))
    ids = stream_of(source, "train").tolist()
    total = sum(sizes) + 2 * len(sizes)
    assert len(ids) == (total - 1) // length * length + 1
    text = source.text_tokenizer.decode(ids)
    assert all(text.count(chr(97 + i)) <= size for i, size in enumerate(sizes))
    assert len(text) >= sum(sizes) - length


def test_a_batch_is_as_declared_and_starts_are_not_learnt(folder):
    source = open_source(data_of(folder))
    (batch,) = take(TrainLoader(source, data_of(folder), seed=0), 1)
    assert list(source.kind.specification.faults(batch)) == []
    assert batch["text"].shape == (4, LENGTH + 1)
    assert torch.equal(batch["learnt"], batch["text"] != source.text_tokenizer.start)
    batches = list(EvalLoader(source, data_of(folder), "test", batch_size=9))
    padded = batches[0]["text_length"].min()
    assert padded < LENGTH + 1 and not batches[0]["learnt"][-1, padded:].any()


def test_it_resumes_anywhere_over_processes_and_workers(folder):
    data = data_of(folder)

    def taken(count, start=0, workers=0, **share):
        own = replace(data, num_workers=workers)
        return take(TrainLoader(open_source(own), own, seed=3, **share), count, start)

    whole = taken(9)
    for start, workers in ((4, 0), (7, 1)):
        for got, expected in zip(taken(2, start, workers), whole[start:]):
            assert torch.equal(got["text"], expected["text"])
    shared = [taken(2, start=5, rank=rank, world=2) for rank in range(2)]
    for step, expected in enumerate(whole[5:7]):
        assert torch.equal(torch.cat([parts[step]["text"] for parts in shared]), expected["text"])


def test_documents_are_filtered_by_their_number_of_tokens(folder):
    lines(folder / "test.jsonl", ["z" * 10])
    some = open_source(data_of(folder, min_tokens=10, max_tokens=16))
    assert set(some.text_tokenizer.decode(stream_of(some, "train"))) == set("bcd")
    with pytest.raises(UserError, match=r"none of the 13 documents in .* has 1000 tokens or more: they have 7 to 40"):
        open_source(data_of(folder, min_tokens=1000))


def test_text_files_parquet_and_columns(tmp_path):
    (tmp_path / "notes").mkdir()
    for i in range(4):
        (tmp_path / "notes" / f"{i}.md").write_text("word " * 20)
    (tmp_path / "a.txt").write_text("other " * 20)
    table = pa.table({"body": ["from a table " * 5, "again " * 9], "split": ["train", "test"]})
    source = open_source(data_of(tmp_path))
    assert source.splits == ("test", "train")
    pq.write_table(table, tmp_path / "rows.parquet")
    with pytest.raises(UserError, match=r"has the columns body, split, and none called 'text'"):
        open_source(data_of(tmp_path))
    rows = open_source(data_of(tmp_path / "rows.parquet", column="body"))
    assert "again" in rows.text_tokenizer.decode(stream_of(rows, "test"))


def test_the_end_of_a_single_document_is_held_out(tmp_path):
    (tmp_path / "book.txt").write_text(" ".join(f"word{i}" for i in range(200)))
    source = open_source(data_of(tmp_path / "book.txt"))
    trained, held = (source.text_tokenizer.decode(stream_of(source, split)) for split in ("train", "test"))
    assert trained.startswith("word0 ") and held.endswith("word199") and "word199" not in trained


def test_the_tokenizer_is_recorded(folder, tmp_path):
    source = open_source(data_of(folder))
    (tmp_path / "run").mkdir()
    source.record(tmp_path / "run")
    assert open_tokenizer(tmp_path / "run") == source.text_tokenizer
    assert source.info("train").tokenizer.size == source.text_tokenizer.size


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", '{"text": "x"}\n{"text"', "line 2, is not JSON"),
        ("a.jsonl", '{"words": "x"}', "line 1, has no text in 'text'"),
        ("a.parquet", "no table", "no Parquet file"),
        ("a.csv", "text", "holds no documents"),
        ("a.txt", "x", "shorten rows"),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path, name, content, message):
    (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match=message):
        open_source(data_of(tmp_path))
