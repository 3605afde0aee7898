"""What all pages of one server share."""

from __future__ import annotations

import functools
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from filmstrip.errors import UserError
from filmstrip.studio.jobs import Jobs
from filmstrip.studio.places import Places
from filmstrip.studio.rating import Rating
from filmstrip.studio.security import Tokens
from filmstrip.studio.segments import Segments
from filmstrip.studio.training import Trainings

MAX_JSON = 16 * 2**20
"""Maximum size of what a script sends, bytes."""
MAX_UPLOAD = 2 * 2**30
"""Maximum size of an uploaded film by default, bytes."""


@dataclass
class Context:
    """The folders of one server, its secrets, and what it does."""

    places: Places
    tokens: Tokens = field(default_factory=Tokens)
    max_upload: int = MAX_UPLOAD
    """Maximum size of an uploaded film, bytes."""
    jobs: Jobs = field(default_factory=Jobs)
    trainings: Trainings = field(default_factory=Trainings)
    rating: Rating | None = None
    """Pairs of edited films to judge, which have pages of their own (`filmstrip rate`)."""

    @functools.cached_property
    def segments(self) -> Segments | None:
        """The labelled segments of the folder of videos; None without such a folder."""
        return None if self.places.videos is None else Segments(self.places.videos)


def context_of(request: Request) -> Context:
    """The context of the server that received a request."""
    return request.app.state.context


def asked(request: Request, name: str) -> str:
    """A part of a request's query; empty if it is not there."""
    return request.query_params.get(name, "")


def of_script(handler: Callable[[Request, dict[str, Any]], Any]) -> Callable[[Request], Awaitable[Response]]:
    """The endpoint of a script: it hands a JSON object to the handler, and answers with JSON."""

    async def endpoint(request: Request) -> Response:
        content = bytearray()
        async for piece in request.stream():
            content += piece
            if len(content) > MAX_JSON:
                raise UserError(f"this is larger than {MAX_JSON // 2**20} MiB")
        try:
            given = json.loads(content)
        except ValueError:
            given = None
        if not isinstance(given, dict):
            raise UserError("expected a JSON object")
        return JSONResponse(await run_in_threadpool(handler, request, given))

    return endpoint
