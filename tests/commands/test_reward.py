"""The film of ``filmstrip reward``: names and curves share colours, and a map is beside films that have one."""

import numpy as np
import pytest
import torch

from filmstrip.commands.work.reward import COLOURS, GAP, TITLE, drawn
from filmstrip.rl.rewards import Rewards


def rewards(length, places):
    rng = np.random.default_rng(length)
    return Rewards(rng.normal(size=length), rng.normal(size=(length, places, places)).astype(np.float32))


def has(picture, colour):
    return (picture.int() - torch.tensor(colour)[:, None, None]).abs().sum(dim=0).min() < 30


@pytest.mark.parametrize(("places", "width"), [(1, 128), (4, 256)])
def test_films_stand_side_by_side_under_their_names(places, width):
    films = [torch.full((length, 3, 32, 32), 77, dtype=torch.uint8) for length in (5, 3)]
    film = drawn(["one.mp4", "x" * 90 + "/two.mp4"], films, [rewards(5, places), rewards(3, places)], scale=4)
    assert film.shape[0] == 5 and film.dtype == torch.uint8
    assert film.shape[3] == 2 * width + GAP and film.shape[2] > TITLE + 128
    for number in range(2):
        title = film[1, :, :TITLE, number * (width + GAP) :][..., :width]
        assert has(title, COLOURS[number]) and not has(title, COLOURS[1 - number])
        assert has(film[1, :, TITLE + 128 :], COLOURS[number])
    picture = film[2, :, TITLE : TITLE + 128, :width]
    assert (picture[..., :128] == 77).all() and (places == 1 or not (picture[..., 128:] == 77).all())
    assert torch.equal(film[3, :, :TITLE, width:], film[4, :, :TITLE, width:])  # the shorter film's last frame stays
