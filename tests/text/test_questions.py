"""Questions about long texts: chunks, what a rule asks, conversations of a length, and the command."""

import json
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from filmstrip.__main__ import main
from filmstrip.data.annotations.dialogues import read_dialogues
from filmstrip.data.config import Data
from filmstrip.data.kinds.conversations import Conversations
from filmstrip.data.sources import open_source
from filmstrip.errors import UserError
from filmstrip.text.conversation import Serialiser
from filmstrip.text.haystack import Needle
from filmstrip.text.questions import Chunk, Pair, chunks_of, cut, joined, rules
from filmstrip.text.tokenizers import Bytes

TOKENIZER = Bytes().fit(())
SERIALISER = Serialiser(TOKENIZER, "lwm", visuals=False)


@settings(max_examples=60, deadline=None)
@given(text=st.text(alphabet="ab \nü", max_size=200), size=st.integers(50, 80))
def test_chunks_one_after_another_are_the_text(text, size):
    words = re.findall(r"\s*\S+", text)
    if any(len(word.encode()) > size for word in words):
        with pytest.raises(UserError, match="lengthen chunks"):
            cut(text, size, TOKENIZER)
        return
    chunks, left = cut(text, size, TOKENIZER)
    assert all(len(TOKENIZER.encode(chunk)) <= size for chunk in chunks)
    whole = "".join(chunks)
    assert text.startswith(whole) and left == len(TOKENIZER.encode(text[len(whole) :].rstrip()))
    assert 2 * left < size


def facts(count, words=12):
    """Chunks that state a number of a city of their own each."""
    chunks = []
    for i in range(count):
        needle = Needle(f"City{chr(97 + i // 26)}{chr(97 + i % 26)}", str(1000 + i))
        chunks.append(Chunk(f"chunk {i}", f" {'filler words here. ' * words}{needle.sentence}"))
    return chunks


def test_every_answer_is_in_the_text_before_it_and_lengths_are_kept():
    chunks = facts(40)
    pairs = rules(chunks, range(40))
    examples = list(joined(chunks, pairs, 2000, SERIALISER, seed=3))
    assert [i for example in examples for i in example.chunks] == list(range(40))
    drawn = []
    for example in examples:
        ids, learnt = SERIALISER.mark(example.turns)
        assert len(ids) == example.tokens <= 2000 and sum(learnt) == example.learnt
        text = example.turns[0].text
        assert sorted(example.asked) == list(example.chunks)
        for turn, number in zip(example.turns[1::2], example.asked):
            assert turn.role == "assistant" and turn.text == pairs[number].answer and turn.text in text
        drawn.append(list(example.asked) != list(example.chunks))
        said = TOKENIZER.decode([i for i, own in zip(ids, learnt) if own and i != TOKENIZER.end])
        assert said == "".join(f" {pairs[i].answer}" for i in example.asked)
    # One more chunk would have been too many.
    longest = max(len(TOKENIZER.encode(c.text + p.question + p.answer)) for c, p in zip(chunks, pairs)) + 40
    assert all(example.tokens + longest > 2000 for example in examples[:-1])
    assert any(drawn)
    assert examples == list(joined(chunks, pairs, 2000, SERIALISER, seed=3))
    assert examples != list(joined(chunks, pairs, 2000, SERIALISER, seed=4))


def test_about_a_hundredth_of_the_tokens_of_a_hundred_chunks_is_learnt():
    chunks = facts(100, words=200)
    (example,) = joined(chunks, rules(chunks, range(100)), 400_000, SERIALISER, seed=0)
    assert len(example.asked) == 100
    assert 0.005 < example.learnt / example.tokens < 0.02


def test_what_has_two_answers_is_not_asked_and_texts_without_questions_are_left_out():
    chunks = [Chunk(f"c{i}", f" text {i}.") for i in range(4)]
    pairs = [Pair("Who?", "A."), Pair("who? ", "B."), None, Pair("What?", "C.")]
    (example,) = joined(chunks, pairs, 1000, SERIALISER, seed=0)
    assert example.asked == (3,) and example.chunks == (0, 1, 2, 3)
    assert list(joined(chunks, [None] * 4, 1000, SERIALISER, seed=0)) == []
    again = [Pair("Who?", "A."), Pair("Who?", "A."), None, None]
    (example,) = joined(chunks, again, 1000, SERIALISER, seed=0)
    assert len(example.asked) == 1
    with pytest.raises(UserError, match="lengthen the context"):
        list(joined(chunks, pairs, 20, SERIALISER, seed=0))


def test_documents_are_parted_by_an_empty_line():
    chunks, left = chunks_of("book", "  one two three  ", "train", 8, TOKENIZER)
    assert [chunk.text for chunk in chunks] == ["\n\none", " two", " three"] and left == 0
    assert chunks[1].name == "book, chunk 2" and chunks[1].split == "train"


@pytest.fixture
def documents(tmp_path):
    assert (
        main(["data", "make", "haystack", "--num-train", "8", "--num-test", "2", "--out", str(tmp_path / "hay")]) == 0
    )
    return tmp_path / "hay"


def test_a_rule_asks_about_synthetic_texts_and_training_reads_them(documents, tmp_path, capsys):
    out = tmp_path / "qa"
    command = ["data", "questions", str(documents), "--writer", "rules", "--context", "6000", "--out", str(out)]
    assert main(command) == 2
    assert "a rule has no tokenizer" in capsys.readouterr().err
    command += ["--tokenizer", "bytes", "--chunk", "600"]
    assert main(command) == 0
    assert "tokens are learnt" in capsys.readouterr().out
    found = read_dialogues(out / "dialogues.jsonl", text_alone=True)
    assert {dialogue.split for dialogue in found} == {"train", "test"}
    reads = Conversations(visuals=0, format="lwm", tokenizer=Bytes(), max_length=6000, pack=6000)
    source = open_source(Data(path=out, reads=reads))
    lengths = [sample.num_tokens()[0] for sample in source.samples]
    assert max(lengths) <= 6000 and max(lengths) > 4000
    for dialogue in found:
        text = dialogue.turns[0].text
        assert all(turn.text in text for turn in dialogue.turns[1::2])
    before = (out / "dialogues.jsonl").read_bytes()
    # What was asked stays: another context joins it anew.
    command[command.index("6000")] = "3000"
    pairs = (out / "pairs.jsonl").read_bytes()
    assert main(command) == 0
    assert (out / "pairs.jsonl").read_bytes() == pairs and (out / "dialogues.jsonl").read_bytes() != before
    assert main([*command[:-1], "500"]) == 2
    assert "begun with another chunk" in capsys.readouterr().err
    assert main([*command, "--out", str(documents)]) == 2
    assert "holds something else" in capsys.readouterr().err


def test_a_model_writes_questions_and_goes_on_where_it_stopped(documents, tmp_path, monkeypatch, capsys):
    run = tmp_path / "run"
    quick = ["--train.steps", "2", "--data.num-workers", "0"]
    assert main(["train", "language.lwm_text", "--data", str(documents), "--out", str(run), *quick]) == 0
    out = tmp_path / "qa"
    command = ["data", "questions", str(documents), "--writer", str(run), "--context", "600", "--chunk", "100"]
    command += ["--max-tokens", "6", "--temperature", "1", "--batch-size", "3", "--out"]
    from filmstrip.commands.work import questions

    write, calls = questions.written, []

    def answered(model, prompts, **more):
        calls.append(len(prompts))
        return [row[:4] for row in write(model, prompts, **more)]  # an untrained model does not end

    monkeypatch.setattr(questions, "written", answered)
    assert main([*command, str(out)]) == 0
    whole = (out / "dialogues.jsonl").read_text()
    lines = (out / "pairs.jsonl").read_text().splitlines()
    assert json.loads(whole.splitlines()[0])["conversations"][0]["from"] == "human"
    assert len(lines) > 6 and sum(json.loads(line)[1] is not None for line in lines) > len(lines) // 2
    (tmp_path / "again").mkdir()
    (tmp_path / "again/questions.json").write_text((out / "questions.json").read_text())
    (tmp_path / "again/pairs.jsonl").write_text("\n".join(lines[:4]) + '\n[4, ["torn')
    before = len(calls)
    assert main([*command, str(tmp_path / "again")]) == 0
    assert len(calls) < 2 * before
    assert (tmp_path / "again/dialogues.jsonl").read_text() == whole  # whatever was asked at once
    assert main([*command, str(out), "--seed", "1"]) == 2
    assert "begun with another seed" in capsys.readouterr().err
    assert (
        main(["data", "questions", str(documents), "--writer", str(documents), "--context", "9", "--out", "x"]) == 2
    )
