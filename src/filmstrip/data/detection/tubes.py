"""Linking the boxes of key frames to tubes: the same actor, followed through a video."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from filmstrip.data.boxes import iou


@dataclass
class Tube:
    """One actor: the times of key frames in seconds, and the index of the actor's box in each."""

    seconds: list[float]
    places: list[int]


def link(boxes: Mapping[float, Tensor], *, min_iou: float = 0.3, max_gap: float = 2.0) -> list[Tube]:
    """Tubes through the ``boxes`` (``M 4``) of a video's key frames, by their seconds; each box is in exactly one.

    Greedily, forwards in time, as in Kalogeiton et al. 2017 (ACT) and Singh et al. 2017; but what overlaps most goes
    first, since boxes of persons are linked before anybody says what they do. Of all pairs of a tube's last box and
    one of the next key frame whose intersection over union is ``min_iou`` or more, that with the largest is linked,
    then the next. A box that is left begins a tube; one that found no box for more than ``max_gap`` seconds has
    ended. Tubes are in the order in which they begin.
    """
    tubes: list[Tube] = []
    for second in sorted(boxes):
        going = [tube for tube in tubes if second - tube.seconds[-1] <= max_gap + 1e-6]
        pairs = []
        for i, tube in enumerate(going):
            last = boxes[tube.seconds[-1]][tube.places[-1]]
            shared = iou(last[None], boxes[second])[0].tolist()
            pairs += [(-overlap, i, place) for place, overlap in enumerate(shared) if overlap >= min_iou]
        linked: set[int] = set()
        taken: set[int] = set()
        for _, i, place in sorted(pairs):
            if i not in linked and place not in taken:
                linked.add(i)
                taken.add(place)
                going[i].seconds.append(second)
                going[i].places.append(place)
        tubes += [Tube([second], [place]) for place in range(len(boxes[second])) if place not in taken]
    return tubes
