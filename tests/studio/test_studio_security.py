"""Requests of other sites and other people are refused, and pages tell browsers to run nothing but the own script."""

import pytest
from starlette.testclient import TestClient

from filmstrip.studio.app import application
from filmstrip.studio.context import Context
from filmstrip.studio.places import Missing, Places, inside
from filmstrip.studio.security import Tokens

OWN = {"origin": "http://127.0.0.1:8420", "x-studio-token": "page-token"}


@pytest.mark.parametrize("host", ["127.0.0.1:8420", "localhost", "[::1]:99"])
def test_own_names_are_served(client, host):
    assert client.get("/", headers={"host": host}).status_code == 200


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "evil.example:8420", ""])
def test_a_foreign_name_that_resolves_here_is_refused(client, host):
    assert client.get("/", headers={"host": host}).status_code == 400


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"origin": "http://127.0.0.1:8420"},
        {"x-studio-token": "page-token"},
        OWN | {"origin": "http://evil.example"},
        OWN | {"origin": "http://127.0.0.1:1"},
        OWN | {"origin": "null"},
        OWN | {"x-studio-token": "guessed"},
    ],
)
def test_what_changes_something_must_come_from_an_own_page(client, headers):
    assert client.post("/", headers=headers).status_code == 403


def test_an_own_page_passes_the_guard(client):
    assert client.post("/", headers=OWN).status_code == 405  # that page only reads


def test_pages_run_no_foreign_script_and_are_in_no_frame(client):
    headers = client.get("/").headers
    assert "script-src 'self';" in headers["content-security-policy"]
    assert "frame-ancestors 'none'" in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["cross-origin-resource-policy"] == "same-origin"


def test_beyond_this_machine_every_request_needs_the_access_token(runs):
    app = application(Context(Places(runs), Tokens(access="secret")))
    with TestClient(app, base_url="http://192.168.1.5:8420", follow_redirects=False) as client:
        assert client.get("/").status_code == 403
        assert client.get("/?token=guessed").status_code == 403
        assert client.get("/static/studio.js").status_code == 403
        first = client.get("/?token=secret")
        assert first.status_code == 303 and "secret" not in first.headers["location"]
        assert "httponly" in first.headers["set-cookie"].lower()
        assert client.get("/").status_code == 200


def test_names_lead_nowhere_outside_the_folder(tmp_path):
    root = tmp_path / "root"
    (root / "a").mkdir(parents=True)
    (root / ".hidden").mkdir()
    (tmp_path / "secret").mkdir()
    (root / "out").symlink_to(tmp_path / "secret")
    (root / "in").symlink_to(root / "a")
    assert inside(root, "a") == root / "a" == inside(root, "in")
    for name in (
        "",
        ".",
        "..",
        "../secret",
        "a/../../secret",
        str(tmp_path / "secret"),
        "out",
        ".hidden",
        "a\0",
        "no",
    ):
        with pytest.raises(Missing):
            inside(root, name)
