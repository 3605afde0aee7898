"""Distances between pictures as a network's features see them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from filmstrip.errors import UserError

_DEPTHS = (2, 2, 3, 3, 3)  # convolutions of VGG-16 before each pooling
_SEED = 16


class Perceptual(nn.Module):
    """LPIPS on VGG-16 (Zhang et al. 2018): weighted squared differences of unit features at five depths.

    Made with random weights: either load the published ones (:mod:`filmstrip.weights.lpips`), or take
    :meth:`stand_in`. ``name`` says which network it is, wherever a figure of it is shown. It is never trained.
    """

    name = "lpips"

    def __init__(self, widths: Sequence[int] = (64, 128, 256, 512, 512)) -> None:
        super().__init__()
        self.register_buffer("shift", torch.tensor([-0.030, -0.088, -0.188]).view(3, 1, 1))
        self.register_buffer("scale", torch.tensor([0.458, 0.448, 0.450]).view(3, 1, 1))
        self.stages = nn.ModuleList()
        inputs = 3
        for depth, width in zip(_DEPTHS, widths, strict=True):
            self.stages.append(
                nn.ModuleList(nn.Conv2d(width if i else inputs, width, 3, padding=1) for i in range(depth))
            )
            inputs = width
        self.weights = nn.ParameterList(torch.full((width,), 1 / width) for width in widths)
        self.requires_grad_(False)
        self.lacking: str | None = None
        """Why the network cannot be used, until weights are loaded."""
        self.register_load_state_dict_post_hook(_loaded)

    @classmethod
    def stand_in(cls) -> Perceptual:
        """A quarter as wide, with random features that are the same everywhere: needs no file, and is no LPIPS."""
        network = cls(widths=(16, 32, 64, 128, 128))
        network.name = "random_features"
        generator = torch.Generator().manual_seed(_SEED)
        for parameter in network.stages.parameters():
            if parameter.is_meta:
                break
            if parameter.ndim == 1:
                nn.init.zeros_(parameter)
            else:
                nn.init.kaiming_normal_(parameter, generator=generator)
        return network

    def features(self, images: Tensor) -> list[Tensor]:
        """Features of ``N 3 H W`` images in 0..1 at each depth, of unit length at each place."""
        x = (images * 2 - 1 - self.shift) / self.scale
        found = []
        for i, stage in enumerate(self.stages):
            if i:
                x = F.max_pool2d(x, 2)
            for conv in stage:
                x = F.relu(conv(x))
            found.append(x / (x.square().sum(dim=1, keepdim=True).sqrt() + 1e-10))
        return found

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """Distances ``N`` between ``N 3 H W`` images in 0..1, at least 16 pixels high and wide.

        Raises:
            UserError: the published weights were asked for and are not there.
        """
        if self.lacking:
            raise UserError(self.lacking)
        total = torch.zeros(len(a), device=a.device)
        for x, y, weight in zip(self.features(a), self.features(b), self.weights):
            total = total + torch.einsum("nchw,c->nhw", (x - y).square(), weight.to(x.dtype)).mean(dim=(1, 2))
        return total


def _loaded(network: Perceptual, incompatible: object) -> None:
    network.lacking = None
