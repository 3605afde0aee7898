"""Haystack: long texts that hide numbers of cities, with questions about them, as documents and as conversations.

folder/train.jsonl, folder/test.jsonl     a record for each text: "text", the whole as a document, and
                                          "conversations", the text with its question, and the answer
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from filmstrip.bounds import Count, CountOrZero, Seed, check_numbers
from filmstrip.data.config import Synthetic
from filmstrip.data.synthetic.generated import generate_once
from filmstrip.errors import UserError
from filmstrip.files import write_text
from filmstrip.text.documents import read_documents
from filmstrip.text.haystack import CITIES, NUM_CITIES, Filler, answer, draw_needles, hide, question

VERSION = 1


@dataclass(frozen=True, kw_only=True)
class Haystack(Synthetic):
    """Texts of some ``words`` that hide ``needles``, and questions about ``asked`` of them."""

    num_train: Count = 2000
    num_test: CountOrZero = 200
    words: Count = 200
    """Number of words of a text, at most and without needles."""
    needles: Count = 1
    """Number of numbers that a text hides."""
    asked: Count = 1
    """Number of these that its question asks for."""
    digits: Count = 4
    """Number of digits of a number."""
    cities: Count = NUM_CITIES
    """Number of different cities."""
    texts: Path | None = None
    """Text files to hide needles in: a file or a folder (.txt, .md, .jsonl or .parquet); by default sentences of a
    small grammar."""
    seed: Seed = 0

    def __post_init__(self) -> None:
        check_numbers(self)
        if self.asked > self.needles:
            raise UserError(
                f"{self.asked} needles are asked for, and a text hides {self.needles}: hide more (--needles)"
            )
        if self.needles > min(self.cities, NUM_CITIES):
            raise UserError(
                f"{self.needles} needles are about different cities, and there are {min(self.cities, NUM_CITIES)}"
            )

    def generate(self, out: Path | None = None) -> Path:
        """Make the files in ``out`` or in the cache, unless they are there; return the folder.

        Raises:
            UserError: ``out`` is not empty and holds something else, or there are no texts.
        """
        return generate_once(self, name="haystack", version=VERSION, notes={}, write=self._write, out=out)

    def _write(self, folder: Path) -> None:
        filler = Filler()
        if self.texts is not None:
            filler = Filler.of([document.text for document in read_documents(self.texts.expanduser())])
        for i, (split, count) in enumerate({"train": self.num_train, "test": self.num_test}.items()):
            records = (
                self._record(filler, np.random.default_rng((self.seed, i, k)), f"{split} {k}") for k in range(count)
            )
            write_text("".join(json.dumps(record) + "\n" for record in records), folder / f"{split}.jsonl")

    def _record(self, filler: Filler, rng: np.random.Generator, name: str) -> dict[str, object]:
        needles = draw_needles(rng, self.needles, self.digits, CITIES[: self.cities])
        text = hide(self._sentences(filler, rng), needles, rng.random(self.needles).tolist())
        asked = [needles[i] for i in rng.choice(self.needles, self.asked, replace=False)]
        prompt, said = f"{text}\n{question(asked)}", answer(asked)
        turns = [{"from": "human", "value": prompt}, {"from": "gpt", "value": said}]
        return {"id": name, "text": f"{prompt}\n{said}", "conversations": turns}

    def _sentences(self, filler: Filler, rng: np.random.Generator) -> list[str]:
        """As many sentences as there is room for, and one at least."""
        found: list[str] = []
        room = self.words
        for sentence in filler.draw(rng):
            room -= len(sentence.split())
            if room < 0 and found:
                break
            found.append(sentence)
        return found
