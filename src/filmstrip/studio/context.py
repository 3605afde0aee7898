"""What all pages of one server share."""

from __future__ import annotations

from dataclasses import dataclass, field

from starlette.requests import Request

from filmstrip.studio.places import Places
from filmstrip.studio.security import Tokens

MAX_UPLOAD = 2 * 2**30
"""Maximum size of an uploaded film by default, bytes."""


@dataclass(frozen=True)
class Context:
    """The folders of one server, and its secrets."""

    places: Places
    tokens: Tokens = field(default_factory=Tokens)
    max_upload: int = MAX_UPLOAD
    """Maximum size of an uploaded film, bytes."""


def context_of(request: Request) -> Context:
    """The context of the server that received a request."""
    return request.app.state.context


def asked(request: Request, name: str) -> str:
    """A part of a request's query; empty if it is not there."""
    return request.query_params.get(name, "")
