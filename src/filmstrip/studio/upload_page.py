"""Uploaded films, which runs can be asked about."""

from __future__ import annotations

import re
import secrets
import shutil
import time
from pathlib import Path
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from filmstrip.data.layouts.folder import VIDEO_SUFFIXES
from filmstrip.errors import UserError
from filmstrip.report.markup import tag
from filmstrip.studio.context import asked, context_of
from filmstrip.studio.films import UPLOADS, digest
from filmstrip.studio.frame import link, page, section
from filmstrip.studio.places import inside
from filmstrip.video.decode import open_video
from filmstrip.video.decoder import DecodeError
from filmstrip.video.images import IMAGE_SUFFIXES

SUFFIXES = VIDEO_SUFFIXES | IMAGE_SUFFIXES
LONGEST = 100
"""Maximum length of a file's name."""


def upload_page(request: Request) -> Response:
    """A place to upload a film, and those that were."""
    context = context_of(request)
    folder = context.places.own / UPLOADS
    kept = sorted(folder.iterdir(), key=lambda each: -each.stat().st_mtime) if folder.is_dir() else []
    cards = []
    for place in kept:
        files = [file for file in place.iterdir() if not file.name.startswith(".")]
        if len(files) != 1:
            continue
        address = link("/film", upload=place.name)
        picture = tag("img", src=link("/film/still", upload=place.name), alt="", loading="lazy", width=240)
        size = f"{files[0].stat().st_size / 2**20:.1f} MiB"
        about = tag("span", f"{files[0].name}, {size}", class_="note")
        button = tag("button", "Remove", type="button", class_="quiet", data_remove=place.name)
        cards.append(tag("li", tag("a", picture, about, href=address), button))
    limit = f"A video or an image, of at most {context.max_upload / 2**20:,.0f} MiB. It stays on this machine."
    field = tag("input", type="file", accept="video/*,image/*," + ",".join(sorted(SUFFIXES)), id="film")
    form = tag(
        "div",
        tag("label", tag("span", "Film"), field, tag("small", limit)),
        tag("progress", max=1, value=0, hidden=True),
        class_="drop",
        id="upload",
    )
    shown = section("Uploaded films", tag("ul", *cards, class_="films")) if cards else None
    lead = "Upload a film, and ask a classifier, detector, forecaster or generator about it."
    return page("Ask about a film", form, shown, token=context.tokens.page, lead=lead, current="/upload")


async def upload(request: Request) -> Response:
    """Keep an uploaded film, if it is one.

    Raises:
        UserError: it is too large, or not a video or an image that can be read.
    """
    context = context_of(request)
    name = cleaned(asked(request, "name"))
    stated = request.headers.get("content-length", "0")
    too_large = UserError(
        f"the film is larger than {context.max_upload / 2**20:,.0f} MiB: start the studio with a larger --max-upload"
    )
    if not stated.isdecimal() or int(stated) > context.max_upload:
        raise too_large
    place = context.places.own / UPLOADS / f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(4)}"
    part = place / f".part{Path(name).suffix}"
    await run_in_threadpool(place.mkdir, parents=True)
    try:
        size = 0
        with part.open("wb") as file:
            async for piece in request.stream():
                size += len(piece)
                if size > context.max_upload:
                    raise too_large
                await run_in_threadpool(file.write, piece)
        await run_in_threadpool(_check, part, name)
        part.rename(place / name)
    except BaseException:
        shutil.rmtree(place, ignore_errors=True)
        raise
    return JSONResponse({"upload": place.name, "page": link("/film", upload=place.name)})


def cleaned(name: str) -> str:
    """A file's name without folders and without characters that are special anywhere.

    Raises:
        UserError: it does not have the extension of a video or an image.
    """
    bare = name.replace("\\", "/").rpartition("/")[2]
    stem, suffix = Path(bare).stem, Path(bare).suffix.lower()
    if suffix not in SUFFIXES:
        raise UserError(
            f"{bare[:LONGEST] or 'the file'} is not a video or an image: its name ends with none of their extensions"
        )
    return (re.sub(r"[^\w. ()-]", "_", stem).strip(" .-")[:LONGEST] or "film") + suffix


def _check(path: Path, name: str) -> None:
    """See that a film can be read.

    Raises:
        UserError: it cannot.
    """
    try:
        with open_video(path) as decoder:
            decoder.frames_at([0.0])
    except DecodeError as error:
        raise UserError(f"{name} cannot be read: {error.reason}") from None


def remove(request: Request, given: dict[str, Any]) -> dict[str, Any]:
    """Remove an uploaded film, and its conversion."""
    places = context_of(request).places
    place = inside(places.own, f"{UPLOADS}/{given.get('upload', '')}")
    if place.parent != inside(places.own, UPLOADS):
        raise UserError("there is no such upload")
    for file in place.iterdir():
        (places.own / "films" / f"{digest(file)}.mp4").unlink(missing_ok=True)
    shutil.rmtree(place)
    return {}
