"""That untrimmed videos are real files which agree with their annotations."""

from dataclasses import replace

import av
import numpy as np
import pytest

from filmstrip.data.annotations.own import read_own
from filmstrip.data.config import Data
from filmstrip.data.kinds.untrimmed import UntrimmedVideos
from filmstrip.data.sources import open_path, open_source
from filmstrip.data.synthetic.untrimmed import ACTIONS, Untrimmed
from filmstrip.errors import UserError

SMALL = Untrimmed(num_train=2, num_test=1, actions=(2, 2), action_frames=(6, 9), background_frames=(5, 7), size=32)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return SMALL.generate(tmp_path_factory.mktemp("untrimmed") / "small")


def frames_of(path):
    with av.open(str(path)) as file:
        return np.stack([frame.to_ndarray(format="gray") for frame in file.decode(video=0)]).astype(float)


def test_files_last_as_long_as_their_annotations_say(folder):
    found = read_own(folder)
    assert found.procedures == SMALL.annotations().procedures and found.steps == ACTIONS
    assert (len(found.split("train")), len(found.split("test"))) == (2, 1)
    for video in found.procedures:
        assert len(frames_of(folder / video.video)) == round(video.seconds * SMALL.fps)
        moments = [0.0, *(moment for step in video.steps for moment in (step.start, step.end)), video.seconds]
        lengths = np.round(np.diff(moments) * SMALL.fps)
        assert all(5 <= n <= 7 for n in lengths[::2]) and all(6 <= n <= 9 for n in lengths[1::2])


def test_actions_move_and_background_rests():
    still = Untrimmed(num_train=1, num_test=1, difficulty=0.0)._motions(8)
    changes = {}
    for motion in (None, "left"):
        video = still.render(motion, np.random.default_rng(0)).float()
        changes[motion] = float(video.diff(dim=0).abs().mean())
    assert changes[None] < 0.6 * changes["left"]


def test_the_folder_is_a_collection_of_whole_videos(folder):
    source = open_path(folder)
    assert len(source.samples) == 3 and source.directional
    assert {sample.name for sample in source.samples} == {video.video for video in SMALL.annotations().procedures}


def test_features_need_no_pixels(tmp_path, monkeypatch):
    monkeypatch.setenv("FILMSTRIP_CACHE", str(tmp_path / "cache"))
    source = open_source(Data(synthetic=Untrimmed(), reads=UntrimmedVideos()))
    assert source.classes == ACTIONS and len(source.split("test")) == 20 and not (tmp_path / "cache").exists()


def test_what_cannot_be_drawn_is_refused():
    for wrong in ({"actions": (0, 2)}, {"action_frames": (9, 5)}, {"num_train": 0}, {"size": 17}):
        with pytest.raises(UserError):
            replace(SMALL, **wrong)
