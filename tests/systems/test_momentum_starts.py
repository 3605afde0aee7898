"""Methods with a momentum teacher that start from elsewhere: the first step already learns from what was started."""

from dataclasses import replace

import pytest
import torch
from drawn import draw_batch
from torch import nn

from filmstrip import systems
from filmstrip.runs.initial_weights import start
from run_folders import save_run


def lsmcl():
    return systems.find("pretraining.lsmcl:tiny").objective


def mvd():
    return replace(systems.find("pretraining.mvd:tiny").objective, teachers="video", momentum=0.9)


def vjepa():
    return systems.find("pretraining.vjepa:tiny").objective


KINDS = {
    "pretraining.lsmcl": (lsmcl, lambda n: (n.teacher, nn.ModuleList([n.encoder, n.projector]))),
    "pretraining.mvd": (mvd, lambda n: (n.video_teacher.encoder, n.encoder)),
}


def saved(tmp_path, name, config):
    """A run with random weights, as of long training: its teacher is not its student."""
    given = systems.find(f"{name}:tiny").objective
    changes = {key: getattr(config, key) for key in ("teachers", "momentum") if hasattr(given, key)}
    return save_run(tmp_path / "there", f"{name}:tiny", **changes)[0]


def same(first, second):
    theirs = second.state_dict()
    return all(torch.equal(value, theirs[name]) for name, value in first.state_dict().items())


@pytest.mark.parametrize("name", KINDS)
def test_the_teacher_begins_as_the_student_that_was_started(tmp_path, name):
    make, parts = KINDS[name]
    there = saved(tmp_path, name, make())
    objective = make().build()
    fresh = make().build()
    assert not same(parts(objective)[0], parts(there)[1])
    start(objective, tmp_path / "there")
    teacher, student = parts(objective)
    assert same(student, parts(there)[1]) and same(teacher, student)
    assert not any(p.requires_grad for p in teacher.parameters()) and not same(fresh.encoder, objective.encoder)
    trained = {n: p for n, p in there.named_parameters() if p.requires_grad}  # heads and decoders, too
    assert trained and all(torch.equal(p, trained[n]) for n, p in objective.named_parameters() if n in trained)


def test_the_first_loss_has_targets_of_the_weights_that_were_started(tmp_path):
    there = saved(tmp_path, "pretraining.lsmcl", lsmcl())
    torch.manual_seed(1)
    objective = lsmcl().build().eval()
    start(objective, tmp_path / "there")
    batch = draw_batch(systems.find("pretraining.lsmcl:tiny").data, size=2, seed=0)
    there.started()
    with torch.no_grad():
        expected = there.eval().targets(batch["video"], batch["seed"])
        assert torch.equal(objective.targets(batch["video"], batch["seed"]), expected)


def test_an_encoder_of_another_method_starts_student_and_teacher(tmp_path):
    there, _ = save_run(tmp_path / "there", "pretraining.videomae:tiny")
    config = replace(mvd(), **{key: getattr(systems.find("pretraining.videomae:tiny").objective, key) for key in (
        "width", "depth", "num_heads", "num_frames", "size", "patch_size")})  # fmt: skip
    objective = config.build()
    start(objective, tmp_path / "there")
    assert same(objective.encoder, there.encoder) and same(objective.video_teacher.encoder, there.encoder)


def test_vjepa_keeps_the_teacher_of_the_run_that_it_starts_from(tmp_path):
    there, _ = save_run(tmp_path / "there", "pretraining.vjepa:tiny")
    objective = vjepa().build()
    start(objective, tmp_path / "there")
    assert same(objective, there) and not same(objective.teacher, objective.student)
