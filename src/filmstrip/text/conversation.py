"""Conversations as token ids: turns in the format of a language model, and which tokens it learns to say.

What stands around a turn comes from a :class:`Template` of ours or from the chat template of a published tokenizer.
Every piece is tokenised alone, so that the border between what is given and what is learnt never lies within a
token. What is learnt are the assistant's words and the stop that follows them.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

from filmstrip.errors import UserError
from filmstrip.text.boxes import MARKS
from filmstrip.text.tokenizers import IMAGE, VIDEO, TextTokenizer

Role = Literal["system", "user", "assistant"]
PLACES = (VIDEO, IMAGE)
"""Names in a turn's text of the place of a visual."""
_PLACE = re.compile("|".join(map(re.escape, PLACES)))
# What other formats write for visuals and for other media, which would be read as ordinary text here.
_UNKNOWN = re.compile(
    r"</?(?:im|img|pic|picture|vid|clip|frames?|audio|speech|sound|point|(?:image|video)[\w-]+)\d*>"
)


@dataclass(frozen=True)
class Turn:
    """What one side says; ``<video>`` and ``<image>`` in a user's text are the places of visuals, in order."""

    role: Role
    text: str


@dataclass(frozen=True, kw_only=True)
class Template:
    """What stands around the turns of a conversation, as plain text."""

    system: str = ""
    """Text before the first turn."""
    user: str = ""
    """Text before what the user says."""
    after_user: str = ""
    """Text after it."""
    assistant: str = ""
    """Text before what the assistant says."""
    space: str = " "
    """Text between that and the answer; it is the first that the assistant says."""
    stop: str = ""
    """Text that ends what the assistant says; empty for the tokenizer's end of a text."""
    visual_only: bool = False
    """Whether of what the user says the places of visuals alone are kept (LLaVA's first stage)."""

    @property
    def texts(self) -> tuple[str, ...]:
        """All of its texts, which the vocabulary of a tokenizer of words needs."""
        return (self.system, self.user, self.after_user, self.assistant, self.stop)


_VICUNA = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions. "
)
TEMPLATES: Mapping[str, Template] = {
    "plain": Template(user="question:", after_user=" ", assistant="answer:"),
    "caption": Template(visual_only=True, space="", stop="\n"),
    "v0": Template(
        system="A chat between a curious human and an artificial intelligence assistant. "
        "The assistant gives helpful, detailed, and polite answers to the human's questions.###",
        user="Human: ",
        after_user="###",
        assistant="Assistant:",
        stop="###",
    ),
    "v1": Template(system=_VICUNA, user="USER: ", after_user=" ", assistant="ASSISTANT:"),
    "bare": Template(visual_only=True, space=""),
    "lwm": Template(system="You are a helpful assistant. ", user="USER: ", after_user=" ", assistant="ASSISTANT:"),
}
"""Formats by name: ``plain``; ``caption`` and ``bare``, in which the user says nothing, ``v0`` and ``v1``, LLaVA's
(Vicuna's), and ``lwm``, LWM's. The ``stop`` of ``caption`` is a new line."""
HUB = "hub"
"""Name of the format that a published tokenizer brings with it."""


class Marked(NamedTuple):
    """A conversation as ids."""

    ids: list[int]
    learnt: list[bool]
    """For each id whether the assistant says it."""


class _Piece(NamedTuple):
    """Ids that are kept or cut token by token."""

    ids: list[int]
    learnt: bool = False
    kept: bool = False
    """Whether truncation never cuts it: visuals, the start and the system's text."""


class Serialiser:
    """Turns conversations into ids, for one tokenizer and one format.

    ``visual_tokens`` is the number of tokens of the language model at the place of a visual: it counts for
    ``max_length``, and the ids hold the place once, between the special tokens ``around_visual``, if there are any,
    and the ordinary ``visual_text``. ``question_first`` is where visuals stand whose place a question does not say.
    Without ``visuals`` no text has such places: what looks like one is a text's own, as in HTML.

    Raises:
        UserError: there is no format of that name, or the tokenizer has none of its own (``hub``), or one without an
            end of what the assistant says.
    """

    def __init__(
        self,
        tokenizer: TextTokenizer,
        template: str | Template = "plain",
        *,
        max_length: int | None = None,
        visual_tokens: int = 1,
        around_visual: tuple[str, str] = ("", ""),
        visuals: bool = True,
        visual_text: tuple[str, str] = ("", ""),
        question_first: bool = False,
    ) -> None:
        self.tokenizer = tokenizer
        self.max_length = max_length
        self.visuals = visuals
        self.visual_tokens = visual_tokens
        self.question_first = question_first
        self._marks = _marks_of(tokenizer)
        special = [[tokenizer.special(name)] if name else [] for name in around_visual]
        plain = [tokenizer.encode(text) if text else [] for text in visual_text]
        self._before, self._after = [*plain[0], *special[0]], [*special[1], *plain[1]]
        self.places = {name: tokenizer.special(name) for name in PLACES}
        if isinstance(template, str) and template not in (*TEMPLATES, HUB):
            raise UserError(
                f"there is no format of conversations {template!r}; there are {', '.join((*TEMPLATES, HUB))}"
            )
        chosen = TEMPLATES.get(template) if isinstance(template, str) else template
        self._format = _HubFormat(tokenizer) if chosen is None else _PlainFormat(tokenizer, chosen)

    @property
    def stop(self) -> tuple[int, ...]:
        """The ids that end what the assistant says."""
        return self._format.stop

    def mark(self, turns: Sequence[Turn], name: str = "a conversation", sizes: Sequence[int] | None = None) -> Marked:
        """The ids of a whole conversation, and which are learnt; the oldest text is cut beyond ``max_length``.

        ``sizes`` are the numbers of tokens of its visuals, in order, where they are not all ``visual_tokens``.

        Raises:
            UserError: it is no alternation of user and assistant that ends with an answer, has unknown placeholders,
                or no token of an answer is within ``max_length``. ``name`` begins the message.
        """
        check_turns(turns, name, visuals=self.visuals)
        if turns[-1].role != "assistant":
            raise UserError(f"{name} ends with a question: give its answer, or leave the question out")
        marked = self._cut(list(self._pieces(turns, prompt=False)), name, sizes)
        if not any(marked.learnt):
            raise UserError(
                f"{name} has no answer within {self.max_length} tokens, of which a visual takes "
                f"{self.visual_tokens}: raise max_length, or leave it out"
            )
        return marked

    def prompt(self, turns: Sequence[Turn], name: str = "a conversation") -> list[int]:
        """The ids of a conversation that ends with a question, up to where the assistant begins to speak.

        Raises:
            UserError: it does not end with a question, or has unknown placeholders.
        """
        check_turns(turns, name, visuals=self.visuals)
        if turns[-1].role != "user":
            raise UserError(f"{name} ends with an answer: a question is expected")
        return self._cut(list(self._pieces(turns, prompt=True)), name).ids

    def answer(self, text: str) -> list[int]:
        """The ids that the assistant says for an answer, with the stop."""
        return [*(i for piece in self._worded(text, self._format.answer) for i in piece), *self.stop]

    def visual(self, name: str = VIDEO) -> list[int]:
        """The ids at the place of a visual, with those around it."""
        return [*self._before, self.places[name], *self._after]

    def length(self, ids: Iterable[int], sizes: Sequence[int] | None = None) -> int:
        """Number of tokens of the language model that ids take, whose visuals have ``sizes`` as in :meth:`mark`."""
        visual, told = set(self.places.values()), iter(sizes or ())
        return sum(next(told, self.visual_tokens) if i in visual else 1 for i in ids)

    def decode(self, ids: Sequence[int]) -> str:
        """What the assistant said, up to the stop."""
        ids = list(ids)
        for i in range(len(ids) - len(self.stop) + 1):
            if tuple(ids[i : i + len(self.stop)]) == self.stop:
                ids = ids[:i]
                break
        return self.tokenizer.decode(ids).strip()

    def _pieces(self, turns: Sequence[Turn], *, prompt: bool) -> Iterator[_Piece]:
        for part in self._format.parts(turns, prompt=prompt):
            if part.said is not None:
                yield from self._said(part.said)
            elif part.answer is not None:
                for ids in self._worded(part.answer, self._format.answer):
                    yield _Piece(ids, learnt=True)
            else:
                yield _Piece(part.ids, part.learnt, part.kept)

    def _said(self, text: str) -> Iterator[_Piece]:
        """What a user says, with the places of visuals."""
        end = 0
        for match in _PLACE.finditer(text) if self.visuals else ():
            if before := text[end : match.start()]:
                yield from map(_Piece, self._worded(before, self.tokenizer.encode))
            yield _Piece(self.visual(match.group()), kept=True)
            end = match.end()
        if rest := text[end:]:
            yield from map(_Piece, self._worded(rest, self.tokenizer.encode))

    def _worded(self, text: str, first: Callable[[str], list[int]]) -> Iterator[list[int]]:
        """Ids of a text, in which marks of boxes are special tokens where the tokenizer has them.

        ``first`` encodes what stands before the first mark.
        """
        if not self._marks:
            yield first(text)
            return
        encode = first
        for i, part in enumerate(_MARK.split(text)):
            if i % 2 and part in self._marks:
                yield [self._marks[part]]
            elif part:
                yield encode(part)
            encode = self.tokenizer.encode

    def _cut(self, pieces: list[_Piece], name: str, sizes: Sequence[int] | None = None) -> Marked:
        """All pieces in one, without as many of the oldest tokens that may be cut as are too many."""
        total = self.length((i for piece in pieces for i in piece.ids), sizes)
        excess = max(0, total - self.max_length) if self.max_length is not None else 0
        ids: list[int] = []
        learnt: list[bool] = []
        for piece in pieces:
            cut = 0 if piece.kept else min(excess, len(piece.ids))
            excess -= cut
            ids += piece.ids[cut:]
            learnt += [piece.learnt] * (len(piece.ids) - cut)
        if excess:
            raise UserError(
                f"{name} takes {total} tokens, {self.visual_tokens} of them for each visual, and visuals are never "
                f"cut: {self.max_length} are too few (max_length)"
            )
        return Marked(ids, learnt)


def check_turns(turns: Sequence[Turn], name: str, *, visuals: bool = True) -> None:
    """See that a conversation is one: user and assistant in turn, after a system's text or none.

    Raises:
        UserError: it is not; or, where it may have ``visuals``, its text has a placeholder that is not known, or the
            assistant shows one.
    """
    own = list(turns[1:] if turns and turns[0].role == "system" else turns)
    expected = ["user", "assistant"] * len(own)
    if not own or [turn.role for turn in own] != expected[: len(own)]:
        said = ", ".join(turn.role for turn in turns) or "nothing"
        raise UserError(f"{name} is {said}: expected user and assistant in turn, after one system text or none")
    for turn in turns if visuals else ():
        if match := _UNKNOWN.search(turn.text):
            raise UserError(
                f"{name} has the unknown placeholder {match.group()}: the place of a visual is {' or '.join(PLACES)}"
            )
        if turn.role != "user" and _PLACE.search(turn.text):
            raise UserError(f"{name} has the place of a visual in a text of the {turn.role}: only users show them")


def timed(turns: Sequence[Turn], times: Sequence[Sequence[float]]) -> tuple[Turn, ...]:
    """Turns in which the place of a visual is one for each of its frames, after the frame's time in seconds.

    ``times`` are those of the frames of each visual, in order; the place of one without times stays. So Video-LLaMA 3
    writes times (Zhang et al. 2025).
    """
    of_each = iter(times)

    def shown(match: re.Match[str]) -> str:
        own = next(of_each, ())
        return ",".join(f"Time {time:.1f}s:{match.group()}" for time in own) or match.group()

    return tuple(replace(turn, text=_PLACE.sub(shown, turn.text)) for turn in turns)


def count_places(turns: Sequence[Turn]) -> int:
    """Number of places of visuals in a conversation."""
    return sum(len(_PLACE.findall(turn.text)) for turn in turns)


class _Part(NamedTuple):
    """A part of a serialised conversation: ids, or what a user says, or what the assistant answers."""

    ids: list[int]
    learnt: bool = False
    kept: bool = False
    said: str | None = None
    answer: str | None = None


_MARK = re.compile("(" + "|".join(map(re.escape, MARKS)) + ")")


def _marks_of(tokenizer: TextTokenizer) -> dict[str, int]:
    """The ids of the marks of boxes, by Qwen-VL's names, that a tokenizer has as special tokens."""
    found = {}
    for name, other in MARKS.items():
        for spelt in (name, other):
            with contextlib.suppress(UserError):
                found[name] = tokenizer.special(spelt)
    return found


class _PlainFormat:
    def __init__(self, tokenizer: TextTokenizer, template: Template) -> None:
        self.tokenizer, self.template = tokenizer, template
        self.stop: tuple[int, ...] = tuple(tokenizer.encode(template.stop)) or (tokenizer.end,)
        # A tokenizer that reads every text as if a space stood before it already has the space.
        twice = tokenizer.encode("a a")
        self._space = "" if len(twice) == 2 and twice[0] == twice[1] else template.space

    def answer(self, text: str) -> list[int]:
        return self.tokenizer.encode(self._space + text)

    def parts(self, turns: Sequence[Turn], *, prompt: bool) -> Iterator[_Part]:
        t, encode = self.template, self.tokenizer.encode
        if self.tokenizer.start is not None:
            yield _Part([self.tokenizer.start], kept=True)
        system = t.system
        if turns[0].role == "system":
            system, turns = turns[0].text, turns[1:]
        if system:
            yield _Part(encode(system), kept=True)
        for turn in turns:
            if turn.role == "user":
                text = "".join(_PLACE.findall(turn.text)) if t.visual_only else turn.text
                yield _Part(encode(t.user) if t.user else [])
                yield _Part([], said=text)
                yield _Part(encode(t.after_user + t.assistant) if t.after_user + t.assistant else [])
            else:
                yield _Part([], answer=turn.text)
                yield _Part(list(self.stop), learnt=True)


_CONTENT = re.compile("\ue000(\\d+)\ue001")


class _HubFormat:
    """The chat template of a published tokenizer.

    It is rendered around marks in place of what is said: so its own special tokens become their ids, while what looks
    like one in a text does not, and borders need not be found by tokenising prefixes.
    """

    def __init__(self, tokenizer: TextTokenizer) -> None:
        self.tokenizer = tokenizer
        self.hub: Any = getattr(tokenizer, "hub", None)
        if self.hub is None or not self.hub.chat_template:
            raise UserError(
                "the tokenizer brings no chat template (chat_template.jinja): name a format of conversations, one of "
                f"{', '.join(TEMPLATES)}"
            )
        self._specials = set(self.hub.all_special_ids) | set(self.hub.added_tokens_decoder)
        probe = [Turn("user", "a"), Turn("assistant", "b"), Turn("user", "c"), Turn("assistant", "d")]
        stops = [part.ids for part in self.parts(probe, prompt=False) if part.learnt]
        self.stop: tuple[int, ...] = tuple(stops[0])

    def answer(self, text: str) -> list[int]:
        return self.tokenizer.encode(text)

    def parts(self, turns: Sequence[Turn], *, prompt: bool) -> Iterator[_Part]:
        rendered = self._render(turns, prompt)
        pieces = _CONTENT.split(rendered)  # template, number, template, number, ...
        if [int(number) for number in pieces[1::2]] != list(range(len(turns))):
            raise UserError("the chat template of the tokenizer leaves out turns, or says them in another order")
        yield _Part(self._template(pieces[0]), kept=True)
        for number, after in zip(pieces[1::2], pieces[2::2]):
            turn, ids = turns[int(number)], self._template(after)
            if turn.role == "assistant":
                yield _Part([], answer=turn.text)
                end = next((i + 1 for i, token in enumerate(ids) if token in self._specials), 0)
                if not end:
                    raise UserError(
                        "the chat template of the tokenizer has no special token after what the assistant says, so "
                        f"that a model would never end: name a format, one of {', '.join(TEMPLATES)}"
                    )
                yield _Part(ids[:end], learnt=True)
                yield _Part(ids[end:])
            else:
                if turn.role == "user":
                    yield _Part([], said=turn.text)
                else:
                    yield _Part(self.tokenizer.encode(turn.text), kept=True)
                yield _Part(ids)

    def _template(self, text: str) -> list[int]:
        """Ids of the template's own text, in which special tokens are meant."""
        ids: list[int] = self.hub(text, add_special_tokens=False, split_special_tokens=False).input_ids
        return ids

    def _render(self, turns: Sequence[Turn], prompt: bool) -> str:
        marked = [{"role": turn.role, "content": f"\ue000{i}\ue001"} for i, turn in enumerate(turns)]
        try:
            rendered: str = self.hub.apply_chat_template(marked, tokenize=False, add_generation_prompt=prompt)
        except Exception as error:  # a template raises what it wants
            raise UserError(f"the chat template of the tokenizer refuses this conversation: {error}") from None
        return rendered
