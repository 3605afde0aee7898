"""Layer normalisation whose gain and bias depend on a condition."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class ConditionalNorm(nn.LayerNorm):
    """Layer normalisation with a gain and a bias that are affine in a vector of ``condition_dim`` values.

    At initialisation the vector has no effect; a zero vector always leaves the norm's own gain and bias.
    """

    def __init__(self, width: int, condition_dim: int, *, eps: float = 1e-6) -> None:
        super().__init__(width, eps=eps)
        self.from_condition = nn.Linear(condition_dim, 2 * width, bias=False)
        nn.init.zeros_(self.from_condition.weight)

    def affine(self, vector: Tensor) -> tuple[Tensor, Tensor]:
        """Gain and bias, each ``B D``, for vectors ``B C``."""
        gain, bias = self.from_condition(vector).chunk(2, dim=-1)
        return self.weight + gain, self.bias + bias

    def forward(self, x: Tensor, affine: tuple[Tensor, Tensor]) -> Tensor:
        """Normalise ``B ... D`` with the gain and bias of each sample."""
        gain, bias = (v.view(len(v), *(1,) * (x.ndim - 2), -1) for v in affine)
        return F.layer_norm(x, self.normalized_shape, eps=self.eps) * gain + bias
