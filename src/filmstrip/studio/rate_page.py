"""Judging edited films: two edits of one source side by side, without names, and three questions."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import FileResponse, RedirectResponse, Response

from filmstrip.data.votes import LONGEST, QUESTIONS, judge_name
from filmstrip.report.markup import Markup, tag
from filmstrip.studio.context import asked, context_of
from filmstrip.studio.films import Film, playable
from filmstrip.studio.frame import entry, link, page
from filmstrip.studio.places import Missing
from filmstrip.studio.rating import SAME, SIDES, Pair, Rating
from filmstrip.video import open_video

_SMALL = 128
"""Width of films from which on pixels are not shown as squares."""
_TITLE = "Which edit is better?"


def start(request: Request) -> Response:
    """Who judges."""
    rating = _rating(request)
    form = tag(
        "form",
        entry("judge", "Your name", "Any; it keeps you from seeing a pair twice.", required=True, maxlength=LONGEST),
        tag("button", "Begin"),
        class_="filter",
        action="/pair",
    )
    lead = (
        "You will see a video, what was asked to be changed in it, and two edits of it side by side. Say which one "
        f"is better, and why. There are {len(rating.pairs):,} pairs; stop whenever you like: each answer is kept at "
        "once."
    )
    return page(_TITLE, form, token=context_of(request).tokens.page, lead=lead, pages=())


def pair_page(request: Request) -> Response:
    """The next pair for a judge, or one that was judged before (``pair``)."""
    rating, judge = _rating(request), judge_name(asked(request, "judge"))
    token = context_of(request).tokens.page
    key = asked(request, "pair")
    pair = rating.pair(key) if key else rating.next(judge)
    done, total = rating.done(judge), len(rating.pairs)
    if pair is None:
        said = tag("p", f"Thank you, {judge}: you have judged all {total:,} pairs. You can close this page.")
        return page("Done", said, token=token, pages=())
    if not key:  # so that reloading, and going back, shows this pair again
        return RedirectResponse(link("/pair", judge=judge, pair=pair.key), status_code=303)
    before = asked(request, "before")
    back = tag("a", "Change the answers before", href=link("/pair", judge=judge, pair=before)) if before else None
    film = pair.a
    asks = tag(
        "dl",
        tag("div", tag("dt", "The video shows"), tag("dd", film.source_prompt)),
        tag("div", tag("dt", "The edit was to show"), tag("dd", film.edit_prompt)),
        class_="asked",
    )
    films = tag(
        "div",
        _film("The video", judge, pair, "source"),
        _film("Left edit", judge, pair, "left"),
        _film("Right edit", judge, pair, "right"),
        class_="pair",
    )
    form = tag(
        "form",
        *(_question(name, question) for name, question in QUESTIONS.items()),
        tag("p", tag("button", "Keep and go on"), back, class_="ways"),
        id="vote",
        data_judge=judge,
        data_pair=pair.key,
    )
    progress = tag("p", f"{done:,} of {total:,} pairs judged by {judge}.", class_="note")
    again = tag("p", tag("button", "Play again", type="button", class_="quiet", id="again"))
    return page(_TITLE, asks, films, again, form, progress, token=token, pages=())


def film(request: Request) -> Response:
    """A film of a pair by its side, whose address says nothing of the method."""
    context, rating, side = context_of(request), _rating(request), asked(request, "side")
    pair, judge = rating.pair(asked(request, "pair")), judge_name(asked(request, "judge"))
    if side not in ("source", *SIDES):
        raise Missing(f"there is no side {side!r}")
    left, right = pair.sides(judge)
    path = {"source": pair.a.source, "left": left.film, "right": right.film}[side]
    found = playable(context.places, Film(path, side, {}))
    return FileResponse(found.path, media_type=found.type, headers={"cache-control": "private, max-age=0"})


def vote(request: Request, given: dict[str, Any]) -> dict[str, Any]:
    """Keep a judge's answers; the address of the next pair."""
    rating = _rating(request)
    answers = {name: str(given.get(name, "")) for name in QUESTIONS}
    kept = rating.vote(str(given.get("judge", "")), str(given.get("pair", "")), answers)
    following = rating.next(kept.judge)
    key = None if following is None else following.key
    return {"next": link("/pair", judge=kept.judge, pair=key, before=str(given["pair"]) if key else None)}


def _rating(request: Request) -> Rating:
    found = context_of(request).rating
    assert found is not None, "these pages are served with a rating alone"
    return found


def _film(said: str, judge: str, pair: Pair, side: str) -> Markup:
    with open_video(pair.a.source) as decoder:
        small = decoder.info.width < _SMALL
    video = tag(
        "video",
        class_="small" if small else None,
        src=link("/film", judge=judge, pair=pair.key, side=side),
        preload="auto",
        muted=True,
        playsinline=True,
        aria_label=said,
    )
    return tag("figure", video, tag("figcaption", said))


def _question(name: str, question: str) -> Markup:
    options = {"left": "Left", "right": "Right"} | ({SAME: "No difference"} if name != "better" else {})
    choices = (
        tag("label", tag("input", type="radio", name=name, value=value, required=True), said)
        for value, said in options.items()
    )
    return tag("fieldset", tag("legend", question), *choices)
