"""Linear layers on small batches, as in sampling one token at a time."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def small_batch_linear(layer: nn.Linear, x: Tensor) -> Tensor:
    """``layer(x)`` for ``B D`` with small ``B``, where reading the weights dominates the cost.

    On a CPU the weights are the left operand: MKL then reads them up to 3.5 times as fast (1.2 times for 64 rows; two
    cores of an AMD Zen 4, float32). A single row is doubled, since a product with a vector takes a slower path.
    """
    if x.device.type != "cpu" or x.dtype != torch.float32 or torch.compiler.is_compiling():
        return layer(x)
    rows = x if len(x) > 1 else torch.cat([x, x])
    y = torch.mm(layer.weight, rows.t()).t()[: len(x)]
    return (y if layer.bias is None else y + layer.bias).contiguous()
