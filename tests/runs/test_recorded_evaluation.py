"""What ``filmstrip eval`` measures on a run's own data stays in the run folder."""

import json
from dataclasses import dataclass
from types import SimpleNamespace

import pytest
from torch import nn

from filmstrip.data.config import Data
from filmstrip.objectives.config import ObjectiveConfig
from filmstrip.runs import experiment
from filmstrip.runs.config import Run
from filmstrip.runs.evaluation import Evaluation
from filmstrip.runs.run_folder import RunFolder
from filmstrip.train.config import Loop
from filmstrip.train.lengths import Steps


@dataclass(frozen=True, kw_only=True)
class Two(Evaluation):
    def __call__(self, subject):
        yield "a/n3", 1.5
        yield "b", 2.0


@pytest.fixture
def folder(tmp_path, monkeypatch):
    run = Run(data=Data(), objective=ObjectiveConfig(), train=Loop(length=Steps(1)))
    source = SimpleNamespace(gives=frozenset({"video"}), root=tmp_path, split=lambda name: ())
    monkeypatch.setattr(experiment, "load_for_evaluation", lambda folder, data: (nn.Identity(), run.data, ()))
    opened = []
    monkeypatch.setattr(experiment, "open_source", lambda data: opened.append(data) or source)
    (tmp_path / "metrics.jsonl").write_text('{"step": 10, "loss": 1}\n{"step": 40, "loss": 0.5}\n{"step": 7')
    yield tmp_path
    assert len(opened) <= 1


def test_values_are_added_as_of_the_last_step(folder):
    (folder / "metrics.jsonl").write_text('{"step": 10, "loss": 1}\n{"step": 40, "loss": 0.5}\n')
    assert dict(experiment.evaluate(folder, (Two(),))) == {"a/n3": 1.5, "b": 2.0}
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    assert json.loads(lines[-1]) == {"step": 40, "eval/a/n3": 1.5, "eval/b": 2.0}


def test_other_data_leave_no_trace(folder, tmp_path):
    before = (folder / "metrics.jsonl").read_text()
    assert dict(experiment.evaluate(folder, (Two(),), data=tmp_path)) == {"a/n3": 1.5, "b": 2.0}
    assert (folder / "metrics.jsonl").read_text() == before


def test_protocols_share_the_opened_data_and_a_layout_of_their_own_needs_none(folder, tmp_path, monkeypatch):
    own = SimpleNamespace(gives=frozenset({"video"}), root=tmp_path, split=lambda name: ())

    class Elsewhere(Two):
        def own_source(self, data):
            return own

        def __call__(self, subject):
            assert subject.source is own
            yield "c", 3.0

    assert dict(experiment.evaluate(folder, (Two(), Elsewhere(), Two()))) == {"a/n3": 1.5, "b": 2.0, "c": 3.0}
    monkeypatch.setattr(experiment, "open_source", lambda data: pytest.fail("nothing reads it"))
    assert dict(experiment.evaluate(folder, (Elsewhere(),))) == {"c": 3.0}


def test_the_last_step_is_read_past_a_torn_line(folder, tmp_path):
    assert RunFolder(folder).last_step() == 40
    assert RunFolder(tmp_path / "new").last_step() == 0
