"""Uploaded films: kept under a clean name if they can be read, within the limit, and asked about."""

import dataclasses

import pytest

from filmstrip.errors import UserError
from filmstrip.studio.app import application
from filmstrip.studio.upload_page import cleaned
from filmstrip.video import write_video
from studio_films import colours


@pytest.fixture
def film(tmp_path):
    write_video(tmp_path / "film.mp4", colours(), 8)
    return (tmp_path / "film.mp4").read_bytes()


def uploads(context):
    folder = context.places.own / "uploads"
    return sorted(path for path in folder.rglob("*") if path.is_file()) if folder.exists() else []


def test_a_film_is_kept_shown_and_removed(client, post, context, film):
    answer = post("/upload", params={"name": "my film.mp4"}, content=film)
    assert answer.status_code == 200
    (path,) = uploads(context)
    assert path.name == "my film.mp4" and path.read_bytes() == film
    assert client.get(answer.json()["page"]).status_code == 200
    assert client.get("/film/data", params={"upload": answer.json()["upload"]}).content == film
    assert "my film.mp4" in client.get("/upload").text
    assert post("/upload/remove", json=answer.json()).status_code == 200
    assert uploads(context) == [] and post("/upload/remove", json=answer.json()).status_code == 404


@pytest.mark.parametrize("upload", ["", ".", "..", "../films", "/etc", "x"])
def test_only_uploads_are_removed(post, context, film, upload):
    post("/upload", params={"name": "a.mp4"}, content=film)
    (context.places.own / "films").mkdir()
    assert post("/upload/remove", json={"upload": upload}).status_code in (400, 404)
    assert (context.places.own / "films").exists() and len(uploads(context)) == 1


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("../../etc/passwd.mp4", "passwd.mp4"),
        ("C:\\films\\a.AVI", "a.avi"),
        ("a\nb\0<c>'\"&.webm", "a_b__c____.webm"),
        ("...mp4.mp4", "mp4.mp4"),
        ("-x.mov", "x.mov"),
        ("été 01.mp4", "été 01.mp4"),
        ("x" * 300 + ".mp4", "x" * 100 + ".mp4"),
    ],
)
def test_names_are_cleaned(name, expected):
    assert cleaned(name) == expected


@pytest.mark.parametrize("name", ["", "a", "a.py", "a.mp4.sh", "../.."])
def test_other_kinds_of_files_are_refused(name):
    with pytest.raises(UserError):
        cleaned(name)


def test_what_cannot_be_read_leaves_nothing_behind(post, context):
    answer = post("/upload", params={"name": "a.mp4"}, content=b"no film")
    assert answer.status_code == 400 and answer.json()["error"].startswith("a.mp4 cannot be read")
    assert uploads(context) == [] and not list((context.places.own / "uploads").iterdir())


def test_a_film_that_is_too_large_is_refused_whether_it_says_so_or_not(context, film):
    from starlette.testclient import TestClient

    small = dataclasses.replace(context, max_upload=len(film) - 1)
    headers = {"origin": "http://localhost", "x-studio-token": "page-token"}
    with TestClient(application(small), base_url="http://localhost") as client:
        for content in (film, (film[i : i + 100] for i in range(0, len(film), 100))):
            answer = client.post("/upload", params={"name": "a.mp4"}, content=content, headers=headers)
            assert answer.status_code == 400 and "--max-upload" in answer.json()["error"]
    assert uploads(context) == []


def test_an_image_is_a_film_of_one_frame(client, post):
    import io

    from PIL import Image

    file = io.BytesIO()
    Image.new("RGB", (41, 31), "red").save(file, format="PNG")
    upload = post("/upload", params={"name": "a.png"}, content=file.getvalue()).json()["upload"]
    ready = client.get("/film/ready", params={"upload": upload}).json()
    assert "do not play an image" in ready["said"]
    assert client.get("/film/data", params={"upload": upload}).headers["content-type"] == "video/mp4"
