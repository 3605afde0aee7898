"""Collections of small videos, some of them with bad files."""

from pathlib import Path

import pytest
from small_videos import VIDEOS, encode


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("videos")
    for i in range(VIDEOS):
        encode(root / "train" / ("run" if i % 2 else "jump") / f"{i}.mp4", 10 * i)
    for i in range(3):
        encode(root / "test" / "run" / f"t{i}.mp4", 30 * i)
    return root


@pytest.fixture(scope="module")
def bad_root(tmp_path_factory) -> Path:
    """Ten videos, of which two are bad, and a test split of three, of which one is."""
    root = tmp_path_factory.mktemp("bad")
    for i in range(VIDEOS):
        encode(root / "train" / "run" / f"{i}.mp4", 10 * i)
    for name in ("0", "1", "2"):
        encode(root / "test" / "run" / f"{name}.mp4", 10)
    (root / "train/run/3.mp4").write_bytes(b"")
    (root / "train/run/7.mp4").write_text("not a video")
    (root / "test/run/1.mp4").write_bytes(b"")
    return root
