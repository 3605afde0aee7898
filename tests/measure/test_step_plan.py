"""The planner: operations and memory by hand, costs of attention by counted masks, serving by published figures."""

import json

import pytest
import torch
from torch import nn

from filmstrip.__main__ import main
from filmstrip.measure import ring_cost
from filmstrip.measure.accelerators import ACCELERATORS
from filmstrip.measure.attention_costs import Sequence, mixings
from filmstrip.measure.plan import Layout, Weight, plan_of, times, tokens_to_overlap
from filmstrip.measure.serving import Server
from filmstrip.measure.traced_step import RingCall, StepOptions, TracedStep, trace_step
from filmstrip.nn.ring_attention import ring_attention
from filmstrip.protocols import Loss, Objective

STEP = TracedStep(
    weights=1000,
    frozen=200,
    gradients=800,
    optimiser=1600,
    batch=10,
    kept=3000.0,
    early=4000.0,
    late=3500.0,
    products=6e6,
    attention=4e6,
    traffic=1e6,
    sent=5e5,
)
WEIGHTS = [
    Weight("embed", 200, 10, True, None),
    Weight("frozen", 200, 4, False, None),
    Weight("blocks.0", 300, 3, True, 0),
    Weight("blocks.1", 300, 3, True, 1),
]


class Two(Objective):
    """Two layers with a nonlinearity between them: 48 x 5 and 5 x 7 multiply-adds a row."""

    requires = ("x",)

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(48, 5, bias=False), nn.GELU(), nn.Linear(5, 7, bias=False))

    def forward(self, batch, phase="main"):
        return Loss(self.layers(batch["x"]).square().mean(), {})


def test_a_step_is_counted_as_it_runs():
    options = StepOptions(build=lambda objective, phase: torch.optim.AdamW(objective.parameters(), fused=True))
    step = trace_step(Two, lambda objective: {"x": torch.zeros(3, 48)}, options)
    forward = 48 * 5 + 5 * 7
    backward = 48 * 5 + 2 * 5 * 7  # the input needs no gradient
    assert step.products == 2 * 3 * (forward + backward)
    weights = 4 * (48 * 5 + 5 * 7)
    assert (step.weights, step.frozen, step.gradients, step.batch) == (weights, 0, weights, 4 * 3 * 48)
    assert step.optimiser == 2 * weights + 2 * 4  # moments, and the number of steps of each parameter
    # Both sides of the nonlinearity and what the mean is of are kept; the gradients come on top.
    assert 4 * 3 * (5 + 5 + 7) <= step.kept <= 4 * 3 * (5 + 5 + 7 + 7) + 8
    assert weights <= step.peak <= weights + 2 * step.kept


def test_gradients_are_whole_until_those_of_their_group_are_sent():
    def peak(**changed):
        options = StepOptions(build=lambda objective, phase: torch.optim.SGD(objective.parameters()), **changed)
        return trace_step(Wide, lambda objective: {"x": torch.zeros(1, 1)}, options).peak

    class Wide(Objective):
        requires = ("x",)

        def __init__(self):
            super().__init__()
            self.layers = nn.Sequential(*(nn.Linear(1, 1000, bias=False) if i % 2 == 0 else Sum() for i in range(6)))

        def forward(self, batch, phase="main"):
            return Loss(self.layers(batch["x"]).sum(), {})

    class Sum(nn.Module):
        def forward(self, x):
            return x.sum(dim=1, keepdim=True)

    one = 4 * 1000
    close = {"abs": 2.5 * one}  # activations and their gradients
    assert peak() == pytest.approx(3 * one, **close)
    of_each, of_all = (lambda name: (name, 0.0)), (lambda name: ("all", 0.0))
    assert peak(summed_in=of_each) < peak() and peak(summed_in=of_all) == pytest.approx(6 * one, **close)
    assert peak(summed_in=of_each, gradients_stay=True) == pytest.approx(peak(summed_in=of_each) + 3 * one, abs=one)


def test_processes_have_all_of_the_weights_or_their_part():
    alone = plan_of(STEP, WEIGHTS, Layout(rows=4))
    assert alone.total == 1000 + 1600 + 10 + 4000 and alone.exchange == 0
    replicated = plan_of(STEP, WEIGHTS, Layout(ranks=2, rows=2))
    assert replicated.total == alone.total
    assert replicated.exchange == 800  # 2 (G - 1) / G of the gradients
    sharded = plan_of(STEP, WEIGHTS, Layout(ranks=2, rows=2, sharded=True, accumulate=3))
    own = 100 + 100 + 2 * 200  # of three rows a process has two at most
    gathered = 400 + 2 * 300
    assert sharded.total == own + 1600 * (own - 100) / 800 + 10 + 4000 + gathered
    assert sharded.exchange == 3 * (2 * 1000 - 400 + 800) / 2
    assert sharded.products == 3 * STEP.products


def test_a_step_takes_as_long_as_what_takes_longest():
    plan = plan_of(STEP, WEIGHTS, Layout(ranks=2, context=2, rows=2, tokens=8))
    machine = ACCELERATORS["h100"]
    found = times(plan, machine, 1e9)
    assert found.compute == pytest.approx(0.01) and found.ring == 5e5 / 450e9
    assert (found.step, found.limit) == (found.compute, "compute")
    assert machine.link_of(8) == 450e9 and machine.link_of(9) == 50e9
    # 312 TFLOP/s, 300 GB/s and 2 bytes: the ring is hidden from about a thousand tokens a process on.
    assert tokens_to_overlap(312e12, 300e9, bytes_each=2) == 1040


@pytest.mark.parametrize(
    ("kv_heads", "striped"),
    [(1, True), pytest.param(2, True, marks=pytest.mark.slow), pytest.param(2, False, marks=pytest.mark.slow)],
)
def test_long_rings_follow_from_short_ones(kv_heads, striped, monkeypatch):
    def attend(q, k, v, ring):
        return ring_attention(q, k, v, ring, block=4)

    call = RingCall(
        torch.Size((2, 2, 20, 8)), torch.Size((2, kv_heads, 20, 8)), torch.Size((2, kv_heads, 20, 8)), torch.float32
    )
    direct = ring_cost._count(attend, call, 20, 5, striped)
    monkeypatch.setattr(ring_cost, "_MOST_PAIRS", 0)
    for found, expected in zip(ring_cost._costs(attend, call, 5, 4, striped), direct):
        assert found.operations == expected.operations > 0
        assert found.sent == expected.sent > 0
        assert found.traffic == pytest.approx(expected.traffic, rel=0.02)
        assert found.peak == pytest.approx(expected.peak, rel=0.05)


def test_ways_to_mix_cost_what_their_masks_allow():
    of = Sequence(length=64, width=8, kv_width=4, frame=4, bytes_each=2, ranks=4)
    found = {each.name: each for each in mixings(of)}
    at = torch.arange(64)
    frame = at // 4
    causal = at[:, None] >= at
    masks = {
        "full": torch.ones(64, 64),
        "causal": causal,
        "windowed": causal,  # the window is longer
        "block-causal": frame[:, None] >= frame,
    }
    for name, mask in masks.items():
        assert found[name].pairs == mask.sum(), name
        assert found[name].operations == 4 * mask.sum() * 8
    same_frame, same_place = frame[:, None] == frame, (at % 4)[:, None] == at % 4
    assert found["factorised"].pairs == same_frame.sum() + same_place.sum()
    assert found["ring"].operations == found["causal"].operations / 4
    assert found["causal"].kept == 2 * 4 * 2 * 64 and found["causal"].saved == (2 * 8 + 2 * 4) * 2 * 64
    long = {each.name: each for each in mixings(Sequence(length=2**20, width=4096, kv_width=4096))}
    assert 32 * long["causal"].operations / 2**20 == pytest.approx(275e9, rel=1e-3)
    assert long["causal"].kept == pytest.approx(17.2e9, rel=2e-3)
    assert long["windowed"].pairs < long["causal"].pairs / 100


def test_serving_is_that_of_the_published_analysis():
    """Fu 2024: 34 billion weights, 60 layers of 8 heads of keys, an A100, 4 and 50 thousand tokens."""
    server = Server(
        weights=68 * 10**9,
        token=2 * 2 * 60 * 8 * 128,
        state=0,
        products=68e9,
        pair=4 * 7168 * 60,
        layers=60,
        sequence=Sequence(length=1, width=7168, kv_width=1024),
        heads=56,
    )
    a100 = ACCELERATORS["a100"]
    assert server.users(50_000, a100.memory) == 1
    assert server.users(4096, a100.memory) == pytest.approx(20, abs=3)
    assert 250 * server.decode(50_000, a100.bandwidth) == pytest.approx(9.8, rel=0.02)
    assert 250 * server.decode(4096, a100.bandwidth) == pytest.approx(8.5, rel=0.02)
    assert server.prefill(4096, a100.rates["bfloat16"]) == pytest.approx(0.89, rel=0.06)


def test_the_command_prints_a_plan(capsys):
    assert main(["show", "language.lwm_text:tiny", "--ranks", "2", "--context", "64", "--json"]) in (0, None)
    plan = json.loads(capsys.readouterr().out)
    assert (plan["layout"]["context"], plan["layout"]["data"], plan["layout"]["tokens"]) == (2, 1, 64)
    parts = plan["memory"]
    assert parts["total"] < 1e7 and parts["activations and gradients at their peak"] > parts["weights"]
    assert plan["fits"] and plan["ring"] > 0 and plan["seconds"]["limit"] in ("memory", "compute")
    assert plan["serving"]["64"]["cache"] == 2 * 2 * 2 * 64 * 64


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["language.lwm_text:tiny", "--context", "65", "--ranks", "2"], "65 tokens a row do not divide among 2"),
        (["language.lwm_text:tiny", "--ranks", "3", "--train.context", "2"], "--ranks 3 is not a multiple"),
        (["recognition.vit:tiny", "--ranks", "2", "--train.context", "2"], "stays within one"),
        (["recognition.vit:tiny", "--ranks", "3"], "does not divide into 3 processes"),
        (["recognition.vit:tiny", "--context", "64"], "clips have no number of tokens"),
        (["recognition.vit:tiny", "--accelerator", "tpu-v4"], "no rate for float32"),
        (["recognition.vit:tiny", "--ranks", "0"], "ranks is 0"),
    ],
)
def test_what_does_not_divide_is_refused(arguments, message, capsys):
    assert main(["show", *arguments]) == 2
    assert message in " ".join(capsys.readouterr().err.split())
