"""Metrics of step sequences on cases worked out by hand, their properties, and what forecasters are asked."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from filmstrip.data.config import Data
from filmstrip.data.kinds.procedures import Procedures
from filmstrip.data.sources import open_source
from filmstrip.data.synthetic.recipes import Recipes
from filmstrip.errors import UserError
from filmstrip.evals import procedures
from filmstrip.evals.anticipation import Anticipation
from filmstrip.evals.planning import Planning
from filmstrip.evals.step_accuracy import StepAccuracy
from filmstrip.evals.step_baselines import StepBaselines
from filmstrip.protocols import Forecaster, Objective
from filmstrip.runs.evaluation import Subject

sequences = st.integers(1, 6).flatmap(lambda n: st.tuples(*[st.lists(st.integers(0, 4), min_size=n, max_size=n)] * 2))


def ids(*rows):
    return torch.tensor(rows)


def test_planning_metrics_on_cases_by_hand():
    true = ids([1, 2, 3], [1, 2, 3], [1, 2, 3], [4, 4, 5])
    predicted = ids([1, 2, 3], [3, 2, 1], [1, 2, 6], [4, 5, 5])
    assert procedures.success_rate(predicted, true) == 1 / 4
    assert procedures.top1(predicted, true) == pytest.approx((3 + 1 + 2 + 2) / 12)
    # {1,2,3} twice; {1,2} of {1,2,3,6}; {4,5}: order and repetition do not count.
    assert procedures.mean_iou(predicted, true) == pytest.approx((1 + 1 + 2 / 4 + 1) / 4)


def test_the_iou_of_ids_is_that_of_their_bits():
    # 6 & 3 = 2 and 6 | 3 = 7; 1 & 1 = 1.
    assert procedures.mean_iou_of_ids(ids([6, 1]), ids([3, 1])) == pytest.approx(3 / 8, abs=1e-6)
    assert procedures.mean_iou(ids([6, 1]), ids([3, 1])) == pytest.approx(1 / 3)


@pytest.mark.parametrize(
    ("one", "other", "swaps", "plain"),
    [
        ([1, 2, 3], [1, 2, 3], 0, 0),
        ([1, 2, 3], [1, 9, 3], 1, 1),
        ([1, 2, 3], [2, 1, 3], 1, 2),
        ([1, 2, 3, 4], [2, 3, 4, 1], 2, 2),
        ([1, 2, 3, 4], [2, 1, 4, 3], 2, 3),
        ([3, 1, 9], [1, 2, 3], 3, 3),  # what was swapped is not edited again
    ],
)
def test_edit_distance_on_cases_by_hand(one, other, swaps, plain):
    assert float(procedures.edit_distance(ids(one), ids(other))) == pytest.approx(swaps / len(one))
    assert float(procedures.edit_distance(ids(one), ids(other), False)) == pytest.approx(plain / len(one))


@given(sequences)
def test_properties_of_the_metrics_of_sequences(pair):
    one, other = (ids(sequence) for sequence in pair)
    for metric in (
        procedures.success_rate,
        procedures.top1,
        procedures.mean_iou,
        procedures.mean_iou_of_ids,
        lambda a, b: float(procedures.edit_distance(a, b)),
        lambda a, b: float(procedures.edit_distance(a, b, False)),
    ):
        value = metric(one, other)
        assert 0 <= value <= 1
        assert value == metric(other, one)
    distance = float(procedures.edit_distance(one, other))
    assert distance <= float(procedures.edit_distance(one, other, False)) <= float((one != other).double().mean())
    assert (distance == 0) == (pair[0] == pair[1]) == (procedures.success_rate(one, other) == 1)
    assert procedures.success_rate(one, other) <= procedures.top1(one, other)
    assert procedures.mean_iou(one, one) == procedures.mean_iou_of_ids(one, one) == 1


def by_definition(one, other, swaps):
    """The distance of optimal string alignment, straight from its definition."""
    if not one or not other:
        return len(one) + len(other)
    best = min(
        by_definition(one[:-1], other, swaps) + 1,
        by_definition(one, other[:-1], swaps) + 1,
        by_definition(one[:-1], other[:-1], swaps) + (one[-1] != other[-1]),
    )
    if swaps and len(one) > 1 and len(other) > 1 and one[-2:] == other[-2:][::-1]:
        best = min(best, by_definition(one[:-2], other[:-2], swaps) + 1)
    return best


@given(
    st.lists(st.integers(0, 2), min_size=4, max_size=4),
    st.lists(st.integers(0, 2), min_size=4, max_size=4),
    st.booleans(),
)
def test_edit_distance_agrees_with_its_definition(one, other, swaps):
    found = float(procedures.edit_distance(ids(one), ids(other), swaps))
    assert found == by_definition(one, other, swaps) / 4


@given(sequences)
def test_the_iou_of_sets_agrees_with_sets(pair):
    one, other = map(set, pair)
    expected = len(one & other) / len(one | other)
    assert procedures.mean_iou(*(ids(sequence) for sequence in pair)) == pytest.approx(expected)


def test_the_least_of_several_forecasts_counts():
    true = ids([1, 2], [3, 4])
    forecasts = torch.tensor([[[9, 9], [1, 2]], [[3, 9], [9, 9]]])
    assert procedures.min_edit_distance(forecasts, true) == (0 + 1 / 2) / 2


def test_class_mean_recall_weighs_classes_alike():
    scores = torch.eye(7)[[0, 0, 0, 1]] + torch.linspace(0, 0.1, 7)
    true = torch.tensor([0, 0, 1, 1])
    assert procedures.class_mean_recall(scores, true, top_k=1) == pytest.approx((1 + 1 / 2) / 2)
    # Step 1 is among the five best of no row that puts step 0 first: 0, 6, 5, 4, 3.
    assert procedures.class_mean_recall(scores, true, top_k=5) == pytest.approx((1 + 1 / 2) / 2)
    assert procedures.class_mean_recall(scores, true, top_k=7) == 1


class Successor(Objective):
    """Predicts that steps count up from the last clip seen, whose step it reads off a one-hot feature."""

    def __init__(self, num_steps, width):
        super().__init__()
        self.num_steps = num_steps
        self.frozen = torch.nn.Parameter(torch.eye(width, num_steps), requires_grad=False)

    def forecast(self, batch, *, samples=1, seed=0):
        assert torch.is_inference_mode_enabled()
        named = (batch["features"].mean(dim=2) @ self.frozen).argmax(dim=-1)
        last = torch.stack([row[seen][-1] for row, seen in zip(named, batch["seen"])])
        later = batch["target"].cumsum(dim=1)
        logits = torch.nn.functional.one_hot((last[:, None] + later) % self.num_steps, self.num_steps) * 20.0
        return logits[:, None].expand(-1, samples, -1, -1)


@dataclass(frozen=True, kw_only=True)
class Counting(Recipes):
    """Procedures whose steps count up."""

    def annotations(self):
        found = super().annotations()
        counted = tuple(
            replace(p, steps=tuple(s._replace(step=(i + p.task) % 8) for i, s in enumerate(p.steps)))
            for p in found.procedures
        )
        return replace(found, procedures=counted)


@pytest.fixture
def subject(tmp_path):
    np.save(tmp_path / "one_hot.npy", np.eye(8, dtype=np.float32))

    def build(**config):
        data = Data(
            path=tmp_path / "one_hot.npy",
            synthetic=Counting(train_per_task=2, test_per_task=2),
            reads=Procedures(noise=0.0, observed=3, **config),
            num_workers=0,
        )
        return Subject(objective=Successor(8, 8), source=open_source(data), data=data, device=torch.device("cpu"))

    return build


def test_a_forecaster_that_knows_is_right(subject):
    values = dict(StepAccuracy(batch_size=5)(subject(horizon=1)))
    assert values["top1"] == 1 and values["class_mean_recall@5"] == 1
    assert values["count"] == len(subject(horizon=1).source.split("test"))
    values = dict(Anticipation(lengths=(2, 5))(subject(task="anticipation", horizon=2)))
    assert set(values) == {"ed@2", "levenshtein@2", "count"} and values["ed@2"] == 0


def test_baselines_know_sequences_alone(subject):
    values = dict(StepBaselines()(subject(horizon=1)))
    assert values["last_step/top1"] == 0 and values["successor/top1"] == 1
    counts = torch.zeros(8)
    for sample in subject(horizon=1).source.split("test"):
        counts[sample.window.places[-1].step] += 1
    assert values["majority/top1"] <= float(counts.max() / counts.sum())


def test_plans_are_scored_at_every_step(subject):
    values = dict(Planning()(subject(task="planning", horizon=3)))
    # It counts from the goal on: no step of the plan is right.
    assert values["success_rate"] == 0 and values["mean_accuracy"] == 0
    assert set(values) == {"success_rate", "mean_accuracy", "miou", "miou_of_ids", "count"}


def test_drawn_forecasts_follow_the_probabilities_and_the_window():
    probabilities = torch.tensor([0.0, 0.75, 0.25]).expand(2000, 1, 1, 3)
    found = procedures.Forecasts(probabilities, torch.zeros(2000, 1).long(), torch.arange(2000))
    drawn = Anticipation()._drawn(found)
    assert torch.equal(
        drawn[5:9], Anticipation()._drawn(procedures.Forecasts(probabilities[5:9], found.true[5:9], found.index[5:9]))
    )
    shares = torch.bincount(drawn.flatten(), minlength=3) / 2000
    assert shares[0] == 0 and abs(float(shares[1]) - 0.75) < 0.05


def test_what_cannot_be_evaluated_is_refused(subject):
    plain = replace(subject(horizon=1), objective=Objective())
    with pytest.raises(UserError, match="does not forecast steps"):
        list(StepAccuracy()(plain))
    with pytest.raises(UserError, match="has 5 steps, but the data has 8"):
        list(StepAccuracy()(replace(plain, objective=Successor(5, 8))))
    assert isinstance(Successor(5, 8), Forecaster)
