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
from filmstrip.train.config import Loop
from filmstrip.train.lengths import Epochs, Steps
from filmstrip.train.optim import SGD, AdamW, Muon
from filmstrip.train.schedules import Constant, WarmupStableDecay

RUN = Run(
    data=Data(synthetic=Motions(seed=3), clip=Clip(short_side=(64, 80), size=56), augment=Augment(mixup=0.8)),
    objective=ObjectiveConfig(),
    optim=AdamW(betas=(0.9, 0.95), lr=1),
    train=Loop(length=Epochs(2.5), clip_grad=None),
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


@pytest.mark.parametrize(
    ("part", "values", "said"),
    [
        (
            "optim",
            {"type": "filmstrip.train.config:Optim", "name": "sgd"},
            "Optim, which this version of .* not have",
        ),
        (
            "train",
            {"type": "filmstrip.train.config:Loop", "steps": 5, "epochs": None},
            "no field epochs, steps: .*another",
        ),
        ("optim", {"type": "filmstrip.train.optim:AdamW", "warmup": 0.1}, "no field warmup"),
    ],
)
def test_a_configuration_of_an_earlier_version_is_refused(tmp_path, part, values, said):
    write_config(RUN, path := tmp_path / "config.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | {part: values}))
    with pytest.raises(UserError, match=rf"config\.json: .*{said}"):
        read_config(path)


@pytest.mark.parametrize(
    "optim",
    [
        SGD(momentum=0.5, rates=(("encoder", 0.0), (r"head\.weight", 10.0))),
        Muon(schedule=WarmupStableDecay(warmup=Steps(20), decay=0.1, shape="sqrt"), weight_decay_end=0.4),
        AdamW(schedule=Constant(warmup=0)),
    ],
)
@pytest.mark.parametrize("length", [Steps(3), Epochs(0.5)])
def test_every_optimiser_and_length_makes_the_trip(optim, length):
    run = dataclasses.replace(RUN, optim=optim, train=Loop(length=length))
    assert round_trip(run) == run


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
    assert vtn.objective.num_positions == 9 and vtn.on_clip(CLIP).objective.num_positions == 13
    assert vtn.on_clip(dataclasses.replace(CLIP, num_frames=4)).objective.num_positions == 9
    read = [memvit.on_clip(Clip(num_frames=frames)).objective.num_frames for frames in (24, 16, 8, 12)]
    assert read == [8, 8, 8, 12]
