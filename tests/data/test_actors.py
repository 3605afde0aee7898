"""That actors are drawn where their boxes say, in files that AVA's reader reads, and that a box tells nothing."""

import itertools

import numpy as np
import pytest
import torch
from scipy import stats

from filmstrip.data.config import Clip, Data
from filmstrip.data.kinds.actors import ActorClips
from filmstrip.data.sources import open_source
from filmstrip.data.synthetic.actors import CLASSES, Actors
from filmstrip.errors import UserError
from filmstrip.video import open_video

SMALL = Actors(num_train=3, num_test=2, seconds=3)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return SMALL.generate(tmp_path_factory.mktemp("actors") / "small")


def test_files_are_in_the_layout_of_ava(folder):
    data = Data(path=folder, reads=ActorClips(annotations=folder), clip=Clip(num_frames=4, stride=2, size=64))
    source = open_source(data)
    assert source.classes == CLASSES and source.directional and source.evaluated == frozenset(range(8))
    assert {sample.split for sample in source.samples} == {"train", "test"}
    assert {sample.moment for sample in source.samples} <= {1.0, 2.0}
    for sample in source.samples:
        assert all(actor.person is not None and 1 <= len(actor.classes) <= 2 for actor in sample.actors)
        with open_video(sample.path) as video:
            assert (video.info.fps, video.info.duration, video.info.height) == (8, 3.0, 64)


def test_it_is_made_once(folder):
    assert SMALL.generate(folder) == folder


def test_boxes_enclose_what_moves():
    # Without a background the frame differs from it only where somebody is.
    still = Actors(num_actors=(1, 1), difficulty=0.0)
    for seed in range(3):
        video, keys = still.render(np.random.default_rng(seed))
        for second, actors in keys.items():
            for actor in actors:
                left, top, right, bottom = (round(side * 64) for side in actor.box)
                assert 0 <= left < right <= 64 and 0 <= top < bottom <= 64
                frame = video[second * 8].float()
                inside = frame[:, top:bottom, left:right].std()
                rest = frame.clone()
                rest[:, top:bottom, left:right] = rest.mean(dim=(1, 2), keepdim=True)[:, :, 0:1]
                assert inside > 1.2 * rest.std()


def test_a_box_says_nothing_of_what_is_done():
    drawn = [Actors(size=16, seconds=4).render(np.random.default_rng(seed))[1] for seed in range(100)]
    actors = [actor for keys in drawn for seen in keys.values() for actor in seen]
    boxes = np.array([actor.box for actor in actors])
    values = {"x": boxes[:, 0] + boxes[:, 2], "size": boxes[:, 2] - boxes[:, 0]}
    for one, other, of in (("left", "right", "x"), ("grow", "shrink", "size")):
        samples = [values[of][[CLASSES.index(way) in actor.classes for actor in actors]] for way in (one, other)]
        assert min(map(len, samples)) > 50
        assert stats.ks_2samp(*samples).pvalue > 0.01


def test_the_same_person_moves_on_and_whoever_comes_back_is_somebody_else():
    way = Actors(num_actors=(1, 1), both=0.0, seconds=8)
    for seed in range(4):
        _, keys = way.render(np.random.default_rng(seed))
        seen = [(second, actor) for second, actors in keys.items() for actor in actors]
        for (_, one), (_, other) in itertools.pairwise(seen):
            assert one.classes == other.classes
            shift = torch.tensor(other.box) - torch.tensor(one.box)
            if CLASSES[one.classes[0]] in ("left", "right") and one.person == other.person:
                assert (shift[0] > 0) == (CLASSES[one.classes[0]] == "right")
        assert len({actor.person for _, actor in seen}) == 1 + max((actor.person for _, actor in seen), default=-1)


@pytest.mark.parametrize(
    "wrong", [{"num_actors": (3, 2)}, {"seconds": 1}, {"both": 1.5}, {"num_train": 0}, {"size": 15}]
)
def test_settings_that_cannot_be_are_refused(wrong):
    with pytest.raises(UserError, match=next(iter(wrong))):
        Actors(**wrong)
