"""What ``filmstrip eval`` measures on a run's own data stays in the run folder."""

import json
from dataclasses import dataclass
from types import SimpleNamespace

import pytest
from torch import nn

from filmstrip.bounds import Count
from filmstrip.data.config import Data
from filmstrip.errors import UserError
from filmstrip.objectives.config import ObjectiveConfig
from filmstrip.runs import experiment
from filmstrip.runs.config import Run, write_config
from filmstrip.runs.contents import history
from filmstrip.runs.evaluation import Evaluation
from filmstrip.runs.predictions import PredictionTable
from filmstrip.runs.run_folder import RunFolder
from filmstrip.train.config import Loop
from filmstrip.train.lengths import Steps


@dataclass(frozen=True, kw_only=True)
class Two(Evaluation):
    clips: Count = 3
    split: str | None = None

    def __call__(self, subject):
        yield "a/n3", 1.5
        yield "b", 2.0


@pytest.fixture
def folder(tmp_path, monkeypatch):
    run = Run(data=Data(), objective=ObjectiveConfig(), train=Loop(length=Steps(1)))
    source = SimpleNamespace(gives=frozenset({"video"}), root=tmp_path, split=lambda name: ())
    opened = []  # in one evaluation
    loaded = (nn.Identity(), run.data, (), ())
    monkeypatch.setattr(experiment, "load_for_evaluation", lambda folder, data, last: opened.clear() or loaded)
    monkeypatch.setattr(experiment, "open_source", lambda data: opened.append(data) or source)
    (tmp_path / "metrics.jsonl").write_text('{"step": 10, "loss": 1}\n{"step": 40, "loss": 0.5}\n{"step": 7')
    write_config(run, tmp_path / "config.json")
    yield tmp_path
    assert len(opened) <= 1


def test_values_are_added_as_of_the_last_step(folder):
    (folder / "metrics.jsonl").write_text('{"step": 10, "loss": 1}\n{"step": 40, "loss": 0.5}\n')
    assert dict(experiment.evaluate(folder, (Two(),))) == {"a/n3": 1.5, "b": 2.0}
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    told = {"name": "test_recorded_evaluation", "clips": 3, "split": "test"}
    assert json.loads(lines[-1]) == {"step": 40, "protocol": told, "eval/a/n3": 1.5, "eval/b": 2.0}
    assert set(history(folder)) == {"loss", "eval/a/n3", "eval/b"}  # settings are no curves


def test_what_a_protocol_found_stays_when_the_next_one_fails(folder):
    class Fails(Two):
        def __call__(self, subject):
            yield "c", 3.0
            raise UserError("no more")

    with pytest.raises(UserError, match="no more"):
        dict(experiment.evaluate(folder, (Two(clips=2), Fails())))
    *_, last = (folder / "metrics.jsonl").read_text().splitlines()
    assert json.loads(last)["protocol"]["clips"] == 2


def test_results_on_other_data_have_a_folder_for_each(folder, tmp_path):
    before = (folder / "metrics.jsonl").read_text()
    for data in ("a/mine", "b/mine", "a/mine"):
        (tmp_path / data).mkdir(parents=True, exist_ok=True)
        assert dict(experiment.evaluate(folder, (Two(),), data=tmp_path / data)) == {"a/n3": 1.5, "b": 2.0}
    assert (folder / "metrics.jsonl").read_text() == before
    found = {}
    for path in sorted((folder / "evaluations").glob("*/metrics.jsonl")):
        found[path.parent.name] = [json.loads(line) for line in path.read_text().splitlines()]
    assert {name: [row["data"] for row in rows] for name, rows in found.items()} == {
        "mine": [str(tmp_path / "a/mine")] * 2,
        "mine-2": [str(tmp_path / "b/mine")],
    }
    assert found["mine-2"][0]["step"] == 40 and found["mine-2"][0]["eval/b"] == 2.0


@pytest.mark.parametrize("count", [0, 2])
def test_a_table_is_of_one_protocol_that_classifies(folder, count):
    class Classifies(Two):
        classifies = True

    protocols = (Two(), *[Classifies()] * count)
    with pytest.raises(UserError, match="none of these" if count == 0 else "several of these"):
        dict(experiment.evaluate(folder, protocols, table=PredictionTable(path=folder / "out.csv")))


def test_single_clips_are_of_a_protocol_that_looks_at_several(folder):
    class Classifies(Two):
        classifies = True

    with pytest.raises(UserError, match="Classifies does not predict single clips"):
        dict(experiment.evaluate(folder, (Classifies(),), table=PredictionTable(per_clip=True)))


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
