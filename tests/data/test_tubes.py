"""Boxes of key frames become tubes: by overlap, whatever the order in which they are given."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from filmstrip.data.boxes import area, intersection, iou
from filmstrip.data.detection.tubes import link


def box(x, y=0.0, size=0.2):
    return [x, y, x + size, y + size]


def boxes(*rows):
    return torch.tensor(rows, dtype=torch.float64).view(-1, 4)


def tracks(keys, **settings):
    """Each tube as what was linked: left sides by second."""
    tubes = link(keys, **settings)
    return [
        {second: round(float(keys[second][place][0]), 3) for second, place in zip(tube.seconds, tube.places)}
        for tube in tubes
    ]


def test_overlap_of_boxes():
    one, other = boxes([0, 0, 2, 2], [5, 5, 5, 5]), boxes([1, 0, 3, 2], [0, 0, 2, 2], [5, 5, 5, 5])
    torch.testing.assert_close(iou(one, other), torch.tensor([[1 / 3, 1.0, 0.0], [0, 0, 0]], dtype=torch.float64))
    assert area(intersection(one[0], boxes([3, 3, 4, 4])[0])) == 0


def test_two_actors_who_pass_each_other_keep_their_boxes():
    keys = {
        1.0: boxes(box(0.1), box(0.6, 0.15)),
        2.0: boxes(box(0.5, 0.15), box(0.2)),
        3.0: boxes(box(0.3), box(0.4, 0.15)),
    }
    assert tracks(keys) == [{1.0: 0.1, 2.0: 0.2, 3.0: 0.3}, {1.0: 0.6, 2.0: 0.5, 3.0: 0.4}]


def test_what_overlaps_most_is_linked_first():
    keys = {1.0: boxes(box(0.0), box(0.06)), 2.0: boxes(box(0.05))}
    assert tracks(keys) == [{1.0: 0.0}, {1.0: 0.06, 2.0: 0.05}]


def test_a_tube_bridges_a_short_gap_and_ends_in_a_long_one():
    near = {1.0: boxes(box(0.1)), 2.0: boxes(), 3.0: boxes(box(0.15))}
    assert tracks(near) == [{1.0: 0.1, 3.0: 0.15}]
    assert tracks(near, max_gap=1.0) == [{1.0: 0.1}, {3.0: 0.15}]
    assert tracks({1.0: boxes(box(0.1)), 5.0: boxes(box(0.1))}) == [{1.0: 0.1}, {5.0: 0.1}]


def test_what_lies_elsewhere_is_somebody_else():
    keys = {1.0: boxes(box(0.1)), 2.0: boxes(box(0.22))}
    assert len(tracks(keys)) == 2 and len(tracks(keys, min_iou=0.2)) == 1
    assert link({}) == []


coordinates = st.floats(0, 0.75, width=16)


@given(st.lists(st.lists(st.tuples(coordinates, coordinates), max_size=4), max_size=4), st.randoms())
def test_each_box_is_in_one_tube_and_order_does_not_matter(frames, random):
    keys = {float(s): boxes(*(box(x, y) for x, y in corners)) for s, corners in enumerate(frames)}
    tubes = link(keys)
    used = sorted((second, place) for tube in tubes for second, place in zip(tube.seconds, tube.places))
    assert used == [(second, place) for second in keys for place in range(len(keys[second]))]
    assert all(tube.seconds == sorted(set(tube.seconds)) for tube in tubes)
    orders = {second: random.sample(range(len(found)), len(found)) for second, found in keys.items()}
    shuffled = link({second: found[orders[second]] for second, found in keys.items()})

    def lengths(given_tubes):
        return sorted(len(tube.seconds) for tube in given_tubes)

    distinct = all(len({tuple(row) for row in found.tolist()}) == len(found) for found in keys.values())
    pairs = [float(v) for s in keys if s + 1 in keys for v in iou(keys[s], keys[s + 1]).flatten() if v > 0]
    if distinct and len(set(pairs)) == len(pairs):  # where no two pairs overlap alike
        assert lengths(shuffled) == lengths(tubes)
