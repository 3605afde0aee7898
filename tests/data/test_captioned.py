"""Captions in batches: several columns, lists and shards; the tokenizer goes with the run."""

from __future__ import annotations

import io
import json
import tarfile
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from filmstrip.data.config import Clip, Data
from filmstrip.data.kinds.captioned import Captioned
from filmstrip.data.reading.loader import EvalLoader, TrainLoader
from filmstrip.data.sources import open_path, open_source
from filmstrip.data.synthetic.narrated import NarratedShapes
from filmstrip.data.texts import Vocabulary, as_tokens, tokenised
from filmstrip.errors import UserError
from filmstrip.text.tokenizers import Bytes, Saved, open_tokenizer, tokenizer_named

SET = NarratedShapes(num_train=40, num_test=4, num_frames=4, size=32)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return SET.generate(tmp_path_factory.mktemp("captioned") / "set")


def data(path: Path, **reads) -> Data:
    clip = Clip(num_frames=2, stride=1, size=32, short_side=(32, 32))
    return Data(path=path, reads=Captioned(**reads), clip=clip, batch_size=4, num_workers=0)


def test_batches_of_real_files_are_as_declared_and_name_what_is_shown(folder):
    wanted = data(folder, max_length=24)
    source = open_source(wanted)
    batch = next(iter(EvalLoader(source, wanted, "test", batch_size=4)))
    assert list(source.kind.specification.faults(batch)) == []
    assert batch["text"].shape == (4, 24) and source.directional
    for row, length, index in zip(batch["text"], batch["text_length"], batch["index"]):
        sample = source.split("test")[int(index)]
        assert source.text_tokenizer.decode(row.tolist()) == sample.text[0]
        assert (row[length:] == source.text_tokenizer.pad).all() and row[length - 1] == source.text_tokenizer.end
    info = source.info("train")
    assert info.tokenizer.size == source.text_tokenizer.size and info.max_length == 24
    assert int(batch["text"].max()) < info.tokenizer.size


def test_training_draws_among_captions_and_the_draw_is_repeated(folder):
    wanted = data(folder)
    source = open_source(wanted)

    def drawn():
        loader = TrainLoader(source, wanted, seed=3)
        try:
            stream = loader.stream(0)
            return [next(stream) for _ in range(40)]
        finally:
            loader.close()

    first, again = drawn(), drawn()
    assert all(torch.equal(a["text"], b["text"]) for a, b in zip(first, again))
    told = {}
    for batch in first:
        for index, row in zip(batch["index"].tolist(), batch["text"]):
            text = source.text_tokenizer.decode(row.tolist())
            assert text in source.split("train")[index].text
            told.setdefault(index, set()).add(text)
    assert any(len(texts) > 1 for texts in told.values())


def table(root: Path, content: str) -> Path:
    (root / "a.mp4").touch()
    (root / "list.csv").write_text(content)
    return root / "list.csv"


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("path,caption\na.mp4,a dog\n", ("a dog",)),
        ("path,caption_1,caption_2,caption_3\na.mp4,a dog,,two cats\n", ("a dog", "two cats")),
        ("path,caption,caption\na.mp4,a dog,two cats\n", ("a dog", "two cats")),
        ('path,captions\na.mp4,"[""a dog"", ""two cats""]"\n', ("a dog", "two cats")),
        ("path,text,caption\na.mp4,a dog,not this\n", ("a dog",)),
        ("path,caption\na.mp4,[a dog]\n", ("[a dog]",)),
    ],
)
def test_a_manifest_gives_captions_in_columns_or_lists(tmp_path, content, expected):
    (sample,) = open_path(table(tmp_path, content)).samples
    assert sample.text == expected


def test_a_parquet_table_gives_captions_as_lists(tmp_path):
    (tmp_path / "a.mp4").touch()
    pq.write_table(pa.table({"path": ["a.mp4"], "captions": [["a dog", "two cats"]]}), tmp_path / "list.parquet")
    assert open_path(tmp_path / "list.parquet").samples[0].text == ("a dog", "two cats")


def test_shards_give_captions_line_by_line_or_as_a_list(tmp_path):
    members = {"1.mp4": b"x", "1.txt": b"a dog\ntwo cats\n", "2.mp4": b"x"}
    members["2.json"] = json.dumps({"caption": ["a", "b"]}).encode()
    with tarfile.open(tmp_path / "train-0.tar", "w") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    assert [sample.text for sample in open_path(tmp_path).samples] == [("a dog", "two cats"), ("a", "b")]


def test_without_any_caption_there_is_nothing_to_read(tmp_path):
    with pytest.raises(UserError, match="has no captions: expected a manifest with a column caption"):
        open_source(data(table(tmp_path, "path,label\na.mp4,run\n")))


def test_samples_without_caption_are_left_out(tmp_path, caplog):
    source = open_source(data(table(tmp_path, "path,caption,split\na.mp4,a dog,train\nb.mp4,,train\n")))
    assert [sample.text for sample in source.samples] == [("a dog",)]
    assert "1 of 2 samples have no caption" in caplog.text


def test_the_tokenizer_of_a_run_reads_other_data(folder, tmp_path):
    source = open_source(data(folder))
    source.record(tmp_path)
    assert open_tokenizer(tmp_path).encode("a big red disc") == source.text_tokenizer.encode("a big red disc")
    (tmp_path / "other").mkdir()
    other = data(table(tmp_path / "other", "path,caption\na.mp4,a big elephant\n"))
    kept = other.reads.as_recorded(tmp_path)
    assert kept.tokenizer == Saved(folder=str(tmp_path))
    ids = open_source(Data(path=other.path, reads=kept)).tokens(["a big elephant"])[0][0]
    assert source.text_tokenizer.decode(ids.tolist()) == "a big<unk>"


def test_texts_are_cut_before_their_end_and_padded_after_it():
    tokenizer = Bytes().fit((), ())
    ids, length = as_tokens(tokenizer, "abcdef", 5)
    assert ids.tolist() == [tokenizer.start, *tokenizer.encode("abc"), tokenizer.end] and length == 5
    ids, lengths = tokenised(tokenizer, ["ab", ""], 6, start=False)
    assert ids.shape == (2, 6) and lengths.tolist() == [3, 1]
    assert ids[1].tolist() == [tokenizer.end] + [tokenizer.pad] * 5


def test_a_vocabulary_knows_its_special_tokens():
    tokenizer = Bytes().fit(())
    vocabulary = Vocabulary.of(tokenizer, ("<video>",))
    assert vocabulary.special("<video>") == tokenizer.special("<video>")
    with pytest.raises(UserError, match="no special token '<box>'"):
        vocabulary.special("<box>")


def test_tokenizers_are_named_on_the_command_line(tmp_path):
    assert tokenizer_named("bytes") == Bytes()
    Bytes().fit(()).save(tmp_path)
    assert tokenizer_named(str(tmp_path)) == Saved(folder=str(tmp_path))
    with pytest.raises(UserError, match="there is no text tokenizer 'byte'"):
        tokenizer_named("byte")


def test_sources_of_texts_mix_if_they_share_a_tokenizer(folder, tmp_path):
    """As a narrator's texts beside those of people."""
    rows = [f"{path},train,it said so\n" for path in sorted((folder / "train").glob("*.mp4"))[:6]]
    narrated = tmp_path / "narrated" / "manifest.csv"
    narrated.parent.mkdir()
    narrated.write_text("path,split,caption\n" + "".join(rows))

    def both(**reads):
        wanted = data(folder, **reads)
        return replace(wanted, path=None, mixture=(folder, narrated), weights=(1.0, 1.0))

    with pytest.raises(UserError, match=r"differ in text_tokenizer \(\d+ words, \d+ words\)"):
        open_source(both())
    wanted = both(tokenizer=Bytes())
    source = open_source(wanted)
    assert [sample.origin for sample in source.split("train")] == [0] * 40 + [1] * 6
    stream = TrainLoader(source, wanted, seed=0).stream(0)
    said = [source.text_tokenizer.decode(row) for _ in range(20) for row in next(stream)["text"].tolist()]
    assert 25 < said.count("it said so") < 55
    assert Bytes().fit(()) == Bytes().fit(("other",)) and Bytes().fit(()) != open_source(data(folder)).text_tokenizer


def test_captions_are_made_of_classes_where_there_are_none(folder, tmp_path):
    """Beside captions of another source, whose own classes are not named; classes are counted over both."""
    paths = sorted((folder / "train").glob("*.mp4"))[:6]
    rows = [f"{path},train,{('the_jump', 'circle')[i % 2]},\n" for i, path in enumerate(paths)]
    named = tmp_path / "named" / "manifest.csv"
    named.parent.mkdir()
    named.write_text("path,split,label,caption\n" + "".join(rows) + f"{paths[0]},train,circle,its own\n")
    prompts = ("a video of {}", "{}")
    wanted = data(folder, tokenizer=Bytes(), prompts=prompts)
    wanted = replace(wanted, path=None, mixture=(folder, named), weights=(1.0, 1.0))
    source = open_source(wanted)
    assert {sample.text for sample in source.samples if sample.origin} == {
        ("a video of the jump", "the jump"),
        ("a video of circle", "circle"),
        ("its own",),
    }
    assert "named_class" in source.gives and "named_class" not in open_source(data(folder)).gives
    stream, seen = TrainLoader(source, wanted, seed=0).stream(0), set()
    for batch in (next(stream) for _ in range(20)):
        assert list(source.kind.specification.faults(batch)) == []
        for row, index, named_class in zip(batch["text"], batch["index"].tolist(), batch["named_class"].tolist()):
            text = source.text_tokenizer.decode(row.tolist())
            said = {name: text in (f"a video of {name}", name) for name in ("the jump", "circle")}
            own = source.split("train")[index].origin == 0 or text == "its own"
            assert named_class == (-1 if own else source.classes.index("the_jump" if said["the jump"] else "circle"))
            seen.add(text)
    assert {"the jump", "a video of circle", "its own"} <= seen
    with pytest.raises(UserError, match="has no place for a class"):
        open_source(data(folder, prompts=("a video",)))
