"""Demonstrations: the expert solves what it is given, and the files say what it did and would do."""

import dataclasses

import numpy as np
import pytest
import torch

from filmstrip.data.synthetic.demonstrations import Demonstrations, TableTask, at_random, expert, play, task_in
from filmstrip.errors import UserError
from filmstrip.video.decode import read_video


@pytest.mark.parametrize("goal", ["touch", "push"])
def test_the_expert_solves_all_and_random_actions_do_not(goal):
    task = TableTask(goal=goal)
    episodes = [task.begin((3, i), 32) for i in range(40)]
    assert not any(episode.solved for episode in episodes)
    play(episodes, expert)
    assert all(episode.solved for episode in episodes)
    others = [task.begin((3, i), 32) for i in range(40)]
    play(others, at_random(0))
    assert sum(episode.solved for episode in others) < 12


def test_files_hold_what_was_done_and_what_the_expert_advises(tmp_path):
    task = TableTask(steps=8)
    wanted = Demonstrations(task=task, num_train=2, num_test=1, size=32)
    folder = wanted.generate(tmp_path / "set")
    assert task_in(folder) == task and task_in(tmp_path) is None
    assert len(list(folder.glob("*/*.mp4"))) == 3
    with np.load(folder / "train/00001.actions.npz") as rows:
        assert np.allclose(rows["actions"][0], 0)
        assert np.allclose(rows["actions"][1:], rows["expert"][:-1])  # nobody but the expert acts here
        assert rows["things"].shape == (9, 1, 3)
        episode = task.begin((0, 0, 1), 32)
        film = episode.table.film(rows["gripper"].astype(float), rows["things"].astype(float))
    shown = read_video(folder / "train/00001.mp4").video
    assert shown.shape == film.shape and (shown.float() - film.float()).abs().mean() < 6
    table = episode.table
    assert torch.equal(table.frame(), table.film(table.gripper[None], table.things[None])[0])


def test_advice_is_given_where_others_act():
    task = TableTask(steps=6)
    [recording] = play([task.begin(5, 32)], at_random(1))
    advised, done = (np.stack(recording.rows[key]) for key in ("expert", "actions"))
    assert np.abs(advised[:-1] - done[1:]).mean() > 0.3
    again = dataclasses.replace(task, steps=3)
    assert np.allclose(play([again.begin(5, 32)], at_random(1))[0].rows["expert"][3], advised[3])


def test_a_note_of_another_kind_is_refused(tmp_path):
    (tmp_path / "dataset.json").write_text('{"task": {"goal": "push", "weight": 3}}')
    with pytest.raises(UserError, match='"task" is no task of the set `demonstrations`'):
        task_in(tmp_path)
