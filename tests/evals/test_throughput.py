import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from torch import nn

from filmstrip.data.config import Clip, Data
from filmstrip.data.sample import Sample, Source
from filmstrip.errors import UserError
from filmstrip.evals.throughput import (
    Throughput,
    count_flops,
    matrix_rate,
    median_seconds,
    memory_bandwidth,
)
from filmstrip.protocols import Loss, Objective
from filmstrip.runs.evaluation import Subject

CPU = torch.device("cpu")


class OneProduct(Objective):
    """A matrix product of known size, a batch norm whose buffers training would move, a gradient that must stay."""

    def __init__(self, requires=("video", "label")):
        super().__init__()
        self.requires = requires
        self.linear = nn.Linear(3 * 4 * 4, 7, bias=False)
        self.norm = nn.BatchNorm1d(7)
        self.linear.weight.grad = torch.full_like(self.linear.weight, 5.0)

    def forward(self, batch, phase="main"):
        x = batch["video"].flatten(0, 1).flatten(1).float()
        return Loss(self.norm(self.linear(x)).square().sum(), {})


def subject(objective):
    data = Data(clip=Clip(num_frames=2, size=4))
    source = Source(root=Path("videos"), classes=("a", "b"), samples=(Sample(path="a.mp4", name="a", split="train"),))
    return Subject(objective=objective, source=source, data=data, device=CPU)


def test_values_fit_together_and_nothing_is_changed():
    objective = OneProduct().eval()
    before = {name: value.clone() for name, value in objective.state_dict().items()}
    found = dict(Throughput(batch_size=3, rounds=3)(subject(objective)))
    flops = 2 * (3 * 2) * 48 * 7
    for name, passes in (("forward", 1), ("training", 2)):
        seconds = found[f"{name}/seconds"]
        assert found[f"{name}/clips_per_second"] == pytest.approx(3 / seconds)
        assert found[f"{name}/flops_per_second"] == pytest.approx(passes * flops / seconds)
        share = found[f"{name}/flops_per_second"] / found["machine/matrix_flops_per_second"]
        assert found[f"{name}/share_of_matrix_rate"] == pytest.approx(share)
        assert found[f"{name}/peak_bytes"] > 0
    assert not objective.training
    assert all(torch.equal(before[name], value) for name, value in objective.state_dict().items())
    assert (objective.linear.weight.grad == 5.0).all()


def test_attention_is_counted_though_it_is_fused():
    q = torch.randn(2, 3, 16, 8, requires_grad=True)
    attend = torch.nn.functional.scaled_dot_product_attention
    one_way = 2 * 2 * (2 * 3) * 16 * 16 * 8
    assert count_flops(lambda: attend(q, q, q)) == one_way
    # Backward computes the scores a second time: five products where forward has two.
    assert count_flops(lambda: attend(q, q, q).sum().backward()) == 3.5 * one_way


def test_median_counts_no_warm_up():
    calls = []

    def first_is_slow():
        calls.append(None)
        time.sleep(0.2 if len(calls) == 1 else 0.001)

    assert median_seconds(first_is_slow, CPU, rounds=3) < 0.1
    assert len(calls) == 4


def test_peak_memory_sees_what_was_freed_again():
    # In a process of its own: an allocator that other tests have warmed hands out pages it already holds.
    program = """
import torch
from filmstrip.measure.memory import peak_memory
with peak_memory(torch.device("cpu")) as peak:
    before = peak()
    torch.ones(2**28, dtype=torch.uint8)
    print(peak() - before)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert 0.8 * 2**28 < int(done.stdout) < 1.2 * 2**28


def test_machine_rates_are_possible():
    threads = torch.get_num_threads()
    rate = matrix_rate(torch.float32, threads=1)
    assert torch.get_num_threads() == threads
    assert 1e9 < rate < 1e13
    product = torch.randn(512, 512)
    assert 2 * 512**3 / median_seconds(lambda: product @ product, CPU, 5) < 3 * rate * threads
    assert 1e8 < memory_bandwidth() < 1e13


def test_an_objective_that_needs_what_the_data_lack_is_refused():
    with pytest.raises(UserError, match="requires text, which videos does not hold"):
        dict(Throughput()(subject(OneProduct(requires=("video", "text")))))
