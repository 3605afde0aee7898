"""Actions of real files, by an encoder and a localiser so simple that it is known what they must find."""

import json

import pytest
import torch
from torch import nn

from colour_videos import CLIP, RGB, MeanColour, write_colours
from filmstrip.__main__ import main
from filmstrip.commands.work import feature_encoder
from filmstrip.commands.work import localise as command
from filmstrip.commands.work.encode import encode_files
from filmstrip.data.annotations.own import FILE, write_own
from filmstrip.data.config import Data
from filmstrip.data.kinds.untrimmed import UntrimmedVideos
from filmstrip.data.procedures.types import Annotations, Procedure, Step
from filmstrip.data.sources import open_source
from filmstrip.objectives.config import ObjectiveConfig
from filmstrip.protocols import Detections, Objective
from filmstrip.runs import loading
from filmstrip.runs.config import Run
from filmstrip.runs.encoders import VideoEncoder
from filmstrip.train.config import Loop
from filmstrip.train.lengths import Steps

COLOURS = tuple(RGB)


class ColourLocaliser(Objective):
    """An action for each run of one colour, and one of a low score over the whole video."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    def localise(self, batch):
        assert torch.is_inference_mode_enabled() and set(batch) == {"sequence", "length", "timing", "seconds"}
        (first, step), seconds = batch["timing"][0].tolist(), float(batch["seconds"][0])
        kinds = batch["sequence"][0].argmax(dim=1)
        kind, counts = torch.unique_consecutive(kinds, return_counts=True)
        ends = counts.cumsum(0)
        segments = [
            (first + step * (a - 0.5), first + step * (b - 0.5))
            for a, b in zip((ends - counts).tolist(), ends.tolist())
        ]
        scores = torch.linspace(0.9, 0.8, len(segments))
        return [
            Detections(
                torch.tensor([*segments, (0.0, seconds)], dtype=torch.float64),
                torch.cat([scores, torch.tensor([0.1])]),
                torch.cat([kind, torch.tensor([0])]),
            )
        ]


@pytest.fixture
def run_of(tmp_path, monkeypatch):
    """``run_of(**reads)``: a run folder that was trained on what an encoder made of two videos."""
    videos = [write_colours(tmp_path / "videos" / f"{split}.mp4", *COLOURS) for split in ("train", "test")]
    steps = tuple(Step(i, 2.0 * i, 2.0 * i + 2.0) for i in range(3))
    procedures = tuple(Procedure(video=v.name, split=v.stem, steps=steps, seconds=6.0) for v in videos)
    (tmp_path / "told").mkdir()
    write_own(Annotations(root=tmp_path, steps=COLOURS, tasks=(), procedures=procedures), tmp_path / "told" / FILE)
    encoder = VideoEncoder(MeanColour(), CLIP)
    monkeypatch.setattr(feature_encoder, "load", lambda source: encoder)
    encode_files(encoder, videos, tmp_path / "features", num_clips=12, num_workers=0)

    def build(path=tmp_path / "features", **settings):
        reads = UntrimmedVideos(annotations=tmp_path / "told", **settings)
        data = Data(path=path, reads=reads)
        run, source = Run(data=data, objective=ObjectiveConfig(), train=Loop(length=Steps(1))), open_source(data)
        monkeypatch.setattr(command, "load_objective", lambda folder: (ColourLocaliser(), run))
        folder = tmp_path / "run"
        folder.mkdir(exist_ok=True)
        loading.save_data_info(source.info("train"), folder)
        source.record(folder)
        return folder

    return build


@pytest.fixture
def film(tmp_path):
    return write_colours(tmp_path / "new.mp4", "green", "blue", "blue", "red", "green")


@pytest.mark.parametrize("settings", [{}, {"resized": True, "max_length": 64}])
def test_actions_of_a_film_are_found_with_their_times(run_of, film, capsys, settings):
    assert main(["localise", str(run_of(**settings)), str(film), "--encoder", "any", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["seconds"] == pytest.approx(10.0)
    expected = [("green", 0, 2), ("blue", 2, 6), ("red", 6, 8), ("green", 8, 10)]
    assert [action["class"] for action in found["actions"]] == [name for name, *_ in expected]
    for action, (_, start, end) in zip(found["actions"], expected):
        assert (action["start"], action["end"]) == pytest.approx((start, end), abs=0.5)
    assert max(action["score"] for action in found["actions"]) == pytest.approx(0.9)


def test_a_timeline_subtitles_and_json_are_written(run_of, film, tmp_path, capsys):
    outs = [tmp_path / "out" / name for name in ("timeline.png", "said.srt", "said.vtt", "said.json")]
    words = ["localise", str(run_of()), str(film), "--encoder", "any", "--min-score", "0.85"]
    assert main([*words, "--out", *map(str, outs)]) == 0
    out = capsys.readouterr().out
    assert "green" in out and "━" in out and "red" not in out  # whose score is below
    png, srt, vtt, told = outs
    assert png.read_bytes().startswith(b"\x89PNG")
    assert "green (90%)" in srt.read_text() and "blue (87%)" in srt.read_text()
    assert vtt.read_text().startswith("WEBVTT\n\n1\n00:00:0")
    assert [action["class"] for action in json.loads(told.read_text())["actions"]] == ["green", "blue"]
    assert main([*words[:-1], "0.95"]) == 0
    assert "no action with a score of 0.95 or more" in capsys.readouterr().out


def test_what_cannot_be_localised_is_refused_with_what_to_do(run_of, film, tmp_path, monkeypatch, capsys):
    folder = str(run_of())
    assert main(["localise", folder, str(film), "--out", "x.mp4"]) == 2
    assert "name it .png" in capsys.readouterr().err
    assert main(["localise", folder, str(film)]) == 2  # encoded from Python, by an encoder without a place
    assert "does not record the encoder" in capsys.readouterr().err
    monkeypatch.setattr(feature_encoder, "load", lambda source: VideoEncoder(MeanColour(2.0), CLIP))
    assert main(["localise", folder, str(film), "--encoder", "any"]) == 2
    assert "other weights" in capsys.readouterr().err
    (tmp_path / "run" / "sequences.json").unlink()
    assert main(["localise", folder, str(film)]) == 2
    assert "it has no sequences.json" in capsys.readouterr().err
    monkeypatch.setattr(command, "load_objective", lambda folder: (Objective(), None))
    assert main(["localise", folder, str(film)]) == 2
    assert "which localises no actions: use a run of localisation" in capsys.readouterr().err


def test_stand_in_features_are_none_of_a_film(run_of, film, capsys):
    folder = str(run_of(path=None, width=3))
    assert main(["localise", folder, str(film)]) == 2
    assert "does not record the encoder of its features" in capsys.readouterr().err
