"""DDN: two dynamics are learned and unrolled: what a step does to the state, and which step comes next.

Start and goal are encoded as states. The transition model says which state a step leads to; the conjugate model says
which step is taken in a state, after a step, on the way to a goal. A plan is found by beam search with both, whose
states are to end at the goal.
Chang et al., "Procedure Planning in Instructional Videos", ECCV 2020.

    filmstrip train procedures.ddn:crosstask --data FEATURES --data.reads.annotations ANNOTATIONS

Where we deviate, and why this is DDN's style and not DDN: states between start and goal are not seen in training
(windows of planning give none), so the transition model learns from the goal alone, which its unrolled states have to
reach; the conjugate model is told the goal; states and steps go through MLPs of one hidden layer.

Table 2 of VEDIT reports success rates of 18.41 on NIV, 12.18 on CrossTask and 13.90 on COIN (T = 3), and of 15.97,
5.97 and 11.13 (T = 4).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import repeat
from torch import Tensor, nn

from filmstrip.bounds import Count, Weight
from filmstrip.data.config import Data
from filmstrip.data.kinds.procedures import Procedures
from filmstrip.data.synthetic.recipes import Recipes
from filmstrip.evals.planning import Planning
from filmstrip.objectives.planning import Planner, plan_steps, start_and_goal
from filmstrip.objectives.step_prediction import StepPredictionConfig, step_loss, top1
from filmstrip.protocols import Batch, Loss
from filmstrip.runs.config import Run
from filmstrip.train.config import Loop
from filmstrip.train.lengths import Epochs, Steps
from filmstrip.train.optim import AdamW


class DDN(Planner):
    """The two models over states ``B H``; the step before the first has an embedding of its own."""

    def __init__(self, config: DDNConfig) -> None:
        super().__init__()
        self.num_steps, self.beams, self.state_weight = config.num_steps, config.beams, config.state_weight
        num_steps, width = config.num_steps, config.width
        self.state = _mlp(config.feature_width, width, width)
        self.step = nn.Embedding(num_steps + 1, width)
        self.transition = _mlp(2 * width, width, width)
        self.conjugate = _mlp(3 * width, width, num_steps)

    def forward(self, batch: Batch, phase: str = "main") -> Loss:
        """Nats per step given the true steps before it, and how far from the goal the last state is.

        An unknown step is taken for the one before the first.
        """
        states, steps = self._states(start_and_goal(batch)), plan_steps(batch)
        logits, reached = self._follow(states, steps.where(steps >= 0, self.num_steps))
        nats = step_loss(logits.flatten(0, 1), steps.flatten())
        # The goal's state stays where the steps need it: otherwise all states would become one.
        distance = F.mse_loss(reached, states[:, 1].detach())
        said = {"top1": top1(logits.flatten(0, 1), steps.flatten()), "distance": distance.detach()}
        return Loss(nats + self.state_weight * distance, said)

    def plan(self, ends: Tensor, horizon: int, seeds: Tensor) -> Tensor:
        """Logits ``B T steps`` along the best plan, whose steps come first."""
        steps = self.search(ends, horizon)
        logits, _ = self._follow(self._states(ends), steps)
        return logits.scatter(2, steps[..., None], logits.amax(dim=2, keepdim=True) + 1)

    def search(self, ends: Tensor, horizon: int) -> Tensor:
        """The steps ``B T`` of the plan whose log-probability is highest, less its distance from the goal."""
        states = self._states(ends)
        rows = torch.arange(len(ends), device=ends.device)[:, None]
        state, goal = states[:, :1], states[:, 1:]
        last = torch.full((len(ends), 1), self.num_steps, device=ends.device)
        score = torch.zeros(len(ends), 1, device=ends.device)
        plans = last.new_empty(len(ends), 1, 0)
        for _ in range(horizon):
            next_score = score[..., None] + self._next(state, last, goal).log_softmax(dim=-1)
            count = min(self.beams, next_score[0].numel())
            score, chosen = next_score.flatten(1).topk(count, dim=1)
            beam, last = chosen // self.num_steps, chosen % self.num_steps
            plans = torch.cat([plans[rows, beam], last[..., None]], dim=2)
            state = self._move(state[rows, beam], last)
        off = (state - goal).square().mean(dim=2)
        return plans[rows[:, 0], (score - off).argmax(dim=1)]

    def _states(self, ends: Tensor) -> Tensor:
        """``B 2 H`` of features ``B 2 N D``."""
        return self.state(ends.mean(dim=2))

    def _follow(self, states: Tensor, steps: Tensor) -> tuple[Tensor, Tensor]:
        """Logits ``B T steps`` of each step of plans ``B T`` given those before it; and the state they lead to."""
        state, goal = states[:, :1], states[:, 1:]
        last, logits = torch.full_like(steps[:, :1], self.num_steps), []
        for step in steps.split(1, dim=1):
            logits.append(self._next(state, last, goal))
            state, last = self._move(state, step), step
        return torch.cat(logits, dim=1), state[:, 0]

    def _next(self, state: Tensor, last: Tensor, goal: Tensor) -> Tensor:
        """Logits of the step in states ``B K H`` after steps ``B K``."""
        goal = repeat(goal, "b 1 h -> b k h", k=state.shape[1])
        return self.conjugate(torch.cat([state, self.step(last), goal], dim=2))

    def _move(self, state: Tensor, step: Tensor) -> Tensor:
        """The states ``B K H`` that steps ``B K`` lead to."""
        return state + self.transition(torch.cat([state, self.step(step)], dim=2))


def _mlp(width: int, hidden: int, out: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, out))


@dataclass(frozen=True, kw_only=True)
class DDNConfig(StepPredictionConfig):
    """The two models and the search."""

    width: Count = 128
    """Width of a state."""
    beams: Count = 10
    """Number of plans kept by the beam search; one for greedy planning."""
    state_weight: Weight = 1.0
    """Weight of a state's mean squared distance from the goal, relative to a step's nats."""

    def build(self) -> DDN:
        """Build with fresh weights.

        Raises:
            UserError: the data has no steps.
        """
        self.check()
        return DDN(self)


def tiny() -> Run:
    """Narrow; trains in seconds on two CPU cores."""
    return Run(
        data=Data(
            synthetic=Recipes(),
            reads=Procedures(width=16, tokens=2, noise=0.5, task="planning", horizon=3),
            batch_size=32,
        ),
        objective=DDNConfig(width=32, beams=3),
        optim=AdamW(lr=3e-3),
        train=Loop(length=Steps(200)),
        evals=(Planning(),),
    )


def _paper(dataset: str) -> Run:
    """Sizes and training are ours: the paper's are for states of another kind."""
    return Run(
        data=Data(reads=Procedures(dataset=dataset, task="planning", horizon=3), batch_size=256),
        objective=DDNConfig(),
        optim=AdamW(lr=1e-3),
        train=Loop(length=Epochs(100)),
        evals=(Planning(),),
    )


def crosstask() -> Run:
    """CrossTask, T = 3."""
    return _paper("crosstask")


def coin() -> Run:
    """COIN, T = 3."""
    return _paper("coin")


def niv() -> Run:
    """NIV, T = 3."""
    return _paper("niv")
