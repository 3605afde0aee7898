"""The feed-forward network of a transformer block."""

from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from filmstrip.nn.linear import Linear

GELU = Literal["exact", "tanh", "quick"]
"""Form of the Gaussian error linear unit: exact, tanh approximation, or sigmoid approximation (CLIP)."""


class QuickGELU(nn.Module):
    """The sigmoid approximation ``x sigmoid(1.702 x)`` of GELU (Hendrycks & Gimpel 2016), as in CLIP."""

    def forward(self, x: Tensor) -> Tensor:
        """Any shape."""
        return x * (1.702 * x).sigmoid()


class MLP(nn.Module):
    """Two linear layers with a GELU between them, applied to every token; ``outputs`` may differ from ``width``.

    ``dropout`` is applied between the nonlinearity and the second layer.
    """

    def __init__(
        self,
        width: int,
        hidden: int,
        outputs: int | None = None,
        *,
        gelu: GELU = "exact",
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.fc1 = Linear(width, hidden)
        self.act = QuickGELU() if gelu == "quick" else nn.GELU(approximate="tanh" if gelu == "tanh" else "none")
        self.dropout = nn.Dropout(dropout)
        self.fc2 = Linear(hidden, outputs or width)

    def forward(self, x: Tensor) -> Tensor:
        """``... D -> ... outputs``."""
        return self.fc2(self.dropout(self.act(self.fc1(x))))


class GatedMLP(nn.Module):
    """SwiGLU (Shazeer 2020): a linear layer gated by the SiLU of another, then one back; no biases."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.gate_and_value = Linear(width, 2 * hidden, bias=False)
        self.out = Linear(hidden, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """``... D -> ... D``."""
        gate, value = self.gate_and_value(x).chunk(2, dim=-1)
        return self.out(F.silu(gate) * value)
