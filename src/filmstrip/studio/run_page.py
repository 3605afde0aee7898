"""The page of one run: its curves while it trains, what it can be asked, and the other parts of its report."""

from __future__ import annotations

from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response

from filmstrip.errors import UserError
from filmstrip.report.markup import Markup, join, tag
from filmstrip.report.run import details_of, progress_of, summary_of
from filmstrip.runs.contents import PREDICTIONS
from filmstrip.studio.context import asked, context_of
from filmstrip.studio.frame import later, link, live, page, part, section, unless_known
from filmstrip.studio.run_list import badge, progress
from filmstrip.studio.states import MEANING, glance, version


def run_page(request: Request) -> Response:
    """One run."""
    context, name = context_of(request), asked(request, "name")
    folder = context.places.run(name)
    ways = [tag("a", "Films and predictions", href=link("/films", run=name))]
    if (folder / PREDICTIONS).exists():
        ways.append(tag("a", "Compare with another run", href=link("/compare", a=name)))
    content = (
        tag("p", *ways, class_="ways"),
        live(link("/trainings", name=name), "") if context.trainings.get(name) else None,
        live(link("/run/live", name=name), _progress(folder, name)),
        later(
            link("/run/details", name=name), "Reading the rest of the report, with the videos of its predictions ..."
        ),
    )
    return page(name, *content, token=context.tokens.page, current="/")


def run_live(request: Request) -> Response:
    """What changes while a run trains."""
    name = asked(request, "name")
    folder = context_of(request).places.run(name)
    return unless_known(request, version(folder), lambda: _progress(folder, name))


def run_details(request: Request) -> Response:
    """The other parts of the run's report."""
    folder = context_of(request).places.run(asked(request, "name"))
    try:
        *parts, configuration = details_of(folder)
        folded = tag("details", tag("summary", "All options of the run"), configuration.html())
        shown = (section(each.title, each.html()) for each in parts)
        return part(join([*shown, section(configuration.title, folded)]))
    except (UserError, OSError, ValueError, KeyError, TypeError) as error:
        return part(tag("p", f"The report of this run cannot be made yet: {error}", class_="note"))


def _progress(folder: Path, name: str) -> Markup:
    run = glance(folder, name)
    state = tag("p", badge(run.state), " ", MEANING[run.state], "; ", progress(run), ".", class_="run-state")
    try:
        facts, training = progress_of(folder)
        lead = tag("p", summary_of(folder), class_="lead")
    except (UserError, ValueError, KeyError, TypeError) as error:
        return join([state, tag("p", run.problem or f"Nothing to show yet: {error}", class_="note")])
    return join([state, lead, section(facts.title, facts.html()), section(training.title, training.html())])
