"""What DreamerV3 learns in imagination: policies, values, returns and their scale, and where its models disagree."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from filmstrip.nn.normed_layers import Perceptron
from filmstrip.nn.sampling import Sampling, draw
from filmstrip.randomness import normal, uniform
from filmstrip.systems.control.dreamer.layers import BINS, expected


@dataclass(frozen=True)
class Gaussian:
    """A policy of actions that are numbers, ``... A``: normal, and brought back to -1..1 where they lie outside."""

    mean: Tensor
    std: Tensor

    def draw(self, seed: Tensor | None, use: str, *index: int) -> Tensor:
        """Actions ``... A``, by a seed of each of the first axis; without, the means. Gradients pass."""
        if seed is None:
            return self.mean
        noise = normal(seed, self.mean[0].numel(), use, *index).view_as(self.mean)
        action = self.mean + self.std * noise
        return action / action.detach().abs().clamp(min=1)

    def entropy(self) -> Tensor:
        """Entropy ``...``, nats, of the normal distribution."""
        return (self.std.log() + 0.5 * math.log(2 * math.pi * math.e)).sum(dim=-1)


@dataclass(frozen=True)
class Categorical:
    """A policy of several actions, given as one-hot vectors ``... A``."""

    log_p: Tensor

    def draw(self, seed: Tensor | None, use: str, *index: int) -> Tensor:
        """Actions ``... A``, by a seed of each of the first axis; without, the most probable ones."""
        log_p = self.log_p.detach()
        if seed is None:
            ids = log_p.argmax(dim=-1)
        else:
            numbers = uniform(seed, log_p[0, ..., 0].numel(), use, *index).view_as(log_p[..., 0])
            ids = draw(log_p, numbers, Sampling())
        return F.one_hot(ids, log_p.shape[-1]).to(log_p.dtype)

    def log_prob(self, action: Tensor) -> Tensor:
        """Log-probability ``...`` of actions ``... A``, one-hot."""
        return (self.log_p * action).sum(dim=-1)

    def entropy(self) -> Tensor:
        """Entropy ``...``, nats."""
        return -(self.log_p.exp() * self.log_p).sum(dim=-1)


class Actor(nn.Module):
    """The policy. A Gaussian's means go through tanh, its deviations lie in a range; the probabilities of a
    categorical one are mixed with even ones."""

    def __init__(
        self,
        inputs: int,
        width: int,
        depth: int,
        *,
        actions: int,
        discrete: bool,
        std: tuple[float, float],
        unimix: float,
    ) -> None:
        super().__init__()
        self.actions, self.discrete, self.range, self.unimix = actions, discrete, std, unimix
        self.network = Perceptron(inputs, width, depth, actions if discrete else 2 * actions)

    def forward(self, features: Tensor) -> Gaussian | Categorical:
        """The policy in states, of which it sees the features ``... D``."""
        out = self.network(features)
        if self.discrete:
            return Categorical(((1 - self.unimix) * out.softmax(dim=-1) + self.unimix / self.actions).log())
        mean, std = out.chunk(2, dim=-1)
        low, high = self.range
        return Gaussian(mean.tanh(), low + (high - low) * (std + 2).sigmoid())


class Critic(Perceptron):
    """Logits of returns ``... 255``, which at first mean zero."""

    def __init__(self, inputs: int, width: int, depth: int) -> None:
        super().__init__(inputs, width, depth, BINS, scale=0.0)

    def value(self, features: Tensor) -> Tensor:
        """Expected returns ``...``."""
        return expected(self(features))


def lambda_returns(reward: Tensor, discount: Tensor, value: Tensor, weight: float) -> Tensor:
    """Returns ``N H`` of states 0 to H-1 (TD(lambda), equation 7 of the first version).

    ``reward`` and ``discount`` (``N H``) are of states 1 to H, the discount being zero where an episode ends;
    ``value`` (``N H+1``) of all; ``weight`` is lambda.
    """
    last, found = value[:, -1], []
    for t in reversed(range(reward.shape[1])):
        last = reward[:, t] + discount[:, t] * ((1 - weight) * value[:, t + 1] + weight * last)
        found.append(last)
    return torch.stack(found[::-1], dim=1)


class ReturnScale(nn.Module):
    """The range in which most returns lie, from the 5th percentile to the 95th: moving averages, kept with the
    weights."""

    def __init__(self, decay: float) -> None:
        super().__init__()
        self.decay = decay
        self.register_buffer("low", torch.zeros(()))
        self.register_buffer("high", torch.zeros(()))

    @torch.no_grad()
    def add(self, returns: Tensor) -> None:
        """Take in returns of any shape."""
        low, high = returns.float().flatten().quantile(torch.tensor([0.05, 0.95], device=returns.device))
        self.low.lerp_(low, 1 - self.decay)
        self.high.lerp_(high, 1 - self.decay)

    @property
    def scale(self) -> Tensor:
        """The size of that range, 1 or more: small returns are not blown up."""
        return (self.high - self.low).clamp(min=1)


class Ensemble(nn.Module):
    """Networks that foretell the next latents from a state and an action; where they disagree, little was seen.

    Sekar et al. 2020 (Plan2Explore).
    """

    def __init__(self, count: int, inputs: int, width: int, depth: int, outputs: int) -> None:
        super().__init__()
        self.members = nn.ModuleList(Perceptron(inputs, width, depth, outputs) for _ in range(count))

    def forward(self, features: Tensor, action: Tensor) -> Tensor:
        """What each says of the next latents, ``E ... S*K``, from features ``... D`` and actions ``... A``."""
        seen = torch.cat([features, action], dim=-1)
        return torch.stack([member(seen) for member in self.members])

    def disagreement(self, features: Tensor, action: Tensor) -> Tensor:
        """The mean standard deviation over the members ``...``."""
        return self(features, action).std(dim=0, correction=0).mean(dim=-1)


class Imagined(NamedTuple):
    """Trajectories of ``N`` starts over ``H`` actions."""

    features: Tensor
    """Features of states 0 to H, ``N H+1 D``."""
    actions: Tensor
    """Actions in states 0 to H-1, ``N H A``."""
    weight: Tensor
    """Probability, with the discount, that states 0 to H-1 are reached, ``N H``."""
    returns: dict[str, Tensor]
    """Returns of states 0 to H-1, ``N H``, by the critic's name."""
    values: dict[str, Tensor]
    """What critics say of states 0 to H-1, ``N H``."""
