"""The cross-entropy method: actions whose predicted features come nearest to those of a goal."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from einops import rearrange, repeat
from torch import Tensor

from filmstrip.bounds import Count, Rate, Share, Weight
from filmstrip.errors import UserError
from filmstrip.randomness import normal


class WorldModel(Protocol):
    """Predicts features."""

    def __call__(self, features: Tensor, action: Tensor, state: Tensor | None) -> Tensor:
        """The features ``B T N D`` that follow ``B T N D`` after actions ``B T A``, from states ``B T S``."""
        ...


@dataclass(frozen=True, kw_only=True)
class CrossEntropy:
    """Settings of the search. Defaults are those of the published planner."""

    samples: Count = 400
    """Number of sequences of actions that are tried in each iteration."""
    elites: Count = 10
    """Number of the best ones, to which the distribution moves."""
    iterations: Count = 10
    horizon: Count = 2
    """Number of actions of a sequence; the goal is compared with what follows the last one."""
    momentum: Share = 0.15
    """Share of the old mean and standard deviation that an iteration keeps."""
    limits: tuple[Weight, ...] = (1.0,)
    """Largest absolute value of each entry of an action, one for all or one each; zero keeps an entry at zero."""
    spreads: tuple[Weight, ...] = ()
    """Initial standard deviations, as ``limits``; empty for these."""
    state_per_action: Rate = 1.0
    """Change of a state's entry by an action of 1, in planning."""

    def plan(
        self,
        model: WorldModel,
        begin: Tensor,
        goal: Tensor,
        state: Tensor | None,
        *,
        action_dim: int,
        seed: int,
    ) -> Tensor:
        """The mean of the last distribution, ``B H A``.

        From features ``begin`` (``B 1 N D``) towards ``goal`` (``B N D``) by their mean absolute difference. An
        action moves the entries of ``state`` (``B S``) by its first ``S`` ones. Row ``i`` draws from ``seed + i``.

        Raises:
            UserError: there are more elites than samples, or limits are not one for each entry of an action.
        """
        if self.elites > self.samples:
            raise UserError(f"{self.elites} elites are more than {self.samples} samples: lower planner.elites")
        limits = self._each(self.limits, "limits", action_dim, begin)
        rows, seeds = begin.shape[0], torch.arange(begin.shape[0], device=begin.device) + seed
        mean = torch.zeros(rows, self.horizon, action_dim, device=begin.device)
        std = self._each(self.spreads or self.limits, "spreads", action_dim, begin).expand_as(mean)
        for iteration in range(self.iterations):
            drawn = normal(seeds, self.samples * self.horizon * action_dim, "vjepa_ac.plan", iteration)
            drawn = drawn.view(rows, self.samples, self.horizon, action_dim)
            actions = (mean[:, None] + std[:, None] * drawn).clamp(-limits, limits)
            energy = self.energy(model, begin, goal, state, actions)
            best = energy.topk(self.elites, dim=1, largest=False).indices
            elites = actions[torch.arange(rows, device=begin.device)[:, None], best]
            mean = self.momentum * mean + (1 - self.momentum) * elites.mean(dim=1)
            # Of one elite there is no deviation.
            deviation = elites.std(dim=1) if self.elites > 1 else torch.zeros_like(mean)
            std = self.momentum * std + (1 - self.momentum) * deviation
        return mean

    def energy(self, model: WorldModel, begin: Tensor, goal: Tensor, state: Tensor | None, actions: Tensor) -> Tensor:
        """How far the features after each sequence of ``actions`` (``B K H A``) are from the goal's: ``B K``."""
        count = actions.shape[1]
        seen = repeat(begin, "b t n d -> (b k) t n d", k=count)
        actions = rearrange(actions, "b k h a -> (b k) h a")
        states = None if state is None else repeat(state, "b s -> (b k) 1 s", k=count)
        for step in range(1, actions.shape[1] + 1):
            following = model(seen, actions[:, :step], states)[:, -1:]
            seen = torch.cat([seen, following], dim=1)
            if states is not None:
                states = torch.cat([states, self._moved(states[:, -1:], actions[:, step - 1 : step])], dim=1)
        ends = rearrange(seen[:, -1], "(b k) n d -> b k n d", k=count)
        return (ends - goal[:, None]).abs().mean(dim=(2, 3))

    def _moved(self, state: Tensor, action: Tensor) -> Tensor:
        size = min(state.shape[-1], action.shape[-1])
        moved = state.clone()
        moved[..., :size] += self.state_per_action * action[..., :size]
        return moved

    def _each(self, values: tuple[float, ...], name: str, action_dim: int, like: Tensor) -> Tensor:
        if len(values) not in (1, action_dim):
            raise UserError(
                f"planner.{name} has {len(values)} values, and an action {action_dim}: give one for all, or one each"
            )
        return torch.tensor(values, dtype=torch.float32, device=like.device).expand(action_dim)
