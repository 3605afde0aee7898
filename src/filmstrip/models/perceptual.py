"""Distances between pictures as a network's features see them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.module import _IncompatibleKeys

from filmstrip.errors import UserError

Network = Literal["vgg", "alex"]
_SEED = 16


class _Stage(NamedTuple):
    """The layers up to one of the depths."""

    convs: int
    kernel: int = 3
    stride: int = 1
    pool: tuple[int, int] | None = None
    """Kernel and stride of a pooling before them."""


_STAGES: dict[Network, tuple[_Stage, ...]] = {
    "vgg": (_Stage(2), *(_Stage(convs, pool=(2, 2)) for convs in (2, 3, 3, 3))),
    "alex": (_Stage(1, 11, 4), _Stage(1, 5, pool=(3, 2)), _Stage(1, pool=(3, 2)), _Stage(1), _Stage(1)),
}
_WIDTHS: dict[Network, tuple[int, ...]] = {"vgg": (64, 128, 256, 512, 512), "alex": (64, 192, 384, 256, 256)}
_SMALLEST: dict[Network, int] = {"vgg": 16, "alex": 31}


class Perceptual(nn.Module):
    """LPIPS on VGG-16 or AlexNet (Zhang et al. 2018): weighted squared differences of unit features at five depths.

    VGG-16 is what losses use, AlexNet what most papers measure with; figures of one say nothing of the other's. Made
    with random weights: either load the published ones (:mod:`filmstrip.objectives.perceptual`), or take
    :meth:`stand_in`. ``name`` says which network it is, wherever a figure of it is shown. It is never trained.
    """

    def __init__(self, network: Network = "vgg", *, widths: Sequence[int] | None = None) -> None:
        super().__init__()
        widths = widths or _WIDTHS[network]
        self.name = f"lpips_{network}"
        self.smallest = _SMALLEST[network]
        """Height and width that images need, pixels."""
        self._shapes = _STAGES[network]
        self.register_buffer("shift", torch.tensor([-0.030, -0.088, -0.188]).view(3, 1, 1))
        self.register_buffer("scale", torch.tensor([0.458, 0.448, 0.450]).view(3, 1, 1))
        self.stages = nn.ModuleList()
        inputs = 3
        for (convs, kernel, stride, _), width in zip(self._shapes, widths, strict=True):
            # AlexNet's first layer pads by less than half its kernel.
            padding = 2 if kernel == 11 else kernel // 2
            self.stages.append(
                nn.ModuleList(nn.Conv2d(width if i else inputs, width, kernel, stride, padding) for i in range(convs))
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
        """Features of ``N 3 H W`` images in 0..1 at each depth, of unit length at each position."""
        x = (images * 2 - 1 - self.shift) / self.scale
        found = []
        for shape, stage in zip(self._shapes, self.stages):
            if shape.pool is not None:
                x = F.max_pool2d(x, *shape.pool)
            for conv in stage:
                x = F.relu(conv(x))
            found.append(x / (x.square().sum(dim=1, keepdim=True).sqrt() + 1e-10))
        return found

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """Distances ``N`` between ``N 3 H W`` images in 0..1, at least ``smallest`` pixels high and wide.

        Raises:
            UserError: the published weights were asked for and are not there, or the images are smaller.
        """
        if self.lacking:
            raise UserError(self.lacking)
        if min(a.shape[-2:]) < self.smallest:
            raise UserError(
                f"{self.name} compares images of {self.smallest} pixels or more, not {a.shape[-2]} x {a.shape[-1]}"
            )
        total = torch.zeros(len(a), device=a.device)
        for x, y, weight in zip(self.features(a), self.features(b), self.weights):
            total = total + torch.einsum("nchw,c->nhw", (x - y).square(), weight.to(x.dtype)).mean(dim=(1, 2))
        return total


def _loaded(network: Perceptual, incompatible: _IncompatibleKeys) -> None:
    if not incompatible.missing_keys:  # weights that are kept elsewhere are none of the state's
        network.lacking = None
