"""What is said of a scene of plain shapes: captions, paraphrases, and questions with answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from filmstrip.errors import UserError

COLOURS = {
    "red": (225, 40, 40),
    "green": (40, 190, 60),
    "blue": (60, 90, 245),
    "yellow": (240, 215, 50),
    "purple": (170, 60, 220),
    "white": (240, 240, 240),
}
"""Colours of shapes, by the word for each."""
FORMS = ("disc", "square", "triangle", "cross")
SIZES = {"small": 0.065, "medium": 0.1, "big": 0.15}
"""Distance from the middle of a shape to its edge at the start, in sides of the frame."""
MOTIONS = {
    "left": "moves left",
    "right": "moves right",
    "up": "moves up",
    "down": "moves down",
    "clockwise": "turns clockwise",
    "counterclockwise": "turns counterclockwise",
    "grow": "grows",
    "shrink": "shrinks",
}
"""Motions of a shape, and what captions call each."""
PLACES = (
    *("at the top left", "at the top", "at the top right"),
    *("at the left", "in the middle", "at the right"),
    *("at the bottom left", "at the bottom", "at the bottom right"),
)
"""The nine cells of a frame in reading order."""
NUMBERS = ("zero", "one", "two", "three")
GENERIC = ("a nice video", "my favourite clip", "watch this", "something with shapes")
"""Captions that say nothing of a scene."""
SYNONYMS: tuple[dict[str, str], ...] = (
    {"big": "large", "medium": "average", "small": "tiny", "disc": "circle", "moves": "slides", "turns": "rotates"},
    {"big": "huge", "medium": "middling", "small": "little", "square": "box", "moves": "goes", "at": "near"},
    {"big": "great", "medium": "moderate", "small": "minute", "disc": "ball", "cross": "plus", "moves": "travels"}
    | {"turns": "spins", "grows": "expands", "shrinks": "contracts"},
)
"""Words of a caption and what each of three paraphrases has in their place."""


@dataclass(frozen=True)
class Shape:
    """One shape of a scene: what it is, where it starts and what it does."""

    colour: str
    form: str
    size: str
    cell: int
    motion: str
    """Name of its motion, one of :data:`MOTIONS`; empty in images."""
    shift: tuple[float, float]
    """Distance of its start from the middle of its cell: x and y, in sides of the frame."""
    turn: float
    """Angle at the start, in turns."""

    @property
    def noun(self) -> str:
        """Size, colour and form: "big red square"."""
        return f"{self.size} {self.colour} {self.form}"


class Question(NamedTuple):
    """One question of a scene and its answer."""

    kind: str
    """``colour``, ``count``, ``direction``, ``place``, ``size`` or ``order``."""
    question: str
    answer: str


def caption(shapes: tuple[Shape, ...]) -> str:
    """The template's sentence: "a big red square at the top moves left and a small blue disc at the right grows"."""
    return " and ".join(_clause(shape) for shape in shapes)


def _clause(shape: Shape) -> str:
    place = f"a {shape.noun} {PLACES[shape.cell]}"
    return f"{place} {MOTIONS[shape.motion]}" if shape.motion else place


def paraphrases(sentence: str) -> list[str]:
    """The same in other words, once by each table of :data:`SYNONYMS`."""
    return [" ".join(table.get(word, word) for word in sentence.split()) for table in SYNONYMS]


def questions(shapes: tuple[Shape, ...], rng: np.random.Generator, *, in_turn: bool) -> list[Question]:
    """A question of every kind about one shape of a scene, whose shapes differ in colour and in form.

    ``order`` is asked of several shapes that move in turn, ``direction`` of videos.
    """
    shape = shapes[int(rng.integers(len(shapes)))]
    asked = [
        Question("colour", f"what colour is the {shape.form}?", shape.colour),
        Question("count", "how many shapes are there?", NUMBERS[len(shapes)]),
        Question("size", f"how large is the {shape.colour} {shape.form}?", shape.size),
        Question("place", f"where is the {shape.colour} {shape.form}?", PLACES[shape.cell]),
    ]
    if shape.motion:
        asked.append(Question("direction", f"what does the {shape.form} do?", f"it {MOTIONS[shape.motion]}"))
    if in_turn and len(shapes) > 1:
        asked.append(Question("order", "which shape moves first?", f"the {shapes[0].colour} {shapes[0].form}"))
    return asked


def dialogues(path: str, split: str, asked: list[Question], *, visual: str) -> list[dict[str, Any]]:
    """The questions of one file as conversations in LLaVA's layout; ``visual`` is ``video`` or ``image``."""
    return [
        {
            "id": f"{path}#{kind}",
            visual: path,
            "split": split,
            "kind": kind,
            "conversations": [
                {"from": "human", "value": f"<{visual}>\n{question}"},
                {"from": "gpt", "value": answer},
            ],
        }
        for kind, question, answer in asked
    ]


def with_wrong_captions(
    captions: list[list[str]], share: float, rng: np.random.Generator
) -> tuple[list[list[str]], list[bool]]:
    """Captions of which a ``share`` is wrong, and which are: half those of another video, half generic ones.

    Raises:
        UserError: there are fewer than two videos to exchange captions between.
    """
    count = round(share * len(captions))
    wrong = rng.permutation(len(captions))[:count]
    swapped, generic = wrong[: count // 2], wrong[count // 2 :]
    if count and len(captions) < 2:
        raise UserError("noise exchanges captions between videos: make at least two")
    if len(swapped) == 1:  # nothing to exchange it with among the wrong ones
        swapped, generic = swapped[:0], wrong
    given = list(captions)
    for place, other in zip(swapped, np.roll(swapped, 1)):
        given[place] = captions[other]
    for place in generic:
        given[place] = [GENERIC[int(rng.integers(len(GENERIC)))]]
    return given, [place in set(wrong.tolist()) for place in range(len(captions))]
