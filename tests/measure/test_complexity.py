from dataclasses import dataclass, replace
from typing import Literal

import pytest
import torch
from torch import nn

from filmstrip import systems
from filmstrip.data.config import Clip, Data
from filmstrip.errors import UserError
from filmstrip.measure import complexity
from filmstrip.objectives.classification import Classification, ClassificationConfig
from filmstrip.objectives.config import ObjectiveConfig
from filmstrip.protocols import Features, Grid, Objective
from filmstrip.runs.config import Run
from filmstrip.train.config import Loop
from filmstrip.train.lengths import Steps


class OneProduct(nn.Module):
    """An encoder of one matrix product on one token: 48 x 5 multiply-adds."""

    width = 5
    depth = 0

    def __init__(self):
        super().__init__()
        self.product = nn.Linear(48, 5, bias=False)
        self.batch_norm = nn.BatchNorm1d(1)

    def forward(self, video, layers=False):
        return Features(self.batch_norm(self.product(video.float().flatten(1)[:, None])), Grid(1, 1, 1))


CLIP = Clip(num_frames=1, size=4)
SEVEN = ClassificationConfig(num_classes=7)


def test_counts_by_hand():
    cost = complexity.measure(Classification(OneProduct(), SEVEN), CLIP)
    assert cost.encoder_multiply_adds == 48 * 5
    assert cost.multiply_adds == 48 * 5 + 5 * 7
    assert cost.encoder_parameters == 48 * 5 + 2
    assert cost.parameters == 48 * 5 + 2 + 5 * 7 + 7
    assert cost.tokens == 1


def test_the_objective_is_left_as_it_was():
    objective = Classification(OneProduct(), SEVEN)
    before = {name: tensor.clone() for name, tensor in objective.state_dict().items()}
    complexity.measure(objective, CLIP)
    assert all(torch.equal(tensor, before[name]) for name, tensor in objective.state_dict().items())
    assert objective.training and all(p.grad is None for p in objective.parameters())


def test_meta_and_real_networks_cost_the_same():
    with torch.device("meta"):
        meta = Classification(OneProduct(), SEVEN)
    assert complexity.measure(meta, CLIP) == complexity.measure(Classification(OneProduct(), SEVEN), CLIP)


def test_memory_is_what_autograd_keeps():
    objective = nn.Sequential(nn.Linear(48, 100), nn.GELU(), nn.Linear(100, 5))

    class Three(OneProduct):
        def __init__(self):
            super().__init__()
            self.product = objective

    cost = complexity.measure(Classification(Three(), SEVEN), CLIP)
    floats = cost.activations / 4
    # The clip as floats (48), both sides of the nonlinearity (200) and a few outputs of a handful of numbers.
    assert 248 <= floats < 320
    assert cost.training_memory(3) == 16 * cost.parameters + 3 * cost.activations


def test_the_table_names_its_units():
    cost = complexity.measure(Classification(OneProduct(), SEVEN), CLIP)
    text = " ".join(cell for column in cost.table().columns for cell in column.cells)
    assert "parameters" in text and " M" in text and " G" in text and "MiB" in text


def test_a_part_that_is_called_encoder_and_is_none_is_not_measured_as_one():
    assert complexity.of_run(systems.find("generation.teco:tiny")).tokens is None


@pytest.mark.parametrize("known", [{"num_actions": 4}, {"action_dim": 2}, {"num_classes": 3}])
def test_networks_are_tried_with_what_the_data_give(known):
    run = systems.find("generation.videogpt:tiny")
    complexity.try_out(replace(run, objective=replace(run.objective, **known)))


@dataclass(frozen=True, kw_only=True)
class Fussy(ObjectiveConfig):
    fault: Literal["shape", "index", "value", "code"]

    def build(self):
        return _Fussy(self.fault)


class _Fussy(Objective):
    def __init__(self, fault):
        super().__init__()
        self.fault = fault
        self.one = nn.Linear(3, 1)

    def forward(self, batch, phase="main"):
        if self.fault == "value":
            return self.one(batch["video"].float().mean(dim=(1, 3, 4)))[batch["label"].sum().item()]
        return {"shape": self.one, "index": lambda video: video.flatten()[10**9]}[self.fault](batch["video"])


def test_what_does_not_fit_is_a_sentence_and_what_is_wrong_in_the_code_is_not():
    run = Run(data=Data(clip=CLIP), objective=Fussy(fault="value"), train=Loop(length=Steps(1)))
    complexity.try_out(run)  # depends on values, which only a real batch has
    for fault in ("shape", "index"):
        with pytest.raises(UserError, match="Fussy does not fit clips of 1 frames of 4 x 4 pixels: "):
            complexity.try_out(replace(run, objective=Fussy(fault=fault)))
    with pytest.raises(KeyError):
        complexity.try_out(replace(run, objective=Fussy(fault="code")))
