"""Prepared copies keep their sound: as it is or as AAC, in time with the picture."""

import io
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest
from collections_on_disk import clip

from filmstrip.data.tools import reencode as module
from filmstrip.data.tools.prepare import prepare_collection
from filmstrip.data.tools.reencode import Recipe, reencode
from filmstrip.errors import UserError
from filmstrip.video import open_video

RATE, FPS, LENGTH = 48_000, 12, 24
BEEP = 1.0
"""Time at which the sound begins to be heard, in seconds from the first picture."""


def film(path: Path, codec: str, video: str = "libx264", start: float = 0.0, rate: int = RATE) -> Path:
    """Two seconds of picture and sound, which is silence and then 440 Hz; the picture begins at ``start``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pictures = clip(0, LENGTH, size=48).permute(0, 2, 3, 1).contiguous().numpy()
    seconds = np.arange(round((start + LENGTH / FPS) * rate)) / rate
    wave = (0.5 * np.sin(2 * np.pi * 440 * seconds) * (seconds >= start + BEEP)).astype(np.float32)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(video, rate=FPS)
        stream.height, stream.width, stream.pix_fmt = 48, 48, "yuv420p"
        stream.time_base = stream.codec_context.time_base = Fraction(1, 12_000)
        sound = container.add_stream(codec, rate=rate)
        sound.codec_context.layout = "stereo"
        for i, picture in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = round((start + i / FPS) * 12_000), Fraction(1, 12_000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        size = sound.codec_context.frame_size or 1024
        resampler = av.AudioResampler(format=sound.codec_context.format.name, layout="stereo", rate=rate)
        for first in range(0, len(wave) - size + 1, size):
            piece = av.AudioFrame.from_ndarray(
                np.stack([wave[first : first + size]] * 2), format="fltp", layout="stereo"
            )
            piece.rate, piece.pts, piece.time_base = rate, first, Fraction(1, rate)
            for part in resampler.resample(piece):
                container.mux(sound.encode(part))
        container.mux(sound.encode(None))
    return path


def heard(path: Path) -> tuple[str, float, float]:
    """The codec of the sound, when it begins to be heard after the first picture, and its length, seconds."""
    with av.open(str(path)) as container:
        video, audio = container.streams.video[0], container.streams.audio[0]
        first = float((video.start_time or 0) * video.time_base)
        loud, end = [], 0.0
        for frame in container.decode(audio):
            level = np.abs(frame.to_ndarray().astype(np.float64)).max()
            level /= 32768 if "s16" in frame.format.name else 1
            if level > 0.1:
                loud.append(frame.time - first)
            end = frame.time - first + frame.samples / frame.sample_rate
        return audio.codec_context.name, loud[0], end


@pytest.mark.parametrize(
    ("name", "codec", "kept"),
    [("a.mp4", "aac", "aac"), ("a.mkv", "libopus", "opus"), ("a.mov", "pcm_s16le", "aac"), ("a.mkv", "flac", "flac")],
)
def test_the_sound_is_kept_in_time(tmp_path, name, codec, kept):
    source = film(tmp_path / name, codec)
    result = reencode(source, tmp_path / "out.mp4", Recipe())
    assert not result.flaw and result.num_frames == LENGTH
    codec, begins, length = heard(tmp_path / "out.mp4")
    assert (codec, begins) == (kept, pytest.approx(BEEP, abs=0.06)) and length == pytest.approx(LENGTH / FPS, abs=0.1)
    with open_video(tmp_path / "out.mp4") as copy, open_video(source) as whole:
        assert copy.info.has_audio and np.allclose(copy.times(), whole.times(), atol=1e-3)


def test_sound_before_the_first_picture_is_cut_off(tmp_path):
    reencode(film(tmp_path / "late.mkv", "libopus", start=0.5), tmp_path / "out.mp4", Recipe())
    _, begins, length = heard(tmp_path / "out.mp4")
    assert begins == pytest.approx(BEEP, abs=0.06) and length == pytest.approx(LENGTH / FPS, abs=0.1)
    with open_video(tmp_path / "out.mp4") as copy:
        assert copy.times()[0] == 0 and copy.info.num_frames == LENGTH


def test_the_sound_of_a_member_of_an_archive(tmp_path):
    content = io.BytesIO(film(tmp_path / "a.mkv", "libopus").read_bytes())
    result = reencode(content, tmp_path / "out.mp4", Recipe())
    assert not result.flaw and result.num_frames == LENGTH
    assert heard(tmp_path / "out.mp4")[1] == pytest.approx(BEEP, abs=0.06)


def test_sound_is_left_out_where_asked_and_named_where_it_must_be(tmp_path, monkeypatch):
    film(tmp_path / "in/a/x.mp4", "aac")
    film(tmp_path / "in/b/y.mp4", "aac")
    prepare_collection(tmp_path / "in", tmp_path / "silent", sound=False, workers=1)
    with open_video(tmp_path / "silent/videos/a/x.mp4") as copy:
        assert not copy.info.has_audio
    with pytest.raises(UserError, match="prepared with sound False"):
        prepare_collection(tmp_path / "in", tmp_path / "silent", workers=1)

    class Broken:
        def __init__(self, source):
            raise av.error.InvalidDataError(1, "nothing can be heard")

    monkeypatch.setattr(module, "Sound", Broken)
    result = reencode(tmp_path / "in/a/x.mp4", tmp_path / "out.mp4", Recipe())
    assert "its sound cannot be kept" in result.flaw and result.num_frames == LENGTH
    with open_video(tmp_path / "out.mp4") as copy:
        assert not copy.info.has_audio


def test_picture_and_sound_lie_side_by_side_in_the_file(tmp_path):
    reencode(film(tmp_path / "a.mp4", "aac"), tmp_path / "out.mp4", Recipe())
    with av.open(str(tmp_path / "out.mp4")) as container:
        kinds = [packet.stream.type for packet in container.demux() if packet.size]
    assert sum(one != other for one, other in pairwise(kinds)) > 4
