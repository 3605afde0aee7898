"""``filmstrip push``, with a stand-in for the Hub's API: nothing here uses a network."""

import json

import pytest
from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError
from safetensors.torch import load_file

from filmstrip.__main__ import main
from filmstrip.commands.work import push as command
from run_folders import INFO, save_run


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """What was asked of the Hub, and a copy of the files that it was given."""
    asked = []

    def create_repo(api, repo_id, *, private=None, exist_ok=False):
        asked.append(("create", repo_id, private, exist_ok))

    def upload_folder(api, *, repo_id, folder_path, commit_message=None):
        asked.append(("upload", repo_id, commit_message, {p.name: p.read_bytes() for p in folder_path.iterdir()}))

    monkeypatch.setattr(HfApi, "create_repo", create_repo)
    monkeypatch.setattr(HfApi, "upload_folder", upload_folder)
    monkeypatch.setattr(command, "get_token", lambda: "hf_token")
    return asked


def test_a_run_is_exported_and_uploaded(tmp_path, hub, capsys):
    save_run(tmp_path / "run", "recognition.vit:tiny")
    line = json.dumps({"step": 100, "eval/top1": 0.875, "eval/count": 32})
    (tmp_path / "run" / "metrics.jsonl").write_text(line + "\n")
    assert main(["push", str(tmp_path / "run"), "me/gestures", "--private", "--message", "the first one"]) == 0
    created, (_, name, message, files) = hub
    assert created == ("create", "me/gestures", True, True)
    assert (name, message) == ("me/gestures", "the first one")
    assert sorted(files) == ["README.md", "config.json", "model.safetensors", "preprocessor_config.json"]
    assert json.loads(files["config.json"])["id2label"] == {str(i): name for i, name in enumerate(INFO.classes)}
    card = files["README.md"].decode()
    assert card.startswith("---\nlibrary_name: transformers\npipeline_tag: video-classification\n")
    assert "| Top-1 accuracy | 87.5% |" in card and "eval/count" not in card and "Videos evaluated" not in card
    assert "3 classes: left, right, über." in card and "clips of 8 frames, 2 video frames apart, of 64 x 64" in card
    assert "hf:me/gestures" in capsys.readouterr().out


def test_an_exported_folder_is_uploaded_as_it_is(tmp_path, hub):
    save_run(tmp_path / "run", "recognition.vivit:tiny")
    out = tmp_path / "out"
    assert main(["export", str(tmp_path / "run"), "--out", str(out), "--format", "transformers"]) == 0
    (out / "README.md").write_text("my own words")
    assert main(["push", str(out), "me/vivit"]) == 0
    assert hub[0] == ("create", "me/vivit", False, True)
    assert hub[1][3] == {path.name: path.read_bytes() for path in out.iterdir()}
    assert load_file(out / "model.safetensors") and hub[1][3]["README.md"] == b"my own words"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["a b"], "'a b' is not the name of a repository: write OWNER/NAME"),
        (["gestures"], "'gestures' names no owner"),
        (["me/gestures"], "neither a run nor a folder that `filmstrip export` wrote: it has no config.json"),
        (["me/gestures", "--layout", "a"], "--layout goes with a run"),
    ],
)
def test_what_cannot_be_uploaded_is_refused_at_once(tmp_path, hub, capsys, words, expected):
    assert main(["push", str(tmp_path), *words]) == 2
    assert expected in capsys.readouterr().err and not hub


def test_a_token_is_asked_for_before_anything_is_done(tmp_path, hub, capsys, monkeypatch):
    monkeypatch.setattr(command, "get_token", lambda: None)
    assert main(["push", str(tmp_path), "me/gestures"]) == 2
    assert "hf auth login" in capsys.readouterr().err and not hub


def test_a_refusal_of_the_hub_is_one_sentence(tmp_path, hub, capsys, monkeypatch):
    (tmp_path / "config.json").write_text("{}")

    def refuse(api, repo_id, **options):
        error = HfHubHTTPError.__new__(HfHubHTTPError)
        error.args = ("403 Forbidden: you have no rights here\nRequest id 1",)
        raise error

    monkeypatch.setattr(HfApi, "create_repo", refuse)
    assert main(["push", str(tmp_path), "me/gestures"]) == 2
    err = capsys.readouterr().err
    assert err.startswith("filmstrip: the Hugging Face Hub did not take me/gestures: ") and err.count("\n") == 1
