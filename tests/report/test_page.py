import json
import os

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from filmstrip.report import (
    CaptionedClip,
    ClipGallery,
    Column,
    ConfusionMatrix,
    Curves,
    Facts,
    Group,
    Report,
    Strip,
    Strips,
    Table,
    Text,
)
from filmstrip.report.markup import Markup, tag

HOSTILE = (
    "<script>alert(1)</script>",
    "</title></style></svg><img src=x onerror=alert(1)>",
    '" onload="alert(1)',
    "' style='x",
    "a&amp;b & <b>",
    "--><!--",
    "\u202egnp.exe",
)


def video(frames=4, size=16):
    return torch.randint(
        0, 256, (frames, 3, size, size), generator=torch.Generator().manual_seed(0), dtype=torch.uint8
    )


def every_section(name: str) -> list:
    return [
        Text(name, [name]),
        Facts(name, [(name, name)]),
        Table(name, [Column(name), Column("value", ".2f", "highest")], [[name, 1.0], [None, 2.0]], [name]),
        Group(name, [Curves(name, {name: ([0, 1], [0.5, 0.25]), "other": ([0], [1.0])}, y_label=name, x_label=name)]),
        ConfusionMatrix(name, torch.eye(2, dtype=torch.int64), [name, "other"]),
        ConfusionMatrix(name, torch.ones(40, 40, dtype=torch.int64), [name] * 40),
        ClipGallery(
            name,
            [CaptionedClip(video(), name, [(name, 0.5)], name), CaptionedClip(video(), name, [(name, 0.5)], "other")],
        ),
        Strips(name, [Strip([video()] * 3, name)], [name] * 3),
    ]


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_stay_names(name, read_page):
    harmless = read_page(Report("x", "x", every_section("x")).html())
    page = read_page(Report(name, name, every_section(name)).html())
    assert [tag for tag, _ in page.elements] == [tag for tag, _ in harmless.elements]
    assert [set(given) for _, given in page.elements] == [set(given) for _, given in harmless.elements]
    assert name in page.text


@given(st.text())
def test_any_text_comes_back_from_an_element(text):
    from html import unescape

    assert unescape(tag("p", text)[len("<p>") : -len("</p>")]) == text
    assert unescape(tag("p", title=text)[len('<p title="') : -len('"></p>')]) == text


def test_elements():
    assert tag("p", "a<b", None, Markup("<b>c</b>"), class_="x", hidden=True, id=None) == (
        '<p class="x" hidden>a&lt;b<b>c</b></p>'
    )
    assert tag("img", alt='"') == '<img alt="&quot;">'
    assert tag("line", stroke_width=1) == '<line stroke-width="1"></line>'


def test_the_page_needs_nothing_but_itself(read_page):
    page = read_page(Report("title", "lead", every_section("name")).html())
    addresses = [page.values(attribute) for attribute in ("src", "srcset", "href")]
    assert all(address.startswith(("data:image/webp;base64,", "#")) for group in addresses for address in group)
    policy = page.values("content")[0]
    assert policy.startswith("default-src 'none'") and "http" not in policy
    assert page.count("script") == page.count("link") == page.count("iframe") == 0


def test_the_page_can_be_heard(read_page):
    page = read_page(Report("title", "lead", every_section("name")).html())
    assert ("html", {"lang": "en"}) in page.elements
    assert page.count("h1") == 1
    assert all(given.get("alt") for name, given in page.elements if name == "img")
    assert all(
        given.get("role") == "img" and given.get("aria-label") for name, given in page.elements if name == "svg"
    )
    assert all(given.get("scope") in ("col", "row") for name, given in page.elements if name == "th")


def test_headings_can_be_linked_to_even_when_they_repeat(read_page):
    titles = ["a 2", "a", "a", "Größe", "…", "a"]
    page = read_page(Report("t", "l", [Text(title, []) for title in titles]).html())
    anchors = [given["id"] for name, given in page.elements if name == "section"]
    assert len(set(anchors)) == len(titles)
    assert page.values("href") == [f"#{anchor}" for anchor in anchors]


def test_write_replaces_the_page_in_one_step(tmp_path):
    path = tmp_path / "new" / "report.html"
    assert Report("first", "", []).write(path) == path
    assert Report("second", "", []).write(path) == path
    assert "second" in path.read_text()
    assert os.listdir(path.parent) == ["report.html"]


def test_a_page_that_cannot_be_made_leaves_the_old_one(tmp_path):
    path = Report("first", "", []).write(tmp_path / "report.html")
    uneven = Table("t", [Column("a")], [["x", "y"]])
    with pytest.raises(ValueError):
        Report("second", "", [uneven]).write(path)
    assert "first" in path.read_text() and os.listdir(tmp_path) == ["report.html"]


def test_file_names_that_are_not_text_can_be_written(tmp_path):
    name = os.fsdecode(b"caf\xe9.mp4")
    path = Report(name, json.dumps(name), [Text("x", [name])]).write(tmp_path / "report.html")
    assert "caf?.mp4" in path.read_text(encoding="utf-8")
