"""PyAV and TorchCodec give the same frames, bit for bit."""

import io

import numpy as np
import pytest
import torch
from numbered_videos import encode, numbered

from filmstrip.video import Crop, DecodeError, Request, open_video

try:
    import torchcodec  # noqa: F401
except (ImportError, RuntimeError, OSError) as error:
    pytest.skip(f"TorchCodec cannot be imported: {error!s:.80}", allow_module_level=True)

REAL = [
    "ElasticTok/flower.mp4",
    "PHP-FFMpeg/portrait.MOV",
    "decord/video_180.mov",
    "mmaction2/demo.mp4",
    "streamio-ffmpeg/awesome movie.mov",
    "torchcodec/bt709_full_range.mp4",
    "torchcodec/h265_video.mp4",
    "torchcodec/testsrc2_vp9.webm",
]


@pytest.mark.parametrize("name", REAL)
def test_same_frames(name, awkward):
    with open_video(awkward(name)) as ours, open_video(awkward(name), backend="torchcodec") as theirs:
        assert ours.info == theirs.info
        times = np.random.default_rng(0).uniform(0, ours.times()[-1], 5)
        first, second = ours.frames_at(times), theirs.frames_at(times)
        np.testing.assert_array_equal(first.times, second.times)
        assert torch.equal(first.video, second.video)
        size = (first.video.shape[2] // 2, first.video.shape[3] // 2)
        scaled, reference = ours.frames_at(times, size=size), theirs.frames_at(times, size=size)
        assert (scaled.video.float() - reference.video.float()).abs().mean() < 2.5


def test_the_same_protocol():
    data = encode(numbered(30), g="8")
    with open_video(io.BytesIO(data)) as ours, open_video(io.BytesIO(data), backend="torchcodec") as theirs:
        requests = [Request([0.5, 0.1]), Request([0.9], Crop(2, 4, 20, 30))]
        for first, second in zip(ours.read(requests), theirs.read(requests)):
            assert torch.equal(first.video, second.video) and np.array_equal(first.times, second.times)
        for first, second in zip(ours.frames(0.2, 1.0), theirs.frames(0.2, 1.0), strict=True):
            assert torch.equal(first.video, second.video)
        np.testing.assert_array_equal(ours.key_times(), theirs.key_times())
    with pytest.raises(DecodeError, match="closed"):
        theirs.frames_at([0.0])
    with pytest.raises(DecodeError, match="not a video"):
        open_video(io.BytesIO(b"text" * 99), backend="torchcodec")
