"""The list of runs, which changes while they train."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from starlette.requests import Request
from starlette.responses import Response

from filmstrip.report.axes import fitted
from filmstrip.report.curves import Series
from filmstrip.report.markup import Markup, join, tag
from filmstrip.studio.context import asked, context_of
from filmstrip.studio.frame import link, live, page, unless_known
from filmstrip.studio.places import Places
from filmstrip.studio.states import MEANING, Glance, State, glance, version
from filmstrip.studio.training import shown

WIDTH, HEIGHT = 150, 36
"""Size of the small curve of a run's loss, in page units."""
MAX_POINTS = 60
"""Maximum number of points of the small curve."""


def index(request: Request) -> Response:
    """The page with all runs below the folder."""
    context = context_of(request)
    lead = join(["Runs in ", tag("code", context.places.runs), ", the last changed first."])
    content = (
        live(link("/trainings", which="watch"), "") if context.trainings.all() else None,
        live("/runs/live", _listed(context.places)),
    )
    return page("Runs", *content, token=context.tokens.page, lead=lead, current="/")


def index_live(request: Request) -> Response:
    """The list alone."""
    places = context_of(request).places
    seen = "-".join(f"{name}:{version(places.run(name))}" for name in places.names())
    return unless_known(request, seen, lambda: _listed(places))


def trainings(request: Request) -> Response:
    """What the trainings say that this server started, the last one first: all, that of one run, or those to watch,
    which are at work or failed."""
    context, name, which = context_of(request), asked(request, "name"), asked(request, "which")
    found = [each for each in context.trainings.all()[::-1] if name in ("", each.name)]
    found = [each for each in found if which != "watch" or each.is_at_work or each.is_failed]
    content = join(shown(training, context.places) for training in found)
    return unless_known(request, content, lambda: content)


def badge(state: State) -> Markup:
    """A run's state, by word, sign and colour; what it means on hover."""
    return tag("span", state, class_=f"state {state}", title=MEANING[state])


def progress(run: Glance) -> str:
    """How far a run is."""
    return f"{run.step:,} of {run.total:,} steps" if run.total else f"{run.step:,} steps"


def _listed(places: Places) -> Markup:
    runs = [glance(places.run(name), name) for name in places.names()]
    if not runs:
        return tag(
            "p",
            "No runs yet. Train one (",
            tag("code", "filmstrip train recognition.r2plus1d --data my_videos --out runs/mine"),
            "), or label segments of films and train on them: ",
            tag("a", "Label", href="/label"),
            ".",
        )
    counts = Counter(run.state for run in runs)
    said = ", ".join(f"{counts[state]} {state}" for state in MEANING if counts[state])
    return join(
        [
            tag("p", f"{len(runs)} run{'s' if len(runs) > 1 else ''}: {said}.", class_="note above"),
            tag("ul", *map(_row, runs), class_="runs"),
        ]
    )


def _row(run: Glance) -> Markup:
    name, value = run.result or ("", "")
    share = run.step / run.total if run.total else None
    return tag(
        "li",
        tag("a", run.name, href=link("/run", name=run.name), class_="name"),
        badge(run.state),
        tag("span", f"{run.method} on {run.data}", class_="what"),
        tag(
            "span",
            progress(run),
            tag("span", class_="bar", style=f"--share:{min(1.0, share):.3f}") if share is not None else None,
            class_="how-far",
        ),
        tag("span", _small_curve(run.loss), class_="loss"),
        tag("span", tag("span", name, class_="note"), " ", value, class_="result") if run.result else None,
        tag("span", run.problem, class_="problem") if run.problem else None,
    )


def _small_curve(series: Series) -> Markup | None:
    """The loss as a small curve without axes."""
    steps, values = series
    if len(values) < 2:
        return None
    places = sorted({round(i * (len(values) - 1) / (MAX_POINTS - 1)) for i in range(MAX_POINTS)})
    shown: Sequence[tuple[float, float]] = [(steps[i], values[i]) for i in places if values[i] == values[i]]
    x_axis = fitted([x for x, _ in shown], 2, WIDTH - 2)
    y_axis = fitted([y for _, y in shown], HEIGHT - 3, 3)
    path = "M" + "L".join(f"{x_axis(x)} {y_axis(y)}" for x, y in shown)
    said = f"Loss from {values[0]:.3g} to {values[-1]:.3g}"
    drawn = tag("path", d=path)
    return tag("svg", drawn, viewBox=f"0 0 {WIDTH} {HEIGHT}", preserveAspectRatio="none", role="img", aria_label=said)
