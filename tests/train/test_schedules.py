"""Schedules against torch's own, and what they promise for any length of warm-up and run."""

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.optim import lr_scheduler

from filmstrip.train.lengths import Epochs, Steps, span_steps
from filmstrip.train.optim import AdamW
from filmstrip.train.schedules import SCHEDULES, Constant, Cosine, Schedule, WarmupStableDecay

TOTAL, WARMUP, DECAY = 60, 12, 20


def of_torch(*parts, start=0.0, warmup=WARMUP):
    """Factors that torch's schedulers give: a linear warm-up whose last step has the peak, then ``parts``, pairs of a
    length and a function of the optimiser and that length."""
    optimiser = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    first = start + (1 - start) / warmup
    schedulers = [lr_scheduler.LinearLR(optimiser, first, 1.0, total_iters=warmup - 1)]
    schedulers += [make(optimiser, length) for length, make in parts]
    ends, seen = [], warmup
    for length, _ in parts:
        ends.append(seen)
        seen += length
    schedule = lr_scheduler.SequentialLR(optimiser, schedulers, milestones=ends)
    factors = []
    for _ in range(seen):
        factors.append(optimiser.param_groups[0]["lr"])
        optimiser.step()
        schedule.step()
    return factors


def factors(schedule, total=TOTAL):
    return [schedule.factor(step, total) for step in range(total)]


@pytest.mark.parametrize("warmup", [WARMUP / TOTAL, Steps(WARMUP)])
@pytest.mark.parametrize("start", [0.0, 0.25])
def test_cosine_is_that_of_torch(warmup, start):
    expected = of_torch(
        (TOTAL - WARMUP, lambda optimiser, n: lr_scheduler.CosineAnnealingLR(optimiser, n, eta_min=0.1)), start=start
    )
    assert factors(Cosine(warmup=warmup, start=start, final=0.1)) == pytest.approx(expected, rel=1e-9)


def test_constant_is_that_of_torch():
    expected = of_torch((TOTAL - WARMUP, lambda optimiser, n: lr_scheduler.ConstantLR(optimiser, 1.0)))
    assert factors(Constant(warmup=Steps(WARMUP))) == pytest.approx(expected, rel=1e-9)
    assert set(factors(Constant())) == {1.0}


@pytest.mark.parametrize("decay", [DECAY / TOTAL, Steps(DECAY)])
@pytest.mark.parametrize("shape", ["linear", "sqrt"])
def test_warmup_stable_decay_is_that_of_torch(decay, shape):
    def cooldown(optimiser, n):
        if shape == "linear":
            return lr_scheduler.LinearLR(optimiser, 1.0, 0.1, total_iters=n)
        return lr_scheduler.LambdaLR(optimiser, lambda step: 1 - 0.9 * math.sqrt(step / n))

    stable = (TOTAL - WARMUP - DECAY, lambda optimiser, n: lr_scheduler.ConstantLR(optimiser, 1.0))
    found = factors(WarmupStableDecay(warmup=Steps(WARMUP), decay=decay, final=0.1, shape=shape))
    assert found == pytest.approx(of_torch(stable, (DECAY, cooldown)), rel=1e-9)
    assert found[WARMUP - 1 : TOTAL - DECAY + 1] == [1.0] * (TOTAL - DECAY - WARMUP + 2) and found[-1] < 0.3


def test_known_values():
    schedule = Cosine(warmup=0.1, final=0.2)
    assert [schedule.factor(step, 100) for step in (0, 4, 9, 10)] == pytest.approx([0.1, 0.5, 1.0, 1.0])
    assert schedule.factor(55, 100) == pytest.approx(0.6) and schedule.factor(100, 100) == pytest.approx(0.2)
    schedule = Cosine(warmup=Steps(10), start=0.5)
    assert [schedule.factor(step, 1000) for step in (0, 4, 9, 10)] == pytest.approx([0.55, 0.75, 1.0, 1.0])
    assert Cosine(warmup=Steps(200)).factor(99, 100) == 0.5  # a run that ends within the warm-up


def test_a_decay_takes_what_the_warmup_leaves():
    schedule = WarmupStableDecay(warmup=Steps(6), decay=Steps(8))
    assert factors(schedule, 10) == pytest.approx([1 / 6, 2 / 6, 3 / 6, 4 / 6, 5 / 6, 1, 1, 0.75, 0.5, 0.25])
    assert factors(WarmupStableDecay(warmup=0.0, decay=0.0), 3) == [1.0, 1.0, 1.0]


spans = st.one_of(st.floats(0, 1), st.integers(1, 400).map(Steps))


@given(total=st.integers(1, 300), warmup=spans, final=st.floats(0, 1), decay=spans)
def test_the_rate_rises_to_its_peak_and_then_only_falls(total, warmup, final, decay):
    for schedule in (
        Cosine(warmup=warmup, final=final),
        Constant(warmup=warmup),
        WarmupStableDecay(warmup=warmup, final=final, decay=decay),
        WarmupStableDecay(warmup=warmup, final=final, decay=decay, shape="sqrt"),
    ):
        found = factors(schedule, total)
        peak = found.index(max(found))
        assert all(0 <= factor <= 1 for factor in found) and found[0] > 0
        assert max(found) == pytest.approx(1) or span_steps(warmup, total) > total
        assert all(b > a for a, b in pairwise(found[: peak + 1]))
        assert all(b <= a + 1e-12 for a, b in pairwise(found[peak:]))
        assert found[-1] >= min(getattr(schedule, "final", 1.0), found[0]) - 1e-12


def test_a_schedule_of_another_kind_keeps_what_both_have():
    cosine = Cosine(warmup=Steps(7), start=0.1, final=0.2)
    assert cosine.changed_to(Constant) == Constant(warmup=Steps(7), start=0.1)
    assert cosine.changed_to(WarmupStableDecay) == WarmupStableDecay(warmup=Steps(7), start=0.1, final=0.2)
    assert set(SCHEDULES.values()) == set(Schedule.__subclasses__())


def test_weight_decay_follows_half_a_cosine():
    constant, rising = AdamW(weight_decay=0.04), AdamW(weight_decay=0.04, weight_decay_end=0.4)
    assert {constant.weight_decay_at(step, 10) for step in range(10)} == {0.04}
    optimiser = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.04)
    schedule, expected = lr_scheduler.CosineAnnealingLR(optimiser, 10, eta_min=0.4), []
    for _ in range(10):
        expected.append(optimiser.param_groups[0]["lr"])
        optimiser.step()
        schedule.step()
    assert [rising.weight_decay_at(step, 10) for step in range(10)] == pytest.approx(expected, rel=1e-9)
    assert rising.weight_decay_at(5, 10) == pytest.approx(0.22)


def test_lengths():
    assert Steps(7).total(math.nan) == 7 and Epochs(3).total(2.5) == 8
    assert (str(Steps(7)), str(Epochs(2.5))) == ("7 steps", "2.5 epochs")
    assert span_steps(0.05, 1000) == 50 and span_steps(Steps(80), 1000) == 80 and span_steps(0.0, 1000) == 0
