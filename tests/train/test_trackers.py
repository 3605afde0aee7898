"""Trackers that recorded values go to, by the packages themselves without any network."""

import json
import logging

import pytest
from toys import rows, train

from filmstrip.errors import UserError
from filmstrip.train import trackers
from filmstrip.train.trackers import Trackers, check_trackers


def test_tensorboard_is_the_default_and_may_be_left_out(tmp_path):
    train(tmp_path / "default", steps=2)
    assert list((tmp_path / "default" / "tensorboard").glob("events*"))
    train(tmp_path / "none", steps=2, tracker=())
    assert not (tmp_path / "none" / "tensorboard").exists() and len(rows(tmp_path / "none")) == 2


def test_mlflow_gets_values_and_settings_and_goes_on(tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")  # the light package has no database
    mlflow.set_tracking_uri(f"file:{tmp_path}/mlruns")
    folder = tmp_path / "run"

    def evaluate(objective, step):
        yield "mAP@0.5", 0.25

    train(folder, steps=2, save_every=1, tracker=("mlflow",), evaluate=evaluate)
    train(folder, steps=4, save_every=1, tracker=("mlflow", "tensorboard"), evaluate=evaluate)
    identity = json.loads((folder / "trackers.json").read_text())["mlflow"]
    client = mlflow.MlflowClient()
    losses = sorted((m.step, m.value) for m in client.get_metric_history(identity, "loss"))
    assert losses == [(row["step"], pytest.approx(row["loss"])) for row in rows(folder) if "loss" in row]
    assert client.get_run(identity).data.metrics["eval/mAP_0.5"] == 0.25
    assert client.get_run(identity).info.status == "FINISHED"


def test_wandb_gets_values_and_goes_on(tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    folder = tmp_path / "run"
    train(folder, steps=2, tracker=("wandb",))
    identity = json.loads((folder / "trackers.json").read_text())["wandb"]
    assert list(folder.glob(f"wandb/offline-run-*-{identity}/run-{identity}.wandb"))


class Fails:
    name = "fails"

    def __init__(self, when):
        self.when, self.logged = when, 0

    def start(self):
        if self.when == "start":
            raise ConnectionError("no route to host")

    def log(self, values, step):
        self.logged += 1
        if self.when == "log":
            raise ConnectionError("no route to host")

    def store_init_configuration(self, values):
        pass

    def finish(self):
        if self.when == "finish":
            raise ConnectionError("no route to host")


def test_a_tracker_that_fails_ends_no_training(tmp_path, monkeypatch, caplog):
    broken = Fails("log")
    monkeypatch.setitem(trackers._MAKERS, "tensorboard", lambda folder, step, known: broken)
    with caplog.at_level(logging.WARNING):
        train(tmp_path / "run", steps=3)
    assert broken.logged == 1 and len(rows(tmp_path / "run")) == 3
    assert "fails and gets nothing more of this run: no route to host" in caplog.text
    monkeypatch.setitem(trackers._MAKERS, "tensorboard", lambda folder, step, known: Fails("finish"))
    train(tmp_path / "finish", steps=1)
    monkeypatch.setitem(trackers._MAKERS, "tensorboard", lambda folder, step, known: Fails("start"))
    with pytest.raises(UserError, match=r"train\.tracker tensorboard cannot start: no route to host"):
        train(tmp_path / "never", steps=1)


def test_only_the_first_process_tracks(tmp_path, monkeypatch):
    monkeypatch.setattr(trackers.process, "rank", lambda: 1)
    tracker = Trackers(("tensorboard",), tmp_path)
    tracker.start(0, {})
    tracker.log({"loss": 1.0}, 1)
    tracker.finish()
    assert not list(tmp_path.iterdir())


def test_a_package_that_is_missing_is_named_before_anything(tmp_path, monkeypatch):
    monkeypatch.setattr(trackers.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(
        UserError, match=r"train\.tracker wandb needs the package wandb: pip install 'filmstrip\[wandb\]"
    ):
        check_trackers(("tensorboard", "wandb"))
