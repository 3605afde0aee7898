"""The recurrent state-space model: what is remembered (``h``), and what is uncertain (``z``), step after step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from filmstrip.nn.normed_layers import EPS, Layer, init_normal, init_uniform
from filmstrip.nn.sampling import Sampling, draw

SAMPLED, MOST_PROBABLE = Sampling(), Sampling(temperature=0.0)


class State(NamedTuple):
    """A state of the world, or several."""

    memory: Tensor
    """The recurrent state ``h``, ``... D``."""
    latent: Tensor
    """The latents ``z``, one-hot, ``... S K``."""

    @property
    def features(self) -> Tensor:
        """What every head sees, ``... S*K+D``."""
        return torch.cat([self.latent.flatten(-2), self.memory], dim=-1)

    def detach(self) -> State:
        """The same without its gradient."""
        return State(self.memory.detach(), self.latent.detach())

    def flatten(self) -> State:
        """The states of ``B T`` as rows, ``B*T``."""
        return State(self.memory.flatten(0, 1), self.latent.flatten(0, 1))


class Observed(NamedTuple):
    """States of a sequence, with the distributions of their latents."""

    state: State
    """States that know their own frame, ``B T``."""
    posterior: Tensor
    """Log-probabilities of latents given the frame, ``B T S K``."""
    prior: Tensor
    """The same given only what came before it."""


class RSSM(nn.Module):
    """A recurrent cell with a norm, and latents of several classes, whose probabilities are mixed with even ones.

    Hafner et al. 2023, equations 1 and 3, in the first published version: ``u h' + (1 - u) h`` with one norm over all
    three gates, the update's bias being -1.
    """

    def __init__(
        self, *, frame: int, action: int, memory: int, latents: int, classes: int, hidden: int, unimix: float
    ) -> None:
        super().__init__()
        self.latents, self.classes, self.unimix = latents, classes, unimix
        self.enter = Layer(latents * classes + action, hidden)
        self.cell = nn.Linear(hidden + memory, 3 * memory, bias=False)
        self.cell_norm = nn.LayerNorm(3 * memory, eps=EPS)
        self.foresee = Layer(memory, hidden)
        self.prior = nn.Linear(hidden, latents * classes)
        self.look = Layer(memory + frame, hidden)
        self.posterior = nn.Linear(hidden, latents * classes)
        self.start = nn.Parameter(torch.zeros(1, memory))
        init_normal(self.cell)
        init_uniform(self.prior, 1.0)
        init_uniform(self.posterior, 1.0)

    def initial(self, count: int) -> State:
        """The learnt state before an episode begins, ``B``; its latents are the most probable."""
        memory = self.start.tanh()
        latent = self.drawn(self.foreseen(memory).detach(), None)
        return State(memory.expand(count, -1), latent.expand(count, -1, -1))

    def observe(self, frames: Tensor, actions: Tensor, first: Tensor, numbers: Tensor | None) -> Observed:
        """The states of sequences: frames' features ``B T D``, the actions that led to them ``B T A``, and where an
        episode begins (``B T``, bool).

        Latents are drawn at ``numbers`` (``B T S``, uniform in 0..1), or the most probable ones are taken. A sequence
        begins as an episode does.
        """
        initial = self.initial(len(frames))
        first = first.clone()
        first[:, 0] = True
        seen = self.look.part(frames, self.start.shape[1])  # in one pass over all steps
        state, states, posteriors = initial, [], []
        for t in range(frames.shape[1]):
            state, log_p = self.step_seeing(
                state, actions[:, t], seen[:, t], first[:, t], initial, None if numbers is None else numbers[:, t]
            )
            states.append(state)
            posteriors.append(log_p)
        found = _stacked(states)
        return Observed(found, torch.stack(posteriors, dim=1), self.foreseen(found.memory))

    def see(self, state: State | None, action: Tensor, frame: Tensor, first: Tensor, numbers: Tensor | None) -> State:
        """One step of :meth:`observe`, ``B``, from a state, or from none."""
        initial = self.initial(len(frame))
        seen = self.look.part(frame, self.start.shape[1])
        return self.step_seeing(initial if state is None else state, action, seen, first, initial, numbers)[0]

    def step_seeing(
        self, state: State, action: Tensor, seen: Tensor, first: Tensor, initial: State, numbers: Tensor | None
    ) -> tuple[State, Tensor]:
        """The next state, and the log-probabilities of its latents; ``seen`` is the frame's share in the layer that
        looks at it."""
        begins = first[:, None]
        memory = torch.where(begins, initial.memory, state.memory)
        latent = torch.where(begins[..., None], initial.latent, state.latent)
        memory = self.remembered(State(memory, latent), torch.where(begins, 0.0, action))
        log_p = self._log_p(self.posterior(self.look.activated(self.look.part(memory) + seen)))
        return State(memory, self.drawn(log_p, numbers)), log_p

    def imagine(self, state: State, action: Tensor, numbers: Tensor | None) -> State:
        """The state after an action, ``N``, without seeing anything."""
        memory = self.remembered(state, action)
        return State(memory, self.drawn(self.foreseen(memory), numbers))

    def remembered(self, state: State, action: Tensor) -> Tensor:
        """The next recurrent state, ``N D`` float32."""
        x = self.enter(torch.cat([state.latent.flatten(1), action], dim=1))
        gates = self.cell_norm(self.cell(torch.cat([x, state.memory], dim=1))).float()
        reset, candidate, update = gates.chunk(3, dim=1)
        update = (update - 1).sigmoid()
        return update * (reset.sigmoid() * candidate).tanh() + (1 - update) * state.memory

    def foreseen(self, memory: Tensor) -> Tensor:
        """Log-probabilities of the latents, ``... S K``, before anything is seen."""
        return self._log_p(self.prior(self.foresee(memory)))

    def drawn(self, log_p: Tensor, numbers: Tensor | None) -> Tensor:
        """One-hot latents whose gradient is that of their probabilities (straight-through)."""
        even = log_p.new_zeros(log_p.shape[:-1]) if numbers is None else numbers
        ids = draw(log_p.detach(), even, MOST_PROBABLE if numbers is None else SAMPLED)
        p = log_p.exp()
        return F.one_hot(ids, self.classes).to(p.dtype) + (p - p.detach())

    def _log_p(self, logits: Tensor) -> Tensor:
        p = logits.float().unflatten(-1, (self.latents, self.classes)).softmax(dim=-1)
        return ((1 - self.unimix) * p + self.unimix / self.classes).log()


def divergences(observed: Observed, free: float) -> tuple[Tensor, Tensor]:
    """The divergence of what is seen from what was foreseen, nats, ``B T``: as a loss of the prior (dynamics), and as
    one of the posterior (representation). What is below ``free`` nats is no loss."""

    def divergence(posterior: Tensor, prior: Tensor) -> Tensor:
        return (posterior.exp() * (posterior - prior)).sum(dim=(-2, -1)).clamp(min=free)

    posterior, prior = observed.posterior, observed.prior
    return divergence(posterior.detach(), prior), divergence(posterior, prior.detach())


def _stacked(states: Sequence[State]) -> State:
    """States ``B`` one after the other as ``B T``."""
    return State(
        torch.stack([state.memory for state in states], dim=1), torch.stack([state.latent for state in states], dim=1)
    )
