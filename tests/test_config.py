"""Configurations survive a trip through JSON, and refuse what is not ours."""

import dataclasses
import json
from pathlib import Path

import pytest

from filmstrip.config import ObjectiveConfig, Run, from_json, read_config, to_json, write_config
from filmstrip.data.config import Augment, Clip, Data
from filmstrip.data.motions import Motions
from filmstrip.errors import UserError
from filmstrip.evals.multi_view import MultiView
from filmstrip.train.config import Loop, Optim

RUN = Run(
    data=Data(synthetic=Motions(seed=3), clip=Clip(short_side=(64, 80), size=56), augment=Augment(mixup=0.8)),
    objective=ObjectiveConfig(),
    optim=Optim(betas=(0.9, 0.95), lr=1),
    train=Loop(epochs=2.5, clip_grad=None),
    evals=(MultiView(), MultiView(num_clips=3)),
    init="hf:owner/name",
)


def round_trip(run):
    return from_json(json.loads(json.dumps(to_json(run))))


@pytest.mark.parametrize("path", [None, Path("some/folder")])
def test_round_trip(path):
    run = dataclasses.replace(RUN, data=dataclasses.replace(RUN.data, path=path))
    again = round_trip(run)
    assert again == run
    assert type(again.data.path) is type(run.data.path)
    assert isinstance(again.data.clip.short_side, tuple) and isinstance(again.evals, tuple)


def test_written_file_reads_back(tmp_path):
    write_config(RUN, tmp_path / "config.json")
    assert read_config(tmp_path / "config.json") == RUN


@pytest.mark.parametrize("tag", ["os:system", "subprocess:Popen", "filmstripx.config:Run", "filmstrip.config:Path"])
def test_foreign_types_are_refused(tag):
    values = to_json(RUN)
    values["objective"]["type"] = tag
    with pytest.raises(UserError, match=tag.split(":")[0]):
        from_json(values)


def test_unknown_field_names_it():
    values = to_json(RUN)
    values["optim"]["learning_rate"] = 1
    with pytest.raises(UserError, match="learning_rate"):
        from_json(values)


def test_a_folder_without_a_run(tmp_path):
    with pytest.raises(UserError, match="not a run folder"):
        read_config(tmp_path / "config.json")
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(UserError, match="not JSON"):
        read_config(tmp_path / "config.json")
