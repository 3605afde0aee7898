"""Three journeys cross few walls between rooms; ``docs/design.md`` has the figures and how they are counted."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from tests.crossings import Crossings, room_of

from started import run

ROOT = Path(__file__).parents[1]


def walls(tmp_path, *words):
    out = tmp_path / "walls.json"
    program = [sys.executable, ROOT / "tests/crossings.py", out, *words]  # a new one, as imports cross walls, too
    done = subprocess.run(list(map(str, program)), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return {tuple(wall) for wall in json.loads(out.read_text())}


FEW_STEPS = ("--train.steps", 2, "--data.num-workers", 0)


def test_training_on_a_folder(tmp_path):
    few = ("--train-per-class", 2, "--test-per-class", 1)
    run("-m", "filmstrip", "data", "make", "motions", "--out", tmp_path / "videos", *few)
    words = ("recognition.r2plus1d:tiny", "--data", tmp_path / "videos", "--out", tmp_path / "run", *FEW_STEPS)
    found = walls(tmp_path, "train", *words)
    assert ("data", "train") in found and ("objectives", "train") in found
    assert len(found) <= 91 * 2 / 3, sorted(found)
    assert (tmp_path / "run/commands.txt").read_text().startswith("filmstrip train recognition.r2plus1d:tiny --data ")


@pytest.mark.slow
def test_generating(tmp_path):
    run("-m", "filmstrip", "train", "generation.videogpt:tiny", "--out", tmp_path / "run", *FEW_STEPS)
    found = walls(tmp_path, "generate", tmp_path / "run", "--out", tmp_path / "sample.mp4")
    assert ("objectives", "systems/generation/videogpt") in found and (tmp_path / "sample.mp4").stat().st_size
    assert len(found) <= 56 * 2 / 3, sorted(found)


def test_training_on_features(tmp_path):
    found = walls(tmp_path, "train", "procedures.vedit:tiny", "--out", tmp_path / "run", *FEW_STEPS)
    assert ("systems/procedures/vedit", "train") in found
    assert len(found) <= 92 * 2 / 3, sorted(found)


def test_a_wall_is_seen_through_a_library_and_counted_once():
    from filmstrip.nn.sampling import Sampling

    crossings = Crossings()
    sys.setprofile(crossings)
    try:
        list(map(lambda top_k: replace(Sampling(), top_k=top_k), (1, 2)))
    finally:
        sys.setprofile(None)
    assert crossings.walls == {("bounds", "nn")}


@pytest.mark.parametrize(
    ("file", "expected"),
    [
        ("systems/recognition/i3d.py", "systems/recognition/i3d"),
        ("systems/generation/videogpt/model.py", "systems/generation/videogpt"),
        ("systems/generation/__init__.py", "systems"),
        ("systems/__init__.py", "systems"),
        ("data/kinds/clips.py", "data"),
        ("bounds.py", "bounds"),
    ],
)
def test_rooms(file, expected):
    import filmstrip

    assert room_of(str(Path(filmstrip.__file__).parent / file)) == expected
