"""That recipes are real files which agree with their annotations, and that their grammar is worth learning."""

from collections import Counter
from dataclasses import replace

import av
import numpy as np
import pytest

from filmstrip.data.annotations.own import read_own
from filmstrip.data.config import Data
from filmstrip.data.kinds.procedures import Procedures
from filmstrip.data.sources import open_path, open_source
from filmstrip.data.synthetic.recipes import CAPTIONS, STEPS, TASKS, Recipes, Stage, order
from filmstrip.errors import UserError

SMALL = Recipes(train_per_task=1, test_per_task=1, step_frames=4, pause_frames=1, size=16)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return SMALL.generate(tmp_path_factory.mktemp("recipes") / "small")


def test_files_last_as_long_as_their_annotations_say(folder):
    found = read_own(folder)
    assert found.procedures == SMALL.annotations().procedures and found.tasks == tuple(TASKS)
    assert len(found.split("train")) == len(found.split("test")) == len(TASKS)
    for procedure in found.procedures:
        with av.open(str(folder / procedure.video)) as file:
            shown = sum(1 for _ in file.decode(video=0))
        assert shown == round(procedure.steps[-1].end * SMALL.fps)
        assert procedure.steps[0].start == 1 / SMALL.fps
        gaps = [after.start - before.end for before, after in zip(procedure.steps, procedure.steps[1:])]
        assert gaps == [1 / SMALL.fps] * len(gaps)


def test_pauses_stand_still_and_steps_move(folder):
    first = SMALL.annotations().procedures[0]
    with av.open(str(folder / first.video)) as file:
        frames = np.stack([frame.to_ndarray(format="gray") for frame in file.decode(video=0)]).astype(float)
    change = np.abs(np.diff(frames, axis=0)).mean(axis=(1, 2))
    begin = round(first.steps[1].start * SMALL.fps)
    assert change[begin - 1] < change[begin : begin + 3].mean() < change[begin - 2]


def test_every_step_is_a_clip_with_a_label_and_a_caption(folder):
    source = open_path(folder)
    steps = [(p.video, s) for p in SMALL.annotations().procedures for s in p.steps]
    assert source.classes == STEPS and source.directional and len(source.samples) == len(steps)
    for sample, (video, step) in zip(source.samples, steps):
        assert sample.name.startswith(f"{video} [") and (sample.start, sample.end) == (step.start, step.end)
        assert sample.label == step.step and sample.text == (CAPTIONS[STEPS[step.step]],)


def test_procedures_need_no_pixels(tmp_path, monkeypatch):
    monkeypatch.setenv("FILMSTRIP_CACHE", str(tmp_path / "cache"))
    source = open_source(Data(synthetic=Recipes(), reads=Procedures()))
    assert len({sample.window.procedure.video for sample in source.split("train")}) == 160
    assert source.info("train").steps == STEPS and not (tmp_path / "cache").exists()


def test_the_same_seed_gives_the_same_recipes_and_another_others():
    assert Recipes().annotations().procedures == Recipes().annotations().procedures
    assert Recipes().annotations().procedures != Recipes(seed=1).annotations().procedures


def test_stages_are_left_out_and_swapped_half_of_the_time():
    stages = (Stage("left"), Stage("up", swaps=True), Stage("down"), Stage("grow", optional=True))
    rng = np.random.default_rng(0)
    ways = Counter(tuple(order(stages, rng)) for _ in range(800))
    assert set(ways) == {
        ("left", *middle, *last) for middle in (("up", "down"), ("down", "up")) for last in ((), ("grow",))
    }
    assert all(140 < count < 260 for count in ways.values())


def test_what_comes_next_takes_more_than_the_last_step():
    after, after_two = {}, {}
    for procedure in Recipes(train_per_task=100).annotations().split("train"):
        steps = [step.step for step in procedure.steps]
        for i in range(2, len(steps)):
            after.setdefault(steps[i - 1], Counter())[steps[i]] += 1
            after_two.setdefault((procedure.task, *steps[:i]), Counter())[steps[i]] += 1

    def best(counts):
        return sum(max(c.values()) for c in counts.values()) / sum(sum(c.values()) for c in counts.values())

    assert best(after) < 0.55 and best(after_two) > 0.75


def test_what_cannot_be_drawn_is_refused():
    with pytest.raises(UserError, match="expected a whole number"):
        replace(SMALL, step_frames=0)
    with pytest.raises(UserError, match="multiple of 2"):
        replace(SMALL, size=17)
