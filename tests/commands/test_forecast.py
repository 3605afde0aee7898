"""Forecasts and plans of real files, by an encoder and a forecaster so simple that it is known what they must say."""

import json
from dataclasses import replace

import pytest
import torch
from torch import nn

from colour_videos import CLIP, RGB, MeanColour, write_colours
from filmstrip import systems
from filmstrip.__main__ import main
from filmstrip.commands.work import feature_encoder, step_predictor
from filmstrip.commands.work.encode import encode_files
from filmstrip.data.annotations.own import write_own
from filmstrip.data.config import Data
from filmstrip.data.features import FeatureSource
from filmstrip.data.kinds.procedures import Procedures, recorded_features
from filmstrip.data.procedures.types import Annotations, Procedure, Step
from filmstrip.data.reading import views
from filmstrip.data.sources import open_source
from filmstrip.data.synthetic.recipes import Recipes
from filmstrip.errors import UserError
from filmstrip.evals.step_accuracy import StepAccuracy
from filmstrip.evals.step_baselines import StepBaselines
from filmstrip.objectives.config import ObjectiveConfig
from filmstrip.protocols import Objective
from filmstrip.runs import experiment
from filmstrip.runs.config import Run
from filmstrip.runs.encoders import VideoEncoder
from filmstrip.runs.loading import save_data_info
from filmstrip.studio import works
from filmstrip.train.config import Loop
from filmstrip.train.lengths import Steps
from filmstrip.video import open_video
from studio_films import answer_of

COLOURS = tuple(RGB)


class NextColour(Objective):
    """Colours follow each other in their order, from the last (or, for a plan, the first) clip that is seen."""

    def __init__(self, first=False):
        super().__init__()
        self.first = first
        self.weight = nn.Parameter(torch.ones(1))

    def forecast(self, batch, *, samples=1, seed=0):
        assert torch.is_inference_mode_enabled() and (batch["step"] == -1).all()
        assert not (batch["seen"] & batch["target"]).any()
        named = batch["features"].mean(dim=2).argmax(dim=-1)
        last = torch.stack([row[seen][0 if self.first else -1] for row, seen in zip(named, batch["seen"])])
        steps = (last[:, None] + batch["target"].cumsum(dim=1)) % 3
        return 5.0 * nn.functional.one_hot(steps, 3)[:, None].repeat(1, samples, 1, 1)


@pytest.fixture
def run_of(tmp_path, monkeypatch):
    """``run_of(**procedures)``: a run folder that was trained on what an encoder made of two videos."""
    videos = [write_colours(tmp_path / "videos" / f"{split}.mp4", *COLOURS, *COLOURS) for split in ("train", "test")]
    steps = tuple(Step(i % 3, 2.0 * i, 2.0 * i + 2) for i in range(6))
    procedures = tuple(Procedure(video=video.stem, split=video.stem, steps=steps) for video in videos)
    annotations = Annotations(root=tmp_path, steps=COLOURS, tasks=(), procedures=procedures)
    write_own(annotations, tmp_path / "procedures.json")
    encoder = VideoEncoder(MeanColour(), CLIP)
    monkeypatch.setattr(feature_encoder, "load", lambda source: encoder)
    encode_files(encoder, videos, tmp_path / "features", num_clips=12, num_workers=0)

    def build(objective=None, **config):
        data = Data(
            path=tmp_path / "features",
            reads=Procedures(annotations=tmp_path / "procedures.json", observed=2, **config),
        )
        run, source = Run(data=data, objective=ObjectiveConfig(), train=Loop(length=Steps(1))), open_source(data)
        objective = objective or NextColour(first=config.get("task") == "planning")
        monkeypatch.setattr(step_predictor, "load_objective", lambda folder: (objective, run))
        folder = tmp_path / "run"
        folder.mkdir()
        save_data_info(source.info("train"), folder)
        source.record(folder)
        return folder

    return build


def test_each_clip_of_a_video_is_followed_by_the_next_step(run_of, tmp_path, capsys):
    video = write_colours(tmp_path / "new.mp4", "green", "blue", "red")
    picture = tmp_path / "out" / "forecast.png"
    words = ["forecast", str(run_of(horizon=2)), str(video), "--encoder", "any", "--json", "--out", str(picture)]
    assert main(words) == 0
    timeline = json.loads(capsys.readouterr().out)["timeline"]
    assert [(at["start"], at["end"]) for at in timeline] == [(0, 2), (2, 4), (4, 6)]
    assert [[place[0][0] for place in at["next"]] for at in timeline] == [
        ["blue", "red"],
        ["red", "green"],
        ["green", "blue"],
    ]
    for place in timeline[0]["next"]:
        assert sum(p for _, p in place) == pytest.approx(1) and place[0][1] > 0.98
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_the_file_is_opened_once_for_all_clips(run_of, tmp_path, monkeypatch):
    video, decoders = write_colours(tmp_path / "new.mp4", "green", "blue", "red"), []
    monkeypatch.setattr(views, "open_video", lambda *a, **k: decoders.append(open_video(*a, **k)) or decoders[-1])
    assert main(["forecast", str(run_of()), str(video), "--encoder", "any"]) == 0
    assert len(decoders) == 1


def test_the_text_shows_the_timeline(run_of, tmp_path, capsys):
    video = write_colours(tmp_path / "new.mp4", "green", "blue")
    assert main(["forecast", str(run_of()), str(video), "--encoder", "any", "--top-k", "1"]) == 0
    out = capsys.readouterr().out
    after, along = out.split("expected after each clip:")
    assert "new.mp4" in after and "red" in after and "blue" not in after
    assert along.index("blue") < along.index("red") and "4.0 s" in along


def test_a_plan_leads_from_one_video_to_another(run_of, tmp_path, capsys):
    start, goal = (write_colours(tmp_path / f"{colour}.mp4", colour) for colour in ("red", "blue"))
    folder = run_of(task="planning", horizon=3)
    words = ["plan", str(folder), str(start), str(goal), "--encoder", "any"]
    picture = tmp_path / "plan.svg"
    assert main([*words, "--horizon", "3", "--json", "--out", str(picture)]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [place[0][0] for place in found["steps"]] == ["green", "blue", "red"]
    assert "<svg" in picture.read_text()
    assert main(words) == 0 and "1." in capsys.readouterr().out


def test_the_studio_draws_forecasts_and_plans_over_the_film(run_of, tmp_path):
    film = write_colours(tmp_path / "new.mp4", "green", "blue", "red")
    encoder = ("--encoder", "any")
    following, after = answer_of(works.forecast, run_of(horizon=2), film, tmp_path / "job", encoder)["rows"]
    assert [(s["start"], s["end"], s["label"]) for s in following["spans"]] == [
        (0, 2, "blue"),
        (2, 4, "red"),
        (4, 6, "green"),
    ]
    assert [s["label"] for s in after["spans"]] == ["red", "green", "blue"] and after["spans"][0]["score"] > 0.9


def test_the_studio_draws_a_plan_between_two_moments(run_of, tmp_path):
    film = write_colours(tmp_path / "new.mp4", "red", "green", "blue")
    folder = run_of(task="planning", horizon=3)
    answer = answer_of(works.plan, folder, film, tmp_path / "job", ("--encoder", "any"), start=0.5, goal=5.0)
    (row,) = answer["rows"]
    assert [s["label"] for s in row["spans"]] == ["green", "blue", "red"]
    assert (row["spans"][0]["start"], row["spans"][-1]["end"]) == (0.5, 5.0)
    with pytest.raises(UserError, match="the goal comes later"):
        answer_of(works.plan, folder, film, tmp_path / "job", start=2.0, goal=1.0)


def refused(words, capsys):
    assert main(words) == 2
    return capsys.readouterr().err


def test_what_a_run_cannot_do_is_said(run_of, tmp_path, capsys):
    folder, video = run_of(task="planning", horizon=3), write_colours(tmp_path / "new.mp4", "red")
    plan = ["plan", str(folder), str(video), str(video)]
    assert "was trained for planning, but this command needs a run for forecast" in refused(
        ["forecast", str(folder), str(video)], capsys
    )
    assert "does not record the encoder of its features" in refused(plan, capsys)
    assert "trained to plan 3 steps, not 4" in refused([*plan, "--encoder", "any", "--horizon", "4"], capsys)
    assert "cannot be written" in refused([*plan, "--encoder", "any", "--out", str(tmp_path / "plan.txt")], capsys)
    plan[-1] = str(tmp_path / "none.mp4")
    assert "none.mp4" in refused([*plan, "--encoder", "any"], capsys)


def test_a_video_must_last_for_what_is_observed(run_of, tmp_path, capsys):
    folder, video = run_of(task="anticipation"), write_colours(tmp_path / "new.mp4", "red")
    words = ["forecast", str(folder), str(video), "--encoder", "any"]
    assert "lasts 2.0 s, 1 clips of 2.0 s, and this run observes 2" in refused(words, capsys)
    assert main([*words, "--clip-seconds", "1"]) == 0
    assert "16 frames in 2.0 s, too few for clips of 1e-09 s" in refused([*words, "--clip-seconds", "1e-9"], capsys)
    assert "--clip-seconds is 0: expected a number above 0" in refused([*words, "--clip-seconds", "0"], capsys)


def test_another_encoder_is_refused(run_of, tmp_path, capsys, monkeypatch):
    folder, video = run_of(), write_colours(tmp_path / "new.mp4", "red")
    words = ["forecast", str(folder), str(video), "--encoder", "other"]
    monkeypatch.setattr(feature_encoder, "load", lambda source: VideoEncoder(MeanColour(2.0), CLIP))
    assert "other has other weights than the encoder" in refused(words, capsys)
    record = json.loads((folder / "features.json").read_text())
    (folder / "features.json").write_text(json.dumps(record | {"weights": None}))

    class Wide(MeanColour):
        def forward(self, video, layers=False):
            found = super().forward(video, layers)
            return type(found)(found.tokens.repeat(1, 1, 2), found.grid)

    monkeypatch.setattr(feature_encoder, "load", lambda source: VideoEncoder(Wide(), CLIP))
    assert "1 tokens of width 6 per clip, and this run was trained on 1 of width 3" in refused(words, capsys)
    (folder / "features.json").unlink()
    assert "was not trained on procedures" in refused(words, capsys)


def test_features_and_runs_say_what_encoded_them(run_of, tmp_path, monkeypatch):
    folder = run_of()
    found = recorded_features(folder)
    assert found.encoder is None and found.weights and found.clip_seconds == 2.0
    monkeypatch.setattr(
        "filmstrip.commands.work.encode.load", lambda source, device=None: VideoEncoder(MeanColour(), CLIP)
    )
    (tmp_path / "enc").mkdir()
    video = write_colours(tmp_path / "videos" / "train.mp4", "red")
    encode_files(tmp_path / "enc", [video], tmp_path / "again", num_frames=2, num_workers=0)
    about = FeatureSource(tmp_path / "again").about
    assert about["encoder"] == str(tmp_path / "enc") and json.loads(about["clip_changes"]) == {"num_frames": 2}
    # The same encoder in another place goes on with what is there.
    (tmp_path / "moved").mkdir()
    assert encode_files(tmp_path / "moved", [video], tmp_path / "again", num_frames=2, num_workers=0) == 0


def test_from_pixels_to_a_forecast(tmp_path, capsys):
    """Every part in earnest, but small: files, an encoder's run, its features, a forecaster's run, its evaluation."""
    small = Recipes(train_per_task=2, test_per_task=1, step_frames=6, pause_frames=0, size=16)
    recipes = small.generate(tmp_path / "recipes")
    encoder = systems.find("recognition.single_frame:tiny")
    clip = replace(encoder.data.clip, num_frames=4, stride=1, size=16, short_side=(16, 16))
    data = replace(encoder.data, path=recipes, synthetic=None, clip=clip, num_workers=0)
    experiment.train(
        replace(encoder, data=data, evals=(), train=replace(encoder.train, length=Steps(1))), tmp_path / "encoder"
    )
    assert main(["encode", str(tmp_path / "encoder"), str(recipes), "--out", str(tmp_path / "features")]) == 0
    forecaster = systems.find("procedures.transformer:tiny")
    data = Data(
        path=tmp_path / "features",
        reads=Procedures(annotations=recipes, observed=3),
        batch_size=8,
        num_workers=0,
    )
    run = replace(
        forecaster,
        data=data,
        evals=(StepAccuracy(), StepBaselines()),
        train=replace(forecaster.train, length=Steps(3)),
    )
    result = experiment.train(run, tmp_path / "run")
    assert result.metrics["count"] == len(result.source.split("test")) and 0 <= result.metrics["top1"] <= 1
    assert result.metrics["last_step/top1"] < result.metrics["successor/top1"]
    assert recorded_features(tmp_path / "run").encoder == str(tmp_path / "encoder")
    capsys.readouterr()
    video = next((recipes / "test").glob("*.mp4"))
    assert main(["forecast", str(tmp_path / "run"), str(video), "--json"]) == 0
    timeline = json.loads(capsys.readouterr().out)["timeline"]
    steps = next(p.steps for p in small.annotations().split("test") if p.video.endswith(video.name))
    assert abs(len(timeline) - len(steps)) <= 1
