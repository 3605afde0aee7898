"""Processes share an evaluation, and every one of them reports what a single process would have, to the last bit."""

import json
import os
from pathlib import Path

import pytest

from colour_videos import write_colours
from started import run

pytestmark = pytest.mark.multiprocess

WORKER = Path(__file__).with_name("evaluations.py")


@pytest.fixture
def root(tmp_path, monkeypatch):
    """Videos whose number is no multiple of anything, two of them bad: one alone in its batch, one not."""
    monkeypatch.setenv("PYTHONPATH", str(WORKER.parents[1]), prepend=os.pathsep)
    for split, count in (("train", 3), ("test", 4)):
        for i in range(count):
            write_colours(tmp_path / split / "warm" / f"{i}.mp4", *(["red", "green"] if i % 2 else ["red"]))
            write_colours(tmp_path / split / "cold" / f"{i}.mp4", *(["blue", "green"] if i % 3 else ["blue"]))
    (tmp_path / "test/cold/1.mp4").write_bytes(b"no video")
    (tmp_path / "test/warm/0.mp4").write_bytes(b"no video")
    return tmp_path


def test_figures_are_exactly_those_of_one_process(root, tmp_path):
    results = {}
    for world in (1, 2):
        out = tmp_path / f"out{world}"
        out.mkdir()
        run(WORKER, root, out, processes=world)
        results[world] = [json.loads((out / f"{rank}.json").read_text()) for rank in range(world)]
    (alone,), together = results[1], results[2]
    assert len(alone["found"]) > 25
    for each in together:
        assert each["found"] == alone["found"]
    for what, clips in alone["seen"].items():
        shares = [each["seen"][what] for each in together]
        # Where only the first clips are looked at, the others are read but not looked at: no clip twice.
        assert sum(shares) == clips and max(shares) < clips, (what, shares)
