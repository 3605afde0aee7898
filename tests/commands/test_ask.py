"""``filmstrip ask`` on real files: one question, a conversation, damaged films, and what is refused."""

import io
import json
from dataclasses import replace
from functools import partial

import pytest
import torch

from filmstrip import systems
from filmstrip.__main__ import main
from filmstrip.data.synthetic.narrated import NarratedShapes
from filmstrip.errors import UserError
from filmstrip.runs import experiment
from filmstrip.runs.answers import load_answerer
from filmstrip.text.conversation import Turn
from filmstrip.train.lengths import Steps


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A model that has seen little, in its run folder, and the folder of its videos."""
    root = tmp_path_factory.mktemp("ask")
    run = systems.find("language.llava:tiny")
    shapes = NarratedShapes(num_train=4, num_test=1, num_frames=8, size=32)
    data = replace(run.data, path=shapes.generate(root / "data"), synthetic=None, num_workers=0, batch_size=4)
    experiment.train(replace(run, data=data, train=replace(run.train, length=Steps(40)), evals=()), root / "run")
    return root / "run", root / "data"


def test_a_question_is_answered_and_the_json_says_what_was_seen(trained, capsys):
    run, data = trained
    arguments = ["ask", str(run), str(data / "test/00000.mp4"), "how many shapes are there?"]
    assert main(arguments) == 0
    text = capsys.readouterr().out.strip()
    assert text
    assert main([*arguments, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [each["answer"] for each in told["answers"]] == [text]
    assert (told["frames"], told["visual_tokens"], told["damaged"]) == (4, 16, False)


def test_compiled_steps_say_the_same(trained, capsys, monkeypatch):
    run, data = trained
    arguments = ["ask", str(run), str(data / "test/00000.mp4"), "how many shapes are there?"]
    assert main(arguments) == 0
    text = capsys.readouterr().out
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager", fullgraph=True))
    torch._dynamo.utils.counters.clear()
    assert main([*arguments, "--compile"]) == 0
    assert capsys.readouterr().out == text
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1
    monkeypatch.setenv("PATH", "/nowhere")
    assert main([*arguments, "--compile"]) == 2
    assert "needs a compiler of C++ (g++ or clang++)" in " ".join(capsys.readouterr().err.split())


def test_more_frames_can_be_looked_at(trained, capsys):
    run, data = trained
    assert main(["ask", str(run), str(data / "test/00000.mp4"), "where?", "--frames", "6", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["visual_tokens"] == 24


def test_a_conversation_remembers_and_the_film_is_encoded_once(trained, capsys, monkeypatch, tmp_path):
    run, data = trained
    seen = []
    answerer = load_answerer(run)
    whole = type(answerer.objective).see
    monkeypatch.setattr(type(answerer.objective), "see", lambda self, video: seen.append(1) or whole(self, video))
    monkeypatch.setattr("sys.stdin", io.StringIO("how many shapes are there?\n<audio>?\nand where?\n\n"))
    out = tmp_path / "said.json"
    assert main(["ask", str(run), str(data / "test/00000.mp4"), "--out", str(out)]) == 0
    shown = capsys.readouterr().out
    assert "4 frames" in shown and "unknown placeholder <audio>" in shown
    first, second = json.loads(out.read_text())["answers"]
    assert len(seen) == 1
    film = answerer.see(data / "test/00000.mp4")
    history = [Turn("user", f"<video>\n{first['question']}"), Turn("assistant", first["answer"])]
    assert second["answer"] == "".join(answerer.say(film, "and where?", history))


def test_pieces_are_whole_words_and_together_the_answer(trained, monkeypatch):
    run, data = trained
    answerer = load_answerer(run)
    film = answerer.see(data / "test/00000.mp4")
    ids = answerer.serialiser.answer("it moves left")
    monkeypatch.setattr(type(answerer.objective), "answer", lambda *_, **__: (i.view(1) for i in torch.tensor(ids)))
    assert list(answerer.say(film, "what?")) == ["it", " moves", " left"]


def test_a_damaged_film_is_answered_from_what_can_be_read(trained, capfd, tmp_path):
    run, data = trained
    whole = (data / "test/00000.mp4").read_bytes()
    damaged = bytearray(whole)
    at = whole.index(b"mdat") + 4 + (len(whole) - whole.index(b"mdat")) // 3
    damaged[at : at + 60] = bytes(60)
    (tmp_path / "damaged.mp4").write_bytes(damaged)
    assert main(["ask", str(run), str(tmp_path / "damaged.mp4"), "how many shapes are there?"]) == 0
    said = capfd.readouterr()
    assert said.out.strip() and "is damaged: the answer is from what could be read" in said.err


def test_options_are_compared_by_their_likelihood(trained):
    run, data = trained
    answerer = load_answerer(run)
    film = answerer.see(data / "test/00000.mp4")
    options = ["one", "it moves left", "two"]
    found = answerer.likelihood(film, "how many shapes are there?", options)
    again = answerer.likelihood(film, "how many shapes are there?", options[::-1])
    torch.testing.assert_close(found, again.flip(0))


def test_other_runs_and_files_are_refused(trained, capsys, tmp_path):
    run, data = trained
    assert main(["ask", str(run), str(data / "manifest.csv"), "what?"]) == 2
    assert main(["ask", str(tmp_path), str(data / "test/00000.mp4"), "what?"]) == 2
    assert main(["ask", str(run), str(data / "test/00000.mp4"), "--json"]) == 2
    said = capsys.readouterr().err
    assert "not a run folder" in said and "give the question" in said
    with pytest.raises(UserError, match="only users"):
        list(load_answerer(run).say(None, "what?", [Turn("user", "a"), Turn("assistant", "<video>")]))
