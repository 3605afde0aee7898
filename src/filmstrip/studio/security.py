"""Who may ask the studio for what: checks in front of every page.

- **Other sites.** A page of another site must neither read the studio nor make it do something. The ``Host`` header
  must be an own name (a foreign name that resolves to this machine is refused), whatever changes something must come
  from an own page (``Origin``, and a token that only own pages can read), and browsers are told to run only the
  studio's script and not to show its pages and films in others.
- **Other people.** Served beyond this machine, every request needs the access token, once in the address, then in a
  cookie.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from starlette.datastructures import MutableHeaders
from starlette.requests import HTTPConnection
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LOCAL = ("127.0.0.1", "localhost", "::1")
"""Hosts that only this machine reaches."""
READING = ("GET", "HEAD")
"""HTTP methods that change nothing."""
HEADER = "x-studio-token"
"""Header with the page token, in requests that change something."""
COOKIE = "filmstrip_studio"
"""Cookie with the access token."""
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "media-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
"""Content security policy of all pages. Styles in attributes are those of charts."""
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "x-frame-options": "DENY",
}


@dataclass(frozen=True)
class Tokens:
    """Secrets of one server."""

    page: str = field(default_factory=lambda: secrets.token_urlsafe(24))
    """Secret in every page, which its requests send back."""
    access: str | None = None
    """Secret that every visitor needs; none where only this machine reaches the server."""


def is_local(host: str) -> bool:
    """Whether only this machine reaches a server at this address."""
    return host in LOCAL


class Guard:
    """The checks, as ASGI middleware."""

    def __init__(self, app: ASGIApp, tokens: Tokens) -> None:
        self.app, self.tokens = app, tokens

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request that is refused, and pass on the others."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
                headers.setdefault("cache-control", "no-store")
            await send(message)

        refused = self._refusal(HTTPConnection(scope), scope["method"])
        await (refused or self.app)(scope, receive, send_with_headers)

    def _refusal(self, request: HTTPConnection, method: str) -> Response | None:
        """The answer to a request that is refused; none to one that may pass."""
        if self.tokens.access is None:
            if _name(request.headers.get("host", "")) not in LOCAL:
                return _refuse(f"these pages are for {LOCAL[0]} and localhost: open it under one of these names", 400)
        elif not _equal(request.cookies.get(COOKIE), self.tokens.access):
            if method == "GET" and _equal(request.query_params.get("token"), self.tokens.access):
                answer = RedirectResponse(request.url.remove_query_params("token"), status_code=303)
                answer.set_cookie(COOKIE, self.tokens.access, httponly=True, samesite="strict")
                return answer
            return _refuse("open the address that was printed when these pages were started, with its token", 403)
        if method in READING:
            return None
        origin = urlsplit(request.headers.get("origin", ""))
        if origin.netloc != request.headers.get("host") or origin.scheme not in ("http", "https"):
            return _refuse("this request does not come from an own page", 403)
        if not _equal(request.headers.get(HEADER), self.tokens.page):
            return _refuse("the pages were started anew: reload the page, and try again", 403)
        return None


def _name(host: str) -> str | None:
    """The name in a ``Host`` header, without the port."""
    try:
        return urlsplit(f"//{host}").hostname
    except ValueError:
        return None


def _equal(given: str | None, secret: str) -> bool:
    return given is not None and secrets.compare_digest(given.encode(), secret.encode())


def _refuse(why: str, status: int) -> Response:
    return PlainTextResponse(f"Refused: {why}.\n", status_code=status)
