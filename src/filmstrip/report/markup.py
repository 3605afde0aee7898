"""HTML and SVG elements whose text is escaped unless it already is markup, to prevent injection by class names."""

from __future__ import annotations

import html
from collections.abc import Iterable

VOID = frozenset({"img", "br", "meta", "link", "source", "input"})


class Markup(str):
    """Text that is HTML or SVG already. All other text is escaped on insertion into an element."""

    __slots__ = ()


def escaped(value: object) -> Markup:
    """A value as markup: escaped unless it is :class:`Markup`."""
    return value if isinstance(value, Markup) else Markup(html.escape(str(value), quote=True))


def tag(name: str, /, *children: object, **attributes: object) -> Markup:
    """The element ``name``. ``None`` children and attributes are omitted, ``True`` is a bare attribute.

    In attribute names a trailing underscore is dropped and others become hyphens: ``class_``, ``stroke_width``.
    """
    written = "".join(
        f" {key.rstrip('_').replace('_', '-')}" + ("" if value is True else f'="{escaped(value)}"')
        for key, value in attributes.items()
        if value is not None and value is not False
    )
    if name in VOID:
        return Markup(f"<{name}{written}>")
    return Markup(f"<{name}{written}>{join(children)}</{name}>")


def join(parts: Iterable[object]) -> Markup:
    """Concatenated markup or text; ``None`` is omitted."""
    return Markup("".join(escaped(part) for part in parts if part is not None))
