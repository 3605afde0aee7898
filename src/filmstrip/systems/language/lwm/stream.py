"""Text and vision tokens in one stream of ids, and which of them may follow which.

Ids from the size of the text's vocabulary on are vision tokens: first the codes of a tokenizer, then one that ends a
frame (``eof``) and one that ends a video or image (``eov``). A video is ``<vision>``, then the codes of a frame and
``eof`` for every frame but the last, which ``eov`` ends, then ``</vision>``. ``<vision>`` and ``</vision>`` are
ordinary text, of one token or several.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from filmstrip.errors import UserError
from filmstrip.models.video_language import places


@dataclass(frozen=True, kw_only=True)
class Alphabet:
    """Ids of the tokens of a stream."""

    text: int
    """Number of ids of text, which come first."""
    codes: int
    """Number of different codes."""
    per_frame: int
    """Number of codes of a frame."""
    begin: tuple[int, ...]
    """Tokens of ``<vision>``."""
    end: tuple[int, ...]
    """Tokens of ``</vision>``."""

    @property
    def eof(self) -> int:
        """Id of the end of a frame that others follow."""
        return self.text + self.codes

    @property
    def eov(self) -> int:
        """Id of the end of the last frame, and of an image."""
        return self.eof + 1


class Stream(NamedTuple):
    """Examples as streams, each ``B S``, padded at the end."""

    tokens: Tensor
    """Token ids."""
    learnt: Tensor
    """Whether a token is learnt."""
    length: Tensor
    """Number of tokens that are no padding, ``B``."""


def vision_tokens(codes: Tensor, frames: Tensor, alphabet: Alphabet) -> Tensor:
    """The ids ``B T*(n+1)`` of videos, of their ``codes`` (``B T n``, from 0) and an end of every frame.

    ``frames`` (``B K``) are the numbers of frames of each row's videos, which lie one after another; what comes after
    them is padding.
    """
    at = torch.arange(codes.shape[1], device=codes.device)
    is_last = (at[:, None] == frames.cumsum(dim=1)[:, None] - 1).any(dim=2) if frames.numel() else at < 0
    ends = torch.where(is_last, alphabet.eov, alphabet.eof).expand(codes.shape[:2])
    return torch.cat([codes + alphabet.text, ends[..., None]], dim=2).flatten(1)


def streams(text: Tensor, length: Tensor, learnt: Tensor, is_place: Tensor, vision: Tensor, sizes: Tensor) -> Stream:
    """Texts (``B L`` ids, of which ``length`` are no padding) with vision tokens (``B N``) at their places.

    ``is_place`` (``B L`` bool) marks these; ``sizes`` (``B K``) are the numbers of tokens of a row's videos, which
    take the places in order. All tokens of a video are learnt where its place is.
    """
    where = places(is_place, length, sizes, vision.shape[1])
    at = torch.arange(where.source.shape[1], device=text.device).expand(len(text), -1)
    owner = torch.searchsorted(where.start, at.contiguous(), right=True) - 1
    tokens = torch.cat([text, vision], dim=1).gather(1, where.source)
    inside = at < where.length[:, None]
    return Stream(tokens.masked_fill(~inside, 0), learnt.gather(1, owner) & inside, where.length)


def left_padded(rows: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Streams of different lengths as one tensor ``B P``, and the number of places before each, ``B``."""
    most = max(len(row) for row in rows)
    padding = torch.tensor([most - len(row) for row in rows], device=rows[0].device)
    return torch.stack([F.pad(row, (most - len(row), 0)) for row in rows]), padding


@dataclass
class Grammar:
    """Which tokens may come next in one stream: text until ``<vision>`` is complete, then whole frames of codes."""

    alphabet: Alphabet
    frames: int | None = None
    """Number of frames of each video; none where the model says when one ends."""
    _tail: tuple[int, ...] = field(default=(), init=False)
    """Latest tokens of text, of which ``<vision>`` may be made."""
    _place: int | None = field(default=None, init=False)
    """Number of codes of the current frame; none within text."""
    _frame: int = field(default=0, init=False)
    """Number of complete frames of the current video."""
    _forced: tuple[int, ...] = field(default=(), init=False)
    """Tokens that come next whatever the model says."""

    @property
    def is_first_frame(self) -> bool:
        """Whether what comes next is of an image or of a video's first frame."""
        return self._frame == 0

    @property
    def allowed(self) -> slice:
        """Ids that may come next."""
        own = self.alphabet
        if self._forced:
            return slice(self._forced[0], self._forced[0] + 1)
        if self._place is None:
            return slice(0, own.text)
        if self._place < own.per_frame:
            return slice(own.text, own.eof)
        if self.frames is None:
            return slice(own.eof, own.eov + 1)
        last = self._frame + 1 >= self.frames
        return slice(own.eov, own.eov + 1) if last else slice(own.eof, own.eov)

    def take(self, token: int) -> None:
        """Go on after a token.

        Raises:
            ValueError: it may not stand here.
        """
        own, allowed = self.alphabet, self.allowed
        if not allowed.start <= token < allowed.stop:
            raise ValueError(f"token {token} stands where one of {allowed.start} to {allowed.stop - 1} may")
        if self._forced:
            self._forced = self._forced[1:]
        elif self._place is None:
            self._tail = (*self._tail, token)[-len(own.begin) :]
            if self._tail == own.begin:
                self._tail, self._place, self._frame = (), 0, 0
        elif token < own.eof:
            self._place += 1
        elif token == own.eof:
            self._place, self._frame = 0, self._frame + 1
        else:
            self._place, self._forced = None, own.end


class Span(NamedTuple):
    """A piece of a stream that was read."""

    text: tuple[int, ...] = ()
    """Ids of text, without ``<vision>`` and ``</vision>``."""
    frames: tuple[tuple[int, ...], ...] = ()
    """Codes of each frame of a video, from 0; empty for a piece of text."""


def read_stream(tokens: Iterable[int], alphabet: Alphabet) -> list[Span]:
    """Text and videos of one stream.

    Raises:
        UserError: a token stands where it may not, or the stream ends within a video.
    """
    grammar, text, codes, found = Grammar(alphabet), list[int](), list[int](), list[Span]()
    for number, token in enumerate(tokens):
        closes = bool(grammar._forced)
        try:
            grammar.take(token)
        except ValueError as error:
            raise UserError(f"this is no stream of text and videos: at {number}, {error}") from None
        if closes:
            continue
        if token < alphabet.text:
            text.append(token)
            if grammar._place == 0:  # <vision> is complete
                text = text[: -len(alphabet.begin)]
                if text:
                    found.append(Span(text=tuple(text)))
                text = []
        elif token < alphabet.eof:
            codes.append(token - alphabet.text)
        elif token == alphabet.eov:
            n = alphabet.per_frame
            found.append(Span(frames=tuple(tuple(codes[i : i + n]) for i in range(0, len(codes), n))))
            codes = []
    if grammar._place is not None or grammar._forced:
        raise UserError("this is no stream of text and videos: it ends within a video")
    return [*found, Span(text=tuple(text))] if text else found


def write_stream(spans: Sequence[Span], alphabet: Alphabet) -> list[int]:
    """The stream of text and videos: the inverse of :func:`read_stream`."""
    tokens: list[int] = []
    for span in spans:
        if not span.frames:
            tokens += span.text
            continue
        codes = torch.tensor([span.frames])
        ids = vision_tokens(codes, torch.tensor([[len(span.frames)]]), alphabet)
        tokens += [*alphabet.begin, *ids[0].tolist(), *alphabet.end]
    return tokens
