import math
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from toys import Adversarial, Regression

from filmstrip.errors import UserError
from filmstrip.train.config import Loop, Optim
from filmstrip.train.loop import total_steps
from filmstrip.train.optim import optimiser, rate_factor, set_rates


def built(objective, **optim):
    return [optimiser(objective, phase, Optim(**optim)) for phase in objective.phases()]


def test_sgd_goes_without_momentum():
    (optimizer,) = built(Regression(), name="sgd", betas=(0.0, 0.9))
    assert all(group["momentum"] == 0 and not group["nesterov"] for group in optimizer.param_groups)
    (optimizer,) = built(Regression(), name="sgd")
    assert all(group["momentum"] == 0.9 and group["nesterov"] for group in optimizer.param_groups)


def test_layers_further_from_the_output_learn_slower():
    (optimizer,) = built(Regression(), lr=1.0, layer_decay=0.5, weight_decay=0.1)
    rates = {name: group["lr"] for group in optimizer.param_groups for name in group["param_names"]}
    decays = {name: group["weight_decay"] for group in optimizer.param_groups for name in group["param_names"]}
    assert rates["network.blocks.0.mlp.0.weight"] == 0.25
    assert rates["network.blocks.1.mlp.0.weight"] == 0.5
    assert rates["network.head.weight"] == rates["network.head.bias"] == 1.0
    assert decays["network.head.weight"] == 0.1
    assert decays["network.head.bias"] == decays["network.blocks.0.norm.weight"] == 0.0


def test_the_schedule_scales_every_group():
    optimisers = built(Regression(), lr=1.0, layer_decay=0.5)
    set_rates(optimisers, 0.1)
    set_rates(optimisers, 0.2)  # of the peak, not of what was set last
    assert sorted({round(g["lr"], 6) for one in optimisers for g in one.param_groups}) == [0.05, 0.1, 0.2]


def test_each_phase_has_its_own_parameters_and_each_parameter_one_phase():
    objective = Adversarial()
    generator, discriminator = built(objective)
    held = [{id(p) for g in one.param_groups for p in g["params"]} for one in (generator, discriminator)]
    assert held[0] == {id(p) for p in objective.generator.parameters()}
    assert held[1] == {id(p) for p in objective.discriminator.parameters()}


def test_frozen_parameters_are_in_no_optimiser():
    objective = Regression()
    objective.network.blocks.requires_grad_(False)
    (optimizer,) = built(objective)
    assert sum(len(g["params"]) for g in optimizer.param_groups) == 2
    objective.requires_grad_(False)
    with pytest.raises(UserError, match=r"Regression has nothing to train in phase 'main'"):
        built(objective)


def test_sgd_uses_the_first_beta_as_momentum():
    (optimizer,) = built(Regression(), name="sgd", betas=(0.7, 0.9))
    assert isinstance(optimizer, torch.optim.SGD) and optimizer.param_groups[0]["momentum"] == 0.7


def test_schedule_values():
    optim = Optim(warmup=0.1, final=0.2)
    assert [rate_factor(optim, step, 100) for step in (0, 4, 9, 10)] == pytest.approx([0.1, 0.5, 1.0, 1.0])
    assert rate_factor(optim, 55, 100) == pytest.approx(0.6)
    from_a_half = [rate_factor(replace(optim, start=0.5), step, 100) for step in (0, 4, 9, 10)]
    assert from_a_half == pytest.approx([0.55, 0.75, 1.0, 1.0])
    assert rate_factor(optim, 100, 100) == pytest.approx(0.2)
    constant = Optim(warmup=0.1, schedule="constant")
    assert [rate_factor(constant, step, 100) for step in (0, 9, 10, 99)] == pytest.approx([0.1, 1, 1, 1])


@given(total=st.integers(1, 300), warmup=st.floats(0, 1), final=st.floats(0, 1))
def test_the_rate_rises_to_its_peak_and_then_only_falls(total, warmup, final):
    optim = Optim(warmup=warmup, final=final)
    factors = [rate_factor(optim, step, total) for step in range(total)]
    peak = factors.index(max(factors))
    assert all(0 < f <= 1 for f in factors[: peak + 1]) and max(factors) == pytest.approx(1)
    assert all(b > a for a, b in pairwise(factors[: peak + 1]))
    assert all(b <= a + 1e-12 for a, b in pairwise(factors[peak:]))
    assert factors[-1] >= min(final, factors[0]) - 1e-12


def test_total_steps():
    assert total_steps(Loop(steps=7), math.nan) == 7
    assert total_steps(Loop(epochs=3), 2.5) == 8
    for loop, said in ((Loop(), "neither is set"), (Loop(steps=1, epochs=1), "both are set")):
        with pytest.raises(UserError, match=said):
            total_steps(loop, 2.5)
    with pytest.raises(UserError, match="at least one step"):
        total_steps(Loop(steps=0), 2.5)
