"""Language models of text by their commands: training on a folder, a ladder, needles, questions, writing."""

import io
import json
import re
from dataclasses import replace

import numpy as np
import pytest
import torch

from filmstrip import systems
from filmstrip.__main__ import main
from filmstrip.data.sources import open_source
from filmstrip.data.synthetic.haystack import Haystack
from filmstrip.errors import UserError
from filmstrip.evals.needle_grid import cell_of
from filmstrip.evals.needles import Needles, format_of
from filmstrip.inference import device_of
from filmstrip.objectives.text import TextModel
from filmstrip.report.needles import needle_grid
from filmstrip.runs import experiment
from filmstrip.runs.config import read_config
from filmstrip.runs.encoders import load_for_evaluation
from filmstrip.runs.evaluation import Subject
from filmstrip.runs.run_folder import RunFolder
from filmstrip.text.haystack import Filler, Needle, answer, draw_needles, found, hide, question, stated
from filmstrip.text.tokenizers import open_tokenizer
from started import run

QUICK = ["--train.steps", "2", "--data.num-workers", "0"]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return Haystack(num_train=40, num_test=6, words=30, digits=2, cities=4).generate(
        tmp_path_factory.mktemp("hay") / "a"
    )


@pytest.fixture(scope="module")
def documents(data, tmp_path_factory):
    """A model of documents, trained from the command line."""
    out = tmp_path_factory.mktemp("documents") / "run"
    assert main(["train", "language.lwm_text", "--data", str(data), "--out", str(out), *QUICK]) == 0
    return out


@pytest.fixture(scope="module")
def chat(data, documents, tmp_path_factory):
    """A model of conversations that share rows, which began as the model of documents."""
    out = tmp_path_factory.mktemp("chat") / "run"
    more = ["--data", str(data), "--init", str(documents), "--out", str(out)]
    assert main(["train", "language.lwm_text:tiny_chat", *more, *QUICK]) == 0
    return out


def test_a_folder_of_text_is_learnt_and_measured(documents, capsys):
    assert main(["eval", str(documents), "--protocol", "perplexity", "--parts", "2"]) == 0
    said = dict(line.split() for line in capsys.readouterr().out.splitlines() if len(line.split()) == 2)
    parts = [float(said[f"nats/{i}_of_2"]) for i in (1, 2)]
    assert min(parts) <= float(said["nats"]) <= max(parts)
    assert "Perplexity" not in said and float(said["tokens"]) > 100


def test_conversations_share_rows_and_bring_no_video(chat, documents):
    run = read_config(chat / "config.json")
    assert run.data.reads.visuals == 0 and run.data.reads.tokenizer.folder == str(documents)
    lines = [json.loads(line) for line in (chat / "metrics.jsonl").read_text().splitlines()]
    assert any("fill" in line for line in lines) and any("eval/nats" in line for line in lines)


def test_a_model_that_sees_refuses_text_alone(data, tmp_path, capsys):
    seen = ["train", "language.llava", "--data", str(data), "--data.reads.visuals", "0", "--out", str(tmp_path / "x")]
    assert main(seen) == 2
    assert "makes batches of text alone" in capsys.readouterr().err


def test_questions_about_text_files(chat, tmp_path, capsys, caplog, monkeypatch):
    note = tmp_path / "note.txt"
    note.write_text("The special magic Accra number is: 12.")
    asked = ["ask", str(chat), str(note), "What is the special magic Accra number?", "--max-tokens", "6"]
    assert main([*asked, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["texts"] == [str(note)] and told["answers"][0]["answer"]
    note.write_text("The old baker. " * 100 + "The special magic Accra number is: 12.")
    assert main(asked) == 0
    assert "the model learnt from up to 256" in caplog.text
    assert main(["ask", str(chat), "What is it?", "--max-tokens", "4"]) == 0
    assert capsys.readouterr().out.strip()
    monkeypatch.setattr("sys.stdin", io.StringIO("What?\nAnd?\n\n"))
    out = tmp_path / "said.json"
    assert main(["ask", str(chat), str(note), "--out", str(out), "--max-tokens", "4"]) == 0
    assert len(json.loads(out.read_text())["answers"]) == 2
    assert main(["ask", str(chat), str(tmp_path / "none.txt"), "What?"]) == 2


def test_a_model_of_documents_says_that_it_does_not_answer(documents, capsys):
    assert main(["ask", str(documents), "What?"]) == 2
    assert "goes on with a text" in capsys.readouterr().err


def test_text_goes_on(documents, tmp_path, capsys):
    out = tmp_path / "said.txt"
    more = ["--text", "The old baker", "--tokens", "5", "--num-samples", "2", "--out", str(out)]
    assert main(["generate", str(documents), *more]) == 0
    said = capsys.readouterr().out
    assert said.strip() == out.read_text().strip() and said.count("The old baker") == 2
    assert main(["generate", str(documents), *more, "--seed", "1", "--num-samples", "1"]) == 0
    assert capsys.readouterr().out.strip() == said.strip().split("\n\n")[1]


def test_text_that_processes_share_goes_on_as_that_of_one(documents, chat, capsys):
    for words in (["generate", str(documents), "--text", "The"], ["ask", str(chat), "What?"]):
        assert main([*words, "--context", "2"]) == 2
        assert "--context 2 shares tokens among 2 processes, and there are 1" in capsys.readouterr().err
    assert main(["ask", str(chat), "--context", "2"]) == 2
    assert "a conversation is for one process" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.multiprocess
def test_two_processes_write_what_one_writes(documents, chat, tmp_path):
    told = []
    for processes in (1, 2):
        for kind, words in (("generate", [documents, "--text", "The old baker"]), ("ask", [chat, "What is it?"])):
            out = tmp_path / f"{kind}{processes}.json"
            more = ["--context", str(processes), "--out", str(out)]
            run("-m", "filmstrip", kind, *words, *more, processes=processes)
            said = out.read_text()
            told.append(said if kind == "generate" else json.loads(said)["answers"][0]["answer"])
    assert told[:2] == told[2:]


def test_a_ladder_goes_on_where_it_stopped(data, tmp_path, capsys, monkeypatch):
    command = ["train", "language.lwm_text:tiny_ladder", "--data", str(data), "--out", str(tmp_path / "all"), *QUICK]
    train, calls = experiment.train, []

    def interrupted(run, folder, **more):
        calls.append(folder.name)
        if calls == ["tiny", "tiny_long"]:
            raise KeyboardInterrupt
        return train(run, folder, **more)

    monkeypatch.setattr(experiment, "train", interrupted)
    assert main(command) == 130
    assert main(command) == 0
    assert calls == ["tiny", "tiny_long", "tiny_long"]
    first, second = (read_config(tmp_path / "all" / name / "config.json") for name in ("tiny", "tiny_long"))
    assert second.init == str(tmp_path / "all/tiny") and first.init is None
    assert (first.objective.decoder.rope_base, second.objective.decoder.rope_base) == (1e4, 1e5)
    assert RunFolder(tmp_path / "all/tiny_long").last_step() == 2
    assert main(command) == 0
    assert "tiny is complete" in capsys.readouterr().out and len(calls) == 3
    with pytest.raises(UserError, match="name one of its stages, language"):
        systems.find("language.lwm_text:tiny_ladder")


@pytest.mark.parametrize("kind", ["documents", "chat"])
def test_needles_are_in_texts_of_the_length_and_depth_that_is_asked_for(kind, request):
    folder = request.getfixturevalue(kind)
    objective, data, *_ = load_for_evaluation(folder, None)
    subject = Subject(objective=objective, source=open_source(data), data=data, device=device_of(objective))
    how = format_of(subject)
    wanted = Needles(lengths=(90, 200), depths=3, rounds=3, digits=2, cities=4, needles=2, asked=1)
    for cell in wanted.grid():
        for number in range(3):
            ids, (needle,) = wanted.text(how, Filler(), cell, number)
            text = how.tokenizer.decode(ids)
            assert cell.length - 20 < len(ids) <= cell.length
            assert question([needle]) in text and needle.sentence in text
            hidden = text[: text.index(question([needle]))]
            place = hidden.index(needle.sentence) / (len(hidden) - len(needle.sentence))
            assert place == pytest.approx(cell.depth, abs=0.3 if cell.length == 90 else 0.15)
    assert wanted.text(how, Filler(), cell, 2) == (ids, [needle])
    with pytest.raises(UserError, match="needles and the question take"):
        replace(wanted, lengths=(10,)).check(subject)
    with pytest.raises(UserError, match="3 needles are asked for, and 2 are hidden"):
        replace(wanted, asked=3).check(subject)


def test_a_model_that_copies_finds_all_and_the_report_shows_the_grid(chat, monkeypatch, capsys):
    """The model is replaced by one that looks for the city in its prompt."""
    tokenizer = open_tokenizer(chat)

    def copied(self, prompt, *, count, seed=0, sampling=None):
        said = []
        for ids, length in zip(prompt["text"].tolist(), prompt["text_length"].tolist()):
            text = tokenizer.decode(ids[:length])
            city = text.rsplit("magic ", 1)[1].split()[0]
            number = text.split(f"magic {city} number is: ")[1].split(".")[0]
            said.append([*tokenizer.encode(answer([Needle(city, number)])), tokenizer.end])
        for i in range(count):
            yield torch.tensor([row[min(i, len(row) - 1)] for row in said])

    monkeypatch.setattr(TextModel, "write_on", copied)
    options = ["--lengths", "80", "120", "--depths", "3", "--rounds", "2", "--digits", "2", "--cities", "4"]
    assert main(["eval", str(chat), "--protocol", "needles", *options]) == 0
    said = dict(line.split() for line in capsys.readouterr().out.splitlines() if len(line.split()) == 2)
    assert {said[name] for name in ("found", "found/80", "found/120/50%", "oracle")} == {"1.0000"}
    assert float(said["chance"]) == pytest.approx(1 / 90, abs=1e-4)
    page = (chat / "report.html").read_text()
    assert "Needles found" in page and "120 tokens, depth 50%: 100.0% found" in page


def test_what_a_model_does_not_read_it_does_not_find(chat, tmp_path, monkeypatch, capsys):
    """A model that copies, from the last 60 tokens alone; its texts are a book's of one record each."""
    tokenizer, nothing = open_tokenizer(chat), Needle("Nowhere", "0")

    def copied(self, prompt, *, count, seed=0, sampling=None):
        said = []
        for ids, length in zip(prompt["text"].tolist(), prompt["text_length"].tolist()):
            city = tokenizer.decode(ids[:length]).rsplit("magic ", 1)[1].split()[0]
            seen = stated(tokenizer.decode(ids[length - 60 : length]))
            needle = next((one for one in seen if one.city == city), nothing)
            said.append([*tokenizer.encode(answer([needle])), tokenizer.end])
        for i in range(count):
            yield torch.tensor([row[min(i, len(row) - 1)] for row in said])

    monkeypatch.setattr(TextModel, "write_on", copied)
    book = tmp_path / "pg.jsonl"
    lines = [f"The old baker number {i} paints the lamp." for i in range(20)]
    lines.insert(3, Needle("Accra", "77").sentence)  # a needle of the book's own is none to be found
    book.write_text("".join(json.dumps({"book": line}) + "\n" for line in lines))
    options = ["--lengths", "160", "--depths", "3", "--rounds", "4", "--digits", "2", "--cities", "4"]
    command = ["eval", str(chat), "--protocol", "needles", *options, "--texts", str(book)]
    assert main(command) == 2
    assert "has no text in 'text'" in capsys.readouterr().err
    assert main([*command, "--column", "book"]) == 0
    said = dict(line.split() for line in capsys.readouterr().out.splitlines() if len(line.split()) == 2)
    assert [said[f"found/160/{depth}%"] for depth in (0, 50, 100)] == ["0.0000", "0.0000", "1.0000"]
    assert said["oracle"] == "1.0000"
    assert main([*command, "--column", "book", "--lengths", "160", "4000"]) == 2
    assert "in which they would repeat" in capsys.readouterr().err


def test_an_untrained_model_finds_nearly_none(chat, capsys):
    options = ["--lengths", "80", "--depths", "2", "--rounds", "8", "--digits", "2", "--cities", "4"]
    assert main(["eval", str(chat), "--protocol", "needles", *options]) == 0
    said = dict(line.split() for line in capsys.readouterr().out.splitlines() if len(line.split()) == 2)
    assert float(said["found"]) <= 0.25 and said["oracle"] == "1.0000"


def test_hiding_keeps_all_sentences_and_finding_compares_whole_numbers():
    rng = np.random.default_rng(0)
    needles = draw_needles(rng, 3, 3)
    assert len({needle.city for needle in needles}) == 3
    text = hide(["One two.", "Three.", "Four five six."], needles, [0.0, 1.0, 0.5])
    assert text.startswith(needles[0].sentence) and text.endswith(needles[1].sentence)
    assert [part in text for part in ("One two.", "Three.", "Four five six.", needles[2].sentence)] == [True] * 4
    rome, oslo = Needle("Rome", "123"), Needle("Oslo", "45")
    assert found("It is 123, or 1455.", [rome, oslo]) == [True, False]
    assert cell_of("found/1024/50%") == (1024, 0.5, "tokens") and cell_of("found/1024") is None
    assert needle_grid({"eval/found": ([1], [1.0])}) is None


def test_haystacks_are_made_of_given_texts(tmp_path, capsys):
    (tmp_path / "book.txt").write_text("Call me nobody. It was a dark night! Who knows?")
    more = [
        "--texts",
        str(tmp_path / "book.txt"),
        "--num-train",
        "3",
        "--num-test",
        "1",
        "--needles",
        "3",
        "--asked",
        "2",
    ]
    assert main(["data", "make", "haystack", "--out", str(tmp_path / "made"), *more]) == 0
    records = [json.loads(line) for line in (tmp_path / "made/train.jsonl").read_text().splitlines()]
    assert len(records) == 3
    for record in records:
        told, said = (turn["value"] for turn in record["conversations"])
        assert "Call me nobody." in told and told.count("special magic") == 3 + 1 and said.count("special magic") == 2
        assert all(sentence in told for sentence in re.split(r"(?<=\.) ", said))
        assert record["text"] == f"{told}\n{said}"
    with pytest.raises(UserError, match="3 needles are asked for, and a text hides 1"):
        Haystack(asked=3)
