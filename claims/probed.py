"""What the layers of small next-token learners know of motions: the best layer's probes on unseen clips."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from claims.moving import clips
from claims.next_codes import DRAWN
from filmstrip.data.synthetic.motions import MOTIONS
from filmstrip.evals.attentive_probe import AttentiveProbe
from filmstrip.evals.linear_probe import LinearProbe

LABELLED, TESTS = 60, 40
"""Clips of each of the eight motions: for probes, and to test these."""


def best_layer(layers_of: Callable[[Tensor], tuple[Tensor, ...]], seed: int) -> tuple[float, float]:
    """Top-1, %, of the best layer by a linear probe of the mean, and by one attention with a linear layer.

    ``layers_of`` gives the tokens of every layer, ``N L D``, of clips ``N T 3 H W`` uint8.
    """
    (train, labels), (test, expected) = (
        clips(count, (seed, 2 + i), DRAWN, 2) for i, count in enumerate((LABELLED, TESTS))
    )
    linear, attentive = LinearProbe(), AttentiveProbe(pooling="plain", epochs=10, lr=3e-3, seed=seed)
    place, mean, attention = torch.device("cpu"), [], []
    with torch.no_grad():
        pairs = list(zip(layers_of(train), layers_of(test), strict=True))
    for x, y in pairs:
        mean.append(linear.top1(x.mean(dim=1), labels, y.mean(dim=1), expected, len(MOTIONS)))
        attention.append(attentive.top1(x, labels, y, expected, len(MOTIONS), place))
    return 100 * max(mean), 100 * max(attention)
