"""Boxes between key frames: those of one actor go from one key frame to the next in a straight line."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping
from itertools import pairwise

import torch

from filmstrip.data.detection.tubes import link
from filmstrip.data.detection.types import Actor

_SAME = 1e-6
"""Seconds within which two moments are one."""


def interpolated(
    boxes: Mapping[float, tuple[Actor, ...]], every: float, *, min_iou: float = 0.3, max_gap: float = 2.0
) -> dict[float, tuple[Actor, ...]]:
    """The actors of key frames, by their seconds, and between two of them those at every multiple of ``every``
    seconds.

    An actor is followed by its person, where all have one, and otherwise by overlap (:func:`link`, with ``min_iou``).
    Between key frames that are more than ``max_gap`` seconds apart it was not there. Scores are interpolated too.
    """
    found: dict[float, list[Actor]] = defaultdict(list)
    for second, actors in boxes.items():
        found[second] += actors
    for track in _tracks(boxes, min_iou, max_gap):
        for (first, one), (last, other) in pairwise(track):
            if last - first > max_gap + _SAME:
                continue
            for number in range(math.ceil(first / every - _SAME), math.floor(last / every + _SAME) + 1):
                second = number * every
                if first + _SAME < second < last - _SAME:
                    found[_near(found, second)].append(_between(one, other, (second - first) / (last - first)))
    return {second: tuple(actors) for second, actors in sorted(found.items())}


def _near(found: Mapping[float, list[Actor]], second: float) -> float:
    """The moment of a key frame that is this one up to rounding, or the moment itself."""
    return second if second in found else round(second, 6)


def _tracks(
    boxes: Mapping[float, tuple[Actor, ...]], min_iou: float, max_gap: float
) -> Iterator[list[tuple[float, Actor]]]:
    """Each actor's moments and boxes, in order."""
    every = [actor for actors in boxes.values() for actor in actors]
    if every and all(actor.person is not None for actor in every):
        persons: dict[int, list[tuple[float, Actor]]] = defaultdict(list)
        for second, actors in sorted(boxes.items()):
            for actor in actors:
                assert actor.person is not None, "all have one"
                persons[actor.person].append((second, actor))
        yield from persons.values()
        return
    places = {
        second: torch.tensor([actor.box for actor in actors], dtype=torch.float64)
        for second, actors in boxes.items()
        if actors
    }
    for tube in link(places, min_iou=min_iou, max_gap=max_gap):
        yield [(second, boxes[second][place]) for second, place in zip(tube.seconds, tube.places)]


def _between(one: Actor, other: Actor, share: float) -> Actor:
    """The actor at a share of the way from one key frame to the next."""
    left, top, right, bottom = (a + share * (b - a) for a, b in zip(one.box, other.box))
    return Actor((left, top, right, bottom), one.classes, one.person, one.score + share * (other.score - one.score))
