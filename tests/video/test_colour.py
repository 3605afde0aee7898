"""Colours come out as they went in, whichever matrix, range and depth the file uses, scaled or not."""

import io

import av
import numpy as np
import pytest
import torch
from av.video.reformatter import ColorRange, Colorspace

from filmstrip.video import read_video

PATCHES = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255), (0, 0, 0), (128, 128, 128), (200, 90, 40)]
SIDE = 32


def coloured(pix_fmt: str, matrix: Colorspace, full: bool) -> bytes:
    """A nearly lossless file of vertical patches, tagged with its matrix and range."""
    image = np.repeat(np.repeat(np.array(PATCHES, np.uint8)[None], SIDE, axis=0), SIDE, axis=1)
    file = io.BytesIO()
    color_range = ColorRange.JPEG if full else ColorRange.MPEG
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=25, options={"qp": "1"})
        stream.height, stream.width, stream.pix_fmt = *image.shape[:2], pix_fmt
        stream.codec_context.colorspace = int(matrix)
        stream.codec_context.color_range = int(color_range)
        frame = av.VideoFrame.from_ndarray(image, format="rgb24")
        frame = frame.reformat(format=pix_fmt, dst_colorspace=matrix, dst_color_range=color_range)
        for packet in [*stream.encode(frame), *stream.encode()]:
            container.mux(packet)
    return file.getvalue()


@pytest.mark.parametrize("size", [None, (SIDE // 2, SIDE * len(PATCHES) // 2)])
@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("matrix", [Colorspace.ITU709, Colorspace.SMPTE170M])
@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuv444p", "yuv420p10le"])
def test_colours(pix_fmt, matrix, full, size):
    video = read_video(io.BytesIO(coloured(pix_fmt, matrix, full)), size=size).video[0]
    step = video.shape[2] // len(PATCHES)
    centres = video[:, video.shape[1] // 2, step // 2 :: step].T
    assert (centres.float() - torch.tensor(PATCHES)).abs().max() <= 4


def test_twelve_bits_and_full_range_of_real_files(awkward):
    for name in ("torchcodec/testsrc2_12bit_hdr.mp4", "torchcodec/bt709_full_range.mp4"):
        video = read_video(awkward(name), stop=0.1).video.float()
        assert video.amin() < 16 and video.amax() > 239
        scaled = read_video(awkward(name), stop=0.1, size=(video.shape[2] // 4, video.shape[3] // 4)).video.float()
        assert (scaled.mean(dim=(0, 2, 3)) - video.mean(dim=(0, 2, 3))).abs().max() < 3
