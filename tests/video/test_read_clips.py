"""Clips cut out of a video."""

import io

import numpy as np
import pytest
import torch
from numbered_videos import encode, numbered, numbers

from filmstrip.video import Crop, DecodeError, open_video, read_clips

DATA = encode(numbered(120), g="16", bf="2")


def clips(**kwargs):
    with open_video(io.BytesIO(DATA)) as decoder:
        return read_clips(decoder, **{"num_frames": 4, "size": (48, 64), "short_side": (48, 48), **kwargs})


def test_dense_clips_keep_their_stride():
    for seed in range(10):
        (clip,) = clips(stride=5, rng=np.random.default_rng(seed))
        assert clip.video.shape == (4, 3, 48, 64)
        assert np.diff(numbers(clip.video)).tolist() == [5, 5, 5]


def test_the_same_seed_gives_the_same_clips():
    first, second = (clips(num_clips=3, rng=np.random.default_rng(5)) for _ in range(2))
    assert all(torch.equal(a.video, b.video) for a, b in zip(first, second))
    assert len({tuple(clip.times) for clip in first}) > 1


def test_views_are_clips_times_crops():
    views = clips(num_clips=3, num_crops=3, stride=4, size=32)
    assert len(views) == 9 and all(view.video.shape == (4, 3, 32, 32) for view in views)
    assert [round(view.times[0] * 25) for view in views] == [0] * 3 + [54] * 3 + [107] * 3
    with open_video(io.BytesIO(DATA)) as decoder:
        right = decoder.frames_at(views[2].times, crop=Crop(0, 16, 48, 48), size=(32, 32))
    assert torch.equal(views[2].video, right.video)


def test_a_part_bounds_the_clips():
    for sampling in ("dense", "uniform", "segments"):
        for rng in (None, np.random.default_rng(1)):
            for clip in clips(sampling=sampling, num_clips=2, stride=3, rng=rng, start=1.0, end=2.0):
                assert clip.times[0] >= 1.0 and clip.times[-1] < 2.0
    with pytest.raises(DecodeError, match=r"it lasts 4\.8 s; 9 s to its end was requested"):
        clips(start=9)


def test_uniform_and_segments_spread_over_the_video():
    (uniform,) = clips(sampling="uniform")
    assert numbers(uniform.video) == [15, 45, 75, 105], "also where a middle is the beginning of a frame"
    (random,) = clips(sampling="segments", rng=np.random.default_rng(0))
    assert [number // 30 for number in numbers(random.video)] == [0, 1, 2, 3]


def test_key_starts_begin_at_key_frames():
    starts = {numbers(clips(key_starts=True, rng=np.random.default_rng(seed))[0].video)[0] for seed in range(12)}
    assert len(starts) > 2 and all(start % 16 == 0 for start in starts)


def test_snapping_shows_neighbours():
    exact, snapped = (clips(stride=5, rng=np.random.default_rng(3), snap=snap)[0] for snap in (False, True))
    assert np.abs(np.array(numbers(exact.video)) - numbers(snapped.video)).max() <= 2


def test_a_video_shorter_than_the_clip_repeats_its_last_frame():
    with open_video(io.BytesIO(encode(numbered(3)))) as decoder:
        (clip,) = read_clips(decoder, num_frames=5, stride=2, size=(48, 64), rng=np.random.default_rng(0))
    assert numbers(clip.video) == [0, 2, 2, 2, 2]


def test_random_resized_crops_fill_the_size():
    (clip,) = clips(crop="random_resized", size=40, rng=np.random.default_rng(0))
    assert clip.video.shape == (4, 3, 40, 40)


def test_two_crops_are_refused():
    with pytest.raises(ValueError, match="num_crops is 1"):
        clips(num_crops=2)
