"""Frames by presentation time: the oracle is the number that each generated frame shows."""

import io
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numbered_videos import encode, numbered, numbers

from filmstrip.video import Crop, DecodeError, Request, open_video, read_video
from filmstrip.video.decoder import ROUNDING

COUNT = 60
FRAMES = numbered(COUNT)
UNEVEN = np.cumsum([0] + [20 + 13 * (i % 7) for i in range(COUNT - 1)]).tolist()

FILES = {
    "long gop, b frames": (encode(FRAMES, g="250", bf="3"), None),
    "short gop": (encode(FRAMES, g="8", bf="2"), None),
    "open gop": (encode(FRAMES, **{"x264-params": "keyint=12:min-keyint=12:open-gop=1:bframes=3:scenecut=0"}), None),
    "no b frames": (encode(FRAMES, g="16", bf="0"), None),
    "variable rate": (encode(FRAMES, g="10", bf="2", pts=UNEVEN), UNEVEN),
    "fragments": (encode(FRAMES, g="12", container_options={"movflags": "frag_keyframe+empty_moov"}), None),
    "matroska": (encode(FRAMES, format="matroska", g="16", bf="3"), None),
    "transport stream": (encode(FRAMES, format="mpegts", g="16", bf="3"), None),
    "late start": (encode(FRAMES, format="matroska", g="16", pts=[5000 + 40 * i for i in range(COUNT)]), None),
    "hevc": (encode(FRAMES, codec="libx265", **{"x265-params": "keyint=20:bframes=3:log-level=none"}), None),
    "vp8": (
        encode(FRAMES, format="webm", codec="libvpx", g="20", **{"auto-alt-ref": "1", "lag-in-frames": "16"}),
        None,
    ),
    "vp9": (encode(FRAMES, format="webm", codec="libvpx-vp9", g="20", **{"cpu-used": "8"}), None),
    "avi": (encode(FRAMES, format="avi", codec="mpeg4", g="12"), None),
    "avi, b frames": (encode(FRAMES, format="avi", codec="mpeg4", g="12", bf="2"), None),
    "flash": (encode(FRAMES, format="flv", g="16", bf="3"), None),
    "windows media": (encode(FRAMES, format="asf", codec="wmv2", g="12"), None),
    "annex b": (encode(FRAMES, format="h264", g="12"), None),
    "mpeg-2 program stream": (encode(FRAMES, format="mpeg", codec="mpeg2video", g="12", bf="2"), None),
}


def opened(name, **kwargs):
    return open_video(io.BytesIO(FILES[name][0]), **kwargs)


def begins(name):
    """When each frame begins, by construction."""
    stamps = FILES[name][1]
    return np.arange(COUNT) / 25 if stamps is None else np.array(stamps) / 1000


@pytest.mark.parametrize("name", FILES)
def test_reading_in_order_gives_every_frame_at_its_time(name):
    with opened(name) as decoder:
        parts = list(decoder.frames(chunk=7))
        shown = [number for part in parts for number in numbers(part.video)]
        times = np.concatenate([part.times for part in parts])
        assert shown == list(range(COUNT))
        np.testing.assert_allclose(times, begins(name), atol=0.002)
        np.testing.assert_array_equal(times, decoder.times())
        assert not any(flag for part in parts for flag in part.damaged)
        assert not any(part.truncated for part in parts)
        assert decoder.info.fps == pytest.approx((COUNT - 1) / begins(name)[-1], rel=0.05)
        assert decoder.info.duration == pytest.approx(begins(name)[-1], abs=0.15)
        assert set(decoder.key_times()) <= set(times)


@pytest.mark.parametrize("name", FILES)
@settings(max_examples=12, deadline=None)
@given(data=st.data())
def test_each_time_gets_the_frame_on_screen_then(name, data):
    times = data.draw(st.lists(st.floats(-0.5, begins(name)[-1] + 1), min_size=1, max_size=12))
    threads = data.draw(st.sampled_from([1, 1, 2]))
    with opened(name, threads=threads) as decoder:
        all_times = decoder.times()
        expected = [max(0, i) for i in all_times.searchsorted(np.array(times) + ROUNDING, "right") - 1]
        got = decoder.frames_at(times)
        assert numbers(got.video) == expected
        np.testing.assert_array_equal(got.times, all_times[expected])
        assert not any(got.damaged)
        assert numbers(decoder.frames_at(all_times[expected]).video) == expected, "exact times, and a second read"


def test_frames_picked_equal_frames_read_in_order():
    whole = read_video(io.BytesIO(FILES["long gop, b frames"][0]))
    with opened("long gop, b frames") as decoder:
        order = [50, 3, 3, 59, 0, 17]
        picked = decoder.frames_at(whole.times[order])
    assert torch.equal(picked.video, whole.video[order])


@pytest.mark.parametrize("name", ["short gop", "matroska", "transport stream", "avi, b frames"])
def test_a_range_is_half_open(name):
    with opened(name) as decoder:
        times = decoder.times()
        parts = list(decoder.frames(times[21], times[40], chunk=100))
    assert [number for part in parts for number in numbers(part.video)] == list(range(21, 40))


def test_snapping_gives_neighbours_and_says_which():
    with opened("long gop, b frames") as decoder:
        times = decoder.times()
        (got,) = decoder.read([Request(times[10:50:4])], snap=True)
        assert np.abs(got.times - times[10:50:4]).max() <= 3 / 25
        assert numbers(got.video) == times.searchsorted(got.times).tolist()
        assert not any(got.damaged)


def test_several_requests_share_one_pass():
    with opened("short gop") as decoder:
        requests = [Request([0.5, 1.5], Crop(4, 8, 40, 32)), Request([1.5, 0.1, 0.5], size=(24, 32)), Request([])]
        cut, scaled, none = decoder.read(requests)
        assert cut.video.shape == (2, 3, 40, 32) and scaled.video.shape == (3, 3, 24, 32) and len(none) == 0
        assert numbers(scaled.video) == [37, 2, 12]
        assert torch.equal(cut.video, decoder.frames_at([0.5, 1.5]).video[:, :, 4:44, 8:40])


def test_an_edit_list_cuts_the_beginning():
    data = encode(FRAMES, g="250", bf="2", shift=10, container_options={"avoid_negative_ts": "disabled"})
    with open_video(io.BytesIO(data)) as decoder:
        first = numbers(decoder.frames_at([0.0]).video)[0]
        parts = list(decoder.frames())
        shown = [number for part in parts for number in numbers(part.video)]
        assert first == shown[0] == 10 and shown == list(range(10, COUNT))
        assert parts[0].times[0] == 0.0 and len(decoder.times()) == COUNT - 10
        assert not any(part.truncated for part in parts)


def test_two_video_streams():
    data = encode(FRAMES[:8], streams=2)
    first, second = (read_video(io.BytesIO(data), stream=number).video for number in (0, 1))
    assert numbers(first) == list(range(8))
    assert numbers(second) == [255 - i for i in range(8)]
    with pytest.raises(DecodeError, match="video stream 2: the file has 2 video streams"):
        open_video(io.BytesIO(data), stream=2)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (3, 5), (81, 121), (16, 200)])
def test_odd_sizes(height, width):
    data = encode(numbered(3, height, width), pix_fmt="yuv444p")
    assert read_video(io.BytesIO(data)).video.shape == (3, 3, height, width)
    assert read_video(io.BytesIO(data), size=(7, 9)).video.shape == (3, 3, 7, 9)


def test_alpha_is_dropped():
    rgba = read_video(io.BytesIO(encode(FRAMES[:3], format="mov", codec="png", pix_fmt="rgba")))
    assert torch.equal(rgba.video, torch.from_numpy(FRAMES[:3].copy()).permute(0, 3, 1, 2))


def test_errors_name_the_file_the_stream_and_the_reason(tmp_path):
    for name, content, reason in [
        ("none.mp4", None, "no such file"),
        ("empty.mp4", b"", "empty"),
        ("text.mp4", b"hello " * 100, "not a video"),
    ]:
        if content is not None:
            (tmp_path / name).write_bytes(content)
        with pytest.raises(DecodeError, match=reason) as caught:
            open_video(tmp_path / name)
        assert str(tmp_path / name) in str(caught.value) and "video stream 0" in str(caught.value)
        copy = pickle.loads(pickle.dumps(caught.value))
        assert (copy.path, copy.stream, copy.reason) == (str(tmp_path / name), 0, caught.value.reason)
    with pytest.raises(DecodeError, match="folder"):
        open_video(tmp_path)


def test_a_name_that_looks_like_a_protocol_is_a_file(tmp_path):
    path = tmp_path / "concat:a|b 100%.mp4"
    path.write_bytes(FILES["short gop"][0])
    assert len(read_video(path)) == COUNT


def test_closed_and_wrong_boxes_are_refused():
    decoder = opened("short gop")
    for box in (Crop(0, 0, 49, 64), Crop(-1, 0, 4, 4), Crop(0, 0, 0, 4)):
        with pytest.raises(ValueError, match="not inside a frame of 48 x 64"):
            decoder.frames_at([0.0], crop=box)
    decoder.close()
    with pytest.raises(DecodeError, match="closed"):
        decoder.frames_at([0.0])


def test_a_part_without_frames_is_an_error():
    with pytest.raises(DecodeError, match=r"no frame begins in 10 s to 11 s; it lasts 2\.4 s"):
        read_video(io.BytesIO(FILES["short gop"][0]), start=10, stop=11)
