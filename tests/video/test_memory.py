"""Memory stays flat, however many files are opened and however long one is left open."""

import gc
import os
import time
from pathlib import Path

import numpy as np
import pytest
from numbered_videos import encode, numbered

from filmstrip.video import open_video, read_clips


def resident() -> float:
    """Mebibytes of this process."""
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


@pytest.fixture
def path(tmp_path):
    (tmp_path / "a.mp4").write_bytes(encode(numbered(40, 96, 128), g="10"))
    return tmp_path / "a.mp4"


def read_once(path, seed):
    with open_video(path) as decoder:
        read_clips(decoder, num_frames=4, size=64, rng=np.random.default_rng(seed))


def check_flat(path, opens, allowed):
    for seed in range(100):
        read_once(path, seed)
    before = resident()
    for seed in range(opens):
        read_once(path, seed)
    assert resident() - before < allowed


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs /proc")
def test_memory_is_flat_over_some_opens(path):
    check_flat(path, 150, 4)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs /proc")
def test_memory_is_flat_over_five_thousand_opens(path):
    check_flat(path, 5000, 8)


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs /proc")
def test_a_reader_left_open_does_not_grow(path):
    with open_video(path) as decoder:
        decoder.frames_at([0.5])
        before = resident()
        time.sleep(1)
        assert resident() - before < 2
