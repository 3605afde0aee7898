"""Files that an earlier version read wrongly, and their relatives: each has a right result."""

import csv
import io
import subprocess
import sys
import types

import numpy as np
import pytest
import torch
from numbered_videos import encode, numbered, numbers

from filmstrip.video import DecodeError, open_video, read_clips, read_video

FLAGGED = {"absurd_duration_fragmented.mp4"}
CUT_OFF = {"half.flv", "half.ogv", "missing_frames.3gp"}
FILES = [
    "absurd_duration_fragmented.mp4",
    "browser_like_rate.webm",
    "colour_tag_gbr.m2v",
    "dropped_chunks.avi",
    "field_coded.mp4",
    "h264_bframes.avi",
    "h264_bframes.wmv",
    "h264_bframes_1.avi",
    "h264_program_stream.mpg",
    "half.flv",
    "half.ogv",
    "hevc_bitflips.mp4",
    "missing_frames.3gp",
    "negative_times.mkv",
    "one_block_without_time.mkv",
    "variable_rate.mkv",
    "variable_rate.ts",
]


@pytest.fixture(scope="module")
def rows(awkward) -> dict[str, dict[str, str]]:
    with open(awkward("faults") / "manifest.csv") as file:
        return {row["file"]: row for row in csv.DictReader(file)}


def test_the_table_covers_the_faults(rows):
    assert sorted(FILES) == sorted(rows)


@pytest.mark.parametrize("name", FILES)
def test_fault(name, rows, awkward):
    row, path = rows[name], awkward("faults") / name
    with open_video(path) as decoder:
        info = decoder.info
        parts = list(decoder.frames(size=(24, 32)))
        times = np.concatenate([part.times for part in parts])
        flags = np.concatenate([part.damaged for part in parts])
        middle = decoder.frames_at(times[::7] + 1e-4, size=(24, 32))
        (clip,) = read_clips(decoder, num_frames=8, sampling="uniform", size=24)
    assert len(times) == int(row["frames"])
    assert (np.diff(times) > 0).all() and times[0] == 0
    if row["mean rate"]:
        assert info.fps == pytest.approx(float(row["mean rate"]), rel=0.03)
        assert times[-1] + 1 / info.fps == pytest.approx(float(row["seconds"]), abs=0.2)
    assert info.duration == pytest.approx(times[-1] + 1 / info.fps, abs=0.2)
    np.testing.assert_array_equal(middle.times, times[::7])
    video = torch.cat([part.video for part in parts])
    assert torch.equal(middle.video[flags[::7] == 0], video[::7][flags[::7] == 0]), "the frame of that time"
    assert len(clip) == len(clip.video) == 8 and set(np.round(clip.times, 6)) <= set(np.round(times, 6))
    assert clip.times[-1] > 0.7 * times[-1]
    assert flags.any() == (name in FLAGGED)
    assert bool(info.truncated) == (name in CUT_OFF) == bool(clip.truncated)
    assert (info.num_missing > 0) == (name in CUT_OFF - {"half.ogv"}), "Ogg does not say how much it should hold"


def test_missing_frames_are_counted_at_once(awkward):
    for name, missing in (("missing_frames.3gp", 59), ("half.flv", 133)):
        with open_video(awkward("faults") / name) as decoder:
            assert decoder.info.num_missing == pytest.approx(missing, rel=0.1)
            assert f"{decoder.info.num_missing} frames are missing" in decoder.info.truncated
    assert "missing" in read_video(awkward("faults") / "missing_frames.3gp").truncated


def test_ucf101_is_read_as_it_is_shown(awkward):
    """XviD puts B frames into the packets of others: the frames are those of a plain decoder, in its order."""
    folder = awkward("..") / "actions" / "ucf101_subset"
    paths = sorted(folder.rglob("*.avi"))
    assert len(paths) == 15
    for path in paths:
        with open_video(path) as decoder:
            whole = list(decoder.frames(size=(24, 32)))
            times = np.concatenate([part.times for part in whole])
            np.testing.assert_allclose(times, np.arange(len(times)) / decoder.info.fps, atol=1e-6)
            assert not any(flag for part in whole for flag in part.damaged) and not decoder.info.truncated
            video = torch.cat([part.video for part in whole])
            wanted = np.random.default_rng(0).permutation(len(times))[:12]
            assert torch.equal(decoder.frames_at(times[wanted], size=(24, 32)).video, video[wanted])
            assert decoder.info.num_frames == len(times)


FRAMES = numbered(60, 64, 96)


@pytest.mark.parametrize("form", ["matroska", "asf", "flv", "avi"])
@pytest.mark.parametrize("share", [0.6, 0.85])
def test_a_zeroed_tail_is_cut_off(form, share):
    """What a download that stopped leaves behind, in a file whose size was set at its start."""
    codec = "wmv2" if form == "asf" else "libx264"
    data = encode(FRAMES, format=form, codec=codec, g="12")
    kept = int(len(data) * share)
    with open_video(io.BytesIO(data[:kept] + bytes(len(data) - kept))) as decoder:
        whole = [number for part in decoder.frames() for number in numbers(part.video)]
        assert decoder.info.truncated and decoder.info.num_missing > 0.5 * (1 - share) * 60
        assert 0.3 * share * 60 < len(whole) < 60


def test_a_picture_on_the_cover_is_not_the_film(tmp_path):
    """A track that players show by default comes before one that they do not, wherever it lies in the file."""
    import av

    path = tmp_path / "cover.mkv"
    with av.open(str(path), "w") as container:
        cover = container.add_stream("mjpeg", rate=1)
        cover.height, cover.width, cover.pix_fmt = 32, 32, "yuvj420p"
        film = container.add_stream("libx264", rate=25)
        film.height, film.width, film.pix_fmt = 64, 96, "yuv420p"
        cover.disposition, film.disposition = 0, av.stream.Disposition.default
        container.mux(cover.encode(av.VideoFrame.from_ndarray(np.full((32, 32, 3), 255, np.uint8), format="rgb24")))
        container.mux(cover.encode())
        for image in FRAMES[:10]:
            container.mux(film.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(film.encode())
    with open_video(path) as decoder:
        assert (decoder.info.width, decoder.info.height) == (96, 64)
        assert numbers(decoder.frames_at(decoder.times()).video) == list(range(10))


def test_a_closed_decoder_says_so_wherever_it_is_asked():
    decoder = open_video(io.BytesIO(encode(FRAMES[:5])))
    decoder.close()
    for ask in (decoder.times, decoder.key_times, lambda: decoder.frames_at([0.0]), lambda: list(decoder.frames())):
        with pytest.raises(Exception, match="closed"):
            ask()


def test_nothing_of_ffmpeg_reaches_the_terminal(tmp_path):
    """Neither what the decoder says of a damaged file nor what the encoders say of themselves."""
    damaged = bytearray(encode(FRAMES, format="asf", g="12"))
    damaged[2000:2100] = bytes(100)
    (tmp_path / "a.wmv").write_bytes(damaged)
    code = (
        "import torch; from filmstrip.video import read_video, write_video; "
        "read_video('a.wmv'); write_video('b.mp4', torch.rand(9, 3, 64, 64), 10)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=True)
    assert done.stdout == done.stderr == ""


@pytest.mark.parametrize(("form", "refused"), [("avi", True), ("mp4", False)])
def test_torchcodec_is_not_asked_where_packets_do_not_tell_times(form, refused, monkeypatch):
    """It takes the times of packets as they are, and would give other frames."""
    asked = types.ModuleType("torchcodec.decoders")
    asked.VideoDecoder = lambda source, **options: "opened"
    monkeypatch.setitem(sys.modules, "torchcodec", types.ModuleType("torchcodec"))
    monkeypatch.setitem(sys.modules, "torchcodec.decoders", asked)
    data = io.BytesIO(encode(FRAMES[:20], format=form, bf="2"))
    if refused:
        with pytest.raises(DecodeError, match="use backend='pyav'"):
            open_video(data, backend="torchcodec")
    else:
        open_video(data, backend="torchcodec").close()
