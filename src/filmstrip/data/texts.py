"""Texts in batches: token ids of one length, and what objectives are told of their tokenizer."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from filmstrip.bounds import Count, CountOrZero
from filmstrip.data.kinds.specification import of
from filmstrip.errors import UserError
from filmstrip.text.tokenizers import TextTokenizer

TEXT = of("B L", torch.int64, "token ids of a text, followed by the tokenizer's padding")
TEXT_LENGTH = of("B", torch.int64, "number of token ids before the padding")


def prompts_of(name: str, templates: Sequence[str]) -> tuple[str, ...]:
    """A class in words: templates with its name in place of ``{}``, underscores read as spaces.

    Raises:
        UserError: a template has no such place, or several.
    """
    for template in templates:
        if template.count("{}") != 1:
            raise UserError(f"the template {template!r} has no place for a class: write {{}} once, as in 'a {{}}'")
    return tuple(template.format(name.replace("_", " ")) for template in templates)


@dataclass(frozen=True, kw_only=True)
class Vocabulary:
    """Properties of a text tokenizer that objectives need."""

    size: Count
    """Number of token ids."""
    pad: CountOrZero
    """Id of padding."""
    start: CountOrZero | None
    """Id of the start of a text, if there is one."""
    end: CountOrZero
    """Id of the end of a text."""
    mask: CountOrZero | None = None
    """Id that stands for a masked token, if there is one."""
    specials: tuple[tuple[str, CountOrZero], ...] = ()
    """Names and ids of further special tokens, such as the place of a video."""

    @classmethod
    def of(cls, tokenizer: TextTokenizer, specials: Iterable[str] = ()) -> Vocabulary:
        """Those of a tokenizer, with its special tokens of some names."""
        return cls(
            size=tokenizer.size,
            pad=tokenizer.pad,
            start=tokenizer.start,
            end=tokenizer.end,
            mask=tokenizer.mask,
            specials=tuple((name, tokenizer.special(name)) for name in specials),
        )

    @classmethod
    def drawn(cls, size: int, specials: Sequence[str] = ()) -> Vocabulary:
        """A vocabulary of drawn examples: padding, start and end, then special tokens."""
        numbered = tuple((name, 3 + i) for i, name in enumerate(specials))
        return cls(size=size, pad=0, start=1, end=2, specials=numbered)

    def special(self, name: str) -> int:
        """The id of a special token.

        Raises:
            UserError: there is none of this name.
        """
        ids = dict(self.specials)
        if name not in ids:
            raise UserError(f"the text has no special token {name!r}; it has {', '.join(ids) or 'none'}")
        return ids[name]


def as_tokens(tokenizer: TextTokenizer, text: str, length: int, *, start: bool = True) -> tuple[Tensor, Tensor]:
    """A text as ``length`` ids, and how many of them are no padding.

    With ``start`` it begins with the tokenizer's start, if it has one. The end follows, after a text that is too long
    too, which is cut.
    """
    first = [tokenizer.start] if start and tokenizer.start is not None else []
    ids = [*first, *tokenizer.encode(text)][: length - 1]
    ids.append(tokenizer.end)
    return torch.tensor(ids + [tokenizer.pad] * (length - len(ids))), torch.tensor(len(ids))


def tokenised(
    tokenizer: TextTokenizer, texts: Sequence[str], length: int, *, start: bool = True
) -> tuple[Tensor, Tensor]:
    """The same for several texts: ids ``B L`` and lengths ``B``."""
    rows = [as_tokens(tokenizer, text, length, start=start) for text in texts]
    return torch.stack([ids for ids, _ in rows]), torch.stack([count for _, count in rows])
