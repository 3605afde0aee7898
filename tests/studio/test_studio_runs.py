"""The list of runs and the page of one, as they are and while a run trains."""

import json

import pytest
from filelock import FileLock

from filmstrip.files import append_line
from filmstrip.runs.run_folder import RunFolder


def state_of(client, name):
    text = client.get("/").text
    row = text[text.index(f">{name}</a>") :]
    return row[row.index('class="state ') + 13 :].split('"')[0]


def test_the_list_says_of_each_run_how_it_is(client, make_run):
    make_run("done")
    make_run("group/half", steps=20)
    make_run("broken", steps=0, weights=False)
    training = make_run("now", steps=10, weights=False)
    with FileLock(training / ".lock"):
        assert state_of(client, "now") == "training"
    assert state_of(client, "now") == "failed"
    assert state_of(client, "done") == "ended"
    assert state_of(client, "group/half") == "stopped"
    assert state_of(client, "broken") == "failed"
    page = client.get("/").text
    assert "20 of 40 steps" in page and "ViT on mine" in page and "/run?name=group%2Fhalf" in page


def test_asking_whether_a_folder_trains_does_not_disturb_it(make_run):
    folder = make_run("run")
    assert not RunFolder.is_training(folder) and not (folder / ".lock").exists()
    with RunFolder(folder).alone():
        assert RunFolder.is_training(folder)
        assert (folder / ".lock").exists()
    assert not RunFolder.is_training(folder)
    with RunFolder(folder).alone():
        pass


def test_an_empty_folder_says_how_to_begin(client):
    assert "No runs yet" in client.get("/").text


def test_hidden_folders_and_links_that_lead_out_are_no_runs(client, make_run, runs, tmp_path):
    make_run("in")
    make_run(".studio/hidden")
    (runs / "in").rename(tmp_path / "outside")
    (runs / "link").symlink_to(tmp_path / "outside")
    assert "No runs yet" in client.get("/").text
    for name in ("link", ".studio/hidden", "../outside", "no"):
        answer = client.get("/run", params={"name": name})
        assert answer.status_code == 404 and "Traceback" not in answer.text


def test_a_run_shows_its_curves_and_then_the_rest_of_its_report(client, make_run):
    make_run("a run")
    page = client.get("/run", params={"name": "a run"}).text
    assert page.count("<svg") == 2  # loss and learning rate
    assert "trained on mine for 40 steps" in page
    assert 'data-later="/run/details?name=a+run"' in page
    details = client.get("/run/details", params={"name": "a run"}).text
    assert "What was run" in details and "ViTConfig" in details


@pytest.mark.parametrize("address", ["/runs/live", "/run/live?name=run"])
def test_what_is_live_changes_with_the_run_and_else_says_so(client, make_run, address):
    folder = make_run("run", steps=20)
    first = client.get(address)
    again = client.get(address, headers={"if-none-match": first.headers["etag"]})
    assert first.status_code == 200 and again.status_code == 304
    append_line(json.dumps({"step": 30, "seconds": 30.0, "loss": 0.01}), folder / "metrics.jsonl")
    changed = client.get(address, headers={"if-none-match": first.headers["etag"]})
    assert changed.status_code == 200 and "30 of 40 steps" in changed.text


def test_damaged_folders_are_shown_with_their_problem(client, make_run):
    folder = make_run("damaged")
    (folder / "config.json").write_text("{")
    assert "config.json cannot be read" in client.get("/").text
    for path in ("/run", "/run/live", "/run/details"):
        answer = client.get(path, params={"name": "damaged"})
        assert (answer.status_code == 200 and "cannot be read" in answer.text) or "cannot be made" in answer.text


def test_names_are_text_and_never_markup(client, make_run):
    make_run("<b>bold")
    assert "<b>" not in client.get("/").text
    assert "<b>" not in client.get("/run", params={"name": "<b>bold"}).text


def test_wrong_addresses_are_a_page_with_a_sentence(client):
    for path in ("/nothing", "/static/../app.py", "/static/nothing.js"):
        answer = client.get(path)
        assert answer.status_code == 404 and "Not found" in answer.text
    assert client.get("/nothing", headers={"accept": "application/json"}).json() == {"error": "there is no such page"}
