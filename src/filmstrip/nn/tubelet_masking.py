"""Which tubelets of a clip are masked, drawn from the clip's own seed, with the same counts for every clip."""

from __future__ import annotations

from typing import Literal

import torch
from einops import rearrange
from torch import Tensor

from filmstrip.nn.rotary import grid_positions
from filmstrip.protocols import Grid
from filmstrip.randomness import uniform

Masking = Literal["tube", "random", "frame"]
DecoderMasking = Literal["none", "running_cell", "frame", "random"]
_CELL = 4
"""Positions of a cell, 2 x 2, and time steps after which its pattern repeats."""


def choose_tubelets(seeds: Tensor, grid: Grid, masking: Masking, ratio: float, *, use: str) -> tuple[Tensor, Tensor]:
    """The visible and the masked tubelets of each clip, drawn from the clip's own seed (``B``, int64).

    Returns their indices into the grid, ascending: ``B K`` and ``B N-K``, with the same counts for every clip.
    ``tube`` masks the same positions in all frames, ``random`` any tubelets, ``frame`` whole time steps. ``use``
    names the draw (:func:`~filmstrip.randomness.uniform`): two choices for one clip need two names.
    """
    t, h, w = grid
    units = {"tube": h * w, "random": t * h * w, "frame": t}[masking]
    order = uniform(seeds, units, use).argsort(dim=1)
    count = int(ratio * units)
    masked, visible = order[:, :count].sort(dim=1).values, order[:, count:].sort(dim=1).values
    return tuple(_tubelets_of(chosen, grid, masking) for chosen in (visible, masked))


def _tubelets_of(chosen: Tensor, grid: Grid, masking: Masking) -> Tensor:
    """The tubelets that belong to the chosen units of masking."""
    per_frame, step = grid.h * grid.w, torch.arange(grid.t, device=chosen.device)
    if masking == "tube":
        return rearrange(step[:, None] * per_frame + chosen[:, None, :], "b t k -> b (t k)")
    if masking == "frame":
        return rearrange(
            chosen[:, :, None] * per_frame + torch.arange(per_frame, device=chosen.device), "b t k -> b (t k)"
        )
    return chosen


def choose_decoded(seeds: Tensor, grid: Grid, masking: DecoderMasking, ratio: float) -> Tensor:
    """Positions that a decoder predicts where it leaves out a share of ``ratio``: ``B K`` ascending, K for all clips.

    ``running_cell`` is VideoMAE V2's: see :func:`running_cells`. ``frame`` leaves out whole time steps and ``random``
    any positions; ``none`` leaves out nothing.

    Raises:
        ValueError: running cells do not fit the grid or the share.
    """
    if masking == "none":
        return torch.arange(grid.t * grid.h * grid.w, device=seeds.device).expand(seeds.shape[0], -1)
    if masking == "running_cell":
        return running_cells(seeds, grid, ratio)
    return choose_tubelets(seeds, grid, masking, ratio, use="videomae.decoded")[0]


def running_cells(seeds: Tensor, grid: Grid, ratio: float) -> Tensor:
    """Positions kept by cells of 2 x 2 whose pattern moves on by one position in every time step: ``B K`` ascending.

    Every frame keeps a share of ``1 - ratio``, and of any 4 consecutive time steps every position is kept in as
    many. All that is random is the pattern's start, one of four for each clip (``seeds``: ``B``).

    Raises:
        ValueError: ``ratio`` is no quarter, or cells do not tile the frame.
    """
    left_out = check_running_cells(grid, ratio)
    t, y, x = grid_positions(grid, seeds.device).unbind(dim=1)
    start = (_CELL * uniform(seeds, 1, "videomae.running_cell")).long()
    phase = (2 * (y % 2) + x % 2 + t + 1 + start) % _CELL
    kept = grid.t * grid.h * grid.w * (_CELL - left_out) // _CELL
    # Positions that stay come first, in their order: an index of fixed size, which compiles.
    return (phase < left_out).int().argsort(dim=1, stable=True)[:, :kept]


def check_running_cells(grid: Grid, ratio: float) -> int:
    """The number of positions that a cell of :func:`running_cells` leaves out.

    Raises:
        ValueError: ``ratio`` is no quarter, or cells do not tile the frame.
    """
    if ratio not in (0.25, 0.5, 0.75):
        raise ValueError(f"running cells leave out 0.25, 0.5 or 0.75 of all positions, not {ratio}")
    if grid.h % 2 or grid.w % 2:
        raise ValueError(
            f"running cells of 2 x 2 positions do not tile frames of {grid.h} x {grid.w}: give another size"
        )
    return int(_CELL * ratio)
