"""Pages of films: those of a run, and one film played over its timeline."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response

from filmstrip.errors import UserError
from filmstrip.report.markup import Markup, join, tag
from filmstrip.studio.ask_forms import ask_panel
from filmstrip.studio.context import asked, context_of
from filmstrip.studio.films import Film, film_of, playable, predictions_of, samples_of, source_of, still
from filmstrip.studio.frame import choice, link, page
from filmstrip.studio.places import Places
from filmstrip.video.decoder import DecodeError

log = logging.getLogger(__name__)

PER_PAGE = 48
"""Maximum number of films on a page."""
SHOWN = {"all": "all films", "wrong": "wrong predictions", "right": "right predictions"}


@dataclass(frozen=True)
class Entry:
    """A film of a run, and what the run predicted when it was evaluated last."""

    name: str
    label: str | None = None
    predicted: str | None = None
    score: float = 0.0

    @property
    def right(self) -> bool | None:
        """Whether the prediction is right; None without one."""
        return None if self.predicted is None or self.label is None else self.predicted == self.label


def films_of(folder: Path) -> list[Entry]:
    """The films that a run was evaluated on, with its predictions if it keeps any, the first of a collection else.

    Raises:
        UserError: the data cannot be opened.
    """
    try:
        predictions = predictions_of(folder)
    except UserError as error:  # such as those of several classes a film; the films are there all the same
        log.warning("%s", error)
        predictions = None
    if predictions is not None:
        scores, best = (each.tolist() for each in predictions.probabilities.max(dim=1))
        labels, classes = predictions.labels.tolist(), predictions.classes
        return [
            Entry(name, classes[label], classes[k], score)
            for name, label, k, score in zip(predictions.names, labels, best, scores)
        ]
    source = source_of(folder)
    held = [s for s in samples_of(source).values() if s.split != "train"] or list(samples_of(source).values())
    seen: dict[str, Entry] = {}
    for sample in held:  # key frames of one film are one entry
        label = None if sample.label is None else source.classes[sample.label]
        seen.setdefault(
            sample.path if label is None and sample.start is None else sample.name, Entry(sample.name, label)
        )
    return list(seen.values())


def films(request: Request) -> Response:
    """The films of a run, filtered."""
    context, run = context_of(request), asked(request, "run")
    folder = context.places.run(run)
    every = films_of(folder)
    label, shown = asked(request, "label"), asked(request, "shown") or "all"
    kept = [
        each
        for each in every
        if (not label or each.label == label) and (shown == "all" or each.right is (shown == "right"))
    ]
    first = max(0, int(text)) if (text := asked(request, "from")).isdigit() else 0
    labels = sorted({each.label for each in every if each.label is not None})
    filters = [tag("input", type="hidden", name="run", value=run)]
    if labels:
        filters.append(choice("label", {"": "all classes"} | {name: name for name in labels}, label, "Class"))
    if any(each.right is not None for each in every):
        filters.append(choice("shown", SHOWN, shown, "Show"))
    form = tag("form", *filters, tag("button", "Filter"), class_="filter", action="/films") if filters[1:] else None
    said = f"{len(kept):,} of {len(every):,} films." if len(kept) < len(every) else f"{len(every):,} films."
    if not every:
        said = "This run reads features, not films. Upload a film to ask it about one."
    about = {"run": run, "label": label or None, "shown": shown}
    pages = further("/films", about, first, len(kept))
    content = join([form, tag("p", said, class_="note above"), gallery(run, kept[first : first + PER_PAGE]), pages])
    lead = join(["The films that ", tag("a", run, href=link("/run", name=run)), " was evaluated on."])
    return page("Films", content, token=context.tokens.page, lead=lead, current="/")


def further(address: str, about: dict[str, str | None], first: int, count: int) -> Markup:
    """Links to the films before and behind those on a page, which begin with the ``first`` of ``count``."""
    places = {"Previous": first - PER_PAGE if first else None, "Next": first + PER_PAGE}
    links = (
        tag("a", name, href=link(address, **about, **{"from": max(0, place)}))
        for name, place in places.items()
        if place is not None and place < count
    )
    return tag("nav", *links, aria_label="Further films")


def gallery(run: str, entries: Sequence[Entry]) -> Markup:
    """Stills of films, with what was predicted."""
    return tag("ul", *(_card(run, each) for each in entries), class_="films")


def _card(run: str, film: Entry) -> Markup:
    verdict = None
    if film.right is not None:
        said = f"✓ {film.predicted}" if film.right else f"✗ {film.predicted}, is {film.label}"
        verdict = tag("span", said, f" {film.score:.0%}", class_=f"verdict {'right' if film.right else 'wrong'}")
    elif film.label is not None:
        verdict = tag("span", film.label, class_="verdict")
    picture = tag("img", src=link("/film/still", run=run, sample=film.name), alt="", loading="lazy", width=240)
    name = tag("span", film.name, class_="note")
    return tag("li", tag("a", picture, verdict, name, href=link("/film", run=run, sample=film.name)))


def film_page(request: Request) -> Response:
    """One film over its timeline, and what runs say of it."""
    context = context_of(request)
    film = film_of(context.places, request.query_params)
    runs = [name for name in dict.fromkeys((asked(request, "run"), asked(request, "with"))) if name]
    content = (player(film, _known(context.places, film, runs)), ask_panel(context.places, film, runs))
    lead = join(["From ", tag("a", runs[0], href=link("/films", run=runs[0])), "."]) if runs else None
    return page(film.name, *content, token=context.tokens.page, lead=lead, current="/" if runs else "/upload")


def player(film: Film, rows: Sequence[dict[str, Any]] = ()) -> Markup:
    """A film with its timeline, which the script fills."""
    return tag(
        "div",
        tag(
            "div",
            tag(
                "video",
                controls=True,
                preload="metadata",
                playsinline=True,
                muted=True,
                aria_label=f"Film {film.name}",
            ),
            tag("canvas", aria_hidden="true"),
            tag("p", "Opening the film ...", class_="opening note"),
            class_="screen",
        ),
        tag("div", class_="timeline", role="group", aria_label="Timeline: each button goes to its time in the film"),
        tag("p", class_="under note", aria_live="polite"),
        class_="player",
        data_ready=link("/film/ready", **film.query),
        data_film=json.dumps(dict(film.query)),
        data_from=film.start,
        data_to=film.end,
        data_rows=json.dumps(list(rows)),
    )


def film_ready(request: Request) -> Response:
    """What the player needs; a film that browsers do not play is converted first."""
    film = film_of(context_of(request).places, request.query_params)
    found = playable(context_of(request).places, film)
    info = found.info
    return JSONResponse(
        {
            "source": link("/film/data", **film.query),
            "seconds": info.duration,
            "fps": info.fps,
            "aspect": info.width / info.height,
            "said": f"{info.width} x {info.height}, {info.fps:.3g} frames/s, {info.duration:.2f} s"
            + (f"; converted for this page: {found.why}" if found.why else ""),
        }
    )


def film_data(request: Request) -> Response:
    """The film's file, or a part of it (``Range``)."""
    context = context_of(request)
    found = playable(context.places, film_of(context.places, request.query_params))
    return FileResponse(found.path, media_type=found.type, headers={"cache-control": "private, max-age=0"})


def film_still(request: Request) -> Response:
    """A small picture of the film."""
    try:
        picture = still(film_of(context_of(request).places, request.query_params))
    except (DecodeError, OSError):
        return Response(status_code=404)
    return Response(picture, media_type="image/jpeg", headers={"cache-control": "private, max-age=600"})


def _known(places: Places, film: Film, runs: Sequence[str]) -> list[dict[str, Any]]:
    """Rows of the timeline that are known without asking: the label, and what runs predicted for the whole video."""
    rows: list[dict[str, Any]] = []
    span = {"start": film.start or 0.0, "end": film.end}
    if film.label is not None:
        rows.append({"name": "label", "spans": [span | {"label": film.label}]})
    for run in runs:
        try:
            found = next((each for each in films_of(places.run(run)) if each.name == film.query.get("sample")), None)
        except (UserError, OSError):
            continue
        if found is not None and found.predicted is not None:
            said = {"label": found.predicted, "score": found.score, "right": found.right}
            rows.append({"name": f"{run}: whole", "spans": [span | said]})
    return rows
