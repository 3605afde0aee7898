"""What a folder that holds a run takes for the same run, and what a start that fails leaves of it."""

import json
import logging
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from colour_videos import write_colours
from filmstrip import systems
from filmstrip.data.config import Clip, Data
from filmstrip.errors import UserError
from filmstrip.evals.multi_view import MultiView
from filmstrip.runs import experiment
from filmstrip.runs.config import differences, read_config
from filmstrip.train.config import Loop
from filmstrip.train.lengths import Epochs, Steps
from filmstrip.train.schedules import Constant, Cosine


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("videos")
    for colour in ("red", "blue"):
        for number in range(3):
            write_colours(folder / colour / f"{number}.mp4", colour, frames=12)
    return folder


@pytest.fixture
def run(videos):
    tiny = systems.find("recognition.vit:tiny")
    return replace(
        tiny,
        data=Data(path=videos, clip=Clip(num_frames=4, stride=1, size=16, short_side=(16, 16)), batch_size=2),
        objective=replace(tiny.objective, width=12, depth=1, num_heads=2, num_frames=4, size=16),
        train=Loop(length=Steps(2), log_every=1),
        evals=(),
    )


def changed(run, **parts):
    """The run with other settings, given as ``data={"num_workers": 0}``."""
    return replace(run, **{name: replace(getattr(run, name), **values) for name, values in parts.items()})


def quick(run):
    return changed(run, data={"num_workers": 0})


def rows(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize(
    "mistyped",
    [
        {"train": {"length": Steps(-5)}},
        {"data": {"batch_size": 0}},
        {"data": {"train_split": "trian"}},
        {"objective": {"num_heads": 5}},
        {"objective": {"num_frames": 8}},
    ],
)
def test_a_start_that_fails_leaves_the_folder_free(run, tmp_path, mistyped):
    run = quick(run)
    with pytest.raises((UserError, ValueError, ZeroDivisionError)):
        experiment.train(changed(run, **mistyped), tmp_path / "run")
    assert not (tmp_path / "run").exists()
    experiment.train(run, tmp_path / "run")
    assert read_config(tmp_path / "run" / "config.json").train == run.train


def test_a_mistyped_init_leaves_the_folder_free(run, tmp_path):
    with pytest.raises(UserError, match="not a folder"):
        experiment.train(replace(quick(run), init=str(tmp_path / "none")), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_run_that_saved_nothing_gives_way_to_another(run, tmp_path):
    run = quick(run)
    with pytest.raises(UserError, match="not finite"):
        experiment.train(changed(run, optim={"lr": 1e30}, train={"length": Steps(50)}), tmp_path)
    assert (tmp_path / "config.json").exists() and not (tmp_path / "state").exists()
    experiment.train(run, tmp_path)
    assert read_config(tmp_path / "config.json").optim == run.optim
    assert [row["step"] for row in rows(tmp_path)] == [1, 2]


def test_another_run_is_refused_and_it_is_said_what_differs(run, tmp_path):
    run = quick(run)
    experiment.train(run, tmp_path)
    other = replace(changed(run, optim={"lr": 0.5}, data={"batch_size": 3}), seed=7)
    with pytest.raises(UserError) as refused:
        experiment.train(other, tmp_path)
    said = "data.batch_size: 3 here, 2 there; optim.lr: 0.5 here, 0.001 there; seed: 7 here, 0 there"
    assert f"{tmp_path} holds another run ({said})" in str(refused.value)
    assert read_config(tmp_path / "config.json").seed == 0
    many = changed(
        run,
        optim={
            "lr": 0.5,
            "weight_decay": 0.5,
            "betas": (0.1, 0.1),
            "schedule": Cosine(warmup=0.5, start=0.5, final=0.5),
        },
    )
    with pytest.raises(UserError, match="; and 1 more"):
        experiment.train(many, tmp_path)
    method = replace(run, objective=systems.find("recognition.c3d:tiny").objective)
    with pytest.raises(UserError, match="objective: PlainCNNConfig here, ViTConfig there"):
        experiment.check_goes_on(tmp_path, method)


def test_settings_that_decide_nothing_of_what_is_learnt_may_change(run, tmp_path):
    run = changed(quick(run), train={"length": Steps(4), "save_every": 2})
    experiment.train(run, tmp_path / "through")
    stopped = changed(run, train={"length": Steps(2)})
    experiment.train(replace(stopped, train=replace(stopped.train, length=Steps(4), save_every=2)), tmp_path / "run")
    free = {"log_every": 3, "eval_every": 2, "save_every": 1, "checkpoint": True}
    again = replace(
        changed(run, train=free, data={"num_workers": 1, "max_unreadable": 0.5}),
        evals=(MultiView(num_clips=1, num_crops=1),),
    )
    result = experiment.train(again, tmp_path / "run")
    assert "top1" in result.metrics
    kept = read_config(tmp_path / "run" / "config.json")
    assert (kept.train.log_every, kept.data.num_workers, len(kept.evals)) == (3, 1, 1)
    left, right = (load_file(tmp_path / name / "weights.safetensors") for name in ("through", "run"))
    assert all(torch.equal(left[name], right[name]) for name in left)


def test_a_run_is_extended_with_the_rates_of_a_longer_one(run, tmp_path, caplog):
    run = changed(quick(run), optim={"lr": 1e-2, "schedule": Cosine(warmup=0.25)})
    experiment.train(changed(run, train={"length": Steps(4)}), tmp_path)
    with caplog.at_level(logging.WARNING):
        experiment.train(changed(run, train={"length": Steps(8)}), tmp_path)
    assert "extended from 4 to 8 steps" in caplog.text
    assert read_config(tmp_path / "config.json").train.length == Steps(8)
    expected = [1e-2 * Cosine(warmup=0.25).factor(step, 4 if step < 4 else 8) for step in range(8)]
    assert [row["lr"] for row in rows(tmp_path)] == pytest.approx(expected)
    with pytest.raises(UserError, match=r"train\.length: 6 steps here, 8 steps there.*longer, not shorter"):
        experiment.train(changed(run, train={"length": Steps(6)}), tmp_path)
    with pytest.raises(UserError, match=r"train\.length: 2 epochs here, 8 steps there.*longer, not shorter"):
        experiment.train(changed(run, train={"length": Epochs(2)}), tmp_path)
    epochs = changed(run, train={"length": Epochs(6)})  # of two steps
    experiment.train(epochs, tmp_path)
    assert [row["step"] for row in rows(tmp_path)] == list(range(1, 13))


def test_extending_goes_on_with_the_optimisers_state(run, tmp_path):
    """As one run whose schedule changes on the way: a constant rate shows no seam."""
    run = changed(quick(run), optim={"schedule": Constant()})
    experiment.train(changed(run, train={"length": Steps(2)}), tmp_path / "extended")
    experiment.train(changed(run, train={"length": Steps(4)}), tmp_path / "extended")
    experiment.train(changed(run, train={"length": Steps(4)}), tmp_path / "through")
    left, right = (load_file(tmp_path / name / "weights.safetensors") for name in ("extended", "through"))
    assert all(torch.equal(left[name], right[name]) for name in left)


def test_a_link_to_a_folder_is_followed_and_stays(run, tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "disk")
    experiment.train(quick(run), tmp_path / "link")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "disk" / "weights.safetensors").exists()


@pytest.mark.parametrize(
    "content", [b"{", b"\xff\xfe", b"[]", b'{"type": "filmstrip.runs.config:Run"}', b"", b'{"type": 3}']
)
def test_a_damaged_configuration_is_named(tmp_path, content):
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(UserError, match=r"config\.json"):
        read_config(tmp_path / "config.json")


def test_differences_are_found_at_any_depth(run):
    assert list(differences(run, run)) == []
    other = changed(run, data={"clip": replace(run.data.clip, short_side=(16, 20)), "num_workers": 9})
    assert [(str(found), found.change) for found in differences(other, run)] == [
        ("data.clip.short_side: [16, 20] here, [16, 16] there", "never"),
        ("data.num_workers: 9 here, 2 there", "free"),
    ]
