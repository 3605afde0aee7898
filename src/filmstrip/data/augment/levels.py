"""Video as 8-bit levels, changed a few frames at a time: the floats that this takes stay in the processor's cache.

A batch of clips in float32 is written to memory and read back by every operation, which costs many times more than
computing on it. Rounding to whole levels between operations is what image libraries do, too.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

PART = 640 * 1024
"""Values changed at once on a CPU: as float32 they take 2.5 MiB."""


def to_levels(video: Tensor) -> Tensor:
    """Floating-point video in 0..1 as uint8; uint8 video as it is."""
    return video if video.dtype == torch.uint8 else to_round_(video.float() * 255).to(torch.uint8)


def to_round_(values: Tensor) -> Tensor:
    """Make values such that conversion to uint8, which cuts fractions off, gives them rounded and clipped."""
    return values.add_(0.5).clamp_(0, 255.5)


def parts(clip: Tensor) -> tuple[Tensor, ...]:
    """Views of a clip (``T C H W``), some frames each; on other devices than a CPU all of them at once."""
    frames = max(1, PART // clip[0].numel()) if clip.device.type == "cpu" else len(clip)
    return clip.split(frames)


def change_floats_(clip: Tensor, change: Callable[[Tensor], Tensor]) -> None:
    """Replace a uint8 clip (``T C H W``) by ``change(frames)``, which gets float32 levels and may overwrite them."""
    for frames in parts(clip):
        frames.copy_(to_round_(change(frames.float())))
