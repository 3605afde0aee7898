"""How small classifiers are trained and asked where a claim draws its own clips, and what a network costs."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor, nn

from filmstrip.data.config import Clip
from filmstrip.measure import complexity
from filmstrip.objectives.classification import ClassificationConfig
from filmstrip.protocols import Objective, as_float

Network = TypeVar("Network", bound=Objective)
Batch = dict[str, Tensor]


def learn(
    network: Network,
    draw: Callable[[], Batch],
    *,
    steps: int,
    lr: float,
    weight_decay: float = 0.05,
    warmup: float = 0.3,
    clip_grad: float | None = None,
) -> Network:
    """Train for so many steps on what is drawn for each, and return the network, ready to be asked.

    ``warmup`` is the share of steps in which the learning rate rises; ``clip_grad`` the maximum norm of gradients.
    """
    optimiser = torch.optim.AdamW(network.parameters(), lr=lr, weight_decay=weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=lr, total_steps=steps, pct_start=warmup)
    network.train()
    for step in range(1, steps + 1):
        batch = draw()
        optimiser.zero_grad()
        network(batch).total.backward()
        if clip_grad is not None:
            nn.utils.clip_grad_norm_(network.parameters(), clip_grad)
        optimiser.step()
        schedule.step()
        network.after_step(step)
    return network.eval()


def picked(videos: Tensor, labels: Tensor, size: int, seed: int) -> Callable[[], Batch]:
    """Draws batches of clips ``N T 3 H W`` uint8, or in 0..1, and their labels, in an order that the seed sets."""
    generator = torch.Generator().manual_seed(seed)

    def draw() -> Batch:
        chosen = torch.randint(len(videos), (size,), generator=generator)
        return {"video": as_float(videos[chosen]), "label": labels[chosen]}

    return draw


def answers(network: Network, video: Tensor) -> Tensor:
    """The classes that a network names for clips ``B T 3 H W``, uint8 or in 0..1: ``B``."""
    return logits(network, video).argmax(dim=1)


@torch.no_grad()
def logits(network: Network, video: Tensor) -> Tensor:
    """What a classifier says of clips ``B T 3 H W``, uint8 or in 0..1: ``B K``."""
    network.eval()
    return torch.cat([network.classify(as_float(part)) for part in video.split(32)])


def percent(names: Tensor, labels: Tensor) -> float:
    """The percentage of names that are right."""
    return 100 * (names == labels).double().mean().item()


def cost(config: ClassificationConfig, frames: int, size: int) -> tuple[float, float]:
    """Millions of parameters, and giga multiply-adds for a clip of so many frames, as high and wide as ``size``."""
    with torch.device("meta"):
        network = config.build().eval()
    counted = complexity.measure(network, Clip(num_frames=frames, size=size))
    return counted.parameters / 1e6, counted.multiply_adds / 1e9
