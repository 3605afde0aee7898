"""A report: one self-contained HTML file, without network requests."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Protocol

from filmstrip import __version__
from filmstrip.files import write_bytes
from filmstrip.report.markup import Markup, join, tag

POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
"""Content security policy: nothing outside the file is loaded, and no script runs, whatever a name contains."""


class Section(Protocol):
    """A part of a report."""

    @property
    def title(self) -> str:
        """The part's heading."""
        ...

    def html(self) -> Markup:
        """The part's content, without its heading."""
        ...


@dataclass(frozen=True)
class Group:
    """Sections side by side under one heading, each with its own smaller one."""

    title: str
    sections: Sequence[Section]
    note: str | None = None
    """A short paragraph above the sections."""

    def html(self) -> Markup:
        """The sections as columns, as many as fit."""
        columns = (tag("div", tag("h3", s.title), s.html()) for s in self.sections)
        note = tag("p", self.note, class_="note above") if self.note else None
        return join([note, tag("div", *columns, class_="group")])


@dataclass(frozen=True)
class Report:
    """A page of sections below a title and a summary paragraph."""

    title: str
    lead: str
    sections: Sequence[Section]

    def html(self) -> str:
        """The whole document."""
        style = (resources.files("filmstrip.report") / "style.css").read_text()
        anchors = _anchors([section.title for section in self.sections])
        links = (tag("a", s.title, href=f"#{anchor}") for s, anchor in zip(self.sections, anchors, strict=True))
        head = tag(
            "head",
            tag("meta", charset="utf-8"),
            tag("meta", http_equiv="Content-Security-Policy", content=POLICY),
            tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
            tag("meta", name="color-scheme", content="light dark"),
            tag("title", self.title),
            tag("style", Markup(style)),
        )
        body = tag(
            "body",
            tag("header", tag("h1", self.title), tag("p", self.lead, class_="lead"), tag("nav", *links)),
            tag("main", *(_section(s, anchor) for s, anchor in zip(self.sections, anchors, strict=True))),
            tag("footer", f"Written by Filmstrip {__version__}."),
        )
        return "<!doctype html>\n" + tag("html", head, "\n", body, lang="en") + "\n"

    def write(self, path: Path) -> Path:
        """Write the document, atomically."""
        # File names may contain undecodable bytes (surrogates): replacement characters are written.
        write_bytes(self.html().encode("utf-8", "replace"), path)
        return path


def _section(section: Section, anchor: str) -> Markup:
    return join(["\n", tag("section", tag("h2", section.title), section.html(), id=anchor)])


def _anchors(titles: Sequence[str]) -> list[str]:
    """A unique anchor for each heading."""
    anchors: list[str] = []
    for title in titles:
        base = re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-") or "section"
        candidates = (base if i == 1 else f"{base}-{i}" for i in itertools.count(1))
        anchors.append(next(name for name in candidates if name not in anchors))
    return anchors
