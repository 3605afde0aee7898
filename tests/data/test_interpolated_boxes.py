"""Boxes between key frames."""

import numpy as np
import pytest

from filmstrip.data.detection.interpolation import interpolated
from filmstrip.data.detection.types import Actor


def at(left: float, person: int | None = None, score: float = 1.0) -> Actor:
    return Actor((left, 0.2, left + 0.4, 0.8), person=person, score=score)


def test_boxes_of_a_person_go_in_a_straight_line():
    found = interpolated({0.0: (at(0.0, 1),), 2.0: (at(0.4, 1),)}, 0.5)
    assert list(found) == [0.0, 0.5, 1.0, 1.5, 2.0]
    assert np.allclose([actors[0].box[0] for actors in found.values()], [0.0, 0.1, 0.2, 0.3, 0.4])
    assert all(actors[0].person == 1 and np.allclose(actors[0].box[1::2], (0.2, 0.8)) for actors in found.values())


def test_persons_that_cross_keep_their_ways():
    found = interpolated({0.0: (at(0.0, 1), at(0.6, 2)), 1.0: (at(0.0, 2), at(0.6, 1))}, 0.25)
    assert {actor.person: actor.box[0] for actor in found[0.25]} == pytest.approx({1: 0.15, 2: 0.45})


def test_without_persons_boxes_are_followed_by_overlap():
    found = interpolated({1.0: (at(0.0, score=0.8), at(0.55)), 2.0: (at(0.5), at(0.1, score=1.0))}, 0.5)
    assert list(found) == [1.0, 1.5, 2.0]
    assert sorted(actor.box[0] for actor in found[1.5]) == pytest.approx([0.05, 0.525])
    assert min(actor.score for actor in found[1.5]) == pytest.approx(0.9)


def test_there_is_nothing_within_long_gaps_and_key_frames_stay():
    keys = {0.1: (at(0.0, 1),), 0.9: (at(0.1, 1),), 5.0: (at(0.0, 1),), 6.0: ()}
    found = interpolated(keys, 0.3, max_gap=2.0)
    assert list(found) == pytest.approx([0.1, 0.3, 0.6, 0.9, 5.0, 6.0])
    assert all(found[second] == actors for second, actors in keys.items())


def test_several_actors_of_a_moment_are_in_one_place():
    found = interpolated({0.0: (at(0.0, 1),), 0.3: (at(0.5, 2),), 0.6: (at(0.1, 1), at(0.5, 2))}, 0.1, max_gap=1.0)
    assert list(found) == pytest.approx([0.1 * i for i in range(7)])
    assert [len(actors) for actors in found.values()] == [1, 1, 1, 2, 2, 2, 2]
