"""Renaming the weights of another library's checkpoint to ours, and back; and refusing what does not fit.

Readers of released weights call :func:`check_names` first: a name that nothing reads belongs to another
network than the one that would be loaded, unless a stated pattern says that it may be left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from filmstrip.errors import UserError
from filmstrip.protocols import Rules

Weights = dict[str, Tensor]

COUNTERS = r"(?:.*\.)?num_batches_tracked"
"""Batches that a batch norm has seen: no output depends on them, and old files have none."""


def check_names(
    what: str,
    given: Iterable[str],
    needed: Iterable[str],
    *,
    spare: Sequence[str] = (),
    optional: Sequence[str] = (),
) -> None:
    """See that the names ``given`` are those that are ``needed``: nothing is loaded in part.

    Patterns are regular expressions of whole names: of ``spare``, names may be given that are not needed, and of
    ``optional``, needed ones may be missing. ``what`` begins the sentence of an error ("FILE as an X3D").

    Raises:
        UserError: a name is missing, or nothing reads it.
    """
    given, needed = list(given), list(needed)
    if missing := without(needed, given, optional):
        raise UserError(f"{what} lacks {some(missing)}; the first names given are {', '.join(given[:3]) or 'none'}")
    if unused := without(given, needed, spare):
        raise UserError(f"{what} has weights that this network has no place for: {some(unused)}")


def without(names: Iterable[str], others: Iterable[str], patterns: Sequence[str] = ()) -> list[str]:
    """Those of ``names`` that are neither among ``others`` nor match one of the ``patterns`` as a whole."""
    others = set(others)
    return [name for name in names if name not in others and not any(re.fullmatch(p, name) for p in patterns)]


def some(names: Sequence[str], most: int = 5) -> str:
    """The first few of many names, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def renamed(name: str, rules: Rules) -> str:
    """A name after all rules."""
    for pattern, replacement in rules:
        name = re.sub(pattern, replacement, name)
    return name


def without_prefix(theirs: Mapping[str, Tensor], prefix: str = "module.") -> Weights:
    """Names without what a parallel wrapper puts before each."""
    return {name.removeprefix(prefix): tensor for name, tensor in theirs.items()}


def fitted(theirs: Tensor, wanted: Tensor) -> Tensor:
    """A tensor in the shape of another from which it differs in sides of one alone; any other one as it is."""
    same = [n for n in theirs.shape if n > 1] == [n for n in wanted.shape if n > 1]
    return theirs.reshape(wanted.shape) if same else theirs


@dataclass(frozen=True)
class KeyMap:
    """Pairs of names, theirs and ours, where ``{i}`` stands for the number of a layer."""

    pairs: tuple[tuple[str, str], ...]
    spare: tuple[str, ...] = ()
    """Patterns of their names that are ignored."""
    ours_alone: tuple[str, ...] = (r"(?:.*\.)?normalise\.(?:mean|std)",)
    """Patterns of our names that theirs lack: the statistics of pixels."""

    def ours(self, theirs: Mapping[str, Tensor]) -> Weights:
        """Rename theirs.

        Raises:
            UserError: a name is neither known nor ``spare``.
        """
        return self._rename(theirs, {a: b for a, b in self.pairs}, self.spare)

    def theirs(self, ours: Mapping[str, Tensor]) -> Weights:
        """The inverse of :meth:`ours`.

        Raises:
            UserError: a name is neither known nor ``ours_alone``.
        """
        return self._rename(ours, {b: a for a, b in self.pairs}, self.ours_alone)

    @staticmethod
    def _rename(weights: Mapping[str, Tensor], names: Mapping[str, str], spare: Sequence[str]) -> Weights:
        renamed, known = {}, []
        for name, tensor in weights.items():
            number = re.search(r"\.(\d+)\.", name)
            layer = number[1] if number else ""
            pattern = name if not number else f"{name[: number.start()]}.{{i}}.{name[number.end() :]}"
            if pattern in names:
                renamed[names[pattern].replace("{i}", layer)] = tensor
                known.append(name)
        check_names("this state", weights, known, spare=spare)
        return renamed
