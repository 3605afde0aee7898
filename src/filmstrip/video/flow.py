"""Optical flow: estimation, caching beside the video, and visualisation.

``flow[:, y, x]`` is the displacement of the pixel at (x, y) to the next frame: right and down, pixels. OpenCV
estimates it (the extra ``flow``); a network that does is made by :mod:`filmstrip.objectives.optical_flow`.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from filmstrip.errors import UserError
from filmstrip.files import write_tensors
from filmstrip.video.decode import open_video

Method = Literal["dis", "farneback"]
"""``dis``: dense inverse search (Kroeger et al. 2016), the faster and better one; ``farneback``: polynomial expansion
(Farnebäck 2003)."""

_FLO_MAGIC = 202021.25


class Estimator(Protocol):
    """Anything else that estimates flow."""

    name: str
    """Name of what is estimated, as a part of a file's name: what estimates otherwise has another one."""

    def __call__(self, video: Tensor) -> Tensor:
        """The flow ``B T-1 2 H W``, pixels, of ``B T 3 H W`` video."""
        ...


def estimate_flow(video: Tensor, method: Method = "dis") -> Tensor:
    """The flow between neighbouring frames of ``T 3 H W`` or ``B T 3 H W`` video (uint8, or 0..1): ``T-1 2 H W`` or
    ``B T-1 2 H W``, float32 pixels.

    It runs on the CPU, whatever device the video is on, and has no gradient.

    Raises:
        UserError: OpenCV is not installed.
    """
    return (
        _optical_flow(video.detach(), method) if video.ndim == 5 else _optical_flow(video.detach()[None], method)[0]
    )


def cached_flow(path: Path, by: Method | Estimator = "dis", *, size: tuple[int, int] | None = None) -> Tensor:
    """The flow of a whole video, ``T-1 2 H W`` float16 pixels of frames scaled to ``size`` (height, width).

    It is estimated once and cached beside the video as ``NAME.BY.flow.safetensors``; for a changed
    video or another size it is estimated again.

    Raises:
        DecodeError: the video cannot be read.
        UserError: OpenCV is not installed.
    """
    method = by if isinstance(by, str) else by.name
    kept = path.with_name(f"{path.name}.{method}.flow.safetensors")
    stat = path.stat()
    label = {"source": f"{stat.st_size} {stat.st_mtime_ns}", "size": f"{size}", "method": method}
    if kept.exists():
        try:
            with safe_open(kept, "pt") as file:
                if file.metadata() == label:
                    return file.get_tensor("flow")
        except SafetensorError:
            pass  # truncated: estimate again
    parts, before = [], None
    with open_video(path) as decoder:
        for chunk in decoder.frames(size=size):
            frames = chunk.video if before is None else torch.cat([before, chunk.video])
            flow = estimate_flow(frames, by) if isinstance(by, str) else by(frames[None])[0]
            parts.append(flow.half().cpu())
            before = frames[-1:]
    flow = torch.cat(parts).contiguous()
    write_tensors({"flow": flow}, kept, metadata=label, durable=False)
    return flow


def flow_picture(flow: Tensor, largest: float | None = None) -> Tensor:
    """Flow ``... 2 H W`` as RGB ``... 3 H W`` uint8: hue is direction, saturation is magnitude.

    Zero flow is white; ``largest`` is the magnitude in pixels of full saturation, by default the maximum of the flow.
    The colour code is that of Baker et al., "A Database and Evaluation Methodology for Optical Flow", 2011; beyond
    ``largest`` it darkens.
    """
    x, y = flow.float().unbind(-3)
    length = torch.hypot(x, y)
    length = length / (largest or length.amax().clamp(min=1e-6))
    wheel = _colour_wheel().to(flow.device)
    place = (torch.atan2(-y, -x) / torch.pi + 1) / 2 * (len(wheel) - 1)
    first = place.floor().long()
    share = (place - first)[..., None]
    colour = (1 - share) * wheel[first] + share * wheel[(first + 1) % len(wheel)]
    inside = (length <= 1)[..., None]
    colour = torch.where(inside, 1 - length[..., None] * (1 - colour), 0.75 * colour)
    return (colour * 255).round().to(torch.uint8).movedim(-1, -3)


def read_flo(path: Path) -> Tensor:
    """The flow of a Middlebury ``.flo`` file, ``2 H W`` float32, pixels.

    Raises:
        UserError: not such a file, or truncated.
    """
    data = path.read_bytes()
    if len(data) < 12 or np.frombuffer(data, "<f4", 1)[0] != _FLO_MAGIC:
        raise UserError(f"{path} is not a .flo file: it does not begin with {_FLO_MAGIC}")
    width, height = (int(n) for n in np.frombuffer(data, "<i4", 2, offset=4))
    if width < 1 or height < 1 or len(data) < 12 + 8 * width * height:
        raise UserError(f"{path} says {width} x {height} pixels, but holds {(len(data) - 12) // 8}")
    values = np.frombuffer(data, "<f4", 2 * width * height, offset=12).reshape(height, width, 2)
    return torch.from_numpy(values.transpose(2, 0, 1).copy())


# A custom operator, so that a network that estimates flow can be traced without data and compiled.
@torch.library.custom_op("filmstrip::optical_flow", mutates_args=())
def _optical_flow(video: Tensor, method: str) -> Tensor:
    pixels = video if video.dtype == torch.uint8 else (video.float() * 255).round().clamp(0, 255).to(torch.uint8)
    clips = pixels.cpu().movedim(2, -1).contiguous().numpy()
    return torch.from_numpy(np.stack([_clip_flow(clip, method) for clip in clips])).to(video.device)


@_optical_flow.register_fake
def _(video: Tensor, method: str) -> Tensor:
    batch, frames, _, height, width = video.shape
    return video.new_empty((batch, frames - 1, 2, height, width), dtype=torch.float32)


def _clip_flow(frames: np.ndarray, method: str) -> np.ndarray:
    """``T H W 3`` uint8 to ``T-1 2 H W`` float32."""
    try:
        import cv2
    except ImportError:
        raise UserError("optical flow needs OpenCV: pip install 'filmstrip[flow]'") from None
    grey = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in frames]
    if method == "dis":
        dis = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
        flows = [dis.calc(a, b, None) for a, b in pairwise(grey)]
    elif method == "farneback":
        flows = [cv2.calcOpticalFlowFarneback(a, b, None, 0.5, 3, 15, 3, 5, 1.2, 0) for a, b in pairwise(grey)]
    else:
        raise UserError(f"unknown optical flow method {method!r}: use dis or farneback")
    height, width = frames.shape[1:3]
    return np.stack(flows).transpose(0, 3, 1, 2) if flows else np.empty((0, 2, height, width), np.float32)


def _colour_wheel() -> Tensor:
    """The colour wheel, 55 RGB colours ``55 3`` in 0..1, from red over yellow, green, cyan, blue and magenta."""
    wheel = []
    # Number of steps, the channel at maximum, the changing channel, and whether it rises.
    parts = (
        (15, 0, 1, True),
        (6, 1, 0, False),
        (4, 1, 2, True),
        (11, 2, 1, False),
        (13, 2, 0, True),
        (6, 0, 2, False),
    )
    for steps, full, changing, rises in parts:
        for i in range(steps):
            colour = [0.0, 0.0, 0.0]
            colour[full] = 1.0
            colour[changing] = i / steps if rises else 1 - i / steps
            wheel.append(colour)
    return torch.tensor(wheel)
