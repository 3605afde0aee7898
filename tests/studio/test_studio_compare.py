"""Two runs on the same films."""

import csv
import json

import pytest

FILMS = {  # label, and what each run says
    "a.mp4": ("left", "left", "left"),
    "b.mp4": ("left", "left", "right"),
    "c.mp4": ("right", "left", "right"),
    "d.mp4": ("right", "left", "left"),
    "e.mp4": ("right", "left", "up"),
}


@pytest.fixture
def two(make_run):
    for number, name in enumerate(("one", "group/two"), 1):
        folder = make_run(name)
        info = {"type": "filmstrip.data.config:DataInfo", "classes": ["left", "right", "up"], "num_train": 5}
        (folder / "data.json").write_text(json.dumps(info | {"directional": False}))
        with (folder / "predictions.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(("file", "label", "class_1", "score_1"))
            writer.writerows((film, said[0], said[number], 0.75) for film, said in FILMS.items())


def shown(client, **query):
    page = client.get("/compare", params={"a": "one", "b": "group/two"} | query).text
    return {name for name in FILMS if f">{name}<" in page}


def test_each_filter_shows_its_films(client, two):
    assert shown(client) == {"b.mp4", "c.mp4", "e.mp4"}  # where they differ
    assert shown(client, shown="a") == {"b.mp4"}
    assert shown(client, shown="b") == {"c.mp4"}
    assert shown(client, shown="neither") == {"d.mp4", "e.mp4"}
    assert shown(client, shown="both") == {"a.mp4"}
    assert shown(client, shown="all") == set(FILMS)
    assert shown(client, shown="all", label="left") == {"a.mp4", "b.mp4"}


def test_the_figures_are_of_the_films_that_both_saw(client, two, runs):
    page = client.get("/compare").text
    assert "<dt>one right</dt><dd>40% (2)</dd>" in page
    assert "<dt>Only group/two right</dt><dd>1</dd>" in page
    table = runs / "one" / "predictions.csv"
    table.write_text("".join(table.read_text().splitlines(keepends=True)[:3]))  # only a and b are left
    assert "<dt>Films</dt><dd>2</dd>" in client.get("/compare", params={"a": "one", "b": "group/two"}).text


def test_films_link_to_the_page_with_both(client, two):
    assert "/film?run=one&amp;sample=b.mp4&amp;with=group%2Ftwo" in client.get("/compare", params={"a": "one"}).text


def test_what_cannot_be_compared_is_a_sentence(client, two, make_run, runs):
    table = runs / "one" / "predictions.csv"
    table.write_text(table.read_text().replace(".mp4", ".avi"))
    page = client.get("/compare", params={"a": "one", "b": "group/two"})
    assert page.status_code == 200 and "not evaluated on the same films" in page.text
    assert "there is no filter" in client.get("/compare", params={"a": "one", "b": "one", "shown": "x"}).text
    (runs / "one" / "predictions.csv").unlink()
    assert "needs two runs" in client.get("/compare").text
