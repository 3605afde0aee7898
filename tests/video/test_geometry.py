"""Which part of the frame clips show."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from filmstrip.video.decoder import Crop
from filmstrip.video.geometry import centre_crop, random_resized, random_short_side, three_crops

sides = st.integers(1, 2000)
seeds = st.integers(0, 2**32)


def inside(box, height, width):
    return (
        min(box.top, box.left) >= 0
        and min(box.height, box.width) >= 1
        and box.top + box.height <= height
        and box.left + box.width <= width
    )


@given(sides, sides, st.tuples(st.integers(1, 400), st.integers(1, 400)), seeds)
def test_every_box_lies_inside(height, width, size, seed):
    rng = np.random.default_rng(seed)
    boxes = [
        centre_crop(height, width, size),
        centre_crop(height, width, size, 256),
        *three_crops(height, width, size),
        random_short_side(height, width, size, (256, 320), rng),
        random_resized(height, width, (0.08, 1.0), (3 / 4, 4 / 3), rng),
    ]
    assert all(inside(box, height, width) for box in boxes)


def test_centre_and_three_crops():
    assert centre_crop(256, 340, (224, 224)) == Crop(0, 42, 256, 256)
    assert centre_crop(256, 340, (224, 224), 256) == Crop(16, 58, 224, 224)
    assert [box.left for box in three_crops(256, 340, (224, 224))] == [0, 42, 84]
    assert [box.top for box in three_crops(340, 256, (224, 224))] == [0, 42, 84]


def test_random_short_side_scales_as_asked():
    rng = np.random.default_rng(0)
    boxes = [random_short_side(256, 340, (224, 224), (256, 320), rng) for _ in range(500)]
    heights = np.array([box.height for box in boxes])
    assert heights.min() == round(224 * 256 / 320) and heights.max() == 224
    assert all(box.height == box.width for box in boxes)
    assert min(box.left for box in boxes) < 10 and max(box.left + box.width for box in boxes) > 330


def test_random_resized_covers_the_asked_share_and_shape():
    rng = np.random.default_rng(0)
    boxes = [random_resized(240, 320, (0.3, 0.6), (3 / 4, 4 / 3), rng) for _ in range(500)]
    shares = np.array([box.height * box.width for box in boxes]) / (240 * 320)
    shapes = np.array([box.width / box.height for box in boxes])
    assert 0.29 < shares.min() < 0.33 and 0.57 < shares.max() < 0.61
    assert 0.74 < shapes.min() < 0.8 and 1.25 < shapes.max() < 1.35


def test_random_resized_falls_back_to_the_middle():
    rng = np.random.default_rng(0)
    assert random_resized(10, 1000, (1.0, 1.0), (3 / 4, 4 / 3), rng) == Crop(0, 493, 10, 13)
