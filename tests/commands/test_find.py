"""Moments of real files, by an encoder and a grounder so simple that it is known what they must find."""

import json
from dataclasses import replace

import pytest
import torch
from torch import nn

from colour_videos import CLIP, RGB, MeanColour, write_colours
from filmstrip.__main__ import main
from filmstrip.commands.work import feature_encoder, timeline
from filmstrip.commands.work import find as find_work
from filmstrip.commands.work.encode import encode_files
from filmstrip.data.annotations.qvhighlights import write_qvhighlights
from filmstrip.data.config import Data
from filmstrip.data.kinds.moments import Moments
from filmstrip.data.moments.types import Queries, Query
from filmstrip.data.sources import open_source
from filmstrip.objectives.config import ObjectiveConfig
from filmstrip.protocols import Grounding, Objective
from filmstrip.runs import loading
from filmstrip.runs.config import Run
from filmstrip.runs.encoders import VideoEncoder
from filmstrip.train.config import Loop
from filmstrip.train.lengths import Steps

COLOURS = tuple(RGB)


class ColourFinder(Objective):
    """Finds the clips of the colour that a word of the query names."""

    def __init__(self, words, by):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))
        self.words, self.by = words, by

    def ground(self, batch):
        assert torch.is_inference_mode_enabled()
        assert not batch.keys() & {"moments", "query_of", "saliency", "relevant"}
        found = []
        for i, length in enumerate(batch["length"].tolist()):
            first, step = batch["timing"][i].tolist()
            rows = batch["query"][i, : batch["query_length"][i]]
            asked = rows[:, None] if self.by == "video" else rows[None]
            answers = []
            for words in asked:
                near = [(words @ self.words.vector(colour)).max() for colour in COLOURS]
                saliency = batch["sequence"][i, :length, int(torch.stack(near).argmax())]
                inside = (saliency > 0.5).nonzero()[:, 0]
                ends = (float(first + step * inside[0] - step / 2), float(first + step * inside[-1] + step / 2))
                segments = torch.tensor([ends, (ends[0], ends[1] - 0.1), (0.0, batch["seconds"][i].item())])
                answers.append(Grounding(segments.double(), torch.tensor([0.9, 0.8, 0.3]), saliency))
            found.append(answers)
        return found


@pytest.fixture
def run_of(tmp_path, monkeypatch):
    """``run_of(**moments)``: a run folder that was trained on what an encoder made of two videos."""
    videos = [write_colours(tmp_path / "videos" / f"{split}.mp4", *COLOURS) for split in ("train", "test")]
    queries = tuple(
        Query(
            name=video.stem, video=video.stem, text="it is red", split=video.stem, moments=((0.0, 2.0),), seconds=6.0
        )
        for video in videos
    )
    (tmp_path / "queries").mkdir()
    write_qvhighlights(Queries(root=tmp_path, queries=queries), tmp_path / "queries")
    encoder = VideoEncoder(MeanColour(), CLIP)
    monkeypatch.setattr(feature_encoder, "load", lambda source: encoder)
    encode_files(encoder, videos, tmp_path / "features", num_clips=6, num_workers=0)

    def build(**config):
        reads = Moments(annotations=tmp_path / "queries", text_width=32, **config)
        data = Data(path=tmp_path / "features", reads=reads)
        run, source = Run(data=data, objective=ObjectiveConfig(), train=Loop(length=Steps(1))), open_source(data)
        objective = ColourFinder(source.words, reads.by)
        monkeypatch.setattr(find_work, "load_objective", lambda folder: (objective, run))
        folder = tmp_path / "run"
        folder.mkdir()
        loading.save_data_info(source.info("train"), folder)
        source.record(folder)
        return folder

    return build


@pytest.mark.parametrize("by", ["query", "video"])
def test_each_sentence_finds_its_moment(run_of, tmp_path, capsys, by):
    video = write_colours(tmp_path / "new.mp4", "green", "blue", "blue", "red")
    words = ["find", str(run_of(by=by)), str(video), "it is red", "is it blue now?", "--encoder", "any", "--json"]
    assert main(words) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["seconds"] == pytest.approx(8.0)
    assert [answer["query"] for answer in found["answers"]] == ["it is red", "is it blue now?"]
    for answer, (start, end) in zip(found["answers"], ((6.0, 8.0), (2.0, 6.0))):
        first, *others = answer["moments"]
        assert (first["start"], first["end"]) == pytest.approx((start, end), abs=0.7)
        assert [moment["score"] for moment in others] == pytest.approx([0.3])  # one overlapped the first too much
        best = max(answer["highlights"], key=lambda clip: clip["saliency"])
        assert start < best["seconds"] < end


def test_subtitles_a_timeline_and_all_results_are_written(run_of, tmp_path, capsys):
    video = write_colours(tmp_path / "new.mp4", "green", "blue", "red")
    names = ("timeline.png", "found.srt", "found.vtt", "found.json")
    outs = [str(tmp_path / "out" / name) for name in names]
    words = ["find", str(run_of()), str(video), "it is red", "--encoder", "any", "--top-k", "1", "--out", *outs]
    assert main(words) == 0
    out = capsys.readouterr().out
    assert "it is red" in out and "━" in out and "highlights at" in out
    png, srt, vtt, results = (tmp_path / "out" / name for name in names)
    assert png.read_bytes().startswith(b"\x89PNG")
    moment = json.loads(results.read_text())["answers"][0]["moments"][0]
    assert srt.read_text().splitlines()[0] == "1" and "it is red (90%)" in srt.read_text()
    begin = f"00:00:{int(moment['start']):02d},{round(moment['start'] % 1 * 1000):03d} --> "
    assert srt.read_text().splitlines()[1].startswith(begin)
    assert vtt.read_text().startswith("WEBVTT\n\n1\n00:00:0") and "," not in vtt.read_text().splitlines()[3]


def test_times_are_written_as_players_read_them():
    assert timeline._stamp(3725.0416, ",") == "01:02:05,042"
    assert timeline._stamp(59.9996, ".") == "00:01:00.000"
    assert timeline.clock(62.46) == "1:02.5" and timeline.clock(59.99) == "1:00.0"


def test_what_cannot_be_found_is_refused_with_what_to_do(run_of, tmp_path, monkeypatch, capsys):
    video, folder = write_colours(tmp_path / "new.mp4", "green", "blue"), str(run_of())
    assert main(["find", folder, str(video), "--encoder", "any"]) == 2
    assert "needs a sentence" in capsys.readouterr().err
    assert main(["find", folder, str(video), "a", "--out", "x.mp4"]) == 2
    assert "name it .png" in capsys.readouterr().err
    assert main(["find", folder, str(video), "a"]) == 2  # encoded from Python, by an encoder without a place
    assert "does not record the encoder" in capsys.readouterr().err
    monkeypatch.setattr(feature_encoder, "load", lambda source: VideoEncoder(MeanColour(2.0), CLIP))
    assert main(["find", folder, str(video), "a", "--encoder", "any"]) == 2
    assert "other weights" in capsys.readouterr().err
    (tmp_path / "run" / "moments.json").unlink()
    assert main(["find", folder, str(video), "a"]) == 2
    assert "was not trained to find moments" in capsys.readouterr().err


def test_a_run_on_arrays_of_words_needs_their_encoder(run_of, tmp_path, monkeypatch, capsys):
    video, folder = write_colours(tmp_path / "new.mp4", "green", "blue"), str(run_of())
    objective, run = find_work.load_objective(folder)
    reads = replace(run.data.reads, text=(tmp_path,))
    monkeypatch.setattr(
        find_work, "load_objective", lambda folder: (objective, replace(run, data=replace(run.data, reads=reads)))
    )
    assert main(["find", folder, str(video), "a"]) == 2
    assert "--text-encoder" in capsys.readouterr().err
    monkeypatch.setattr(find_work, "load_objective", lambda folder: (Objective(), run))
    assert main(["find", folder, str(video), "a"]) == 2
    assert "finds no moments" in capsys.readouterr().err
