"""Momentum copies of networks, and queues of what they made of earlier batches (He et al. 2020, MoCo)."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@torch.no_grad()
def follow(copy: nn.Module, source: nn.Module, momentum: float, step: int) -> None:
    """Move the weights of a copy: ``copy <- momentum * copy + (1 - momentum) * source``.

    The first step (``step`` counts from 1) takes the source whole: a run may have started it from elsewhere. The
    source may have more than the copy.
    """
    weight = 1.0 if step == 1 else 1 - momentum
    names = [name for name, _ in copy.named_parameters()]
    moved = [source.get_parameter(name) for name in names]
    torch._foreach_lerp_(list(copy.parameters()), moved, weight)


class Keys(NamedTuple):
    """What momentum copies made of videos and their texts."""

    video: Tensor
    """Vectors of videos, ``N D``."""
    text: Tensor
    """Vectors of texts, ``N D``."""
    ids: Tensor
    """Token ids of the texts, ``N L``."""
    index: Tensor
    """Number of each sample, ``N``: its index in the split, or one that samples of a class share."""


class KeyQueue(nn.Module):
    """The keys of the latest samples, first in, first out: more others to tell a pair from than a batch has.

    It begins with random vectors, which match nothing, and belongs to the state of a run.
    """

    def __init__(self, size: int, dim: int, length: int) -> None:
        super().__init__()
        self.size = size
        for name in ("video", "text"):
            self.register_buffer(name, F.normalize(torch.randn(size, dim), dim=1))
        self.register_buffer("ids", torch.full((size, length), -1))
        self.register_buffer("index", torch.full((size,), -1))
        self.register_buffer("next", torch.zeros((), dtype=torch.int64))

    def keys(self) -> Keys:
        """All that it holds; a later :meth:`push` changes what was returned."""
        return Keys(self.video, self.text, self.ids, self.index)

    @torch.no_grad()
    def forget(self) -> None:
        """Forget of which samples and texts the keys are, which then match nothing."""
        self.ids.fill_(-1)
        self.index.fill_(-1)

    @torch.no_grad()
    def push(self, keys: Keys) -> None:
        """Put keys in the places of the oldest ones; of more than it has places for, the last."""
        keys = Keys(*(part[-self.size :] for part in keys))
        count = len(keys.index)
        places = (self.next + torch.arange(count, device=self.next.device)) % self.size
        for name in ("video", "text", "index"):
            part = getattr(self, name)
            part[places] = getattr(keys, name).to(part.dtype)
        length = min(self.ids.shape[1], keys.ids.shape[1])
        self.ids[places] = -1
        self.ids[places, :length] = keys.ids[:, :length]
        self.next.copy_((self.next + count) % self.size)
