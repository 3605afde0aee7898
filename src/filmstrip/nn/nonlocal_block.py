"""The nonlocal block: every position of an activation attends to every other, in space and time."""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from filmstrip.nn.attention import attend
from filmstrip.nn.conv import Window

Pairwise = Literal["embedded_gaussian", "dot_product", "concatenation"]


class NonLocal(nn.Module):
    """``z = W y + x``, each position of ``y`` a weighted sum over all positions (Wang et al. 2018, eq. 1 to 6).

    ``pairwise``, the similarity of two positions: the softmax of their embeddings' dot product, that product over the
    number of positions, or a layer on both embeddings concatenated. The last normalisation's scale is initialised to
    zero, so that the block starts as the identity and fits into a trained network; with ``identity_start`` False, to
    one. ``pool`` (t, h, w) max-pools keys and values. ``scaled`` divides products by the square root of ``inner``
    before the softmax: the paper's formula does not, the networks that its authors published do.
    """

    def __init__(
        self,
        width: int,
        inner: int | None = None,
        *,
        pairwise: Pairwise = "embedded_gaussian",
        pool: tuple[int, int, int] | None = (1, 2, 2),
        scaled: bool = True,
        identity_start: bool = True,
    ) -> None:
        super().__init__()
        inner = inner or width // 2
        self.pairwise = pairwise
        self.scaled = scaled
        self.query = nn.Conv3d(width, inner, 1)
        self.key = nn.Conv3d(width, inner, 1)
        self.value = nn.Conv3d(width, inner, 1)
        self.compare = nn.Linear(2 * inner, 1, bias=False) if pairwise == "concatenation" else None
        self.out = nn.Conv3d(inner, width, 1)
        self.norm = nn.BatchNorm3d(width)
        self.pool = nn.MaxPool3d(pool) if pool is not None else nn.Identity()
        for conv in (self.query, self.key, self.value, self.out):
            nn.init.normal_(conv.weight, std=0.01)
            nn.init.zeros_(conv.bias)
        if identity_start:
            nn.init.zeros_(self.norm.weight)

    def forward(self, x: Tensor) -> Tensor:
        """``B C T H W -> B C T H W``."""
        context = self.pool(x)
        q = rearrange(self.query(x), "b c t h w -> b (t h w) c")
        k, v = (rearrange(part(context), "b c t h w -> b (t h w) c") for part in (self.key, self.value))
        y = rearrange(self._weighted_sum(q, k, v), "b (t h w) c -> b c t h w", t=x.shape[2], h=x.shape[3])
        return x + self.norm(self.out(y))

    def window(self, size: tuple[int, int, int]) -> Window:
        """Receptive field: all of an activation of ``size`` (t, h, w)."""
        return tuple(2 * n - 1 for n in size), (1, 1, 1)

    def _weighted_sum(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """``B N C`` queries over ``B M C`` keys and values."""
        if self.pairwise == "embedded_gaussian":
            if not self.scaled:
                q = q * q.shape[-1] ** 0.5  # attention divides by it
            return attend(q[:, None], k[:, None], v[:, None])[:, 0]
        if self.pairwise == "dot_product":
            # Without a softmax the products are associative; this order never materialises the N x M matrix.
            return q @ (k.transpose(1, 2) @ v / k.shape[1])
        of_query, of_key = self.compare.weight[0].chunk(2)
        scores = F.relu((q @ of_query)[:, :, None] + (k @ of_key)[:, None, :])
        return scores @ v / k.shape[1]


def insert_nonlocal(network: nn.Module, name: str, block: NonLocal) -> None:
    """Insert a block after the module called ``name`` of any 3D network; its weights do not change.

    The module's weights are then named ``NAME.0``, the block's ``NAME.1``: load a network's weights first. A block
    that starts as the identity leaves the network's output unchanged.

    Raises:
        AttributeError: the network has no such module.
    """
    network.set_submodule(name, nn.Sequential(network.get_submodule(name), block))
