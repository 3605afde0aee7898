"""Changes of colour that are affine in red, green and blue: any number of them costs one pass over the video."""

from __future__ import annotations

import torch
from einops import rearrange, repeat
from torch import Tensor

from filmstrip.data.augment.levels import change_floats_

GREY = (0.299, 0.587, 0.114)
"""Luma coefficients of red, green and blue (ITU-R BT.601), as in PIL's conversion to grey."""


def change_colours_(
    video: Tensor,
    *,
    brightness: Tensor | None = None,
    contrast: Tensor | None = None,
    saturation: Tensor | None = None,
    hue: Tensor | None = None,
) -> None:
    """Change clips (``B T 3 H W`` uint8) in place, in this order, and clip the result to 0..255.

    Brightness, contrast and saturation are factors (``B``, one for no change): they blend with black, with the clip's
    mean grey, and with each pixel's grey. Hue (``B``, shares of the full circle) turns colours about the grey axis.
    All are on the CPU.
    """
    one = torch.ones(len(video))
    gain = one if brightness is None else brightness
    # Greys stay what they are under changes of saturation and hue, and so does the grey that contrast blends with.
    fade = torch.zeros(len(video)) if contrast is None else (1 - contrast) * gain
    gain = gain if contrast is None else gain * contrast
    if saturation is None and hue is None:
        for clip, factor, share in zip(video, gain.tolist(), fade.tolist()):
            offset = share * mean_grey(clip) if share else 0.0
            change_floats_(clip, lambda frames: frames.mul_(factor).add_(offset))  # noqa: B023
        return
    matrices = (mixing_matrix(one if saturation is None else saturation, hue) * gain[:, None, None]).to(
        video.device, non_blocking=True
    )
    for clip, matrix, share in zip(video, matrices, fade.tolist()):
        offset = share * mean_grey(clip) if share else torch.zeros((), device=video.device)
        change_floats_(clip, lambda frames: _mixed(frames, matrix, offset))  # noqa: B023


def mean_grey(clip: Tensor) -> Tensor:
    """Mean luma of a clip (``T 3 H W`` uint8), 0..255."""
    frames = clip.sum(dim=(2, 3), dtype=torch.int32).float() / clip[0, 0].numel()
    red, green, blue = frames.mean(dim=0)
    return GREY[0] * red + GREY[1] * green + GREY[2] * blue


def mixing_matrix(saturation: Tensor, hue: Tensor | None) -> Tensor:
    """The matrices (``B 3 3``) that change saturation by factors and then turn hues."""
    eye = torch.eye(3)
    matrix = torch.lerp(torch.tensor(GREY).expand(3, 3), eye, saturation[:, None, None])
    return matrix if hue is None else _turn_about_grey(hue) @ matrix


def _mixed(frames: Tensor, matrix: Tensor, offset: Tensor) -> Tensor:
    """New reds, greens and blues of ``T 3 H W``."""
    pixels = rearrange(frames, "t c h w -> t c (h w)")
    return torch.baddbmm(offset, repeat(matrix, "i j -> t i j", t=len(frames)), pixels).view_as(frames)


def _turn_about_grey(hue: Tensor) -> Tensor:
    """The matrix (``B 3 3``) that turns the plane of chroma (NTSC's I and Q) and keeps the brightness."""
    to_yiq = torch.tensor([GREY, (0.5959, -0.2746, -0.3213), (0.2115, -0.5227, 0.3112)])
    angle = hue * 2 * torch.pi
    cos, sin, zero, one = angle.cos(), angle.sin(), torch.zeros_like(angle), torch.ones_like(angle)
    turn = torch.stack([one, zero, zero, zero, cos, -sin, zero, sin, cos], dim=-1)
    return torch.linalg.inv(to_yiq) @ rearrange(turn, "b (i j) -> b i j", i=3) @ to_yiq
