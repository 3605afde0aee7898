"""The assignment problem, solved exactly for a batch on the device that holds it."""

from __future__ import annotations

import torch
from torch import Tensor


@torch.no_grad()
def assign(cost: Tensor, valid: Tensor) -> Tensor:
    """The assignment of targets to predictions of least total cost: indices ``B M`` from costs ``B Q M``.

    Every target that is ``valid`` (``B M`` bool) has a prediction of its own; the indices of others mean nothing. The
    Hungarian method (Kuhn 1955) with shortest augmenting paths: ``M (M + 1) / 2`` steps for the whole batch, whatever
    the costs are, so that nothing waits for the device.

    Raises:
        ValueError: there are more targets than predictions.
    """
    rows, predictions, targets = cost.shape
    if targets > predictions:
        raise ValueError(f"{targets} targets cannot each have one of {predictions} predictions")
    cost, device = cost.detach().to(torch.float64), cost.device
    # Column 0 is where a path begins. Targets count from 1; owner 0: the prediction is free.
    owner = torch.zeros(rows, predictions + 1, dtype=torch.int64, device=device)
    price, dual = torch.zeros(rows, predictions + 1).to(cost), torch.zeros(rows, targets + 1).to(cost)
    columns = torch.arange(predictions + 1, device=device)
    for target in range(1, targets + 1):
        wanted = valid[:, target - 1]
        owner[:, 0] = target
        at = torch.zeros(rows, dtype=torch.int64, device=device)
        slack = torch.full_like(price, float("inf"))
        before = torch.zeros_like(owner)
        used = torch.zeros_like(owner, dtype=torch.bool)
        searching = wanted
        for _ in range(target):
            used = used | ((columns == at[:, None]) & searching[:, None])
            which = owner.gather(1, at[:, None])
            asked = cost.gather(2, (which - 1).clamp(min=0)[..., None].expand(-1, predictions, -1))[..., 0]
            reduced = asked - dual.gather(1, which) - price[:, 1:]
            better = (reduced < slack[:, 1:]) & ~used[:, 1:] & searching[:, None]
            slack[:, 1:] = torch.where(better, reduced, slack[:, 1:])
            before[:, 1:] = torch.where(better, at[:, None], before[:, 1:])
            least, nearest = slack[:, 1:].masked_fill(used[:, 1:], float("inf")).min(dim=1)
            least = torch.where(searching, least, 0.0)[:, None]
            dual = dual.scatter_add(1, owner, used * least)
            price = price - used * least
            slack = torch.where(used, slack, slack - least)
            at = torch.where(searching, nearest + 1, at)
            searching = searching & (owner.gather(1, at[:, None])[:, 0] != 0)
        for _ in range(target):  # back along the path: each prediction goes to the target that came before
            earlier = before.gather(1, at[:, None])
            moved = owner.scatter(1, at[:, None], owner.gather(1, earlier))
            owner = torch.where((at != 0)[:, None], moved, owner)
            at = torch.where(at != 0, earlier[:, 0], at)
    chosen = torch.zeros(rows, targets + 1, dtype=torch.int64, device=device)
    owner = torch.where(columns == 0, 0, owner)
    return chosen.scatter(1, owner, (columns - 1).clamp(min=0).expand(rows, -1))[:, 1:]
