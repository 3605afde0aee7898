"""A scatter plot as SVG, with labels beside points that do not overlap."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

from filmstrip.report.axes import Axis, fitted, tick_labels
from filmstrip.report.markup import Markup, join, tag

WIDTH, HEIGHT = 760, 470
TOP, BOTTOM, LEFT, RIGHT = 26, 40, 44, 24
CHARACTER, LINE = 6.4, 14
"""Width of a character of a label, and height of a line of text, in the same units."""
RADIUS = 4.0
GAPS = (4, 10, 18, 28, 40, 54, 70, 88)
"""Candidate distances of a label from its point, in the same units; beyond the first a line connects them."""
DIRECTIONS = 12
PASSES = 3
"""Number of rounds of label placement."""


@dataclass(frozen=True)
class Spot:
    """A labelled point, and its hover text."""

    name: str
    x: float
    y: float
    said: str = ""


@dataclass(frozen=True)
class Scatter:
    """Quality (y, linear) against cost (x, positive, logarithmic).

    A line joins the Pareto-optimal points. ``level`` is a labelled horizontal line.
    """

    title: str
    spots: Sequence[Spot]
    x_label: str
    y_label: str
    level: tuple[str, float] | None = None
    note: str = ""

    def html(self) -> Markup:
        """An SVG chart, or a sentence if there is nothing to draw."""
        if not self.spots:
            return tag("p", "Nothing was recorded.", class_="note")
        heights = [spot.y for spot in self.spots] + ([self.level[1]] if self.level else [])
        x_axis = fitted([spot.x for spot in self.spots], LEFT, WIDTH - RIGHT, log=True, margin=0.08)
        y_axis = fitted(heights, HEIGHT - BOTTOM, TOP, margin=0.06)
        best = unbeaten(self.spots)
        points = [(x_axis(spot.x), y_axis(spot.y)) for spot in self.spots]
        named = [_level_box(self.level[0], y_axis(self.level[1]))] if self.level else []
        names = placed([spot.name for spot in self.spots], points, named)
        chart = tag(
            "svg",
            self._frame(x_axis, y_axis),
            tag("path", d="M" + "L".join(f"{points[i][0]} {points[i][1]}" for i in best), class_="best"),
            *(
                self._spot(spot, point, box, i in best)
                for i, (spot, point, box) in enumerate(zip(self.spots, points, names, strict=True))
            ),
            viewBox=f"0 0 {WIDTH} {HEIGHT}",
            role="img",
            aria_label=f"{self.y_label} over {self.x_label}: "
            + "; ".join(f"{spot.name} {spot.y:.3g} at {spot.x:.3g}" for spot in self.spots),
        )
        note = tag("p", self.note, class_="note") if self.note else None
        return join([tag("figure", chart, class_="chart scatter"), note])

    def _frame(self, x_axis: Axis, y_axis: Axis) -> Markup:
        """Grid lines, tick labels, axis names and the level."""
        parts = [tag("text", self.y_label, x=0, y=12, class_="label")]
        ticks = y_axis.ticks()
        for tick, text in zip(ticks, tick_labels(ticks), strict=True):
            parts.append(tag("line", x1=LEFT, x2=WIDTH - RIGHT, y1=y_axis(tick), y2=y_axis(tick), class_="grid"))
            parts.append(tag("text", text, x=LEFT - 6, y=y_axis(tick) + 4, text_anchor="end"))
        ticks = x_axis.ticks()
        for tick, text in zip(ticks, tick_labels(ticks, log=True), strict=True):
            parts.append(tag("line", x1=x_axis(tick), x2=x_axis(tick), y1=TOP, y2=HEIGHT - BOTTOM, class_="grid"))
            parts.append(tag("text", text, x=x_axis(tick), y=HEIGHT - BOTTOM + 16, text_anchor="middle"))
        parts.append(tag("text", self.x_label, x=WIDTH - RIGHT, y=HEIGHT - 4, text_anchor="end", class_="label"))
        if self.level:
            name, value = self.level
            y, box = y_axis(value), _level_box(name, y_axis(value))
            parts.append(tag("line", x1=LEFT, x2=WIDTH - RIGHT, y1=y, y2=y, class_="level"))
            parts.append(tag("text", name, x=box.left, y=round(box.bottom - 3.5, 1), class_="level"))
        return join(parts)

    def _spot(self, spot: Spot, point: Point, box: LabelBox, best: bool) -> Markup:
        x, y = point
        nearest = (min(max(x, box.left), box.right), min(max(y, box.top), box.bottom))
        line = None
        if math.dist(point, nearest) > RADIUS + GAPS[1]:
            line = tag("line", x1=x, y1=y, x2=round(nearest[0], 1), y2=round(nearest[1], 1), class_="lead")
        hover = tag("title", spot.said or f"{spot.name}: {spot.y:.4g} at {spot.x:.4g}")
        dot = tag("circle", hover, cx=x, cy=y, r=RADIUS)
        name = tag("text", spot.name, x=round(box.left + 1, 1), y=round(box.bottom - 3.5, 1))
        return tag("g", line, dot, name, class_="spot unbeaten" if best else "spot")


Point = tuple[float, float]


@dataclass(frozen=True)
class LabelBox:
    """The rectangle of a label."""

    left: float
    top: float
    right: float
    bottom: float

    def overlap(self, other: LabelBox) -> float:
        """The area of the intersection."""
        width = min(self.right, other.right) - max(self.left, other.left)
        height = min(self.bottom, other.bottom) - max(self.top, other.top)
        return max(width, 0.0) * max(height, 0.0)


def unbeaten(spots: Sequence[Spot]) -> list[int]:
    """Indices of the Pareto-optimal points, from left to right."""
    found: list[int] = []
    for i in sorted(range(len(spots)), key=lambda i: (spots[i].x, -spots[i].y)):
        if not found or spots[i].y > spots[found[-1]].y:
            found.append(i)
    return found


def placed(names: Sequence[str], points: Sequence[Point], taken: Sequence[LabelBox] = ()) -> list[LabelBox]:
    """The rectangle of each label: near its point, without overlap with labels, points and ``taken``, if possible.

    In several rounds, each label takes the candidate of minimum cost given the others.
    """
    fixed = [*(LabelBox(x - RADIUS, y - RADIUS, x + RADIUS, y + RADIUS) for x, y in points), *taken]
    choices = [_candidates(name, point) for name, point in zip(names, points, strict=True)]
    boxes = [places[0][0] for places in choices]
    for _ in range(PASSES):
        for i, places in enumerate(choices):
            others = [box for j, box in enumerate(boxes) if j != i] + fixed

            def cost(candidate: tuple[LabelBox, float], others: list[LabelBox] = others) -> float:
                box, distance = candidate
                return distance + 10 * sum(box.overlap(other) for other in others)

            boxes[i] = min(places, key=cost)[0]
    return boxes


def _level_box(name: str, y: float) -> LabelBox:
    """The rectangle of a level's label, below it on the left."""
    return LabelBox(LEFT + 4, y + 2, LEFT + 4 + len(name) * CHARACTER, y + 2 + LINE)


def _candidates(name: str, point: Point) -> list[tuple[LabelBox, float]]:
    """Candidate rectangles around a point within the chart, with their distances; right of it first."""
    width = len(name) * CHARACTER
    found = []
    for gap, k in itertools.product(GAPS, range(DIRECTIONS)):
        angle = 2 * math.pi * k / DIRECTIONS
        dx, dy = math.cos(angle), math.sin(angle)
        x, y = point[0] + (RADIUS + gap) * dx, point[1] + (RADIUS + gap) * dy
        left = x - width * (1 - dx) / 2
        top = y - LINE * (1 - dy) / 2
        box = LabelBox(left, top, left + width, top + LINE)
        if left >= LEFT and box.right <= WIDTH - 2 and top >= 14 and box.bottom <= HEIGHT - BOTTOM:
            found.append((box, gap + 0.5 * abs(dy)))
    return found or [(LabelBox(point[0], point[1], point[0] + width, point[1] + LINE), 0.0)]
