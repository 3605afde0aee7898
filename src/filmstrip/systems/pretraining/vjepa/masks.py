"""Multi-block masks: the union of blocks that reach through all frames is masked, its complement is visible."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor

from filmstrip.errors import UserError
from filmstrip.protocols import Grid
from filmstrip.randomness import uniform

_CLIPS = 24
"""Clips of a process in the published trainings, all cut to the fewest positions that one of them has."""
_DRAWN = 64 * _CLIPS


@dataclass(frozen=True, kw_only=True)
class Blocks:
    """One type of mask on a grid: blocks of one shape a clip, at independent positions.

    A clip of every batch has the same number of visible and of masked positions, which only the configuration
    decides: what all but one clip in 24 have. More are cut at random, the few clips with fewer get others.
    """

    grid: Grid
    number: int
    scale: float
    """Share of a frame that a block covers."""
    aspect: tuple[float, float]
    """Range of a block's height over its width."""
    index: int
    """Number of this type among those of a clip."""

    def counts(self) -> tuple[int, int]:
        """Positions of a frame that are visible and that are masked.

        Raises:
            UserError: the blocks leave most clips without a visible position.
        """
        covered = self.cover(torch.arange(_DRAWN, device="cpu")).sum(dim=1)
        fewest = _DRAWN // _CLIPS
        visible = (self.grid.h * self.grid.w - covered).sort().values
        if not visible[_DRAWN // 2]:
            raise UserError(
                f"{self.number} blocks of {self.scale:g} of a frame cover all of its {self.grid.h} x {self.grid.w} "
                "positions in most clips: use fewer or smaller ones"
            )
        return max(1, visible[fewest].item()), covered.sort().values[fewest].item()

    def cover(self, seeds: Tensor) -> Tensor:
        """True where a block lies, ``B (h w)``."""
        _, height, width = self.grid
        drawn = uniform(seeds, 1 + 2 * self.number, "vjepa.masks", self.index)
        low, high = self.aspect
        aspect = low + drawn[:, :1] * (high - low)
        area = int(height * width * self.scale)
        rows = (area * aspect).sqrt().round().clamp(1, height)
        columns = (area / aspect).sqrt().round().clamp(1, width)
        top, left = drawn[:, 1:].chunk(2, dim=1)
        down = _within(top, rows, height)
        across = _within(left, columns, width)
        return (down[..., :, None] & across[..., None, :]).any(dim=1).flatten(1)

    def choose(self, seeds: Tensor, counts: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Indices into the grid of the visible and of the masked positions, ascending, from each clip's seed."""
        places = self.grid.h * self.grid.w
        shuffled = uniform(seeds, places, "vjepa.masks.cut", self.index)
        order = (self.cover(seeds) + shuffled).argsort(dim=1)
        visible, masked = counts
        return self._through_time(order[:, :visible]), self._through_time(order[:, places - masked :])

    def _through_time(self, places: Tensor) -> Tensor:
        """Positions of a frame (``B K``) at all times, ``B (t K)``."""
        times = torch.arange(self.grid.t, device=places.device) * (self.grid.h * self.grid.w)
        return rearrange(times[:, None] + places.sort(dim=1).values[:, None], "b t k -> b (t k)")


def _within(drawn: Tensor, length: Tensor, size: int) -> Tensor:
    """True where intervals of a length (``B 1``) lie that start anywhere in ``size`` positions: ``B blocks size``."""
    start = (drawn * (size - length + 1)).floor()[..., None]
    position = torch.arange(size, device=drawn.device)
    return (position >= start) & (position < start + length[..., None])
