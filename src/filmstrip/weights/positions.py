"""Tables of positions as other code keeps them, as ours: one table an axis, which add up."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor


def side_by_side(axes: Sequence[Tensor]) -> list[Tensor]:
    """Tables (``size D``) that add up to what the given ones (``size D_i``) are side by side.

    There is one for each axis of more than one place; what the others say of their only place joins the first.
    """
    width = sum(axis.shape[1] for axis in axes)
    tables, constant, at = [], 0, 0
    for axis in axes:
        table = F.pad(axis, (at, width - at - axis.shape[1]))
        at += axis.shape[1]
        if len(axis) > 1:
            tables.append(table)
        else:
            constant = constant + table
    return [table + constant if i == 0 else table for i, table in enumerate(tables)]
