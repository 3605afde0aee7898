"""``filmstrip search``: what a text names comes first; files are encoded once, and anew when they change."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from filmstrip.__main__ import main
from filmstrip.commands.work import search as work
from filmstrip.commands.work.search import index_files, moments_of, ranked, read_index, unknown_words
from filmstrip.data.config import Clip
from filmstrip.data.files import VideoFile
from filmstrip.data.kinds.captioned import Captioned
from filmstrip.errors import UserError
from filmstrip.protocols import Objective
from filmstrip.runs.text_video import TextVideoModel
from filmstrip.text.tokenizers import Bytes, Words
from filmstrip.video.write import write_grid, write_video

COLOURS = {"red": (1.0, 0.0, 0.0), "green": (0.0, 1.0, 0.0), "blue": (0.0, 0.0, 1.0)}
TOKENIZER = Words().fit(list(COLOURS), ())


class Colours(Objective):
    """The mean colour of a clip, and the colour that a text names."""

    def __init__(self, weight=0.0):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.full((1,), weight))
        self.encoded = 0

    def encode_video(self, video):
        self.encoded += len(video)
        return F.normalize(video.float().mean(dim=(1, 3, 4)), dim=1)

    def encode_text(self, ids, lengths):
        texts = [TOKENIZER.decode(row[:count].tolist()).split() for row, count in zip(ids, lengths)]
        return torch.tensor([COLOURS[text[0].removesuffix("<unk>")] for text in texts])

    def similarity(self, video, text):
        return video @ text.T


def colour(name: str, frames: int) -> torch.Tensor:
    return torch.tensor(COLOURS[name]).view(1, 3, 1, 1).expand(frames, 3, 32, 32)


@pytest.fixture
def folder(tmp_path):
    """A red picture, a green video, and one of ten seconds that is blue, then red, then green."""
    path = tmp_path / "videos"
    path.mkdir()
    write_grid(path / "a.png", [colour("red", 1)], gap=0)
    write_video(path / "b.mp4", colour("green", 8), 8)
    write_video(path / "c.mp4", torch.cat([colour(name, 40) for name in ("blue", "red", "green")]), 10)
    return path


@pytest.fixture
def model(monkeypatch, tmp_path):
    clip = Clip(num_frames=2, sampling="uniform", size=16)
    searcher = TextVideoModel(Colours(), clip, Captioned(max_length=4), TOKENIZER)
    monkeypatch.setattr(work, "load_searcher", lambda source: searcher)
    monkeypatch.setattr(work, "_default_index", lambda source, searcher: tmp_path / "index")
    return searcher


def results(capsys, *arguments: str) -> tuple[int, dict]:
    code = main(["search", "run", *arguments, "--json"])
    return code, json.loads(capsys.readouterr().out)


def test_what_a_text_names_comes_first_with_its_moment(folder, model, capsys):
    code, found = results(capsys, str(folder), "red", "green")
    assert code == 0 and [one["text"] for one in found["results"]] == ["red", "green"]
    red, green = (one["found"] for one in found["results"])
    assert [Path(one["path"]).name for one in green][:2] == ["b.mp4", "c.mp4"]
    by_name = {Path(one["path"]).name: one for one in red}
    assert (by_name["c.mp4"]["start"], by_name["c.mp4"]["end"]) == (4.0, 8.0)
    assert by_name["a.png"]["similarity"] > 0.95 and by_name["b.mp4"]["similarity"] < 0.3
    _, found = results(capsys, str(folder), "blue", "--moments", "--top-k", "2")
    (one, other) = found["results"][0]["found"]
    assert (Path(one["path"]).name, one["start"], one["end"]) == ("c.mp4", 0.0, 4.0) and other["similarity"] < 0.5


def test_folders_of_pictures_and_videos_are_searched_together(folder, model, capsys):
    _, found = results(capsys, str(folder), "red")
    assert len(found["results"][0]["found"]) == 3


def test_files_are_encoded_once_and_anew_when_they_change(folder, model, capsys):
    results(capsys, str(folder), "red")
    first = model.objective.encoded
    results(capsys, str(folder), "green")
    assert model.objective.encoded == first > 0
    write_video(folder / "b.mp4", colour("blue", 8), 8)
    os.utime(folder / "b.mp4", (1, 1))
    _, found = results(capsys, str(folder), "blue", "--top-k", "1")
    assert model.objective.encoded == first + 1
    assert Path(found["results"][0]["found"][0]["path"]).name in ("b.mp4", "c.mp4")
    (folder / "c.mp4").unlink()
    _, found = results(capsys, str(folder), "blue", "--top-k", "1")
    assert Path(found["results"][0]["found"][0]["path"]).name == "b.mp4"


def test_what_was_encoded_before_a_stop_is_kept(folder, model, tmp_path, monkeypatch):
    files = [VideoFile(path.name, str(path)) for path in sorted(folder.iterdir())]
    encode = work.encode_moments

    def stopping(searcher, file, *rest):
        if file.path.endswith("c.mp4"):
            raise KeyboardInterrupt
        return encode(searcher, file, *rest)

    monkeypatch.setattr(work, "encode_moments", stopping)
    with pytest.raises(KeyboardInterrupt) as stop:
        index_files(model, files, tmp_path / "index", seconds=4)
    assert "keeps 2 encoded files: the same command resumes" in str(stop.value.__notes__)
    before = model.objective.encoded
    monkeypatch.setattr(work, "encode_moments", encode)
    assert index_files(model, files, tmp_path / "index", seconds=4) == []
    assert model.objective.encoded == before + 3
    vectors, moments = read_index(tmp_path / "index", files)
    assert len(vectors) == len(moments) == 5


def test_an_index_of_another_model_or_of_other_moments_is_refused(folder, model, tmp_path):
    files = [VideoFile("b.mp4", str(folder / "b.mp4"))]
    index_files(model, files, tmp_path / "index", seconds=4)
    with pytest.raises(UserError, match="holds features made by"):
        index_files(model._replace(objective=Colours(1.0)), files, tmp_path / "index", seconds=4)
    with pytest.raises(UserError, match="holds features made by"):
        index_files(model, files, tmp_path / "index", seconds=2)


def test_a_damaged_file_is_named_and_the_others_are_searched(folder, model, capsys):
    (folder / "d.mp4").write_bytes(b"no video")
    code, found = results(capsys, str(folder), "red")
    assert code == 1 and [Path(bad["path"]).name for bad in found["unreadable"]] == ["d.mp4"]
    assert len(found["results"][0]["found"]) == 3
    assert main(["search", "run", str(folder), "red"]) == 1
    out = capsys.readouterr().out
    assert "not read:" in out and "0:04.0 to 0:08.0" in out


@pytest.mark.parametrize("texts", [[], ["  "]])
def test_without_a_text_nothing_is_searched(folder, model, capsys, texts):
    assert main(["search", "run", str(folder), *texts]) == 2
    assert "search needs a text" in capsys.readouterr().err


def test_what_encodes_no_text_is_refused(tmp_path, capsys, folder):
    assert main(["search", str(tmp_path / "none"), str(folder), "red"]) == 2
    assert "none" in capsys.readouterr().err


def test_words_that_were_never_read_are_named(folder, model, capsys):
    assert main(["search", "run", str(folder), "red elephant"]) == 0
    assert "the model has never read 'elephant'" in capsys.readouterr().err
    assert unknown_words(Bytes().fit(()), ["elephant"]) == []


def test_moments_are_about_as_long_as_asked():
    assert list(moments_of(3.0, 4.0)) == [(None, None)]
    assert list(moments_of(10.0, 4.0)) == [(0.0, 5.0), (5.0, 10.0)]
    assert list(moments_of(float("inf"), 4.0)) == [(None, None)]


def test_files_are_ranked_by_their_best_moment():
    moments = [("a", 0, 1), ("a", 1, 2), ("b", 0, 1)]
    similarity = torch.tensor([0.9, 0.8, 0.5])
    assert [one.path for one in ranked(similarity, moments, 5, each_moment=False)] == ["a", "b"]
    assert [one.start for one in ranked(similarity, moments, 2, each_moment=True)] == [0, 1]
