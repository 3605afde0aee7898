"""Labelling segments of a folder of videos, and training on them."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from filmstrip.errors import UserError
from filmstrip.report.markup import Markup, join, tag
from filmstrip.studio.context import asked, context_of
from filmstrip.studio.film_pages import player
from filmstrip.studio.films import film_of
from filmstrip.studio.frame import choice, entry, link, live, page, section
from filmstrip.studio.segments import Changed, Segments, version
from filmstrip.studio.training import command_for, presets

KEYS = {
    "Space": "play, pause",
    "← →": "one frame (with Shift one second)",
    "I": "start of a segment here",
    "O": "end of the segment here",
    "1 to 9": "class of the list",
    "Delete": "remove the segment under the head",
    "Z": "undo",
}
"""Keyboard shortcuts while labelling."""


def label(request: Request) -> Response:
    """The films to label; or one of them, with its segments."""
    context = context_of(request)
    segments = context.segments
    if segments is None:
        said = join(
            [
                "Start the studio with a folder of videos: ",
                tag("code", "filmstrip studio RUNS --videos my_videos"),
                ".",
            ]
        )
        return page("Label", tag("p", said), token=context.tokens.page, current="/label")
    if name := asked(request, "video"):
        return _one(request, segments, name)
    counts: dict[str, int] = {}
    for row in segments.rows():
        counts[row["path"]] = counts.get(row["path"], 0) + 1
    cards = (
        tag(
            "li",
            tag(
                "a",
                tag("img", src=link("/film/still", video=video), alt="", loading="lazy", width=240),
                tag("span", _number(counts.get(video, 0)), class_="verdict"),
                tag("span", video, class_="note"),
                href=link("/label", video=video),
            ),
        )
        for video in segments.videos()
    )
    films = [*cards]
    content = tag("ul", *films, class_="films") if films else tag("p", f"{segments.folder} holds no videos.")
    lead = join(["Films in ", tag("code", segments.folder), "; labels are in ", tag("code", segments.path.name), "."])
    shown = (content, train_panel(segments))
    return page("Label", *shown, token=context.tokens.page, lead=lead, current="/label")


def _number(count: int) -> str:
    return "no segments" if not count else f"{count} segment{'s' if count > 1 else ''}"


def _one(request: Request, segments: Segments, name: str) -> Response:
    context = context_of(request)
    film = film_of(context.places, {"video": name})
    rows = segments.of(name)
    videos = segments.videos()
    place = videos.index(name) if name in videos else 0
    links = [
        tag("a", said, href=link("/label", video=videos[i]))
        for said, i in (("Previous film", place - 1), ("Next film", place + 1))
        if 0 <= i < len(videos)
    ]
    keys = (tag("div", tag("dt", tag("kbd", key)), tag("dd", does)) for key, does in KEYS.items())
    editor = tag(
        "div",
        tag("div", class_="classes", role="group", aria_label="Classes"),
        tag(
            "form",
            entry("label", "Class of the next segment", type="text", list="labels", autocomplete="off", id="label"),
            tag("button", "Start here (I)", type="button", data_do="start"),
            tag("button", "End here (O)", type="button", data_do="end"),
            tag("button", "Undo (Z)", type="button", class_="quiet", data_do="undo"),
            class_="filter",
        ),
        tag("datalist", id="labels"),
        tag("p", class_="saved note", aria_live="polite"),
        tag("div", class_="scroll segments", tabindex="0", role="region", aria_label="Segments"),
        tag("details", tag("summary", "Keyboard"), tag("dl", *keys, class_="keys")),
        id="labeller",
        data_segments=json.dumps([{key: row[key] for key in ("start", "end", "label")} for row in rows]),
        data_seen=version(rows),
        data_video=name,
        data_classes=json.dumps([known for known, _ in segments.counts().most_common()]),
    )
    lead = join([tag("a", "All films", href="/label"), *(join([" · ", each]) for each in links)])
    content = (player(film), editor, train_panel(segments))
    return page(name, *content, token=context.tokens.page, lead=lead, current="/label")


def train_panel(segments: Segments) -> Markup:
    """The form that trains a classifier on the segments, and what such trainings say."""
    counts = segments.counts()
    said = ", ".join(f"{name} {count}" for name, count in sorted(counts.items())) or "none yet"
    name = f"labelled-{datetime.now():%Y%m%d-%H%M%S}"
    form = tag(
        "form",
        choice("preset", {each: each for each in presets()}, None, "Method and preset"),
        entry(
            "name", "Name of the run", type="text", value=name, required=True, pattern="[A-Za-z0-9_][A-Za-z0-9._\\-]*"
        ),
        entry("steps", "Steps (empty: the preset's)", type="number", min=1, step=1, value=200),
        tag("button", "Train"),
        class_="filter",
        id="train",
    )
    note = (
        "A fifth of each class is held out for the evaluation, by the names of segments; a class needs two. The run "
        "appears in the list of runs with its first step."
    )
    return section(
        "Train on the segments",
        tag("p", f"Segments of each class: {said}.", id="counts"),
        form,
        tag("p", note, class_="note"),
        live("/trainings", ""),
        anchor="train-panel",
    )


def save(request: Request, given: dict[str, Any]) -> dict[str, Any]:
    """Save the segments of one film."""
    context = context_of(request)
    if context.segments is None:
        raise UserError("the studio was started without a folder of videos (--videos)")
    name = str(given.get("video", ""))
    film_of(context.places, {"video": name})
    seen = context.segments.save(name, given.get("segments", ()), str(given.get("seen", "")))
    return {"seen": seen, "counts": dict(sorted(context.segments.counts().items()))}


def conflict(request: Request, error: Exception) -> Response:
    """The answer to a change of segments that another page changed meanwhile."""
    assert isinstance(error, Changed)
    return JSONResponse({"error": str(error)}, status_code=409)


def train(request: Request, given: dict[str, Any]) -> dict[str, Any]:
    """Start a training on the segments."""
    context = context_of(request)
    if context.segments is None:
        raise UserError("the studio was started without a folder of videos (--videos)")
    if len(context.segments.counts()) < 2:
        raise UserError("training a classifier needs segments of at least two classes: label some more")
    name, arguments = command_for(context.places, context.segments.path, given)
    return {"name": context.trainings.start(context.places, name, arguments).name}


def stop_training(request: Request, given: dict[str, Any]) -> dict[str, Any]:
    """Ask a training to save and stop."""
    context_of(request).trainings.stop(str(given.get("name", "")))
    return {}
