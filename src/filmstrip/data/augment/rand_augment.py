"""RandAugment for clips: a few operations of the standard fourteen, drawn for each clip, the same for all its frames.

Cubuk et al. (2020), "RandAugment: Practical automated data augmentation with a reduced search space". Two things are
chosen for video: what an operation measures (mean, extremes, histogram) it measures over the whole clip, so that
nothing flickers; and a clip's shears, shifts and turns are combined and sampled once, after the operations on colour.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from filmstrip.data.augment.colour import change_colours_
from filmstrip.data.augment.levels import change_floats_, parts
from filmstrip.randomness import uniform

COLOUR_OPS = (
    *("autocontrast", "equalize", "posterize", "solarize", "sharpness"),
    *("brightness", "contrast", "saturation"),
)
GEOMETRIC_OPS = ("shear_x", "shear_y", "translate_x", "translate_y", "rotate")
OPS = ("identity", *COLOUR_OPS, *GEOMETRIC_OPS)
STRONGEST = {"shear_x": 0.3, "shear_y": 0.3, "translate_x": 0.45, "translate_y": 0.45, "rotate": math.pi / 6}
"""Strengths at magnitude 10, of either sign: slopes, fractions of the frame's side, and radians."""
GREY_LEVEL = 127.5
"""Fill value for pixels that a warp samples outside the frame."""


def rand_augment_(video: Tensor, seeds: Tensor, *, num_ops: int, magnitude: float) -> None:
    """Apply ``num_ops`` operations to each clip, in place: ``B T 3 H W`` uint8. Magnitudes are from 0 to 10."""
    draw = uniform(seeds, 2 * num_ops, "augment.rand_augment")
    chosen = (draw[:, :num_ops] * len(OPS)).long().tolist()
    strengths = (magnitude / 10 * torch.where(draw[:, num_ops:] < 0.5, -1.0, 1.0)).tolist()
    for clip, places, signed in zip(video, chosen, strengths):
        ops = [(OPS[place], strength) for place, strength in zip(places, signed)]
        for name, strength in ops:
            if name in COLOUR_OPS:
                colour_op_(name, clip, strength)
        moves = [geometric_op(name, strength) for name, strength in ops if name in GEOMETRIC_OPS]
        if moves:
            warp_(clip, moves[0] if len(moves) == 1 else torch.linalg.multi_dot(moves))


def colour_op_(name: str, clip: Tensor, strength: float) -> None:
    """One operation on the colours of a clip ``T 3 H W`` uint8, in place; ``strength`` is from -1 to 1.

    Where an operation has no direction, the sign does not matter.
    """
    match name:
        case "autocontrast":
            low, high = (extreme(dim=(0, 2, 3), keepdim=True).float() for extreme in (clip.amin, clip.amax))
            gain = torch.where(high > low, 255 / (high - low).clamp(min=1), 1)
            offset = torch.where(high > low, -low * gain, 0)
            change_floats_(clip, lambda frames: frames.mul_(gain).add_(offset))
        case "equalize":
            equalize_(clip)
        case "posterize":
            clip.bitwise_and_(256 - 2 ** round(abs(strength) * 4))
        case "solarize":
            threshold = math.ceil(255 * (1 - abs(strength)) - 1e-6)
            for frames in parts(clip):
                frames.bitwise_xor_((frames >= threshold).to(torch.uint8).mul_(255))  # 255 - level
        case "sharpness":
            change_floats_(clip, lambda frames: sharpened_(frames, 1 + 0.9 * strength))
        case _:
            change_colours_(clip[None], **{name: torch.tensor([1 + 0.9 * strength])})


def equalize_(clip: Tensor) -> None:
    """Spread the levels of each channel of a clip evenly over 0..255, as PIL does for an image."""
    counts = torch.stack([_counts(clip[:, channel]) for channel in range(3)])
    total = clip[:, 0].numel()
    before = counts.cumsum(dim=1) - counts
    highest = torch.where(before + counts == total, counts, 0).amax(dim=1, keepdim=True)
    step = (total - highest) // 255
    levels = torch.arange(256, device=clip.device)
    table = torch.where(step > 0, ((before + step // 2) // step.clamp(min=1)).clamp(max=255), levels)
    table = table.to(torch.uint8).flatten()
    rows = torch.arange(0, 3 * 256, 256, device=clip.device, dtype=torch.int32)[:, None, None]
    for frames in parts(clip):
        places = frames.to(torch.int32).add_(rows)
        frames.copy_(table.index_select(0, places.flatten()).view_as(frames))


def _counts(levels: Tensor) -> Tensor:
    """How often each level occurs, 256 int64."""
    if levels.device.type == "cpu":
        return torch.bincount(levels.flatten(), minlength=256)
    counts = torch.zeros(256, dtype=torch.long, device=levels.device)  # elsewhere counting bins first waits
    return counts.index_add_(0, levels.flatten().int(), torch.ones_like(counts[:1]).expand(levels.numel()))


def sharpened_(frames: Tensor, factor: float) -> Tensor:
    """Blend float frames with smoothed ones: a factor of 0 gives the smoothed, 1 the same, 2 sharper frames."""
    rows = frames[..., :-2, :] + frames[..., 1:-1, :]
    rows += frames[..., 2:, :]
    smooth = rows[..., :-2] + rows[..., 1:-1]
    smooth += rows[..., 2:]
    inner = frames[..., 1:-1, 1:-1]
    # The smoothing weights are 1 around a 5, over 13: ``smooth`` lacks four times the middle.
    inner.mul_(factor + (1 - factor) * 4 / 13).add_(smooth, alpha=(1 - factor) / 13)
    return frames


def geometric_op(name: str, strength: float) -> Tensor:
    """Where each pixel looks, as a matrix ``3 3`` on homogeneous (x, y, 1) in -1..1; strength from -1 to 1."""
    amount = strength * STRONGEST[name]
    cos, sin = math.cos(amount), math.sin(amount)
    rows: dict[str, list[list[float]]] = {
        "shear_x": [[1, amount, 0], [0, 1, 0]],
        "shear_y": [[1, 0, 0], [amount, 1, 0]],
        "translate_x": [[1, 0, 2 * amount], [0, 1, 0]],
        "translate_y": [[1, 0, 0], [0, 1, 2 * amount]],
        "rotate": [[cos, -sin, 0], [sin, cos, 0]],
    }
    return torch.tensor([*rows[name], [0, 0, 1]], dtype=torch.float32)


def warp_(clip: Tensor, affine: Tensor) -> None:
    """Sample a uint8 clip ``T C H W`` where ``affine`` (``3 3``, on the CPU) says; all frames share one grid.

    Angles hold in pixels only for square frames.
    """
    grid = F.affine_grid(affine[None, :2], [1, 1, *clip.shape[2:]], align_corners=False)
    grid = grid.to(clip.device, non_blocking=True)

    def look(frames: Tensor) -> Tensor:
        shared = grid.expand(len(frames), -1, -1, -1)
        return F.grid_sample(frames.sub_(GREY_LEVEL), shared, align_corners=False).add_(GREY_LEVEL)

    change_floats_(clip, look)
