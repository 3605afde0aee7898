import math
import re

import pytest

from filmstrip.report.scatter import HEIGHT, WIDTH, Scatter, Spot, placed, unbeaten


def scatter(spots, **options):
    return Scatter("t", spots, x_label="GMACs", y_label="top-1", **options)


def test_spots_lie_where_their_values_say(read_page):
    page = read_page(scatter([Spot("a", 0.01, 20), Spot("b", 0.1, 20), Spot("c", 1.0, 60)]).html())
    places = [(float(e["cx"]), float(e["cy"])) for name, e in page.elements if name == "circle"]
    (ax, ay), (bx, by), (cx, cy) = places
    assert bx - ax == pytest.approx(cx - bx, abs=0.2) and bx > ax  # a decade each
    assert ay == by > cy
    assert all(0 <= x <= WIDTH and 0 <= y <= HEIGHT for x, y in places)
    assert [word for word in page.words if word in "abc"] == ["a", "b", "c"]


def test_what_is_said_of_a_spot_and_the_level_are_shown(read_page):
    spots = [Spot("a <b>", 0.01, 20, "a <b>: 20% (10 to 30%)"), Spot("c", 0.1, 60)]
    page = read_page(scatter(spots, level=("chance", 12.5), note="Mind the gap.").html())
    assert "a <b>: 20% (10 to 30%)" in page.words and "chance" in page.words and "Mind the gap." in page.words
    assert page.count("line", class_="level") == 1


def test_the_line_joins_what_nothing_beats_for_less():
    spots = [Spot("dear", 3, 50), Spot("cheap", 1, 20), Spot("worse", 2, 20), Spot("best", 4, 90), Spot("low", 5, 80)]
    assert [spots[i].name for i in unbeaten(spots)] == ["cheap", "dear", "best"]
    assert unbeaten([Spot("less", 1, 20), Spot("more", 1, 30)]) == [1]
    html = scatter(spots).html()
    (path,) = re.findall(r'<path d="M([^"]*)" class="best"', html)
    assert path.count("L") == 2
    assert html.count('class="spot unbeaten"') == 3


@pytest.mark.parametrize("count", [2, 22])
def test_names_that_crowd_are_moved_apart(count):
    points = [(300 + 30 * math.cos(i), 200 + 20 * math.sin(i)) for i in range(count)]
    names = [f"some_network_{i}" for i in range(count)]
    boxes = placed(names, points)
    assert sum(a.overlap(b) for i, a in enumerate(boxes) for b in boxes[:i]) == 0
    assert all(box.left >= 0 and box.right <= WIDTH and box.top >= 0 and box.bottom <= HEIGHT for box in boxes)


def test_a_single_spot_and_none(read_page):
    assert read_page(scatter([Spot("a", 0.5, 100)]).html()).count("circle") == 1
    assert "Nothing was recorded." in read_page(scatter([]).html()).words
