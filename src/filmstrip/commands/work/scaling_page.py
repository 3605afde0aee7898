"""A scaling law: loss against compute with its fit, learning rates by width, and every measurement."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from filmstrip.measure.power_law import Point, PowerLaw
from filmstrip.report import Column, Curves, Facts, Group, Report, Section, Table, Text
from filmstrip.report.sections import Cell

FEW_SIZES, FEW_POINTS = 6, 4
"""Numbers of sizes and of measurements of each below which a law is called preliminary."""


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """Held-out losses by learning rate, nats a code, of one network; none where training diverged."""

    kind: str
    """``width``: at the depth of the smallest size; ``ladder``: as deep as its size."""
    size: int
    width: int
    depth: int
    losses: Mapping[float, float | None]
    steps: int

    @property
    def best(self) -> float | None:
        """The rate of the lowest loss; none if training diverged with all."""
        known = {rate: loss for rate, loss in self.losses.items() if loss is not None}
        return min(known, key=lambda rate: known[rate]) if known else None

    @property
    def at_edge(self) -> bool:
        """Whether the best rate is the lowest or the highest that was tried."""
        return self.best in (min(self.losses), max(self.losses))


@dataclass(frozen=True, kw_only=True)
class Law:
    """What was fitted to the lower envelope."""

    power: PowerLaw
    offset: PowerLaw
    """The form with an offset."""
    interval: tuple[float, float] | None
    """95% interval of the exponent of ``power``."""
    front: Sequence[Point]


@dataclass(frozen=True, kw_only=True)
class Measured:
    """All results of a ladder."""

    ladder: int
    """Number of sizes."""
    tokens: int
    """Number of tokens that each was trained on."""
    points: Sequence[Mapping[str, Any]]
    """Measurements: ``size``, ``width``, ``depth``, ``parameters``, ``lr``, ``step``, ``clips``, ``multiply_adds``,
    ``loss``."""
    unigram: float
    """Entropy of single codes, nats."""
    margin: float
    """Nats below it from which on a network has learnt something."""
    sweeps: Sequence[Sweep]
    law: Law | None
    failures: Mapping[str, str]
    """Why sizes are missing, by name."""
    mup: bool
    """Whether the networks are in the maximal update parametrisation."""

    @property
    def unlearnt(self) -> list[str]:
        """Sizes whose last measurement is no better than the frequency of single codes."""
        last = {(row["width"], row["depth"]): row["loss"] for row in self.points}
        return [f"{w}x{d}" for (w, d), loss in last.items() if loss >= self.unigram - self.margin]


def formula(law: PowerLaw) -> str:
    """A law in symbols."""
    offset = f"{law.offset:.4g} + " if law.offset else ""
    return f"{offset}{law.factor:.4g} C^-{law.exponent:.4g}"


def scaling_table(found: Measured) -> Table:
    """One row for each measurement."""
    columns = (
        Column("width x depth"),
        Column("parameters (M)", ".3f"),
        Column("learning rate", ".4g"),
        Column("step", ",.0f"),
        Column("multiply-adds", ".3e"),
        Column("loss (nats a code)", ".4f", "lowest"),
    )
    rows: list[list[Cell]] = []
    for row in found.points:
        cost = (row["parameters"] / 1e6, row["lr"], row["step"], row["multiply_adds"])
        rows.append([f"{row['width']}x{row['depth']}", *cost, row["loss"]])
    notes = [
        "Multiply-adds are those of forward and backward passes until then, without the tokenizer; the sweep's are "
        "not among them. The loss is of held-out clips. Parameters include embedding and output layer.",
        *(f"{name} diverged: {why}" for name, why in found.failures.items()),
    ]
    return Table("Measurements", columns, rows, notes)


def scaling_report(found: Measured) -> Report:
    """The page: the finding in a paragraph, loss against compute, learning rates, all measurements."""
    return Report(
        "Scaling law",
        _lead(found),
        [_facts(found), _picture(found), *_rates(found), scaling_table(found), _method(found)],
    )


def _lead(found: Measured) -> str:
    said = []
    if found.law is None:
        said.append(
            "No law could be fitted: the lower envelope of what has learnt something has fewer than 3 points."
        )
    else:
        law = found.law
        within = "no interval"
        if law.interval is not None:
            within = f"95% interval {law.interval[0]:.4f} to {law.interval[1]:.4f}"
        said.append(
            f"Held-out loss falls as {formula(law.power)} of the multiply-adds C spent on training "
            f"(exponent: {within}; R² {law.power.r2:.4f} in log-log, {len(law.front)} measurements on the envelope). "
            f"With an offset: {formula(law.offset)} (R² {law.offset.r2:.4f})."
        )
    counts = [sum(row["size"] == size for row in found.points) for size in range(1, found.ladder + 1)]
    if found.ladder < FEW_SIZES or min(counts) < FEW_POINTS:
        said.append(f"It is preliminary: fewer than {FEW_SIZES} sizes of {FEW_POINTS} measurements each.")
    if found.unlearnt:
        said.append(
            f"Training of {', '.join(found.unlearnt)} stopped before anything was learnt: the loss is that of the "
            "frequency of single codes (unigram entropy). Such measurements are drawn and not fitted: give more "
            "tokens."
        )
    if edges := [f"{sweep.width}x{sweep.depth}" for sweep in found.sweeps if sweep.best and sweep.at_edge]:
        said.append(f"The best learning rate of {', '.join(edges)} is the last that was tried: widen --rates.")
    return " ".join(said)


def _facts(found: Measured) -> Facts:
    facts = [
        ("sizes", str(found.ladder)),
        ("measurements", str(len(found.points))),
        ("tokens for each", f"{found.tokens:,}"),
        ("unigram entropy", f"{found.unigram:.3f} nats"),
        ("lowest loss", f"{min((row['loss'] for row in found.points), default=math.nan):.3f} nats"),
    ]
    if found.law:
        facts.append(("exponent", f"{found.law.power.exponent:.4f}"))
    return Facts("At a glance", facts)


def _picture(found: Measured) -> Section:
    curves: dict[str, tuple[list[float], list[float]]] = {}
    for row in found.points:
        xs, ys = curves.setdefault(f"{row['width']}x{row['depth']}", ([], []))
        xs.append(row["multiply_adds"])
        ys.append(row["loss"])
    law = None
    if found.law and found.points:
        low, high = (f(row["multiply_adds"] for row in found.points) for f in (min, max))
        xs = [low * (high / low) ** (i / 60) for i in range(61)]
        law = (xs, [found.law.power(x) for x in xs])
    return Curves(
        "Loss against compute",
        curves,
        x_label="multiply-adds",
        y_label="nats a code",
        log=True,
        log_x=True,
        level=("unigram entropy", found.unigram),
        law=law,
    )


def _rates(found: Measured) -> list[Section]:
    """A chart for each kind of sweep."""
    charts = []
    for kind, title in (("width", "Every width at one depth"), ("ladder", "Every size")):
        sweeps = [sweep for sweep in found.sweeps if sweep.kind == kind]
        curves = {
            f"{sweep.width}x{sweep.depth}": (
                list(sweep.losses),
                [math.nan if loss is None else loss for loss in sweep.losses.values()],
            )
            for sweep in sweeps
        }
        if curves:
            charts.append(Curves(title, curves, x_label="learning rate", y_label="nats a code", log_x=True))
    if not charts:
        return []
    best = [
        f"{sweep.width}x{sweep.depth}: {'none, all diverged' if sweep.best is None else f'{sweep.best:.4g}'}"
        for sweep in found.sweeps
    ]
    kind = "maximal update" if found.mup else "standard"
    said = (
        f"Best of those tried, in the {kind} parametrisation, after {found.sweeps[0].steps} steps: {'; '.join(best)}."
    )
    return [Group("Learning rates", charts), Text("Best learning rates", [said])]


def _method(found: Measured) -> Text:
    return Text(
        "How the law was fitted",
        [
            "The lower envelope are the measurements that no other with as little compute beats. The dashed line is "
            "the least-squares line through it in log-log. Measurements that are not "
            f"{found.margin} nats below the unigram entropy are left out.",
            "The interval of the exponent is from a bootstrap over sizes: whole sizes are drawn with replacement, "
            "since the measurements of one run depend on each other, and each draw has an envelope of its own. It "
            "does not include the spread over seeds.",
            "Factors of two laws can be compared only if compute has the same unit, and tokenizer and data are the "
            "same.",
        ],
    )
