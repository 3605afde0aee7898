"""What will be touched in a file, listed and drawn by one command."""

import json
from dataclasses import replace

import pytest
import torch

from filmstrip import systems
from filmstrip.__main__ import main
from filmstrip.commands.work import anticipate as command
from filmstrip.data.config import DataInfo
from filmstrip.data.kinds.contacts import ContactInfo
from filmstrip.protocols import NextContacts, Objective
from filmstrip.studio import works
from filmstrip.video import open_video
from filmstrip.video.write import write_video
from studio_films import answer_of


class Brightest(Objective):
    """The brightest quarter of the last frame will be touched in as many seconds as it is bright; so will the
    whole frame, with less confidence."""

    def next_contacts(self, video):
        assert torch.is_inference_mode_enabled() and not self.training
        frame = video[0, -1].float().mean(dim=0) / 255
        quarters = frame.unfold(0, 32, 32).unfold(1, 32, 32).mean(dim=(2, 3)).flatten()
        best = int(quarters.argmax())
        left, top = best % 2 / 2, best // 2 / 2
        boxes = torch.tensor([[left, top, left + 0.5, top + 0.5], [0, 0, 1, 1], [0, 0, 0, 0]])
        return NextContacts(
            boxes[None],
            torch.tensor([[best % 2, 0, 0]]),
            torch.tensor([[1, 0, 0]]),
            torch.stack([quarters[best], frame.mean(), torch.tensor(0.0)])[None],
            torch.tensor([[0.75, 0.25, 0.0]]),
        )


INFO = ContactInfo(
    classes=("cup", "lid"),
    num_train=1,
    directional=False,
    verbs=("take", "turn"),
    noun_numbers=(0, 1),
    verb_numbers=(0, 1),
)


@pytest.fixture
def run(monkeypatch):
    trained = systems.find("detection.next_contact")
    trained = replace(trained, data=replace(trained.data, clip=replace(trained.data.clip, num_frames=2, size=64)))
    monkeypatch.setattr(command, "load_objective", lambda folder: (Brightest(), trained))
    monkeypatch.setattr(command, "load_data_info", lambda folder: INFO)


@pytest.fixture
def file(tmp_path):
    """White on black: above left for 1.5 s, then below right, 3 s at 8 frames a second."""
    video = torch.zeros(24, 3, 64, 96)
    video[:12, :, :32, :48] = 1.0
    video[12:, :, 32:, 48:] = 1.0
    write_video(tmp_path / "bright.mp4", video, 8, crf=5)
    return tmp_path / "bright.mp4"


def test_contacts_are_listed_by_moments(run, file, tmp_path, capsys):
    assert main(["anticipate", str(tmp_path), str(file), "--json"]) == 0
    first, second, last = json.loads(capsys.readouterr().out)["moments"]
    assert (first["second"], second["second"], last["second"]) == (1.0, 2.0, 2.875)
    best, other = first["contacts"]
    assert best["box"] == [0, 0, 0.5, 0.5] and (best["noun"], best["verb"]) == ("cup", "turn")
    assert best["seconds"] == pytest.approx(1, abs=0.03) and best["score"] == 0.75 and other["box"] == [0, 0, 1, 1]
    assert second["contacts"][0]["box"] == [0.5, 0.5, 1, 1] and second["contacts"][0]["noun"] == "lid"


def test_the_studio_draws_them_from_each_moment_to_the_next(run, file, tmp_path):
    answer = answer_of(works.anticipate, tmp_path, file, tmp_path / "job", every=1.0)
    (row,) = answer["rows"]
    assert [(s["start"], s["end"], s["label"]) for s in row["spans"]] == [
        (1.0, 2.0, "turn cup"),
        (2.0, 2.875, "turn lid"),
        (2.875, 3.875, "turn lid"),
    ]
    first = answer["boxes"][0]
    assert (first["start"], first["end"], first["box"], first["text"]) == (
        1.0,
        2.0,
        [0, 0, 0.5, 0.5],
        "turn cup in 1.0 s",
    )


def test_moments_number_and_scores_can_be_chosen(run, file, tmp_path, capsys):
    assert main(["anticipate", str(tmp_path), str(file), "--at", "1.25", "--min-score", "0.5"]) == 0
    out = capsys.readouterr().out
    assert "1.25 s" in out and "cup" in out and "75%" in out and "25%" not in out
    assert main(["anticipate", str(tmp_path), str(file), "--at", "3.5"]) == 2
    assert "lasts 3 s, and --at asks for 3.5 s" in capsys.readouterr().err


def test_they_are_drawn_from_their_moment_on(run, file, tmp_path):
    out = tmp_path / "drawn.mp4"
    arguments = ["--every", "1", "--out", str(out), "--min-score", "0.5"]
    assert main(["anticipate", str(tmp_path), str(file), *arguments]) == 0
    with open_video(out) as video:
        assert (video.info.height, video.info.width) == (384, 576)
        drawn = torch.cat([part.video for part in video.frames(0.0, 3.0)]).float()
    coloured = (drawn.amax(dim=1) - drawn.amin(dim=1) > 60).flatten(1).sum(dim=1)
    assert len(drawn) == 24 and (coloured[:8] == 0).all() and (coloured[8:] > 500).all()
    # The first box is above left, the second below right.
    assert (drawn[10].amax(dim=0) - drawn[10].amin(dim=0) > 60)[:, 300:].sum() < 200


def test_a_run_that_anticipates_nothing_is_refused(run, file, tmp_path, monkeypatch, capsys):
    told = DataInfo(classes=("a",), num_train=1, directional=False)
    monkeypatch.setattr(command, "load_data_info", lambda folder: told)
    assert main(["anticipate", str(tmp_path), str(file)]) == 2
    assert "anticipates no contacts" in capsys.readouterr().err
