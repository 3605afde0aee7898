"""Pushing: actions lead from state to state, things move only when something moves them, and the picture shows it."""

import numpy as np
import pytest
import torch

from filmstrip.data.config import Clip, Data
from filmstrip.data.reading.loader import TrainLoader
from filmstrip.data.sources import open_path
from filmstrip.data.synthetic.pushing import GRIPPER, MARGIN, ROUND, SPEED, Pushing, draw, simulate
from filmstrip.errors import UserError
from filmstrip.video.decode import read_video

RADII = np.array([0.08, 0.1, 0.12])


@pytest.mark.parametrize("seed", range(4))
def test_the_gripper_does_as_it_is_told(seed):
    motion = simulate(np.random.default_rng(seed), RADII, 40)
    assert np.abs(motion["actions"]).max() <= 1 and motion["actions"].std() > 0.2
    told = np.clip(motion["gripper"][:-1] + SPEED * motion["actions"][1:], MARGIN, 1 - MARGIN)
    assert np.allclose(motion["gripper"][1:], told, atol=1e-9)


def test_things_rest_until_touched_and_never_leave_the_table():
    moved_frames = []
    for seed in range(10):
        motion = simulate(np.random.default_rng(seed), RADII, 40)
        things, gripper = motion["things"], motion["gripper"]
        assert (things[..., :2] >= MARGIN).all() and (things[..., :2] <= 1 - MARGIN).all()
        moved = np.linalg.norm(np.diff(things[..., :2], axis=0), axis=-1)
        to_gripper = np.linalg.norm(things[..., :2] - gripper[:, None], axis=-1) - ROUND * RADII - GRIPPER
        # A thing that moves is next to the gripper, or something that moves is next to it: a chain has a first link.
        first = (moved > 1e-3).any(axis=1)
        near = (np.minimum(to_gripper[1:], to_gripper[:-1]) < 2 * SPEED).any(axis=1)
        assert (near | ~first).all()
        # Only where a thing is wedged into a corner does the gripper pass over it.
        from_rim = np.minimum(things[..., :2], 1 - things[..., :2]).max(axis=-1)
        assert (to_gripper[from_rim > 0.25] > -0.03).all()
        moved_frames.append(first.mean())
    assert 0.2 < np.mean(moved_frames) < 0.95


def test_the_picture_shows_where_things_are():
    gripper, things = np.array([[0.9, 0.15]] * 2), np.array([[[0.3, 0.5, 0.0]], [[0.3, 0.75, 0.0]]])
    still, moved = (
        draw(np.random.default_rng(0), np.array([0.1]), gripper, states, 64).float()
        for states in (things[[0, 0]], things)
    )
    assert torch.equal(still[0], still[1]) and torch.equal(still[0], moved[0])
    change = (moved[1] - moved[0]).abs().sum(dim=0)
    changed = change.nonzero()
    assert changed[:, 0].min() >= 64 * 0.38 and changed[:, 0].max() <= 64 * 0.9
    assert changed[:, 1].min() >= 64 * 0.18 and changed[:, 1].max() <= 64 * 0.45
    assert change[26:39, 13:26].mean() > 30


def test_the_set_is_real_files_with_actions(tmp_path):
    config = Pushing(num_train=3, num_test=2, num_frames=10, size=32, num_things=2)
    source = open_path(config.generate(tmp_path / "out"))
    info = source.info("train")
    assert (info.num_train, info.num_actions, info.action_dim, info.directional) == (3, 0, 2, True)
    data = Data(clip=Clip(num_frames=10, stride=1, size=32, short_side=(32, 32)), batch_size=3, num_workers=0)
    batch = next(TrainLoader(source, data, seed=0).stream(0))
    assert batch["action"].shape == (3, 10, 2) and batch["action"].dtype == torch.float32
    drawn, motion = config.render(np.random.default_rng((0, 1, 1)))
    assert np.array_equal(config.render(np.random.default_rng((0, 1, 1)))[1]["things"], motion["things"])
    with np.load(tmp_path / "out/test/00001.actions.npz") as stored:
        assert np.allclose(stored["actions"], motion["actions"], atol=1e-6)
    shown = read_video(tmp_path / "out/test/00001.mp4").video
    assert shown.shape == (10, 3, 32, 32) and (shown.float() - drawn.float()).mean(dim=1).abs().mean() < 6


@pytest.mark.parametrize("wrong", [{"num_train": 0}, {"num_things": 0}, {"num_things": 9}, {"size": 31}])
def test_settings_that_make_no_sense(wrong):
    with pytest.raises(UserError, match="expected"):
        Pushing(**wrong)
