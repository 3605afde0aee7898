"""``filmstrip caption`` and ``filmstrip filter`` on real files: nothing is lost, and what does not match goes."""

from __future__ import annotations

from dataclasses import replace

import pyarrow.parquet as pq
import pytest
import torch

from filmstrip import systems
from filmstrip.__main__ import main
from filmstrip.commands.work import caption as work
from filmstrip.commands.work import filter as judging
from filmstrip.commands.work.caption_table import read_captions
from filmstrip.data.config import Clip, PixelRange
from filmstrip.data.kinds.captioned import Captioned
from filmstrip.data.layouts.manifest import open_manifest
from filmstrip.data.synthetic.narrated import NarratedShapes
from filmstrip.errors import UserError
from filmstrip.evals.captions import CaptionWriter
from filmstrip.nn.decoding import Writing
from filmstrip.protocols import Objective
from filmstrip.runs import experiment
from filmstrip.runs.text_video import TextVideoModel
from filmstrip.text.tokenizers import Words
from filmstrip.train.lengths import Steps
from filmstrip.video.write import write_grid, write_video

COLOURS = {"red": (1.0, 0.0, 0.0), "green": (0.0, 1.0, 0.0), "blue": (0.0, 0.0, 1.0)}
NAMES = list(COLOURS)
TOKENIZER = Words().fit(["a red one", "a green one", "a blue one"], ())


class Painter(Objective):
    """Names the mean colour of a clip, and knows whether a text names it."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.seen = 0

    def see(self, video):
        self.seen += len(video)
        return video.float().mean(dim=(1, 3, 4))[:, None]

    def caption(self, visual, prompt=(), *, end, seed=0, writing=None):
        texts = [f"a {NAMES[i]} one" for i in visual[:, 0].argmax(dim=1).tolist()]
        return torch.tensor([[*TOKENIZER.encode(text), end, end] for text in texts])

    def match(self, visual, ids, lengths):
        said = [TOKENIZER.decode(row[:n].tolist()) for row, n in zip(ids, lengths)]
        shown = [NAMES[i] for i in visual[:, 0].argmax(dim=1).tolist()]
        return torch.tensor([4.0 if name in text else -4.0 for name, text in zip(shown, said)])

    def encode_video(self, video):
        return torch.nn.functional.normalize(self.see(video)[:, 0], dim=1)

    def encode_text(self, ids, lengths):
        said = [TOKENIZER.decode(row[:n].tolist()) for row, n in zip(ids, lengths)]
        return torch.tensor([next((COLOURS[n] for n in NAMES if n in text), (0.0, 0.0, 0.0)) for text in said])

    def similarity(self, video, text):
        return video @ text.T


def colour(name, frames):
    return torch.tensor(COLOURS[name]).view(1, 3, 1, 1).expand(frames, 3, 32, 32)


@pytest.fixture
def folder(tmp_path):
    """A red picture, a green video, and one of eight seconds that is blue, then red; with captions, some wrong."""
    path = tmp_path / "videos"
    path.mkdir()
    write_grid(path / "a.png", [colour("red", 1)], gap=0)
    write_video(path / "b.mp4", colour("green", 8), 8)
    write_video(path / "c.mp4", torch.cat([colour(name, 40) for name in ("blue", "red")]), 10)
    return path


@pytest.fixture
def model(monkeypatch):
    clip = Clip(num_frames=2, sampling="uniform", size=16)
    painter = Painter()
    writer = CaptionWriter(painter, TOKENIZER, "", Writing())
    monkeypatch.setattr(work, "load_describer", lambda command: work.Describer(painter, writer, clip))
    monkeypatch.setattr(
        judging, "load_searcher", lambda source: TextVideoModel(painter, clip, Captioned(max_length=8), TOKENIZER)
    )
    return painter


@pytest.mark.parametrize("suffix", ["parquet", "csv", "jsonl"])
def test_every_file_gets_a_caption_in_any_format(folder, model, tmp_path, suffix, capsys):
    out = tmp_path / f"captions.{suffix}"
    assert main(["caption", "run", str(folder), "--out", str(out)]) == 0
    assert "3 captions of 3 clips" in capsys.readouterr().out
    found = {row.path.rsplit("/")[-1]: row.synthetic for row in read_captions(out)}
    assert found["a.png"] == ("a red one",) and found["b.mp4"] == ("a green one",)
    assert not list(tmp_path.glob(".*"))
    if suffix != "jsonl":
        assert {sample.text for sample in open_manifest(out).samples} >= {("a red one",), ("a green one",)}


def test_files_of_several_sizes_are_described_at_their_own(folder, model, tmp_path, monkeypatch):
    write_grid(folder / "d.png", [colour("blue", 1)[..., :16]], gap=0)
    native = PixelRange(patch=4, merged=2, image_pixels=(8 * 8, 32 * 32), video_pixels=(8 * 8, 32 * 32))
    clip = Clip(num_frames=2, sampling="uniform", size=16, native=native)
    shapes, plain = [], model.see
    monkeypatch.setattr(model, "see", lambda video: shapes.append(tuple(video.shape[3:])) or plain(video))
    writer = CaptionWriter(model, TOKENIZER, "", Writing())
    monkeypatch.setattr(work, "load_describer", lambda command: work.Describer(model, writer, clip))
    assert main(["caption", "run", str(folder), "--out", str(tmp_path / "captions.csv")]) == 0
    assert sorted(shapes) == [(32, 16), (32, 32), (32, 32), (32, 32)]
    found = {row.path.rsplit("/")[-1]: row.synthetic for row in read_captions(tmp_path / "captions.csv")}
    assert found["d.png"] == ("a blue one",) and found["b.mp4"] == ("a green one",)


def test_clips_of_a_long_video_are_described_apart(folder, model, tmp_path):
    out = tmp_path / "captions.parquet"
    assert main(["caption", "run", str(folder / "c.mp4"), "--out", str(out), "--seconds", "4"]) == 0
    rows = pq.read_table(out).to_pylist()
    assert [(row["start"], row["end"], row["synthetic"]) for row in rows] == [
        (0.0, 4.0, ["a blue one"]),
        (4.0, 8.0, ["a red one"]),
    ]


def test_a_damaged_file_is_named_and_nothing_else_is_lost(folder, model, tmp_path, capsys):
    (folder / "broken.mp4").write_bytes(b"no video")
    out = tmp_path / "captions.parquet"
    assert main(["caption", "run", str(folder), "--out", str(out)]) == 1
    assert "not read:" in capsys.readouterr().err and len(read_captions(out)) == 3


def test_what_was_described_before_a_stop_is_kept(folder, model, tmp_path, monkeypatch, capsys):
    out, clips_of = tmp_path / "captions.parquet", work.clips_of

    def stopping(row, *rest):
        if row.path.endswith("c.mp4"):
            raise KeyboardInterrupt
        return clips_of(row, *rest)

    monkeypatch.setattr(work, "clips_of", stopping)
    command = ["caption", "run", str(folder), "--out", str(out), "--batch-size", "1"]
    assert main(command) == 130
    assert "keeps 2 clips: the same command resumes" in capsys.readouterr().err and not out.exists()
    monkeypatch.setattr(work, "clips_of", clips_of)
    assert main([*command, "--seed", "1"]) == 2
    assert "with another model or other settings" in capsys.readouterr().err
    before = model.seen
    assert main(command) == 0
    assert model.seen == before + 1 and len(read_captions(out)) == 3


def test_a_command_that_was_refused_leaves_the_way_free(folder, model, tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise UserError("captions of 20 tokens are longer than the 16 that the network reads")

    command = ["caption", "run", str(folder), "--out", str(tmp_path / "captions.csv")]
    with monkeypatch.context() as patch:
        patch.setattr(model, "caption", refuse)
        assert main(command) == 2
    assert main([*command, "--max-tokens", "8", "--seed", "1"]) == 0


def test_captions_that_do_not_match_are_removed(folder, model, tmp_path, capsys):
    (folder / "manifest.csv").write_text(
        "path,split,caption_1,caption_2\na.png,train,a blue one,a red one\nb.mp4,train,a blue one,\n"
        "c.mp4,test,a green one,\n"
    )
    written, kept = tmp_path / "written.parquet", tmp_path / "kept.parquet"
    assert main(["caption", "run", str(folder), "--out", str(written)]) == 0
    table = pq.read_table(written).to_pylist()
    assert table[0]["web"] == ["a blue one", "a red one"] and table[0]["caption"] == table[0]["web"]
    capsys.readouterr()
    assert main(["filter", "run", str(written), "--out", str(kept)]) == 0
    said = capsys.readouterr().out
    assert "1 of 4 captions from the web and 3 of 3 captions that were written are kept, of 3 of 3 clips" in said
    rows = pq.read_table(kept).to_pylist()
    assert [row["caption"] for row in rows][:2] == [["a red one"], ["a green one"]]
    assert [row["web"] for row in rows] == [["a red one"], [], []]
    assert rows[0]["score"] == [pytest.approx(0.982, abs=1e-3)]
    assert {sample.split for sample in open_manifest(kept).samples} == {"train", "test"}


def test_captions_are_judged_by_similarity(folder, model, tmp_path, capsys):
    manifest = folder / "manifest.csv"
    manifest.write_text("path,caption\na.png,a red one\nb.mp4,a blue one\n")
    kept = tmp_path / "kept.csv"
    command = ["filter", "run", str(manifest), "--out", str(kept), "--by", "similarity"]
    assert main(command) == 2
    assert "give a --threshold, or a --share" in capsys.readouterr().err
    assert main([*command, "--share", "0.5"]) == 0
    assert [row.web for row in read_captions(kept)] == [("a red one",)]
    assert main([*command, "--threshold", "0.8"]) == 0
    assert "1 of 2 captions from the web are kept, of 1 of 2 clips" in capsys.readouterr().out
    assert main([*command, "--threshold", "2"]) == 2
    assert "no table is written" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--out", "captions.txt"], "no known format"),
        (["--out", "captions.csv", "--number", "2"], "give a --temperature"),
    ],
)
def test_what_cannot_be_written_is_refused(folder, model, capsys, words, message):
    assert main(["caption", "run", str(folder), *words]) == 2
    assert message in capsys.readouterr().err


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A BLIP that has learnt little, and the folder of its videos."""
    root = tmp_path_factory.mktemp("caption")
    run = systems.find("language.blip:tiny")
    shapes = NarratedShapes(num_train=4, num_test=2, num_frames=4, size=48)
    data = replace(run.data, path=shapes.generate(root / "data"), synthetic=None, num_workers=0, batch_size=4)
    experiment.train(replace(run, data=data, train=replace(run.train, length=Steps(40)), evals=()), root / "run")
    return root / "run", root / "data"


def test_a_trained_model_writes_and_judges(trained, tmp_path, capsys):
    run, data = trained
    written, kept = tmp_path / "written.parquet", tmp_path / "kept.parquet"
    assert main(["caption", str(run), str(data), "--out", str(written), "--max-tokens", "12"]) == 0
    rows = pq.read_table(written).to_pylist()
    assert len(rows) == 6 and all(row["web"] and row["synthetic"][0] for row in rows)
    drawn = ["--temperature", "1", "--top-p", "0.9", "--number", "2", "--max-tokens", "12"]
    assert main(["caption", str(run), str(data), "--out", str(tmp_path / "drawn.csv"), *drawn]) == 0
    assert main(["filter", str(run), str(written), "--out", str(kept), "--share", "0.5"]) == 0
    told = sum(len(row["caption"]) for row in rows)
    assert sum(len(row["caption"]) for row in pq.read_table(kept).to_pylist()) == round(told / 2)
    assert main(["caption", str(run), str(data), "--out", str(written), "--beams", "2", "--temperature", "1"]) == 2
    assert "give one" in capsys.readouterr().err
    assert main(["caption", str(run), str(data), "--out", str(written), "--compile"]) == 2
    assert "--compile is for language models" in " ".join(capsys.readouterr().err.split())


def test_a_model_without_captions_is_refused(tmp_path, folder, capsys):
    assert main(["caption", str(tmp_path / "none"), str(folder), "--out", "captions.csv"]) == 2
    assert "none" in capsys.readouterr().err
