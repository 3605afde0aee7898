"""Small collections of real files for the tests of checking and preparing."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import torch

from filmstrip.data.synthetic.motions import Motions
from filmstrip.video.write import write_video

REAL = Path(__file__).parents[2] / "../shared/data"
"""Real videos, which the project does not hold."""


def clip(seed: int = 0, num_frames: int = 24, size: int = 48, way: str = "left") -> torch.Tensor:
    """A moving picture, ``T 3 H W`` uint8."""
    config = Motions(num_frames=num_frames, size=size, difficulty=0.2)
    return config.render(way, np.random.default_rng(seed))


def write_collection(root: Path) -> Path:
    """Two classes in two splits, each with a video or two, of which one is wide and one has long GOPs."""
    for i, name in enumerate(("train/left/a", "train/left/b", "train/right/a", "test/left/c", "test/right/c")):
        path = root / f"{name}.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_video(path, clip(i, way=path.parent.name), 12.0, gop=60, crf=12, preset="ultrafast")
    return root


def spoil(root: Path) -> dict[str, str]:
    """Add files that cannot be read, and one that can in part; their names, and words that tell what is wrong."""
    whole = root / "whole.mkv"
    write_mkv(whole, clip(9, num_frames=60))
    data = whole.read_bytes()
    whole.unlink()
    (root / "train/right/half.mkv").write_bytes(data[: len(data) // 2])
    (root / "train/right/empty.mp4").touch()
    (root / "test/left/text.mp4").write_text("this is not a video\n" * 50)
    return {
        "train/right/empty.mp4": "empty",
        "test/left/text.mp4": "not a video",
        "train/right/half.mkv": "cut off|end",
    }


def write_mkv(path: Path, video: torch.Tensor) -> None:
    """Matroska, whose header does not need the file's end."""
    write_uneven(path, video, np.arange(len(video)) / 12)


def write_uneven(path: Path, video: torch.Tensor, times: np.ndarray) -> None:
    """A file whose frames begin at ``times`` (seconds)."""
    with av.open(str(path), "w") as file:
        stream = file.add_stream("libx264", rate=12, options={"crf": "10", "preset": "ultrafast"})
        stream.height, stream.width = video.shape[-2:]
        stream.pix_fmt = "yuv420p"
        stream.time_base = stream.codec_context.time_base = Fraction(1, 1000)
        for image, time in zip(video.permute(0, 2, 3, 1).contiguous().numpy(), times):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = round(time * 1000), Fraction(1, 1000)
            file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
