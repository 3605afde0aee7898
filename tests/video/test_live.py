"""Live sources: the newest frames, none late, and a clean end."""

import os
import socket
import time
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest
from camera import Camera, RtspCamera
from numbered_videos import numbered, numbers

from filmstrip.video import DecodeError, live
from filmstrip.video.live import LiveSource, is_live_source


def test_what_is_live(tmp_path):
    assert all(map(is_live_source, ("rtsp://a/1", Path("rtsp://a/1"), "udp://1.2.3.4:5", "-", "/dev/video9")))
    assert not any(map(is_live_source, ("https://a/1.mp4", "a.mp4", Path("/dev"), tmp_path)))
    os.mkfifo(tmp_path / "pipe")
    assert is_live_source(tmp_path / "pipe")


@pytest.mark.parametrize("kind", [Camera, RtspCamera])
def test_windows_hold_the_newest_frames_evenly_spaced(kind):
    camera = kind(numbered(75))
    with LiveSource(camera.address) as source:
        assert source.fps == 25
        found = list(source.windows(4, 3 / 25))
    assert len(found) > 3
    for window in found:
        shown = numbers(window.video())
        assert np.allclose(window.times, (np.array(shown) - shown[0]) / 25 + window.times[0], atol=1e-3)
        assert [after - before for before, after in pairwise(shown)] == [3, 3, 3]
        assert window.times[-1] == pytest.approx(shown[-1] / 25, abs=1e-3)
    newest = [window.times[-1] for window in found]
    assert newest == sorted(set(newest)) and newest[-1] >= 2.7


def test_a_slow_reader_misses_frames_and_is_never_late():
    camera = Camera(numbered(100))
    late = []
    with LiveSource(camera.address) as source:
        for window in source.windows(2, 1 / 25):
            late.append(time.monotonic() - window.came)
            time.sleep(0.5)
    assert 3 <= len(late) <= 9  # of 4 seconds
    assert np.median(late) < 0.3


def test_time_goes_by_between_windows():
    camera = Camera(numbered(100), paced=False)
    with LiveSource(camera.address) as source:
        times = [window.times[-1] for window in source.windows(2, 1 / 25, every=1.0)]
    assert all(after - before >= 0.95 for before, after in pairwise(times[:-1]))  # the last one is that of the end


def test_a_source_with_few_frames_yields_one_window():
    camera = Camera(numbered(3), paced=False)
    with LiveSource(camera.address) as source:
        (window,) = source.windows(8, 1 / 25)
    assert numbers(window.video()) == [0, 0, 0, 0, 0, 0, 1, 2]
    assert window.video(size=(24, 32)).shape == (8, 3, 24, 32)


def test_a_source_that_never_ends_is_left_at_once():
    camera = Camera(numbered(250))
    with LiveSource(camera.address) as source:
        next(source.windows(2, 1 / 25))
        left = time.monotonic()
    assert time.monotonic() - left < 2


def test_what_cannot_be_followed_is_said(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(DecodeError, match=rf"tcp://127.0.0.1:{port}, video stream 0: it cannot be opened"):
        LiveSource(f"tcp://127.0.0.1:{port}")
    with pytest.raises(DecodeError, match=r"/dev/video97.*cannot be opened"):
        LiveSource("/dev/video97")
    (tmp_path / "text.ts").write_bytes(b"no video " * 999)
    with pytest.raises(DecodeError, match="it cannot be opened"):
        LiveSource(tmp_path / "text.ts")


def test_a_source_that_falls_silent_has_ended():
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"tcp://127.0.0.1:{server.getsockname()[1]}"
        with pytest.raises(DecodeError, match=r"it cannot be opened: nothing came for 0\.5 s"):
            LiveSource(address, timeout=0.5)


def test_frames_are_left_out_where_decoding_is_behind():
    lag = live._Lag()
    assert lag.allowed(0.0) == "DEFAULT"
    lag.seen(0.0)
    started, second = lag._since
    lag._since = (started - 1.0, second)
    lag.seen(0.2)
    assert lag.allowed(0.0) == "NONREF"
    lag._since = (started - 3.0, second)
    lag.seen(0.2)
    assert lag.allowed(0.0) == "NONKEY"
    assert lag.allowed(0.5) == "DEFAULT"  # it had to wait: nothing is behind


def test_a_device_of_ffmpeg_can_be_followed(monkeypatch):
    opened = av.open
    monkeypatch.setattr(av, "open", lambda target, **settings: opened("testsrc=size=64x48:rate=25", format="lavfi"))
    with LiveSource("/dev/video0") as source:
        window = next(source.windows(3, 0.2))
    assert window.video().shape == (3, 3, 48, 64) and np.allclose(np.diff(window.times), 0.2)
