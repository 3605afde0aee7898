"""Headings above videos, drawn into their frames."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

HEIGHT = 18
"""Height of a heading, in pixels; even, as frames of mp4 are."""
_SIZE = 11


def with_heading(video: Tensor, text: str) -> Tensor:
    """Video ``T 3 H W`` uint8 below a heading in black on white, ``T 3 (HEIGHT + H) W``; what is too long is cut."""
    width = video.shape[-1]
    font = ImageFont.load_default(_SIZE)
    while len(text) > 1 and font.getlength(text) > width - 2:
        text = text.removesuffix("…")[:-1] + "…"
    bar = Image.new("RGB", (width, HEIGHT), "white")
    ImageDraw.Draw(bar).text((max(1, (width - font.getlength(text)) / 2), 2), text, fill="black", font=font)
    above = torch.from_numpy(np.array(bar)).permute(2, 0, 1)
    return torch.cat([above.expand(len(video), -1, -1, -1), video], dim=-2)
