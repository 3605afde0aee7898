"""Questions about long texts: texts cut into chunks, a question and its answer for each, and all of them at the end.

After the chat data of Liu et al. 2024 (LWM, appendix D): chunks of about 1,000 tokens, each with a pair that a model
of short texts wrote of it; neighbouring chunks are put together again to the length of the context, and their pairs
follow as a conversation, of which the answers alone are learnt.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from filmstrip.errors import UserError
from filmstrip.text.conversation import Serialiser, Turn
from filmstrip.text.haystack import answer as needle_answer
from filmstrip.text.haystack import question as needle_question
from filmstrip.text.haystack import stated
from filmstrip.text.tokenizers import TextTokenizer

_WORD = re.compile(r"\s*\S+")


class Pair(NamedTuple):
    """A question about a chunk, and its answer."""

    question: str
    answer: str


@dataclass(frozen=True)
class Chunk:
    """A part of a document."""

    name: str
    """Name of the document, and the number of the chunk in it."""
    text: str
    split: str = ""


Writer = Callable[[Sequence[Chunk], Sequence[int]], list[Pair | None]]
"""Writes a pair about each of several chunks, from a seed each; none where it found nothing to ask."""


def cut(text: str, size: int, tokenizer: TextTokenizer) -> tuple[list[str], int]:
    """The chunks of a text, each of as many words as ``size`` tokens have room for, and the tokens that are left out.

    The rest at the end is a chunk where it has half as many tokens or more. The chunks and the rest, one after
    another, are the text.

    Raises:
        UserError: a word alone is longer.
    """
    chunks, part, taken = [], "", 0
    for word in _WORD.findall(text):
        length = len(tokenizer.encode(word))
        if length > size:
            raise UserError(
                f"{word.strip()[:40]!r}... has {length} tokens, and a chunk {size}: lengthen chunks (--chunk)"
            )
        if taken + length > size:
            chunks.append(part)
            part, taken = "", 0
        part, taken = part + word, taken + length
    if not part or 2 * taken < size:
        return chunks, taken
    return [*chunks, part], 0


def chunks_of(name: str, text: str, split: str, size: int, tokenizer: TextTokenizer) -> tuple[list[Chunk], int]:
    """The chunks of a document, as :func:`cut` has them; an empty line parts it from the document before it."""
    parts, left = cut(f"\n\n{text.strip()}", size, tokenizer)
    return [Chunk(f"{name}, chunk {number}", part, split) for number, part in enumerate(parts, 1)], left


def rules(chunks: Sequence[Chunk], seeds: Sequence[int]) -> list[Pair | None]:
    """Pairs about the numbers of cities that :mod:`filmstrip.text.haystack` hides in texts: no model writes them.

    The number that is asked for depends on the seed.
    """
    found: list[Pair | None] = []
    for chunk, seed in zip(chunks, seeds):
        needles = stated(chunk.text)
        asked = needles[int(np.random.default_rng(seed).integers(len(needles)))] if needles else None
        found.append(None if asked is None else Pair(needle_question([asked]), needle_answer([asked])))
    return found


class Example(NamedTuple):
    """Neighbouring chunks and the conversation about them."""

    turns: tuple[Turn, ...]
    chunks: tuple[int, ...]
    """Numbers of its chunks."""
    asked: tuple[int, ...]
    """Numbers of the chunks that are asked about, in the order of the questions."""
    tokens: int
    """Number of tokens of the whole conversation."""
    learnt: int
    """Number of those that are learnt."""


def joined(
    chunks: Sequence[Chunk], pairs: Sequence[Pair | None], context: int, serialiser: Serialiser, seed: int
) -> Iterator[Example]:
    """Conversations about neighbouring chunks of one split, each of as many as fit into ``context`` tokens with their
    pairs.

    Questions come in an order drawn from the seed, so that their place does not tell where the answer is. Of those
    that are asked twice of one text none stays where the answers differ. Chunks about which nothing is asked stay in
    the text. A text about which there is no question at all is left out.

    Raises:
        UserError: a chunk with its pair is longer than the context.
    """
    rng = np.random.default_rng(seed)
    first = 0
    while first < len(chunks):
        end = _end(chunks, pairs, first, context, serialiser)
        made = None
        while made is None and end > first:
            numbers = range(first, end)
            asked = _clear(pairs, numbers)
            if not asked:
                break
            order = tuple(asked[i] for i in rng.permutation(len(asked)))
            turns = conversation([chunks[i].text for i in numbers], [p for i in order if (p := pairs[i])])
            marked = serialiser.mark(turns, chunks[first].name)
            if len(marked.ids) > context:  # pieces of words may differ at borders
                end -= 1
                continue
            made = Example(turns, tuple(numbers), order, len(marked.ids), sum(marked.learnt))
        if end == first:
            raise UserError(
                f"{chunks[first].name} and the question about it take more than {context} tokens: lengthen the "
                "context (--context), or shorten chunks (--chunk)"
            )
        if made is not None:
            yield made
        first = end


def conversation(texts: Sequence[str], pairs: Sequence[Pair]) -> tuple[Turn, ...]:
    """Texts one after another, the first question at their end, and its answer, and the further pairs."""
    whole, turns = "".join(texts).strip(), []
    for number, pair in enumerate(pairs):
        turns += [
            Turn("user", pair.question if number else f"{whole}\n{pair.question}"),
            Turn("assistant", pair.answer),
        ]
    return tuple(turns)


def _end(
    chunks: Sequence[Chunk], pairs: Sequence[Pair | None], first: int, context: int, serialiser: Serialiser
) -> int:
    """The number behind the last chunk that has room in a conversation with the first and those between."""
    encode = serialiser.tokenizer.encode
    asked = next((pair for pair in pairs[first:] if pair is not None), Pair("?", "!"))
    # What stands around a pair: what a second one adds to a conversation beside its own text.
    one, two = (len(serialiser.mark(conversation(["."], [asked] * n)).ids) for n in (1, 2))
    own = len(encode(asked.question)) + len(encode(asked.answer))
    taken, end = one - own, first
    while end < len(chunks):
        pair = pairs[end]
        taken += len(encode(chunks[end].text))
        if pair is not None:
            taken += two - one - own + len(encode(pair.question)) + len(encode(pair.answer))
        if taken > context and end > first:
            break
        end += 1
    return end


def _clear(pairs: Sequence[Pair | None], numbers: Sequence[int]) -> list[int]:
    """The chunks with a pair whose question has one answer among all of them."""
    answers: dict[str, set[str]] = {}
    for i in numbers:
        if (pair := pairs[i]) is not None:
            answers.setdefault(_plain(pair.question), set()).add(_plain(pair.answer))
    kept, seen = [], set()
    for i in numbers:
        pair = pairs[i]
        if pair is None or len(answers[_plain(pair.question)]) > 1 or _plain(pair.question) in seen:
            continue
        seen.add(_plain(pair.question))
        kept.append(i)
    return kept


def _plain(text: str) -> str:
    return " ".join(text.lower().split())
