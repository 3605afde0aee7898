"""Configurations survive a trip through JSON, and refuse what is not ours."""

import dataclasses
import json
from pathlib import Path

import pytest

from filmstrip import systems
from filmstrip.data.config import Augment, Clip, Data
from filmstrip.data.synthetic.motions import Motions
from filmstrip.errors import UserError
from filmstrip.evals.multi_view import MultiView
from filmstrip.objectives.config import ObjectiveConfig
from filmstrip.runs.config import Run, from_json, read_config, to_json, write_config
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


@pytest.mark.parametrize(
    "tag", ["os:system", "subprocess:Popen", "filmstripx.config:Run", "filmstrip.runs.config:Path"]
)
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


CLIP = Clip(num_frames=12, stride=3, size=32)


def test_on_another_clip_the_network_is_made_for_it():
    vit, lrcn = systems.find("recognition.vit"), systems.find("recognition.lrcn")
    moved = vit.on_clip(CLIP)
    assert moved.data == dataclasses.replace(vit.data, clip=CLIP)
    assert moved.objective == dataclasses.replace(vit.objective, num_frames=12, size=32)
    assert lrcn.on_clip(CLIP).objective == lrcn.objective  # any clip will do


def test_on_another_clip_what_spans_all_frames_still_does():
    early, late = (systems.find(f"recognition.{name}_fusion") for name in ("early", "late"))
    moved = early.on_clip(CLIP).objective
    assert [layer.kernel for layer in moved.layers] == [(12, 3, 3), (1, 3, 3)] and moved.num_frames == 12
    assert late.on_clip(CLIP).objective.layers == late.objective.layers


def test_on_another_clip_positions_and_memory_suffice():
    vtn, memvit = systems.find("recognition.vtn"), systems.find("recognition.memvit")
    assert vtn.objective.places == 9 and vtn.on_clip(CLIP).objective.places == 13
    assert vtn.on_clip(dataclasses.replace(CLIP, num_frames=4)).objective.places == 9
    read = [memvit.on_clip(Clip(num_frames=frames)).objective.num_frames for frames in (24, 16, 8, 12)]
    assert read == [8, 8, 8, 12]
