"""Films on the pages: found by name only, played as they are or converted once, with ranges, and asked about."""

import csv
import json

import numpy as np
import pytest

from filmstrip.studio.films import film_of, playable
from filmstrip.studio.places import Missing
from filmstrip.video import write_video
from filmstrip.video.decode import open_video
from run_folders import INFO, save_run
from studio_films import colours, write_avi


@pytest.fixture
def videos(tmp_path):
    """Films by class, one of them in a format that browsers do not play."""
    folder = tmp_path / "videos"
    for name in ("left", "right", "über"):
        (folder / "train" / name).mkdir(parents=True)
        (folder / "test" / name).mkdir(parents=True)
        write_video(folder / "train" / name / "a.mp4", colours(), 8)
        write_video(folder / "test" / name / "a.mp4", colours(), 8)
    write_avi(folder / "test" / "left" / "b & <b>.avi", colours(24, 40, 60))
    return folder


@pytest.fixture
def run(runs, videos):
    """A run of a classifier with random weights on these films, with predictions."""
    save_run(runs / "run", "recognition.vit:tiny")
    config = json.loads((runs / "run" / "config.json").read_text())
    config["data"]["path"], config["data"]["synthetic"] = str(videos), None
    (runs / "run" / "config.json").write_text(json.dumps(config))
    (runs / "run" / "metrics.jsonl").write_text(json.dumps({"step": 1, "seconds": 1.0, "loss": 1.0}) + "\n")
    rows = [
        ("test/left/a.mp4", "left", "left", 0.9),
        ("test/left/b & <b>.avi", "left", "right", 0.6),
        ("test/right/a.mp4", "right", "right", 0.5),
    ]
    with (runs / "run" / "predictions.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("file", "label", "class_1", "score_1"))
        writer.writerows(rows)
    return "run"


def ask(client, post, run, what, film, **options):
    """What a run answers, however long it takes."""
    begun = post("/ask", json={"run": run, "what": what, "film": film, "options": options})
    assert begun.status_code == 200, begun.text
    while True:
        found = client.get("/answer", params=begun.json()).json()
        if found["state"] not in ("waiting", "running"):
            return found


def test_the_films_of_a_run_are_listed_with_their_predictions_and_filtered(client, run):
    page = client.get("/films", params={"run": run}).text
    assert page.count("<li>") == 3 and "✓ left" in page and "✗ right, is left" in page
    assert "b &amp; &lt;b&gt;.avi" in page and "<b>.avi" not in page
    wrong = client.get("/films", params={"run": run, "shown": "wrong"}).text
    assert wrong.count("<li>") == 1 and "1 of 3 films" in wrong
    assert client.get("/films", params={"run": run, "label": "right"}).text.count("<li>") == 1


def test_a_film_that_browsers_play_is_served_as_it_is_and_in_parts(client, run, videos):
    film = {"run": run, "sample": "test/left/a.mp4"}
    whole = (videos / "test/left/a.mp4").read_bytes()
    answer = client.get("/film/data", params=film)
    assert answer.content == whole and answer.headers["content-type"] == "video/mp4"
    assert answer.headers["accept-ranges"] == "bytes"
    middle = client.get("/film/data", params=film, headers={"range": "bytes=10-19"})
    assert middle.status_code == 206 and middle.content == whole[10:20]
    assert middle.headers["content-range"] == f"bytes 10-19/{len(whole)}"
    assert client.get("/film/data", params=film, headers={"range": f"bytes={len(whole)}-"}).status_code == 416


def test_a_film_that_they_do_not_play_is_converted_once_with_its_frames_at_their_times(client, context, run):
    film = {"run": run, "sample": "test/left/b & <b>.avi"}
    ready = client.get("/film/ready", params=film).json()
    assert "mpeg4 in .avi" in ready["said"] and ready["seconds"] == pytest.approx(3.0)
    found = playable(context.places, film_of(context.places, film))
    before = found.path.stat().st_mtime_ns
    assert client.get("/film/data", params=film).content == found.path.read_bytes()
    assert found.path.stat().st_mtime_ns == before and found.path.parent == context.places.own / "films"
    times = [0.0, 1.0, 2.9]
    with open_video(found.path) as made, open_video(film_of(context.places, film).path) as own:
        assert made.info.codec == "h264" and made.info.pixel_format == "yuv420p"
        pairs = zip(made.frames_at(times).video.float(), own.frames_at(times).video.float())
        assert all(np.abs(float(a.mean() - b.mean())) < 4 for a, b in pairs)


def test_sizes_that_are_odd_become_even(tmp_path, client, context, run, videos):
    write_video(videos / "test/left/a.mp4", colours(4, 33, 47), 8)  # written as 4:4:4, which browsers do not play
    found = playable(context.places, film_of(context.places, {"run": run, "sample": "test/left/a.mp4"}))
    with open_video(found.path) as made:
        assert (made.info.height, made.info.width, made.info.pixel_format) == (32, 48, "yuv420p")


def test_a_damaged_film_is_a_sentence(client, run, videos):
    (videos / "test/left/a.mp4").write_bytes(b"no video at all")
    answer = client.get(
        "/film/ready", params={"run": run, "sample": "test/left/a.mp4"}, headers={"accept": "application/json"}
    )
    assert answer.status_code == 400 and "a.mp4" in answer.json()["error"]
    assert client.get("/film/still", params={"run": run, "sample": "test/left/a.mp4"}).status_code == 404
    assert not list((videos.parent / "runs" / ".studio").rglob("*.part*"))


def test_requests_name_films_and_never_paths(client, context, run, tmp_path, videos):
    (tmp_path / "secret.mp4").write_bytes((videos / "test/left/a.mp4").read_bytes())
    queries = (
        {"run": run, "sample": "../secret.mp4"},
        {"run": run, "sample": str(tmp_path / "secret.mp4")},
        {"run": "..", "sample": "test/left/a.mp4"},
        {"upload": "../../secret.mp4"},
        {"upload": ".."},
        {"video": "../secret.mp4"},
        {},
    )
    for query in queries:
        assert client.get("/film/data", params=query).status_code == 404
        with pytest.raises(Missing):
            film_of(context.places, query)


def test_a_still_is_a_small_picture(client, run):
    answer = client.get("/film/still", params={"run": run, "sample": "test/left/a.mp4"})
    assert answer.headers["content-type"] == "image/jpeg" and answer.content[:2] == b"\xff\xd8"


def test_the_page_of_a_film_knows_its_label_and_what_was_predicted(client, run):
    page = client.get("/film", params={"run": run, "sample": "test/left/a.mp4"}).text
    assert "&quot;label&quot;: &quot;left&quot;" in page and "run: whole" in page


def test_a_classifier_is_asked_for_classes_along_a_film_and_heat_maps(client, post, run, in_process):
    form = client.get("/ask/form", params={"run": run}).text
    assert 'data-what="classify"' in form and 'data-what="explain"' in form and 'data-what="detect"' not in form
    film = {"run": run, "sample": "test/left/a.mp4"}
    found = ask(client, post, run, "classify", film, clips="2")
    assert found["state"] == "done", found
    spans = found["answer"]["rows"][0]["spans"]
    assert (
        len(spans) == 2 and spans[0]["end"] == spans[1]["start"] and {s["label"] for s in spans} <= set(INFO.classes)
    )
    assert sum(share for _, share in found["answer"]["top"]) == pytest.approx(1.0, abs=1e-5)
    assert found["commands"][0].startswith("filmstrip predict ") and len(in_process) == 1
    again = ask(client, post, run, "classify", film, clips="2")
    assert again["answer"] == found["answer"] and len(in_process) == 1  # kept, not computed again
    heat = ask(client, post, run, "explain", film)["answer"]["clips"][0]
    assert client.get(heat["source"]).headers["content-type"] == "video/mp4"
    assert client.get(heat["source"].replace("heat.mp4", "answer.json")).status_code == 404


def test_a_command_that_fails_says_why(client, post, run, videos, in_process):
    (videos / "test/left/a.mp4").write_bytes(b"no video")
    found = ask(client, post, run, "explain", {"run": run, "sample": "test/left/a.mp4"})
    assert found["state"] == "failed" and "a.mp4" in found["why"]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"run": "../run"}, "there is no"),
        ({"what": "generate"}, "it can be asked for classify, explain"),
        ({"what": "explain", "options": {"class": "--out=/tmp/x"}}, "expected one of the list"),
        ({"options": {"clips": "1e9"}}, "expected a number"),
        ({"options": {"clips": 100000}}, "expected 1 to 64"),
        ({"film": {"video": "/etc/passwd"}}, "there is no video"),
        ({"film": None}, "there is no"),
    ],
)
def test_wrong_requests_are_a_sentence(post, run, changes, expected):
    film = {"run": run, "sample": "test/left/a.mp4"}
    answer = post("/ask", json={"run": run, "what": "classify", "film": film, "options": {}} | changes)
    assert answer.status_code in (400, 404) and expected in answer.json()["error"]
    assert post("/ask", content=b"[1]").status_code == 400


def test_a_run_without_weights_cannot_be_asked_yet(client, post, runs, run):
    (runs / "run" / "weights.safetensors").unlink()
    assert "no weights yet" in client.get("/ask/form", params={"run": run}).text
    film = {"run": run, "sample": "test/left/a.mp4"}
    assert "no weights yet" in post("/ask", json={"run": run, "what": "classify", "film": film}).json()["error"]


def test_a_tokenizer_reconstructs(client, post, runs, run, in_process):
    save_run(runs / "tokenizer", "tokenizers.vqvae3d:tiny")
    film = {"run": run, "sample": "test/left/b & <b>.avi"}
    clips = ask(client, post, "tokenizer", "reconstruct", film, clips="1")
    assert clips["state"] == "done", clips
    original, decoded = clips["answer"]["clips"]
    assert "as it is" in original["caption"] and "decoded" in decoded["caption"]
    assert all(client.get(clip["source"]).headers["content-type"] == "video/mp4" for clip in (original, decoded))
    (span,) = clips["answer"]["rows"][0]["spans"]
    assert 0 <= span["start"] < span["end"] <= 3.01
