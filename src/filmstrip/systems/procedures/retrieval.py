"""Retrieval: the plan of the training window whose start and goal look most alike.

Every training window is remembered: the directions of its start's and its goal's features, and its steps. The answer
is the plan of the nearest one, whole. What Chang et al., "Procedure Planning in Instructional Videos", ECCV 2020, and
those who follow compare with.

    filmstrip train procedures.retrieval --data FEATURES

Where we deviate: a scale of distances is learned, as a loss needs something to learn; which window is nearest does
not depend on it. One pass over the data fills the memory. In one process only.

Table 2 of VEDIT reports, on CrossTask, success rates of 8.05 (T = 3) and 3.95 (T = 4), on COIN 4.38 and 2.71.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from filmstrip.bounds import Count, CountOrZero
from filmstrip.data.config import Data, DataInfo
from filmstrip.data.kinds.procedures import ProcedureInfo, Procedures
from filmstrip.data.synthetic.recipes import Recipes
from filmstrip.errors import UserError
from filmstrip.evals.planning import Planning
from filmstrip.objectives.planning import Planner, plan_steps, start_and_goal
from filmstrip.objectives.step_prediction import StepPredictionConfig
from filmstrip.protocols import Batch, Loss
from filmstrip.runs.config import Run
from filmstrip.train.config import Loop
from filmstrip.train.lengths import Epochs, Steps
from filmstrip.train.optim import AdamW

_EPS, _NEVER = 1e-4, -1e4


class Retrieval(Planner):
    """Nearest neighbours by the cosine of start and goal; in training they all vote, the nearer the more."""

    requires = ("features", "step", "seen", "target", "index")

    def __init__(self, config: RetrievalConfig) -> None:
        super().__init__()
        self.num_steps = config.num_steps
        self.log_scale = nn.Parameter(torch.tensor(math.log(5.0)))
        self.register_buffer("keys", torch.zeros(config.num_windows, 2 * config.feature_width))
        self.register_buffer("plans", torch.full((config.num_windows, config.horizon), -1))

    def forward(self, batch: Batch, phase: str = "main") -> Loss:
        """Remember the batch; nats per step, and the share of steps that are right, with itself in memory.

        Raises:
            UserError: the windows are not those that the memory was made for.
        """
        index, steps = batch["index"], plan_steps(batch)
        if index.max() >= len(self.keys) or steps.shape[1] != self.plans.shape[1]:
            raise UserError(
                f"the memory has room for {len(self.keys)} plans of {self.plans.shape[1]} steps; got window "
                f"{int(index.max())} with {steps.shape[1]}"
            )
        if self.training:
            self.keys[index] = _key(start_and_goal(batch)).to(self.keys)
            self.plans[index] = steps
        return super().forward(batch, phase)

    def plan(self, ends: Tensor, horizon: int, seeds: Tensor) -> Tensor:
        """Log-shares of the votes ``B T steps``: the nearest's alone, but of all in training.

        Before anything is remembered, every step has the same.

        Raises:
            UserError: plans of another length were asked for.
        """
        if horizon != self.plans.shape[1]:
            raise UserError(f"plans of {self.plans.shape[1]} steps are remembered, not of {horizon}")
        there = (self.plans >= 0).all(dim=1)
        nearness = (_key(ends) @ self.keys.T).masked_fill(~there, _NEVER)
        if self.training:
            votes = (nearness * self.log_scale.exp()).softmax(dim=-1)
        else:
            votes = F.one_hot(nearness.argmax(dim=-1), len(self.keys)).to(nearness)
        plans = F.one_hot(self.plans.clamp(min=0), self.num_steps).to(votes) * there[:, None, None]
        shares = torch.einsum("bm,mtc->btc", votes, plans)
        return (shares + _EPS).log()


def _key(ends: Tensor) -> Tensor:
    """Start and goal of ``B 2 N D`` as one vector each ``B 2D``: their products are the mean of both cosines."""
    return F.normalize(ends.mean(dim=2), dim=-1).flatten(1) / math.sqrt(2)


@dataclass(frozen=True, kw_only=True)
class RetrievalConfig(StepPredictionConfig):
    """The memory's size; all of it comes from the data."""

    num_windows: CountOrZero = 0
    """Number of training windows, all of which are remembered."""
    horizon: Count = 3
    """Steps of a plan."""

    def bind(self, info: DataInfo) -> Self:
        """Take the number of training windows and the length of their plans from the data."""
        bound = super().bind(info)
        if not isinstance(info, ProcedureInfo) or info.window <= 2:
            return bound
        return replace(bound, num_windows=info.num_train, horizon=info.window - 2)

    def build(self) -> Retrieval:
        """Build with an empty memory.

        Raises:
            UserError: the data has no steps.
        """
        self.check()
        return Retrieval(self)


def tiny() -> Run:
    """Trains in seconds on two CPU cores."""
    return Run(
        data=Data(
            synthetic=Recipes(),
            reads=Procedures(width=16, tokens=2, noise=0.5, task="planning", horizon=3),
            batch_size=32,
        ),
        objective=RetrievalConfig(),
        optim=AdamW(lr=3e-2, weight_decay=0.0),
        train=Loop(length=Steps(20)),
        evals=(Planning(),),
    )


def _paper(dataset: str) -> Run:
    return Run(
        data=Data(reads=Procedures(dataset=dataset, task="planning", horizon=3), batch_size=256),
        objective=RetrievalConfig(),
        optim=AdamW(lr=1e-2, weight_decay=0.0),
        train=Loop(length=Epochs(2)),
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
