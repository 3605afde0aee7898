"""The frame of every page: head, navigation, sections; and messages in place of pages that cannot be shown."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from importlib import resources
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from filmstrip import __version__
from filmstrip.report.markup import Markup, tag

PAGES = (("Runs", "/"), ("Compare", "/compare"), ("Label", "/label"), ("Ask", "/upload"))
"""Names and addresses of the pages that every page links to."""


def link(path: str, **query: object) -> str:
    """An address within the studio; parts that are None are left out."""
    given = {key: value for key, value in query.items() if value is not None}
    return f"{path}?{urlencode(given)}" if given else path


def page(
    title: str,
    *content: object,
    token: str,
    lead: object = None,
    current: str = "",
    status: int = 200,
    pages: Sequence[tuple[str, str]] = PAGES,
) -> HTMLResponse:
    """A whole page with a heading; ``current`` is the address of the one of ``pages`` that it belongs to."""
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("meta", name="studio-token", content=token),
        tag("title", f"{title} · Filmstrip studio"),
        tag("link", rel="stylesheet", href="/static/report.css"),
        tag("link", rel="stylesheet", href="/static/studio.css"),
        tag("link", rel="icon", href="data:,"),
        tag("script", src="/static/studio.js", defer=True),
    )
    links = (
        tag("a", name, href=address, aria_current="page" if address == current else None) for name, address in pages
    )
    studio = tag("span", " studio") if pages else None
    body = tag(
        "body",
        tag("a", "Skip to the content", href="#content", class_="skip"),
        tag(
            "nav",
            tag("a", "Filmstrip", studio, href="/", class_="home"),
            *links,
            class_="pages",
            aria_label="Pages",
        ),
        tag("main", tag("h1", title), tag("p", lead, class_="lead") if lead else None, *content, id="content"),
        tag("div", "", class_="message", id="message", role="status", aria_live="polite"),
        tag("footer", f"Filmstrip {__version__}. These pages need nothing from the network."),
    )
    text = "<!doctype html>\n" + tag("html", head, "\n", body, lang="en") + "\n"
    # Names of files may contain undecodable bytes (surrogates).
    return HTMLResponse(text.encode("utf-8", "replace"), status_code=status)


def section(title: str | None, *content: object, anchor: str | None = None) -> Markup:
    """A section with its own heading."""
    return tag("section", tag("h2", title) if title else None, *content, id=anchor)


def live(address: str, content: object, every: float = 2.0) -> Markup:
    """Content that the script replaces by what the address returns, every so many seconds while it changes."""
    return tag("div", content, data_live=address, data_every=every)


def unless_known(request: Request, seen: str, content: Callable[[], Markup]) -> Response:
    """A part of a page, or only that it is as the script has it already (304), by a text that changes with it."""
    tagged = f'"{hashlib.blake2b(seen.encode("utf-8", "surrogateescape"), digest_size=12).hexdigest()}"'
    headers = {"etag": tagged, "cache-control": "no-cache"}
    if request.headers.get("if-none-match") == tagged:
        return Response(status_code=304, headers=headers)
    return part(content(), headers)


def part(content: Markup, headers: dict[str, str] | None = None) -> Response:
    """A part of a page."""
    return HTMLResponse(content.encode("utf-8", "replace"), headers=headers)


def later(address: str, said: str) -> Markup:
    """A place that the script fills with what the address returns, once; until then it says what it waits for."""
    return tag("div", tag("p", said, class_="note"), data_later=address)


def facts(values: dict[str, object]) -> Markup:
    """Names and values in a row, smaller than the key figures of a report."""
    return tag(
        "dl", *(tag("div", tag("dt", name), tag("dd", value)) for name, value in values.items()), class_="line"
    )


def choice(name: str, options: dict[str, str], chosen: str | None, label: str, **attributes: object) -> Markup:
    """A labelled list to choose from: values and what they are called."""
    listed = (tag("option", text, value=value, selected=value == chosen) for value, text in options.items())
    return tag("label", tag("span", label), tag("select", *listed, name=name, **attributes))


def entry(name: str, label: str, hint: str | None = None, **attributes: object) -> Markup:
    """A labelled input."""
    return tag(
        "label", tag("span", label), tag("input", name=name, **attributes), tag("small", hint) if hint else None
    )


def static(name: str) -> bytes:
    """A style sheet or script that comes with the package."""
    if name == "report.css":
        return (resources.files("filmstrip.report") / "style.css").read_bytes()
    return (resources.files("filmstrip.studio") / "static" / name).read_bytes()


STATIC = {"report.css": "text/css", "studio.css": "text/css", "studio.js": "text/javascript"}
"""Static files with their content types."""
