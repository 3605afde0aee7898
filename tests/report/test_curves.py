import itertools
import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from filmstrip.report import Curves
from filmstrip.report.axes import fitted, tick_labels
from filmstrip.report.curves import HEIGHT, WIDTH, _smoothed

numbers = st.floats(-1e12, 1e12, allow_nan=False)


@given(st.lists(numbers, min_size=1, max_size=20), st.booleans())
def test_axes_hold_their_values_and_have_readable_ticks(values, log):
    if log:
        values = [abs(value) + 1e-6 for value in values]
    axis = fitted(values, 0.0, 100.0, log=log, margin=0.04)
    assert all(-0.1 <= axis(value) <= 100.1 for value in values)
    ticks = axis.ticks()
    assert 1 <= len(ticks) <= 12
    assert ticks == sorted(set(ticks))
    labels = tick_labels(ticks, log)
    assert len(set(labels)) == len(labels)
    assert max(map(len, labels)) <= 14


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0, 1, ["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"]),
        (0, 600, ["0", "100", "200", "300", "400", "500", "600"]),
        (0, 40_000, ["0", "10k", "20k", "30k", "40k"]),
        (-1, 1, ["-1.0", "-0.5", "0.0", "0.5", "1.0"]),
        (0, 5e-5, ["0", "1e-5", "2e-5", "3e-5", "4e-5", "5e-5"]),
    ],
)
def test_ticks_are_round(low, high, expected):
    assert tick_labels(fitted([low, high], 0.0, 1.0).ticks()) == expected


def test_log_ticks():
    assert tick_labels(fitted([0.01, 100], 0, 1, log=True).ticks(), log=True) == ["0.01", "0.1", "1", "10", "100"]
    assert tick_labels(fitted([0.9, 11], 0, 1, log=True).ticks(), log=True) == ["1", "2", "5", "10"]


def path_points(html: str, kind: str = "line") -> list[list[tuple[float, float]]]:
    found = re.findall(rf'<path d="([^"]*)" class="{kind}">', html)
    return [[(float(x), float(y)) for x, y in re.findall(r"[ML](-?[\d.]+) (-?[\d.]+)", d)] for d in found]


def test_a_curve_goes_through_its_points_in_the_order_of_x():
    (points,) = path_points(Curves("t", {"a": ([2, 0, 1], [4.0, 0.0, 1.0])}).html())
    assert points == sorted(points)
    (x0, y0), (x1, y1), (x2, y2) = points
    assert x1 - x0 == pytest.approx(x2 - x1, abs=0.2)
    assert (y0 - y1) * 3 == pytest.approx(y1 - y2, abs=0.5)  # page coordinates grow downwards
    assert y0 > y2


def test_values_that_cannot_be_drawn_leave_a_gap(read_page):
    html = Curves("t", {"a": ([0, 1, 2, 3], [1.0, math.nan, 2.0, 3.0])}).html()
    d = re.search(r'd="([^"]*)"', html)[1]
    assert d.count("M") == 2 and d.count("L") == 1 and "nan" not in html
    html = Curves("t", {"a": ([0, 1, 2], [1.0, 0.0, 2.0])}, log=True).html()
    assert re.search(r'd="([^"]*)"', html)[1].count("M") == 2


@pytest.mark.parametrize("series", [{}, {"a": ([], [])}, {"a": ([1], [math.inf])}])
def test_nothing_recorded_is_said(series):
    assert "Nothing was recorded" in Curves("t", series).html()


def test_a_single_point_and_a_flat_line_are_drawn(read_page):
    assert len(path_points(Curves("t", {"a": ([5], [0.0])}).html())[0]) == 1
    assert len(path_points(Curves("t", {"a": ([0, 1], [0.3, 0.3])}).html())[0]) == 2


def test_names_at_the_ends_do_not_overlap_and_stay_inside():
    curves = {f"system {i}": ([0, 1], [1.0, 0.001 * i]) for i in range(6)}
    html = Curves("t", curves).html()
    labels = re.findall(r'<text x="([\d.]+)" y="([\d.]+)">system', html)
    heights = sorted(float(y) for _, y in labels)
    assert len(heights) == 6
    assert all(b - a >= 13.9 for a, b in itertools.pairwise(heights))
    assert heights[-1] <= HEIGHT and max(float(x) for x, _ in labels) < WIDTH


def test_one_curve_needs_no_name_beside_it(read_page):
    assert "only" not in read_page(Curves("t", {"only": ([0, 1], [1, 2])}).html()).words


def test_hovering_tells_the_value_and_listening_tells_the_ends(read_page):
    page = read_page(Curves("t", {"a": ([0, 10], [2.0, 0.5])}, y_label="loss").html())
    assert "a, step 10: 0.5" in page.words
    assert page.values("aria-label") == ["loss over step: a goes from 2 to 0.5."]


def test_long_curves_are_thinned_but_keep_their_ends():
    (points,) = path_points(Curves("t", {"a": (range(100_000), [float(i) for i in range(100_000)])}).html())
    assert len(points) == 300
    assert points[0][0] < 60 and points[-1][0] > WIDTH - 20


def test_smoothing_starts_at_the_first_value_and_bridges_gaps():
    assert _smoothed([(0, 4.0), (1, 4.0), (2, None), (3, 4.0)], 0.9) == [
        (0, pytest.approx(4.0)),
        (1, pytest.approx(4.0)),
        (2, None),
        (3, pytest.approx(4.0)),
    ]
    (_, first), (_, second) = _smoothed([(0, 1.0), (1, 0.0)], 0.5)
    assert (first, second) == (1.0, pytest.approx(1 / 3))


def test_the_measured_values_stay_visible_behind_a_smoothed_curve():
    curves = {"a": ([0, 1, 2], [1.0, 0.0, 1.0])}
    assert 'class="raw"' in Curves("t", curves, smooth=0.5).html()
    assert 'class="raw"' not in Curves("t", curves).html()


def test_a_logarithmic_x_axis_a_level_and_a_law(read_page):
    xs = [1e9, 1e10, 1e11]
    law = ([1e8, *xs], [9.0, 4.0, 2.0, 1.0])
    chart = Curves(
        "t", {"a": (xs, [4.0, 2.0, 1.0])}, log=True, log_x=True, level=("unigram", 5.0), law=law, x_label="compute"
    )
    html = chart.html()
    (points,) = path_points(html)
    (dashed,) = path_points(html, "law")
    assert dashed == points, "a straight line in log-log, and what lies outside the axes is left out"
    assert points[1][0] - points[0][0] == pytest.approx(points[2][0] - points[1][0], abs=0.2)
    level = re.search(r'<line x1="[\d.]+" x2="[\d.]+" y1="([\d.]+)" y2="[\d.]+" class="level">', html)
    assert float(level[1]) < points[0][1]
    page = read_page(html)
    assert "unigram" in page.words and "1e10" in page.words
