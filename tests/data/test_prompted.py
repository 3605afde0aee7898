"""Clips of a robot with films that show its task: which belong together, and what is refused."""

import shutil
from dataclasses import replace

import pytest
import torch

from filmstrip.data.config import Clip, Data
from filmstrip.data.kinds.prompted import VOCABULARY, Prompted
from filmstrip.data.reading.loader import EvalLoader, TrainLoader
from filmstrip.data.sources import open_source
from filmstrip.errors import UserError
from filmstrip.rl.films import PromptedFilms

SET = PromptedFilms(tasks=("left", "up"), num_train=3, num_test=2, max_steps=6)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return SET.generate(tmp_path_factory.mktemp("prompted") / "set")


@pytest.fixture
def data(folder):
    clip = Clip(num_frames=3, stride=1, size=32, short_side=(32, 32))
    return Data(path=folder, reads=Prompted(prompt_frames=4, max_length=8), clip=clip, batch_size=4, num_workers=0)


def test_batches_of_real_files_are_as_declared_and_prompts_are_of_the_same_task(data, folder):
    source = open_source(data)
    assert source.classes == ("left", "up") and source.info("train").action_dim == 2
    for sample in source.samples:
        assert f"robot/{sample.split}/{sample.task}/" in sample.path and len(sample.prompts) in (2, 3)
        assert all(f"prompts/{sample.split}/{sample.task}/" in path for path in sample.prompts)
    for loader in (EvalLoader(source, data, "test", batch_size=4), TrainLoader(source, data, seed=0).stream(0)):
        batch = next(iter(loader))
        assert list(source.kind.specification.faults(batch)) == []
        assert batch["prompt"].shape == batch["film"].shape == (4, 4, 3, 32, 32)
        for ids, label in zip(batch["text"], batch["label"]):
            assert VOCABULARY.decode(ids.tolist()).strip() == source.classes[int(label)]
    # The arm of the prompts is orange, that of the robot grey.
    red, blue = batch["prompt"].float().amax(dim=(1, 3, 4))[:, [0, 2]].T
    assert (red > blue + 30).all()
    red, blue = batch["film"].float().amax(dim=(1, 3, 4))[:, [0, 2]].T
    assert (blue >= red - 30).all()


def test_training_draws_among_prompts_and_the_draw_is_repeated(data):
    source = open_source(data)

    def drawn(start):
        stream = TrainLoader(source, data, seed=3).stream(start)
        return [next(stream)["prompt"] for _ in range(4 - start)]

    all_of_them = drawn(0)
    assert torch.equal(all_of_them[2], drawn(2)[0])
    assert len({part.numpy().tobytes() for batch in all_of_them for part in batch}) > 2


@pytest.mark.parametrize("lost", ["prompts", "prompts/train/up", "robot", "robot/train/left/00000.actions.npz"])
def test_what_is_missing_is_told(data, folder, tmp_path, lost):
    copy = shutil.copytree(folder, tmp_path / "copy")
    if lost.endswith(".npz"):
        for path in copy.glob("robot/*/*/*.actions.npz"):
            path.unlink()
    else:
        shutil.rmtree(copy / lost)
    with pytest.raises(UserError, match=r"no folder|no film of the task 'up'|no actions that are vectors"):
        open_source(replace(data, path=copy))
