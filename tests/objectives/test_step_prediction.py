"""The loss of steps, and what forecasters promise."""

import math

import pytest
import torch

from filmstrip.data.kinds.procedures import ProcedureInfo
from filmstrip.errors import UserError
from filmstrip.objectives.step_prediction import StepPrediction, StepPredictionConfig, step_loss, top1
from filmstrip.protocols import Forecaster
from filmstrip.randomness import uniform


class Drawing(StepPrediction):
    """Logits that are noise of the seeds."""

    draws = True

    def logits(self, batch, seeds):
        places = batch["features"].shape[1]
        return uniform(seeds, places * 3, "test").view(-1, places, 3)


def batch_of(rows):
    seen = torch.tensor([[True, False]]).repeat(rows, 1)
    return {
        "features": torch.zeros(rows, 2, 1, 4),
        "seen": seen,
        "target": ~seen,
        "step": torch.tensor([[0, 2]]).repeat(rows, 1),
        "seed": torch.arange(rows),
    }


def test_unknown_steps_do_not_count():
    logits = torch.tensor([[0.0, 0.0], [9.0, -9.0], [0.0, 9.0]])
    assert step_loss(logits[:2], torch.tensor([0, -1])).item() == pytest.approx(math.log(2))
    assert top1(logits, torch.tensor([1, -1, 1])).item() == 0.5
    assert step_loss(logits, torch.tensor([-1, -1, -1])).item() == 0


def test_only_places_that_are_asked_for_count():
    batch = batch_of(4)
    other = {**batch, "step": batch["step"] * torch.tensor([0, 1]) + torch.tensor([1, 0])}
    assert Drawing()(batch).total == Drawing()(other).total
    assert Drawing()(batch).total != Drawing()({**batch, "step": batch["step"] - 1}).total


def test_predictions_are_of_the_row_and_the_sample():
    drawing = Drawing()
    assert isinstance(drawing, Forecaster)
    drawn = drawing.forecast(batch_of(3), samples=2, seed=5)
    assert drawn.shape == (3, 2, 2, 3)
    assert torch.equal(drawing.forecast(batch_of(2), samples=2, seed=6), drawn[1:])
    assert len(drawn.flatten(0, 1).unique(dim=0)) == 6


def test_sizes_come_from_the_data():
    info = ProcedureInfo(
        classes=(), num_train=1, directional=False, steps=("a", "b"), tasks=("t",), width=8, grid=(4, 1, 1), window=3
    )
    bound = StepPredictionConfig().bind(info)
    assert (bound.num_steps, bound.num_tasks, bound.feature_width, bound.num_tokens) == (2, 1, 8, 4)


def test_data_without_steps_is_refused():
    with pytest.raises(UserError, match="needs procedures"):
        StepPredictionConfig().check()
