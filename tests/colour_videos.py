"""Real files of plain colours, and networks simple enough to know what they must say of them."""

from pathlib import Path

import torch
from einops import repeat
from torch import nn

from filmstrip.data.config import Clip
from filmstrip.protocols import Features, Grid, Objective, as_float
from filmstrip.video import write_video

CLIP = Clip(num_frames=4, stride=2, size=32)
RGB = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255)}


def write_colours(path: Path, *colours: str, frames: int = 16, fps: int = 8) -> Path:
    """A 48 x 32 video that shows each colour for ``frames`` frames."""
    path.parent.mkdir(parents=True, exist_ok=True)
    video = torch.tensor([RGB[colour] for colour in colours], dtype=torch.uint8)
    write_video(path, repeat(video, "t c -> (t n) c h w", n=frames, h=32, w=48), fps=fps)
    return path


class MeanColour(nn.Module):
    """One token a frame: its mean red, green and blue, times a weight."""

    width = 3

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(scale))
        self.calls = 0

    def forward(self, video, layers=False):
        self.calls += 1
        tokens = as_float(video).mean(dim=(3, 4)) * self.scale
        return Features(tokens, Grid(tokens.shape[1], 1, 1), (tokens,) if layers else ())


class Colours(Objective):
    """Probabilities of red, green and blue are a softmax of ten times their share of the clip."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = MeanColour(10.0)

    def classify(self, video):
        return self.encoder(video).pooled()
