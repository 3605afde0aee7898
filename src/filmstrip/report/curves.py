"""Line charts as SVG: thin lines, each named where it ends, values on hover."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from filmstrip.report.axes import Axis, fitted, tick_labels
from filmstrip.report.markup import Markup, join, tag

WIDTH, HEIGHT = 460, 280
TOP, BOTTOM, LEFT, RIGHT = 26, 36, 12, 14
CHARACTER = 6.3
"""Width of a character of a label, in the same units."""
LINE = 14
"""Height of a line of text."""
MAX_LABEL = 20
"""Maximum characters of a curve's label; the whole name is in the hover text."""
MAX_POINTS = 300
"""Maximum number of points drawn per curve: more than a screen resolves would only enlarge the page."""
MAX_HOVER = 40
NUM_COLOURS = 6

Series = tuple[Sequence[float], Sequence[float]]
"""Positions along x, and their values; non-finite values leave a gap."""


@dataclass(frozen=True)
class Curves:
    """Values over steps. ``smooth`` in 0..1 is the weight of the past in a moving average; the raw values
    stay visible behind it. With ``log`` the y axis is logarithmic and non-positive values are omitted; with ``log_x``
    the x axis is, and its values are positive. ``level`` is a named horizontal line, ``law`` a dashed curve.
    """

    title: str
    curves: Mapping[str, Series]
    x_label: str = "step"
    y_label: str = ""
    log: bool = False
    smooth: float = 0.0
    shown: tuple[float, ...] = ()
    """Values that the y axis always includes."""
    log_x: bool = False
    level: tuple[str, float] | None = None
    law: Series | None = None

    def html(self) -> Markup:
        """An SVG chart, or a sentence if there is nothing to draw."""
        curves = {name: self._points(*series) for name, series in self.curves.items()}
        curves = {name: points for name, points in curves.items() if any(p[1] is not None for p in points)}
        if not curves:
            return tag("p", "Nothing was recorded.", class_="note")
        smoothed = {name: _smoothed(points, self.smooth) for name, points in curves.items()}
        xs = [x for points in curves.values() for x, _ in points]
        ys = [y for points in curves.values() for _, y in points if y is not None]
        extra = [self.level[1]] if self.level else []
        y_axis = fitted([*ys, *self.shown, *extra], HEIGHT - BOTTOM, TOP, log=self.log, margin=0.04)
        y_labels = tick_labels(y_axis.ticks(), self.log)
        left = LEFT + max(map(len, y_labels), default=1) * CHARACTER
        named = len(curves) > 1
        right = RIGHT + (max(len(_shortened(name)) for name in curves) * CHARACTER + 6 if named else 0)
        x_axis = fitted(xs, left, WIDTH - right, log=self.log_x)
        lines = []
        for i, name in enumerate(curves):
            colour = f"series s{i % NUM_COLOURS}"
            faint = _path(curves[name], x_axis, y_axis, "raw") if self.smooth else None
            shown = _path(smoothed[name], x_axis, y_axis, "line")
            lines.append(tag("g", faint, shown, self._hover(name, smoothed[name], x_axis, y_axis), class_=colour))
        chart = tag(
            "svg",
            self._frame(x_axis, y_axis, y_labels),
            _path(_inside(self.law, x_axis, y_axis), x_axis, y_axis, "law") if self.law else None,
            _level(*self.level, x_axis, y_axis) if self.level else None,
            *lines,
            _end_labels(smoothed, x_axis, y_axis) if named else None,
            viewBox=f"0 0 {WIDTH} {HEIGHT}",
            role="img",
            aria_label=self._description(smoothed),
        )
        return tag("figure", chart, class_="chart")

    def _points(self, xs: Sequence[float], ys: Sequence[float]) -> list[Point]:
        """The curve's points in order, thinned evenly; a gap is a point without a value."""
        points = [(float(x), _drawable(float(y), self.log)) for x, y in zip(xs, ys, strict=True)]
        points.sort(key=lambda point: point[0])
        return _thinned(points, MAX_POINTS)

    def _frame(self, x_axis: Axis, y_axis: Axis, y_labels: Sequence[str]) -> Markup:
        """Grid lines, tick labels and axis names."""
        parts = [tag("text", self.y_label, x=0, y=12, class_="label")]
        for tick, text in zip(y_axis.ticks(), y_labels, strict=True):
            y = y_axis(tick)
            parts.append(tag("line", x1=x_axis.start, x2=x_axis.end, y1=y, y2=y, class_="grid"))
            parts.append(tag("text", text, x=x_axis.start - 6, y=y + 4, text_anchor="end"))
        ticks = x_axis.ticks()
        for tick, text in zip(ticks, tick_labels(ticks, self.log_x), strict=True):
            parts.append(tag("text", text, x=x_axis(tick), y=HEIGHT - BOTTOM + 16, text_anchor="middle"))
        x_name = tag("text", self.x_label, x=x_axis.end, y=HEIGHT - 4, text_anchor="end", class_="label")
        return join([*parts, x_name])

    def _hover(self, name: str, points: Sequence[Point], x_axis: Axis, y_axis: Axis) -> Markup:
        """Invisible markers along a curve with its values as hover text."""
        spots = []
        for x, y in _thinned([(x, y) for x, y in points if y is not None], MAX_HOVER):
            said = tag("title", f"{name}, {self.x_label} {x:,.6g}: {y:.4g}")
            spots.append(tag("circle", said, cx=x_axis(x), cy=y_axis(y), r=7, class_="hover"))
        return join(spots)

    def _description(self, curves: Mapping[str, Sequence[Point]]) -> str:
        """Alternative text of the chart."""
        ends = []
        for name, points in curves.items():
            values = [y for _, y in points if y is not None]
            ends.append(f"{name} goes from {values[0]:.3g} to {values[-1]:.3g}")
        return f"{self.y_label or self.title} over {self.x_label}: {'; '.join(ends)}."


Point = tuple[float, float | None]
AnyPoint = TypeVar("AnyPoint", bound=Point)


def _drawable(value: float, log: bool) -> float | None:
    return value if math.isfinite(value) and (value > 0 or not log) else None


def _thinned(points: Sequence[AnyPoint], count: int) -> list[AnyPoint]:
    """At most ``count`` points, evenly spaced, including the first and the last."""
    if len(points) <= count:
        return list(points)
    return [points[round(i * (len(points) - 1) / (count - 1))] for i in range(count)]


def _smoothed(points: Sequence[Point], weight: float) -> list[Point]:
    """Exponential moving average, with bias correction as in Adam."""
    average, norm = 0.0, 0.0
    smoothed: list[Point] = []
    for x, y in points:
        if y is None:
            smoothed.append((x, None))
            continue
        average = weight * average + (1 - weight) * y
        norm = weight * norm + (1 - weight)
        smoothed.append((x, average / norm))
    return smoothed


def _path(points: Sequence[Point], x_axis: Axis, y_axis: Axis, kind: str) -> Markup:
    """One line through the points, interrupted at gaps; an isolated point is a dot (a line of zero length with round
    caps)."""
    words, pen_down = [], False
    for x, y in points:
        if y is not None:
            words.append(f"{'L' if pen_down else 'M'}{x_axis(x)} {y_axis(y)}")
            words.append("" if pen_down else "h0")
        pen_down = y is not None
    return tag("path", d="".join(words), class_=kind)


def _inside(series: Series, x_axis: Axis, y_axis: Axis) -> list[Point]:
    """The points of a series that lie within both axes."""
    return [
        (x, y if x_axis.low <= x <= x_axis.high and y_axis.low <= y <= y_axis.high else None)
        for x, y in zip(*series, strict=True)
    ]


def _level(name: str, value: float, x_axis: Axis, y_axis: Axis) -> Markup:
    """A named horizontal line."""
    y = y_axis(value)
    line = tag("line", x1=x_axis.start, x2=x_axis.end, y1=y, y2=y, class_="level")
    return join([line, tag("text", name, x=x_axis.start + 4, y=round(y + LINE - 2, 1), class_="level")])


def _shortened(name: str) -> str:
    return name if len(name) <= MAX_LABEL else name[: MAX_LABEL - 1] + "…"


def _end_labels(curves: Mapping[str, Sequence[Point]], x_axis: Axis, y_axis: Axis) -> Markup:
    """Labels at the ends of curves, moved apart where they would overlap."""
    ends = []
    for i, (name, points) in enumerate(curves.items()):
        x, y = next((x, y) for x, y in reversed(points) if y is not None)
        ends.append((y_axis(y), x_axis(x), i, name))
    ends.sort()
    places: list[float] = []
    for y, *_ in ends:
        places.append(max(y + 4, places[-1] + LINE) if places else y + 4)
    excess = max(0.0, places[-1] - (HEIGHT - BOTTOM + 4))
    labels, ceiling = [], math.inf
    for place, (y, x, i, name) in reversed(list(zip(places, ends, strict=True))):
        place = min(place - (excess if ceiling == math.inf else 0), ceiling)
        ceiling = place - LINE
        dot = tag("circle", cx=x, cy=y, r=2.5)
        text = tag("text", _shortened(name), x=x_axis.end + 7, y=round(place, 1))
        labels.append(tag("g", dot, text, class_=f"series end s{i % NUM_COLOURS}"))
    return join(labels)
