import json

import pytest

from filmstrip.studio.app import application
from filmstrip.studio.context import Context
from filmstrip.studio.jobs import Job
from filmstrip.studio.places import Places
from filmstrip.studio.security import Tokens
from studio_films import run_here

CONFIG = {
    "type": "filmstrip.runs.config:Run",
    "data": {"path": "/films/mine", "mixture": [], "synthetic": None, "reads": {}, "batch_size": 4, "clip": None},
    "objective": {"type": "filmstrip.systems.recognition.vit:ViTConfig", "width": 96},
    "train": {"length": {"type": "filmstrip.train.lengths:Steps", "steps": 40}},
    "init": None,
    "evals": [],
}


@pytest.fixture
def runs(tmp_path):
    """An empty folder of runs."""
    folder = tmp_path / "runs"
    folder.mkdir()
    return folder


@pytest.fixture
def make_run(runs):
    """Make a run folder as training leaves it after so many of 40 steps."""

    def make(name, steps=40, *, weights=True, **changes):
        folder = runs / name
        folder.mkdir(parents=True)
        (folder / "config.json").write_text(json.dumps(CONFIG | changes))
        lines = [{"step": s, "seconds": 1.0 * s, "loss": 2.0 / s, "lr": 1e-3} for s in range(10, steps + 1, 10)]
        (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        if weights:
            (folder / "weights.safetensors").write_bytes(b"")
        return folder

    return make


@pytest.fixture
def context(runs):
    return Context(Places(runs), Tokens(page="page-token"))


@pytest.fixture
def client(context):
    """A browser of the studio, at an own page."""
    from starlette.testclient import TestClient

    with TestClient(application(context), base_url="http://127.0.0.1:8420") as found:
        yield found


@pytest.fixture
def post(client):
    """Send something as an own page does."""

    def send(path, **given):
        headers = {"origin": "http://127.0.0.1:8420", "x-studio-token": "page-token"}
        return client.post(path, headers=headers | given.pop("headers", {}), **given)

    return send


@pytest.fixture
def in_process(monkeypatch):
    """Commands run within this process; the list of those that ran."""
    ran = []

    def run(job, arguments, out=None):
        ran.append(list(arguments))
        run_here(job, arguments, out)

    monkeypatch.setattr(Job, "run", run)
    return ran
