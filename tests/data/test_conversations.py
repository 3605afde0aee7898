"""Conversations from files as batches: layouts, what is learnt, evaluation, and what is refused beforehand."""

import json
from dataclasses import replace

import pytest
import torch
from small_videos import encode, settings_of

from filmstrip.data.kinds.conversations import Conversations
from filmstrip.data.reading.loader import EvalLoader, TrainLoader
from filmstrip.data.sources import open_source
from filmstrip.errors import UserError
from filmstrip.text.tokenizers import Bytes, Words, open_tokenizer


def record(number, visual="video", **more):
    return {
        "id": f"q{number}",
        visual: f"v{number % 3}.mp4",
        "conversations": [
            {"from": "human", "value": "<image>\nhow bright is it?"},
            {"from": "gpt", "value": f"level {number}"},
            {"from": "human", "value": "really?"},
            {"from": "gpt", "value": "yes" * (1 + number)},
        ],
        **more,
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("dialogues")
    for i in range(3):
        encode(root / f"v{i}.mp4", 30 * i)
    return root


@pytest.fixture
def write(folder, tmp_path):
    """Write conversations as JSON, and settings that read them."""

    def written(records, **changes):
        file = tmp_path / "llava.json"
        file.write_text(json.dumps(records))
        return settings_of(file, reads=Conversations(media=folder, tokenizer=Bytes(), **changes))

    return written


@pytest.fixture
def data(write):
    text = {"id": "t", "conversations": [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "ho"}]}
    return write([*(record(i, split="train" if i < 4 else "test") for i in range(6)), text | {"split": "train"}])


def test_training_batches_are_as_declared_and_padded_with_the_tokenizers_id(data):
    source = open_source(data)
    batch = next(iter(TrainLoader(source, replace(data, batch_size=5), seed=0).stream(0)))
    assert list(source.kind.specification.faults(batch)) == []
    tokenizer = source.serialiser.tokenizer
    for name, text, length, learnt in zip(*(batch[key] for key in ("name", "text", "text_length", "learnt"))):
        assert (text[length:] == tokenizer.pad).all() and not learnt[length:].any()
        said = tokenizer.decode(text[learnt], specials=True)
        number = name.removeprefix("q")
        expected = " ho</s>" if name == "t" else f" level {number}</s> {'yes' * (1 + int(number))}</s>"
        assert said == expected
    assert source.info(data.train_split).tokenizer.size == tokenizer.size


def test_conversations_of_several_files_mix_in_the_ratio_of_their_weights(folder, tmp_path):
    """As those about videos beside text alone; each keeps its own texts."""
    about, alone = tmp_path / "about.json", tmp_path / "alone.json"
    about.write_text(json.dumps([record(i, split="train") for i in range(4)]))
    talk = [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "ho"}]
    alone.write_text(json.dumps([{"id": f"t{i}", "conversations": talk, "split": "train"} for i in range(2)]))

    def both(**reads):
        wanted = settings_of(about, reads=Conversations(media=folder, **reads), batch_size=8)
        return replace(wanted, path=None, mixture=(about, alone), weights=(3.0, 1.0))

    with pytest.raises(UserError, match=r"differ in text_tokenizer \(\d+ words, \d+ words\)"):
        open_source(both(tokenizer=Words()))
    wanted = both(tokenizer=Bytes())
    source = open_source(wanted)
    stream = TrainLoader(source, wanted, seed=0).stream(0)
    names = [name for _ in range(20) for name in next(stream)["name"]]
    assert 25 < sum("alone" in name for name in names) < 55


def test_text_alone_comes_with_black_frames(data):
    source = open_source(data)
    (sample,) = (s for s in source.samples if s.name == "t")
    (row,) = sample.cut(data)
    assert not row.content["video"].any() and row.content["video"].shape == (4, 3, 16, 16)


def test_evaluation_reads_every_conversation_once_whatever_shares_a_file(data):
    source = open_source(data)
    loaders = [EvalLoader(source, data, "train", batch_size=size) for size in (1, 5)]
    alone, together = (
        [(name, video.sum().item()) for batch in batches for name, video in zip(batch["name"], batch["video"])]
        for batches in loaders
    )
    assert alone == together and [name for name, _ in alone] == ["q0", "q1", "q2", "q3", "t"]


def test_json_lines_and_tables_are_read_alike(folder, tmp_path):
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(record(i)) + "\n" for i in range(2)))
    table = "video,question,answer,kind,options\nv0.mp4,how bright?,dark,light,dark|bright\n"
    (tmp_path / "test.csv").write_text(table)
    source = open_source(settings_of(tmp_path, reads=Conversations(media=folder)))
    assert source.splits == ("test", "train")
    (sample,) = source.split("test")
    assert [turn.text for turn in sample.dialogue.turns] == ["<video>\nhow bright?", "dark"]
    assert sample.dialogue.kind == "light" and sample.dialogue.options == ("dark", "bright")


def test_without_splits_all_conversations_about_a_video_are_held_out_together(write):
    source = open_source(write([record(i) for i in range(9)]))
    groups = {split: {sample.group for sample in source.split(split)} for split in source.splits}
    assert groups.keys() == {"train", "test"} and not groups["train"] & groups["test"]


def test_the_tokenizer_is_in_the_run_folder(data, tmp_path):
    source = open_source(data)
    source.record(tmp_path)
    assert open_tokenizer(tmp_path).encode("how") == source.serialiser.tokenizer.encode("how")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"video": "gone.mp4"}, "1 of 2 images and videos .* such as gone.mp4"),
        ({"video": None}, "has a place of a visual"),
        ({"video": ["v0.mp4", "v1.mp4"]}, "2 visuals"),
        ({"conversations": [{"from": "human", "value": "<audio>"}, {"from": "gpt", "value": "a"}]}, "placeholder"),
        (
            {"conversations": [{"from": "human", "value": "<video> <video>"}, {"from": "gpt", "value": "a"}]},
            "2 places",
        ),
        ({"conversations": [{"from": "human", "value": "why"}]}, "no answer"),
        ({"conversations": [{"from": "bot", "value": "why"}]}, "human or gpt"),
        ({"conversations": 3}, "no .conversations."),
    ],
)
def test_what_cannot_be_learnt_from_is_refused_before_anything_is_read(write, change, message):
    with pytest.raises(UserError, match=message):
        open_source(write([record(0, split="train"), record(1, split="train") | change]))


def test_missing_videos_can_be_skipped(write):
    records = [record(0, split="train"), record(1, split="train", video="gone.mp4")]
    assert len(open_source(write(records, missing="skip")).samples) == 1


def test_a_conversation_without_room_for_an_answer_is_refused(write):
    with pytest.raises(UserError, match="too long to learn from"):
        open_source(write([record(0, split="train")], max_length=20, visual_tokens=40))


def test_a_long_history_is_cut_and_the_answer_stays(write):
    data = write([record(0, split="train")], max_length=20, visual_tokens=4)
    (row,) = open_source(data).samples[0].cut(data)
    assert row.content["text_length"] == 20 - 3
    assert torch.equal(row.content["learnt"][-5:], torch.ones(5, dtype=torch.bool))
