"""Small videos whose every frame shows its own number, so that tests need not trust any decoder's counting."""

from __future__ import annotations

import io
from collections.abc import Sequence
from fractions import Fraction

import av
import numpy as np

BITS = 8


def numbered(count: int, height: int = 48, width: int = 64) -> np.ndarray:
    """``T H W 3`` frames: eight vertical bars spell the frame's number in black and white over moving texture."""
    rows = np.arange(height)[:, None]
    texture = np.stack([(rows * 3 + np.arange(width) * 2 + 5 * i) % 64 for i in range(count)])
    bits = (np.arange(count)[:, None] >> np.arange(BITS)) & 1
    bars = np.repeat(bits, -(-width // BITS), axis=1)[:, None, :width]
    return np.broadcast_to((bars * 160 + texture)[..., None], (count, height, width, 3)).astype(np.uint8)


def numbers(video) -> list[int]:
    """Which frames these are (``T C H W``), read back from their bars."""
    width = video.shape[3]
    edges = [round((i + 0.5) * width / BITS) for i in range(BITS)]
    means = video.float().mean(dim=(1, 2))[:, edges]
    return ((means.numpy() > 112) * 2 ** np.arange(BITS)).sum(axis=1).tolist()


def encode(
    frames: np.ndarray,
    *,
    format: str = "mp4",
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    fps: int = 25,
    pts: Sequence[int] | None = None,
    streams: int = 1,
    shift: int = 0,
    container_options: dict[str, str] | None = None,
    **options: str,
) -> bytes:
    """The bytes of a file. ``pts`` are in milliseconds; ``shift`` frames are cut off by an edit list (mp4)."""
    file = io.BytesIO()
    with av.open(file, "w", format=format, options=container_options or {}) as container:
        outputs = []
        for _ in range(streams):
            stream = container.add_stream(codec, rate=fps, options=options)
            stream.height, stream.width, stream.pix_fmt = *frames.shape[1:3], pix_fmt
            if pts is not None:
                stream.codec_context.time_base = Fraction(1, 1000)
            outputs.append(stream)

        def mux(packets, stream):
            for packet in packets:
                if shift:
                    step = round(1 / (fps * packet.time_base))
                    packet.pts, packet.dts = packet.pts - shift * step, packet.dts - shift * step
                container.mux(packet)

        for i, image in enumerate(frames):
            for number, stream in enumerate(outputs):
                picture = av.VideoFrame.from_ndarray(image if number == 0 else 255 - image, format="rgb24")
                if pts is not None:
                    picture.pts, picture.time_base = pts[i], Fraction(1, 1000)
                mux(stream.encode(picture), stream)
        for stream in outputs:
            mux(stream.encode(), stream)
    return file.getvalue()
