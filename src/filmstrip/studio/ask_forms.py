"""Asking runs about a film: the forms, and what the script sends and receives."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response

from filmstrip.errors import UserError
from filmstrip.files import write_json
from filmstrip.report.markup import Markup, join, tag
from filmstrip.runs.contents import WEIGHTS
from filmstrip.studio.asks import ASKS, Ask, Option, abilities, options_from
from filmstrip.studio.context import asked, context_of
from filmstrip.studio.films import Film, digest, film_of
from filmstrip.studio.frame import choice, entry, link, part, section
from filmstrip.studio.jobs import LOG, Job, last_words
from filmstrip.studio.places import Missing, Places, inside

ANSWERS = "answers"
"""Folder of the studio's own for answers, each in a folder named by its key."""
ANSWER = "answer.json"


def ask_panel(places: Places, film: Film, runs: Sequence[str]) -> Markup:
    """The form to choose a run and ask it; the first request to each of ``runs`` is made at once."""
    names = places.names()
    if not names:
        return section("Ask a run", tag("p", "There are no runs yet.", class_="note"))
    chosen = choice("run", {name: name for name in names}, runs[0] if runs else None, "Run", id="ask-run")
    return section(
        "Ask a run",
        tag("div", chosen, class_="filter"),
        tag("div", class_="asks", id="asks", data_runs=json.dumps(list(runs))),
        tag("div", class_="answers", id="answers"),
        anchor="ask",
    )


def ask_form(request: Request) -> Response:
    """What one run can be asked, as forms."""
    run = asked(request, "run")
    folder = context_of(request).places.run(run)
    if not (folder / WEIGHTS).exists():
        return part(tag("p", "This run has no weights yet: it can be asked once it has saved.", class_="note"))
    found = abilities(folder)
    if not found:
        said = "Nothing can be asked of this run here: it neither classifies, detects, forecasts nor generates."
        return part(tag("p", said, class_="note"))
    return part(join(_form(name, ASKS[name], run, folder) for name in found))


def _form(name: str, ask: Ask, run: str, folder: Path) -> Markup:
    fields = [_field(option, folder) for option in ask.options]
    legend = tag("h3", ask.label)
    return tag("form", legend, *fields, tag("button", ask.button), class_="ask", data_what=name, data_run=run)


def _field(option: Option, folder: Path) -> Markup | None:
    if option.choices is not None:
        names = option.choices(folder)
        return choice(option.name, {"": "any"} | {name: name for name in names}, "", option.label) if names else None
    if option.longest > 10_000:
        return tag("label", tag("span", option.label), tag("textarea", name=option.name, rows=2, spellcheck="false"))
    about = {"value": None if option.default is ... else option.default, "required": option.default is ...}
    if option.kind is str:
        return entry(option.name, option.label, None, type="text", **about)
    about |= {"min": option.lowest, "max": option.highest, "step": 1 if option.kind is int else "any"}
    return entry(option.name, option.label, None, type="number", **about)


def ask(request: Request, given: dict[str, Any]) -> dict[str, Any]:
    """Begin to answer a request; an answer that is kept is not computed again."""
    context = context_of(request)
    run, what = str(given.get("run", "")), str(given.get("what", ""))
    folder = context.places.run(run)
    if what not in abilities(folder):
        raise UserError(
            f"{run} cannot be asked this: it can be asked for {', '.join(abilities(folder)) or 'nothing'}"
        )
    query = given.get("film")
    film = film_of(context.places, {str(k): str(v) for k, v in query.items()} if isinstance(query, dict) else {})
    options = given.get("options")
    chosen = options_from(ASKS[what], folder, options if isinstance(options, dict) else {})
    if not (folder / WEIGHTS).exists():
        raise UserError(f"{run} has no weights yet: it can be asked once it has saved")
    key = digest(film.path, film.name, run, digest(folder / WEIGHTS), what, sorted(chosen.items()))
    place = context.places.own / ANSWERS / key
    job = context.jobs.get(key)
    is_at_work = job is not None and job.state in ("waiting", "running")
    if not (place / ANSWER).exists() and not is_at_work:
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)

        def work(job: Job) -> None:
            write_json(ASKS[what].work(job, folder, film, chosen), place / ANSWER)

        context.jobs.submit(key, place, work)
    return {"key": key}


def answer(request: Request) -> Response:
    """How far an answer is, or the answer."""
    key = asked(request, "key")
    place = _place(context_of(request).places, key)
    said = [line[2:] for line in _log(place) if line.startswith("$ ")]
    about: dict[str, Any] = {"key": key, "commands": said}
    if (place / ANSWER).exists():
        found = json.loads((place / ANSWER).read_bytes())
        for clip in found.get("clips", ()):
            clip["source"] = link("/answer/file", key=key, file=clip["file"])
        return JSONResponse(about | {"state": "done", "answer": found})
    job = context_of(request).jobs.get(key)
    if job is None:
        raise Missing("the studio was started anew meanwhile: ask again")
    return JSONResponse(about | {"state": job.state, "why": job.why, "words": last_words(place / LOG)})


def stop_answer(request: Request, given: dict[str, Any]) -> dict[str, Any]:
    """Stop what computes an answer."""
    context_of(request).jobs.stop(str(given.get("key", "")))
    return {}


def answer_file(request: Request) -> Response:
    """A film that a command wrote as an answer."""
    path = inside(_place(context_of(request).places, asked(request, "key")), asked(request, "file"))
    if path.suffix != ".mp4":
        raise Missing("there is no such film")
    return FileResponse(path, media_type="video/mp4", headers={"cache-control": "private, max-age=600"})


def _place(places: Places, key: str) -> Path:
    place = places.own / ANSWERS / key
    if not re.fullmatch(r"[0-9a-f]{24}", key) or not place.is_dir():
        raise Missing("there is no such answer: ask again")
    return place


def _log(place: Path) -> list[str]:
    path = place / LOG
    return path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else []
