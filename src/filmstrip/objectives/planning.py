"""Planning: the steps that lead from a start to a goal."""

from __future__ import annotations

import torch
from torch import Tensor

from filmstrip.errors import UserError
from filmstrip.objectives.step_prediction import StepPrediction
from filmstrip.protocols import Batch


class Planner(StepPrediction):
    """Steps from what is seen first and what is seen last; clips between them, if any are seen, are not looked at."""

    def plan(self, ends: Tensor, horizon: int, seeds: Tensor) -> Tensor:
        """Logits ``B T steps`` of ``horizon`` steps between ``ends`` (``B 2 N D``: start and goal)."""
        raise TypeError(f"{type(self).__name__} does not define plan(ends, horizon, seeds)")

    def logits(self, batch: Batch, seeds: Tensor) -> Tensor:
        """``B S steps``; zeros at positions that are not targets."""
        positions = target_positions(batch["target"])
        return at_positions(
            self.plan(start_and_goal(batch), positions.shape[1], seeds), positions, batch["target"].shape[1]
        )


def start_and_goal(batch: Batch) -> Tensor:
    """The features of the first and of the last seen position, ``B 2 N D``."""
    seen = batch["seen"].long()
    first, last = seen.argmax(dim=1), seen.shape[1] - 1 - seen.flip(1).argmax(dim=1)
    rows = torch.arange(len(seen), device=seen.device)
    return torch.stack([batch["features"][rows, first], batch["features"][rows, last]], dim=1)


def target_positions(target: Tensor) -> Tensor:
    """The target positions, ``B T`` int64, in order of time.

    Raises:
        UserError: windows of a batch ask for different numbers of steps, or for none.
    """
    counts = target.sum(dim=1)
    if not len(target) or counts.min() != counts.max() or not counts[0]:
        raise UserError(f"a plan has as many steps in every window of a batch, one at least; got {counts.tolist()}")
    return target.nonzero()[:, 1].view(len(target), -1)


def at_positions(values: Tensor, positions: Tensor, window: int) -> Tensor:
    """``B T C`` values put at ``positions`` (``B T``) of ``B window C``; zeros elsewhere."""
    there = values.new_zeros(len(values), window, values.shape[-1])
    return there.scatter(1, positions[..., None].expand_as(values), values)


def plan_steps(batch: Batch) -> Tensor:
    """The steps that are asked for, ``B T``; -1 where unknown."""
    return batch["step"].gather(1, target_positions(batch["target"]))


def best_paths(emission: Tensor, transition: Tensor) -> Tensor:
    """Max-marginals ``B T C`` of chains: the score of the best path through each step at each time.

    Their maximum over steps is the Viterbi path. ``emission`` (``B T C``) and ``transition`` (``C C``, from the row
    to the column) are log-probabilities.
    """
    times = emission.unbind(1)
    before, after = [times[0]], [torch.zeros_like(times[-1])]
    for now in times[1:]:
        before.append(now + (before[-1][:, :, None] + transition).amax(dim=1))
    for coming in times[:0:-1]:
        after.append((transition + (coming + after[-1])[:, None, :]).amax(dim=2))
    return torch.stack(before, dim=1) + torch.stack(after[::-1], dim=1)
