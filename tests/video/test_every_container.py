"""Whatever FFmpeg can write here: reading at any time gives the frames, times and flags of decoding everything."""

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction

import av
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numbered_videos import numbered, numbers

from filmstrip.video import open_video
from filmstrip.video.decoder import ROUNDING

COUNT = 45
FRAMES = numbered(COUNT, 48, 64)
UNEVEN = np.cumsum([0] + [33 + 21 * (i % 5) for i in range(COUNT - 1)]).tolist()
"""Milliseconds, all different from those of any fixed rate."""

X264 = "libx264"
FIELDS = {"x264-params": "tff=1"}
OPEN = {"x264-params": "keyint=12:min-keyint=12:open-gop=1:bframes=3:scenecut=0"}
PYRAMID = {"x264-params": "bframes=5:b-pyramid=normal:ref=4:keyint=20"}
NO_B = {"bf": "0", "g": "12"}
B = {"bf": "3", "g": "12"}
LONG = {"bf": "2", "g": "250"}

TIMED = ("mp4", "mov", "matroska", "mpegts", "flv", "nut")
"""Containers that store when each frame is shown."""

CASES = [
    *[(form, X264, options) for form in (*TIMED, "avi", "asf", "h264", "mpeg", "3gp") for options in (NO_B, B, LONG)],
    *[(form, X264, options) for form in (*TIMED, "avi", "asf") for options in (OPEN, PYRAMID, FIELDS)],
    *[
        (form, "libx265", {"x265-params": f"log-level=none:{more}"})
        for form in ("mp4", "matroska", "mpegts", "avi", "hevc", "flv")
        for more in ("bframes=0:keyint=12", "bframes=3:keyint=12", "open-gop=1:bframes=4:keyint=15")
    ],
    *[
        (form, "mpeg4", options)
        for form in ("mp4", "matroska", "avi", "asf", "nut", "mpegts", "m4v")
        for options in (NO_B, {"bf": "2", "g": "12"}, {"bf": "2", "g": "250"}, {"flags": "+ilme+ildct", "bf": "1"})
    ],
    *[
        (form, codec, options)
        for codec in ("mpeg1video", "mpeg2video")
        for form in ("mpeg", "mpegts", "avi", "matroska", "mpeg2video" if codec == "mpeg2video" else "mpeg1video")
        for options in (NO_B, {"bf": "2", "g": "12"})
    ],
    *[("mpeg", "mpeg2video", {"flags": "+ilme+ildct", "bf": "2"}), ("mxf", "mpeg2video", {"bf": "2", "g": "12"})],
    *[("vob", "mpeg2video", {"bf": "2", "g": "12"}), ("mov", "mpeg2video", {"bf": "2", "g": "12"})],
    *[
        (form, "libvpx", options)
        for form in ("webm", "ivf", "avi")
        for options in ({"g": "12"}, {"auto-alt-ref": "1", "lag-in-frames": "16", "g": "20"})
    ],
    *[
        (form, "libvpx-vp9", {"cpu-used": "8", "g": "12", **options})
        for form in ("webm", "mp4", "ivf")
        for options in ({}, {"auto-alt-ref": "1", "lag-in-frames": "12"})
    ],
    *[(form, "libsvtav1", {"preset": "12", "g": "12"}) for form in ("mp4", "matroska", "ivf")],
    *[(form, "mjpeg", {}) for form in ("avi", "mov", "matroska", "mjpeg")],
    *[("avi", codec, {}) for codec in ("msmpeg4", "msmpeg4v2", "ffv1", "huffyuv", "rawvideo", "h263p")],
    *[("asf", codec, {}) for codec in ("wmv1", "wmv2", "msmpeg4")],
    *[("mov", codec, {}) for codec in ("png", "prores_ks", "qtrle")],
    *[("flv", "flv", {}), ("3gp", "h263", {}), ("ogg", "libtheora", {"g": "12"}), ("gif", "gif", {})],
    *[("matroska", "ffv1", {}), ("apng", "apng", {})],
]

FORMATS = {"h263": (96, 128), "gif": (48, 64)}
PIXELS = {
    **{
        "gif": "rgb8",
        "png": "rgb24",
        "apng": "rgb24",
        "qtrle": "rgb24",
        "mjpeg": "yuvj420p",
        "prores_ks": "yuv422p10le",
    },
    **{"rawvideo": "yuv420p", "huffyuv": "yuv422p"},
}


@contextmanager
def priority_kept() -> Iterator[None]:
    """The thread's priority is afterwards as before: as root, SVT-AV1 makes its caller a real-time thread, beside
    which nothing else on the machine comes to its turn."""
    if not hasattr(os, "sched_getscheduler"):
        yield
        return
    before = os.sched_getscheduler(0), os.sched_getparam(0)
    try:
        yield
    finally:
        os.sched_setscheduler(0, *before)


def written(form: str, codec: str, options: dict[str, str], rate: Fraction, stamps: list[int] | None) -> bytes | None:
    """The bytes of a file, or none where these libraries cannot write it."""
    file = io.BytesIO()
    frames = FRAMES if codec != "h263" else numbered(COUNT, *FORMATS["h263"])
    try:
        with priority_kept(), av.open(file, "w", format=form) as container:
            stream = container.add_stream(codec, rate=rate, options=options)
            stream.height, stream.width = frames.shape[1:3]
            stream.pix_fmt = PIXELS.get(codec, "yuv420p")
            stream.codec_context.thread_count = 1
            if stamps is not None:
                stream.codec_context.time_base = Fraction(1, 1000)
            for number, image in enumerate(frames):
                picture = av.VideoFrame.from_ndarray(image, format="rgb24").reformat(format=stream.pix_fmt)
                if stamps is not None:
                    picture.pts, picture.time_base = stamps[number], Fraction(1, 1000)
                container.mux(stream.encode(picture))
            container.mux(stream.encode())
    except (av.FFmpegError, ValueError, KeyError):
        return None
    return file.getvalue()


def plain(data: bytes) -> tuple[np.ndarray, list[int | None], float]:
    """All frames in the decoder's order, their time stamps, and the length of a tick."""
    with av.open(io.BytesIO(data)) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        frames = list(container.decode(stream))
        images = np.stack([frame.to_ndarray(format="rgb24") for frame in frames])
        return images, [frame.pts for frame in frames], float(stream.time_base)


def name(case) -> str:
    form, codec, options = case
    return f"{codec} in {form}, {','.join(f'{key}={value}' for key, value in options.items()) or 'plain'}"


def check(data: bytes, expected_times: np.ndarray, tolerance: float, exact_rate: bool) -> None:
    """Everything that a reader promises, for one file."""
    images, _, _ = plain(data)
    with open_video(io.BytesIO(data)) as decoder:
        parts = list(decoder.frames(chunk=9))
        video = torch.cat([part.video for part in parts]).permute(0, 2, 3, 1).numpy()
        times = np.concatenate([part.times for part in parts])
        assert video.shape == images.shape
        assert (video == images).all(), "frames in the decoder's order"
        np.testing.assert_allclose(times, expected_times, atol=tolerance)
        np.testing.assert_array_equal(times, decoder.times())
        assert not any(flag for part in parts for flag in part.damaged)
        assert not any(part.truncated for part in parts) and not decoder.info.num_missing
        mean = (len(times) - 1) / times[-1]
        assert decoder.info.fps == pytest.approx(mean, rel=0.005 if exact_rate else 0.05)
        assert decoder.info.duration == pytest.approx(times[-1] + 1 / mean, abs=2.5 / mean)
        assert set(decoder.key_times()) <= set(times)
    draw_times(data, images, times)


def draw_times(data: bytes, images: np.ndarray, times: np.ndarray) -> None:
    """Frames at any times, in any order, from a fresh and from a used decoder."""

    @settings(max_examples=6, deadline=None, database=None)
    @given(wanted=st.lists(st.floats(-0.5, float(times[-1]) + 1), min_size=1, max_size=8))
    def at_any_times(wanted):
        places = np.maximum(times.searchsorted(np.array(wanted) + ROUNDING, "right") - 1, 0)
        with open_video(io.BytesIO(data)) as decoder:
            for _ in range(2):
                got = decoder.frames_at(wanted)
                np.testing.assert_array_equal(got.times, times[places])
                assert (got.video.permute(0, 2, 3, 1).numpy() == images[places]).all()
                assert not any(got.damaged)
            start = float(times[places[0]])
            part = next(iter(decoder.frames(start, chunk=2)))
            np.testing.assert_array_equal(part.times, times[places[0] : places[0] + 2])

    at_any_times()


@pytest.mark.parametrize("case", CASES, ids=name)
def test_every_container_at_a_fixed_rate(case):
    form, codec, options = case
    rate = Fraction(30000, 1001) if codec in (X264, "mpeg2video") and form != "asf" else Fraction(25)
    data = written(form, codec, options, rate, None)
    if data is None:
        pytest.skip("FFmpeg's libraries here cannot write it")
    rounded = 0.002 if form in ("matroska", "webm", "flv", "asf", "apng", "gif") else 1e-3
    count = len(plain(data)[0])
    assert count >= COUNT - 2, "what was written is not what was to be tested"
    check(data, np.arange(count) / float(rate), rounded, exact_rate=False)


@pytest.mark.parametrize("options", [NO_B, B, OPEN, PYRAMID], ids=lambda options: ",".join(options.values()))
@pytest.mark.parametrize("form", TIMED)
def test_every_container_at_a_variable_rate(form, options):
    data = written(form, X264, options, Fraction(25), UNEVEN)
    check(data, np.array(UNEVEN) / 1000, 0.002, exact_rate=form not in ("mp4", "mov"))
    assert numbers(torch.from_numpy(plain(data)[0]).permute(0, 3, 1, 2)) == list(range(COUNT))
