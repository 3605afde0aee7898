"""Two classifiers on the same films: who is right where."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import Response

from filmstrip.errors import UserError
from filmstrip.report.comparison import training_curves
from filmstrip.report.markup import Markup, join, tag
from filmstrip.runs.contents import PREDICTIONS
from filmstrip.studio.context import asked, context_of
from filmstrip.studio.film_pages import PER_PAGE, Entry, films_of, further
from filmstrip.studio.frame import choice, facts, link, page, section
from filmstrip.studio.places import Places


@dataclass(frozen=True)
class Pair:
    """One film, and what each of the two runs predicted."""

    a: Entry
    b: Entry


SHOWN: dict[str, tuple[str, Callable[[Pair], bool]]] = {
    "differ": ("where they differ", lambda pair: pair.a.predicted != pair.b.predicted),
    "a": ("where only the first is right", lambda pair: bool(pair.a.right and not pair.b.right)),
    "b": ("where only the second is right", lambda pair: bool(pair.b.right and not pair.a.right)),
    "neither": ("where both are wrong", lambda pair: not pair.a.right and not pair.b.right),
    "both": ("where both are right", lambda pair: bool(pair.a.right and pair.b.right)),
    "all": ("all films", lambda pair: True),
}
"""Filters: what they are called, and which films they keep."""


def compare(request: Request) -> Response:
    """The films that two runs were evaluated on, with the predictions of both."""
    context, a, b = context_of(request), asked(request, "a"), asked(request, "b")
    names = [name for name in context.places.names() if (context.places.run(name) / PREDICTIONS).exists()]
    label, shown = asked(request, "label"), asked(request, "shown") or "differ"
    if len(names) < 2:
        said = "Comparing needs two runs of classifiers that were evaluated: their folders keep predictions.csv."
        return page("Compare", tag("p", said), token=context.tokens.page, current="/compare")
    a, b = a or names[0], b or next(name for name in names if name != (a or names[0]))
    problem, content = None, Markup("")
    labels: list[str] = []
    try:
        pairs = _pairs(context.places, a, b)
        labels = sorted({pair.a.label for pair in pairs if pair.a.label is not None})
        first = int(text) if (text := asked(request, "from")).isdigit() else 0
        content = _compared(context.places, a, b, pairs, label, shown, first)
    except UserError as error:
        problem = tag("p", str(error), class_="problem")
    runs = {name: name for name in names}
    form = tag(
        "form",
        choice("a", runs, a, "First run"),
        choice("b", runs, b, "Second run"),
        choice("shown", {key: said for key, (said, _) in SHOWN.items()}, shown, "Show films"),
        choice("label", {"": "all classes"} | {name: name for name in labels}, label, "Class"),
        tag("button", "Show"),
        class_="filter",
        action="/compare",
    )
    lead = "Two classifiers on the same films: who is right where. A film's page shows both clip by clip."
    return page("Compare", form, problem, content, token=context.tokens.page, lead=lead, current="/compare")


def _pairs(places: Places, a: str, b: str) -> list[Pair]:
    """The films that both runs were evaluated on.

    Raises:
        UserError: there are none, or a run's predictions cannot be read.
    """
    ours, theirs = ({film.name: film for film in films_of(places.run(name))} for name in (a, b))
    pairs = [Pair(film, theirs[name]) for name, film in ours.items() if name in theirs]
    pairs = [pair for pair in pairs if pair.a.right is not None and pair.b.right is not None]
    if not pairs:
        raise UserError(
            f"{a} and {b} were not evaluated on the same films: choose runs on the same data, or evaluate one on the "
            "other's (filmstrip eval RUN --data PATH)"
        )
    return pairs


def _compared(places: Places, a: str, b: str, pairs: list[Pair], label: str, shown: str, first: int) -> Markup:
    if shown not in SHOWN:
        raise UserError(f"there is no filter {shown!r}: choose one of the list")
    of_class = [pair for pair in pairs if not label or pair.a.label == label]
    count = {key: sum(map(keep, of_class)) for key, (_, keep) in SHOWN.items()}
    kept = [pair for pair in of_class if SHOWN[shown][1](pair)]
    figures = facts(
        {
            "Films": f"{len(of_class):,}",
            f"{a} right": _share(count["a"] + count["both"], len(of_class)),
            f"{b} right": _share(count["b"] + count["both"], len(of_class)),
            f"Only {a} right": f"{count['a']:,}",
            f"Only {b} right": f"{count['b']:,}",
            "Both wrong": f"{count['neither']:,}",
        }
    )
    cards = tag("ul", *(_card(a, b, pair) for pair in kept[first : first + PER_PAGE]), class_="films")
    about = {"a": a, "b": b, "shown": shown, "label": label or None}
    said = tag("p", f"{len(kept):,} films{'' if shown == 'all' else f' {SHOWN[shown][0]}'}.", class_="note above")
    charts = training_curves(
        {a: places.run(a), b: places.run(b)}, {"loss": "Loss", "eval/top1": "Top-1 accuracy"}, "Training of both"
    )
    return join(
        [
            figures,
            section("Films", said, cards, further("/compare", about, first, len(kept))),
            section(charts.title, charts.html()),
        ]
    )


def _share(count: int, total: int) -> str:
    return f"{count / total:.0%} ({count:,})" if total else "–"


def _card(a: str, b: str, pair: Pair) -> Markup:
    picture = tag("img", src=link("/film/still", run=a, sample=pair.a.name), alt="", loading="lazy", width=240)
    verdicts = (
        tag(
            "span",
            f"{'✓' if film.right else '✗'} {film.predicted} {film.score:.0%}",
            tag("small", f" {run}"),
            class_=f"verdict {'right' if film.right else 'wrong'}",
        )
        for run, film in ((a, pair.a), (b, pair.b))
    )
    label = tag("span", f"is {pair.a.label}", class_="label")
    name = tag("span", pair.a.name, class_="note")
    address = link("/film", run=a, sample=pair.a.name, **{"with": b})
    return tag("li", tag("a", picture, label, *verdicts, name, href=address))
