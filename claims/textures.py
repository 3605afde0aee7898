"""Moving textures of which single frames tell the kind and only their order the way; three claims train on them."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from claims.ledger import Figure
from claims.training import Batch, answers, learn, percent
from filmstrip.objectives.classification import Classification, ClassificationConfig

SIZE, KINDS, NOISE = 32, 4, 0.1
WHAT = {"class": "classes (chance 12.5)", "texture": "textures alone (25)", "way": "ways alone (50)"}


def make(count: int, length: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Clips ``B T 3 H W`` in 0..1, and labels: twice the kind of texture, plus one if it goes right.

    A texture is stripes that lean to either side or are upright, or checks.
    """

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(count, *shape, generator=generator)

    label = torch.randint(2 * KINDS, (count,), generator=generator)
    ticks = torch.arange(SIZE) / SIZE
    way = 2 * (label % 2)[:, None, None, None] - 1
    shift = way * uniform(0.015, 0.035, 1, 1, 1) * torch.arange(length)[:, None, None] + uniform(0, 1, 1, 1, 1)
    turns = 2 * torch.pi * uniform(2, 3, 1, 1, 1)
    x, y = (ticks - shift) * turns, (ticks[:, None] + uniform(0, 1, 1, 1, 1)) * turns
    kinds = torch.stack([torch.sin(x + y), torch.sin(x - y), torch.sin(x + 0 * y), torch.sin(x) * torch.sin(y)])
    texture = kinds[label // 2, torch.arange(count)][:, :, None]
    video = 0.5 + texture * uniform(-0.3, 0.3, 1, 3, 1, 1)
    return video.add_(torch.randn(video.shape, generator=generator), alpha=NOISE).clamp_(0, 1), label


def drawn(length: int, seed: int, size: int = 16) -> Callable[[], Batch]:
    """Draws clips that are never the same."""
    generator = torch.Generator().manual_seed(seed)
    return lambda: dict(zip(("video", "label"), make(size, length, generator)))


def trained(config: ClassificationConfig, length: int, *, steps: int, lr: float, seed: int) -> Classification:
    """A network after training on clips that are never the same."""
    torch.manual_seed(seed)
    return learn(config.build(), drawn(length, 100 + seed), steps=steps, lr=lr)


def top1(network: Classification, test: tuple[Tensor, Tensor], name: str) -> dict[str, float]:
    """The percentages of classes, textures and ways that are named rightly, as ``NAME class``, ..."""
    found, label = answers(network, test[0]), test[1]
    return {
        f"{name} class": percent(found, label),
        f"{name} texture": percent(found // 2, label // 2),
        f"{name} way": percent(found % 2, label % 2),
    }


def top1_figures(name: str, says: str) -> dict[str, Figure]:
    """What :func:`top1` measures, declared."""
    return {f"{name} {what}": Figure(says=f"{says}: top-1 of {shown}, %") for what, shown in WHAT.items()}
