"""Clips of motions, drawn in memory, and batches of them that are never the same."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import torch
from torch import Tensor

from claims.training import Batch
from filmstrip.data.synthetic.motions import MOTIONS, Motions
from filmstrip.protocols import as_float


def clips(
    count: int, seed: tuple[int, ...], drawn: Motions, stride: int, ways: Iterable[str] = MOTIONS
) -> tuple[Tensor, Tensor]:
    """``count`` clips ``T 3 H W`` uint8 of each motion, of every so many frames, and their labels."""
    ways = list(ways)
    videos = [
        drawn.render(way, np.random.default_rng((*seed, i, k)))[::stride]
        for i, way in enumerate(ways)
        for k in range(count)
    ]
    return torch.stack(videos), torch.arange(len(ways)).repeat_interleave(count)


def shifted(videos: Tensor, labels: Tensor, size: int, seed: int) -> Callable[[], Batch]:
    """Draws batches of the clips, each shifted by chance around the torus that the motions live on."""
    generator = torch.Generator().manual_seed(seed)

    def draw() -> Batch:
        chosen = torch.randint(len(videos), (size,), generator=generator)
        shifts = torch.randint(videos.shape[-1], (size, 2), generator=generator).tolist()
        video = torch.stack([videos[i].roll(by, dims=(2, 3)) for i, by in zip(chosen.tolist(), shifts)])
        return {"video": as_float(video), "label": labels[chosen]}

    return draw
