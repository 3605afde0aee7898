"""People judge pairs of edited films: names are hidden, sides and order are random, and each vote is kept at once."""

import json
import os
import re
import signal
import subprocess
import sys
import urllib.request
from collections import Counter
from dataclasses import replace

import pytest
import torch

from filmstrip.data.edited_films import EditedFilm, add_edited, read_edited
from filmstrip.data.votes import read_votes
from filmstrip.errors import UserError
from filmstrip.report.edits import edits_report
from filmstrip.report.votes import vote_tables
from filmstrip.studio.app import rate_application
from filmstrip.studio.context import Context
from filmstrip.studio.places import Places
from filmstrip.studio.rating import Rating
from filmstrip.studio.security import Tokens
from filmstrip.video import write_video

METHODS = ("moca", "masactrl", "tokenflow")
SAME = {"text": "same", "source": "same"}
ADDRESS = "http://127.0.0.1:8421"


@pytest.fixture
def folder(tmp_path):
    """Four edits by three methods, whose films differ."""
    films = []
    for number in range(4):
        source = tmp_path / "source" / f"{number}.mp4"
        write_video(source, torch.full((4, 3, 16, 16), 10 * number, dtype=torch.uint8), 4)
        for i, method in enumerate(METHODS):
            path = tmp_path / method / f"{number}.mp4"
            write_video(path, torch.full((4, 3, 16, 16), 60 * (i + 1) + number, dtype=torch.uint8), 4)
            film = EditedFilm(
                number=number,
                method=method,
                film=path,
                source=source,
                source_prompt="a dog <runs>",
                edit_prompt="a cat runs",
                type="object" if number else "motion",
            )
            films.append(film)
    add_edited(tmp_path, films)
    return tmp_path


@pytest.fixture
def client(folder):
    """A judge's browser."""
    from starlette.testclient import TestClient

    context = Context(Places(folder), Tokens(page="page-token"), rating=Rating(folder))
    with TestClient(rate_application(context), base_url=ADDRESS) as found:
        yield found


def post(client, **given):
    given = SAME | given
    return client.post("/vote", json=given, headers={"origin": ADDRESS, "x-studio-token": "page-token"})


def key_of(page):
    return re.search('data-pair="(.*?)"', page.text)[1]


def test_a_judge_sees_each_pair_once_and_no_names(client, folder):
    assert "Your name" in client.get("/").text
    seen = set()
    for _ in range(12):
        page = client.get("/pair?judge=Ann")
        assert "a dog &lt;runs&gt;" in page.text and "a cat runs" in page.text
        key = key_of(page)
        assert key not in seen
        seen.add(key)
        films = [client.get(f"/film?judge=Ann&pair={key}&side={side}") for side in ("source", "left", "right")]
        assert len({film.content for film in films}) == 3 and {film.status_code for film in films} == {200}
        told = page.text + str(page.url) + "".join(str(film.headers) for film in films)
        assert not any(method in told for method in METHODS)
        answer = post(client, judge="Ann", pair=key, better="left", text="right")
        assert answer.status_code == 200 and not any(method in answer.text for method in METHODS)
        assert len(read_votes(folder)) == len(seen)  # on disk when it was answered
    assert "judged all 12 pairs" in client.get("/pair?judge=Ann").text
    found = read_votes(folder)
    assert all((vote.better, vote.text, vote.source) == (vote.left, vote.right, "") for vote in found)


def test_the_film_shown_on_a_side_is_that_of_the_method_in_the_vote(client, folder):
    key = key_of(client.get("/pair?judge=Ann"))
    left = client.get(f"/film?judge=Ann&pair={key}&side=left").content
    post(client, judge="Ann", pair=key, better="left")
    (vote,) = read_votes(folder)
    assert left == (folder / vote.better / f"{vote.number}.mp4").read_bytes()


def test_sides_and_order_are_random_and_the_judges_own(folder):
    rating = Rating(folder)
    lefts = Counter(pair.sides(f"judge {i}")[0] is pair.a for pair in rating.pairs.values() for i in range(20))
    assert 80 < lefts[True] < 160
    firsts = {rating.next(f"judge {i}").key for i in range(20)}
    assert len(firsts) > 4


def test_pairs_with_few_votes_come_first_and_votes_survive(folder):
    rating = Rating(folder, against="moca")
    assert len(rating.pairs) == 8
    for _ in range(8):
        rating.vote("Ann", rating.next("Ann").key, SAME | {"better": "left"})
    first = rating.next("Bob")
    rating.vote("Bob", first.key, SAME | {"better": "right", "source": "left"})
    again = Rating(folder, against="moca")
    assert again.done("Ann") == 8 and again.done("Bob") == 1 and again.next("Ann") is None
    assert again.next("Carl").key != first.key  # which has two votes


def test_answers_can_be_changed(client, folder):
    key = key_of(client.get("/pair?judge=Ann"))
    following = post(client, judge="Ann", pair=key, better="left").json()["next"]
    assert f"before={key}" in following
    assert f"pair={key}" in client.get(following).text
    post(client, judge="Ann", pair=key, better="right")
    (vote,) = read_votes(folder)
    assert vote.better == vote.right


@pytest.mark.parametrize(
    ("given", "status"),
    [
        ({"better": ""}, 400),
        ({"better": "moca"}, 400),
        ({"better": "left", "text": "both"}, 400),
        ({"better": "left", "text": ""}, 400),
        ({"better": "same"}, 400),
        ({"better": "left", "judge": ""}, 400),
        ({"better": "left", "pair": "other"}, 404),
    ],
)
def test_wrong_answers_are_not_kept(client, folder, given, status):
    key = key_of(client.get("/pair?judge=Ann"))
    assert post(client, **{"judge": "Ann", "pair": key} | given).status_code == status
    assert read_votes(folder) == []
    assert client.post("/vote", json={"judge": "Ann", "pair": key, "better": "left"}).status_code == 403
    assert client.get(f"/film?judge=Ann&pair={key}&side=../votes.csv").status_code == 404


def test_what_cannot_be_judged_is_said(folder, tmp_path):
    with pytest.raises(UserError, match="no edits by gen; there are some by moca, masactrl, tokenflow"):
        Rating(folder, against="gen")
    table = folder / "edited.csv"
    table.write_text(
        "\n".join(line for line in table.read_text().splitlines() if ",ma" not in line and ",to" not in line)
    )
    with pytest.raises(UserError, match="no two of one edit to compare"):
        Rating(folder)


def test_the_page_counts_edits_and_keeps_votes_apart_from_measures(folder):
    rating = Rating(folder, against="moca")
    for judge in ("Ann", "Bob", "Carl"):
        while (pair := rating.next(judge)) is not None:
            left, _ = pair.sides(judge)
            liked = "masactrl" if "masactrl" in pair.about[1] and judge != "Ann" else "moca"
            rating.vote(judge, pair.key, SAME | {"better": "left" if left.method == liked else "right"})
    page = edits_report(folder, films=False).read_text()
    assert "24 votes of 3 people" in page and not (folder / "side_by_side").exists()
    whole, by_type, *rest = vote_tables(folder, [film for pair in rating.pairs.values() for film in (pair.a, pair.b)])
    # Of each edit two of three people prefer masactrl to moca: 0 of 4, Wilson's interval 0% to 49%.
    assert whole.rows[0] == ["moca", "masactrl", 4, 0, 0.0, "0%\xa0to\xa049%", None, None, None, None]
    assert whole.rows[1][:6] == ["moca", "tokenflow", 4, 0, 1.0, "51%\xa0to\xa0100%"]
    assert by_type.rows[0] == ["moca", "masactrl", "0% (3)", "0% (1)"]
    assert not rest  # nothing was measured


def test_measures_are_held_against_people_where_both_are_clear(folder):
    films = [
        replace(film, measures={"psnr": value, "flow_error": value, "source_psnr": value})
        for film in read_edited(folder)
        for value in [{"moca": 2.0, "masactrl": 1.0, "tokenflow": 2.0}[film.method]]
    ]
    add_edited(folder, films)
    rating = Rating(folder, against="moca")
    while (pair := rating.next("Ann")) is not None:
        left, _ = pair.sides("Ann")
        rating.vote("Ann", pair.key, SAME | {"better": "left" if left.method == "moca" else "right"})
    *_, agreement = vote_tables(folder, films)
    # Edits of tokenflow have the same measures as moca's, which people prefer.
    assert [row[:3] for row in agreement.rows] == [["psnr", 4, 1.0], ["flow_error", 4, 0.0]]


def test_nothing_is_lost_when_the_server_is_killed(folder):
    command = [sys.executable, "-m", "filmstrip", "rate", str(folder), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True) as server:
        try:
            address = re.search(r"(http://\S+?)/ ", server.stdout.readline())[1]
            with urllib.request.urlopen(f"{address}/pair?judge=Ann", timeout=60) as answer:
                page = answer.read().decode()
            token, key = (
                re.search(f'{name}="(.*?)"', page)[1] for name in ('name="studio-token" content', "data-pair")
            )
            headers = {"origin": address, "x-studio-token": token, "content-type": "application/json"}
            vote = json.dumps({"judge": "Ann", "pair": key, "better": "left"} | SAME).encode()
            request = urllib.request.Request(f"{address}/vote", vote, headers)
            with urllib.request.urlopen(request, timeout=60) as answer:
                assert answer.status == 200
        finally:
            os.kill(server.pid, signal.SIGKILL)
    assert server.returncode == -signal.SIGKILL
    assert len(read_votes(folder)) == 1
