"""Needles in a haystack: numbers of cities that stand somewhere in a long text, and questions about them.

After the needle test of Kamradt (2023) in the form of Liu et al. 2024 (LWM). What surrounds the needles are sentences
of given texts, or of a small grammar, in which cities and numbers occur too.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from filmstrip.errors import UserError


def _listed(words: str) -> tuple[str, ...]:
    return tuple(words.split())


CITIES = _listed(
    "Accra Algiers Amman Ankara Athens Baghdad Bangkok Beijing Beirut Berlin Bogota Brussels Bucharest Budapest "
    "Cairo Canberra Caracas Chicago Dakar Delhi Dhaka Dublin Geneva Hanoi Harare Havana Helsinki Houston Istanbul "
    "Jakarta Kabul Kampala Karachi Kyiv Lagos Lima Lisbon London Lusaka Madrid Manila Miami Milan Montreal Moscow "
    "Mumbai Nairobi Oslo Ottawa Paris Prague Quito Riga Rome Seoul Sofia Sydney Tehran Tokyo Tunis Vienna Warsaw"
)
"""Cities that needles are about."""
NUM_CITIES = len(CITIES)
_KINDS = _listed("old young quiet careful tall cheerful tired clever busy gentle")
_PEOPLE = _listed("baker sailor teacher painter farmer doctor tailor singer gardener clerk")
_VERBS = _listed("carries finds paints repairs sells cleans counts hides moves buys")
_THINGS = _listed("lamp basket chair bottle carpet clock mirror ladder kettle drum")
_PLACES = _listed("garden market kitchen harbour station library cellar church forest mill")
_COUNTED = _listed("bridges towers gates wells parks schools")
_FACTS = 0.1
"""Share of the grammar's sentences that are about a city and a number, and are no needles."""
_SENTENCE = re.compile(r"(?<=[.!?])\s+")
_STATED = re.compile(r"The special magic ([A-Z]\w*) number is: (\d+)\.")


class Needle(NamedTuple):
    """A number that belongs to a city."""

    city: str
    number: str

    @property
    def sentence(self) -> str:
        """What the text says of it."""
        return f"The special magic {self.city} number is: {self.number}."


@dataclass(frozen=True)
class Filler:
    """What needles are hidden in: sentences of some texts, or of the grammar where there are none."""

    sentences: tuple[str, ...] = ()

    @classmethod
    def of(cls, texts: Sequence[str]) -> Filler:
        """The sentences of texts but those that state a needle: they would answer questions, too.

        Raises:
            UserError: there is none in them.
        """
        sentences = (s for text in texts for s in _SENTENCE.split(" ".join(text.split())))
        found = tuple(s for s in sentences if s and not stated(s))
        if not found:
            raise UserError("the texts to hide needles in are empty")
        return cls(found)

    def draw(self, rng: np.random.Generator) -> Iterator[str]:
        """Sentences without end: those of the texts from a drawn one on, or drawn ones."""
        if not self.sentences:
            while True:
                yield _drawn(rng)
        place = int(rng.integers(len(self.sentences)))
        while True:
            yield self.sentences[place % len(self.sentences)]
            place += 1


def draw_needles(rng: np.random.Generator, count: int, digits: int, cities: Sequence[str] = CITIES) -> list[Needle]:
    """Numbers of so many digits, of different cities.

    Raises:
        UserError: there are fewer cities.
    """
    if count > len(cities):
        raise UserError(f"{count} needles are about different cities, and there are {len(cities)}: ask for fewer")
    chosen = rng.choice(len(cities), count, replace=False)
    return [Needle(cities[i], str(rng.integers(10 ** (digits - 1), 10**digits))) for i in chosen]


def hide(sentences: Sequence[str], needles: Sequence[Needle], depths: Sequence[float]) -> str:
    """The text of sentences with each needle at a depth from 0 to 1, at the end of the sentence before it."""
    lengths = np.cumsum([0, *(len(sentence) + 1 for sentence in sentences)])
    places = np.searchsorted(lengths, np.asarray(depths) * lengths[-1], side="right") - 1
    parts = list(sentences)
    for place, needle in sorted(zip(places.tolist(), needles), key=lambda pair: pair[0], reverse=True):
        parts.insert(place, needle.sentence)
    return " ".join(parts)


def stated(text: str) -> list[Needle]:
    """The needles that a text hides, in its order."""
    return [Needle(*found) for found in _STATED.findall(text)]


def question(asked: Sequence[Needle]) -> str:
    """The question for the numbers of some cities."""
    names = " and ".join(needle.city for needle in asked)
    if len(asked) == 1:
        return f"What is the special magic {names} number?"
    return f"What are the special magic {names} numbers?"


def answer(asked: Sequence[Needle]) -> str:
    """The answer, in the words of the text."""
    return " ".join(needle.sentence for needle in asked)


def found(said: str, asked: Sequence[Needle]) -> list[bool]:
    """Whether an answer has the number of each city."""
    numbers = set(re.findall(r"\d+", said))
    return [needle.number in numbers for needle in asked]


def _drawn(rng: np.random.Generator) -> str:
    if rng.random() < _FACTS:
        city, things = rng.choice(CITIES), rng.choice(_COUNTED)
        return f"In {city} there are {rng.integers(2, 100)} {things}."
    kind, who, does, what, where = (rng.choice(w) for w in (_KINDS, _PEOPLE, _VERBS, _THINGS, _PLACES))
    return f"The {kind} {who} {does} the {what} in the {where}."
