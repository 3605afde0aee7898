"""Rates of parts, and frozen parts: neither updated, nor in an optimiser, nor in training mode."""

import gc
import weakref

import pytest
import torch
from safetensors import safe_open
from toys import Adversarial, Probe, Regression, train, weights

from filmstrip import systems
from filmstrip.errors import UserError
from filmstrip.runs.saved_states import newest_state
from filmstrip.train.optim import SGD, AdamW, Muon
from filmstrip.train.part_rates import frozen_parts, part_rate
from filmstrip.train.schedules import Constant


def fresh(dropout=0.0):
    torch.manual_seed(0)
    return Regression(dropout=dropout)


def optimised(folder):
    """The parameters of which a saved state has something of an optimiser's."""
    with safe_open(newest_state(folder / "state").tensors, "pt") as saved:
        return {name.split("/")[2] for name in saved.keys() if name.startswith("optimiser/")}  # noqa: SIM118


def test_a_pattern_is_of_whole_parts_of_a_name_and_the_first_counts():
    rates = (("encoder.head", 3.0), ("encoder", 0.5), (r".*\.norm", 0.0))
    names = ["encoder.head.weight", "encoder.headless", "encoder", "encoder2.weight", "a.b.norm.weight", "a.norms.b"]
    assert [part_rate(name, rates) for name in names] == [3.0, 0.5, 0.5, 1.0, 0.0, 1.0]
    blocks = ((r"blocks\.[0-3]", 0.1),)
    assert [part_rate(f"blocks.{i}.w", blocks) for i in (0, 3, 4, 30)] == [0.1, 0.1, 1.0, 1.0]


def test_rates_of_parts_go_with_layer_decay():
    optim = AdamW(lr=1.0, layer_decay=0.5, rates=((r"network\.blocks\..\.mlp", 0.1), (r"network\.head", 10.0)))
    objective = fresh()
    (optimiser,) = (optim.build(objective, phase) for phase in objective.phases())
    rates = {name: group["peak_lr"] for group in optimiser.param_groups for name in group["param_names"]}
    assert rates["network.blocks.0.mlp.0.weight"] == pytest.approx(0.025)
    assert rates["network.blocks.0.norm.weight"] == 0.25
    assert rates["network.blocks.1.mlp.0.bias"] == pytest.approx(0.05)
    assert rates["network.head.weight"] == 10.0
    assert rates.keys() == dict(objective.named_parameters()).keys()


def test_a_rate_of_a_part_is_that_rate():
    """SGD without momentum moves a part by its factor as far."""
    start = {name: p.detach().clone() for name, p in fresh().named_parameters()}
    moved = {}
    for factor in (1.0, 3.0):
        objective = fresh()
        optim = SGD(lr=1e-3, momentum=0.0, rates=(("network.head", factor),))
        (optimiser,) = (optim.build(objective, phase) for phase in objective.phases())
        for p in objective.parameters():
            p.grad = torch.ones_like(p)
        optimiser.step()
        moved[factor] = {name: p.detach() - start[name] for name, p in objective.named_parameters()}
    for name, once in moved[1.0].items():
        assert torch.allclose(moved[3.0][name], once * (3.0 if "head" in name else 1.0), rtol=1e-4), name


@pytest.mark.parametrize("kind", [AdamW, SGD, Muon])
def test_a_frozen_part_stays_bit_by_bit_and_has_no_state(tmp_path, kind):
    optim = kind(lr=1e-2, weight_decay=0.1, rates=((r"network\.blocks\.0", 0.0),), schedule=Constant())
    before = {name: p.detach().clone() for name, p in fresh().named_parameters()}
    objective = train(tmp_path, fresh(), steps=3, optim=optim, ema=0.5)
    after = weights(tmp_path)
    frozen = {name for name in before if name.startswith("network.blocks.0.")}
    assert frozen and all(torch.equal(before[name], after[name]) for name in frozen)
    assert not any(torch.equal(before[name], after[name]) for name in before.keys() - frozen)
    assert optimised(tmp_path) == before.keys() - frozen
    assert all(p.requires_grad for p in objective.parameters())
    assert all(module.training for module in objective.modules())


def test_a_frozen_part_is_in_evaluation_mode_and_the_others_are_not(tmp_path):
    objective, seen = fresh(dropout=0.5), []

    def before(step):
        seen.append({name: module.training for name, module in objective.named_modules()})

    train(tmp_path, objective, steps=2, optim=AdamW(rates=((r"network\.blocks\.0", 0.0),)), before=before)
    assert len(seen) == 2 and seen[0] == seen[1]
    assert {name for name, training in seen[0].items() if not training} == {
        name for name, _ in objective.named_modules() if (name + ".").startswith("network.blocks.0.")
    }


def test_no_parameter_is_held_while_others_stand_in_its_place():
    """As sharding replaces them, whose whole parameters would stay in memory."""
    objective = fresh()
    with frozen_parts(objective, ((r"network\.blocks\.0", 0.0),)):
        replaced = []
        for module in objective.modules():
            for name, param in list(module._parameters.items()):
                replaced.append(weakref.ref(param))
                setattr(module, name, torch.nn.Parameter(param.detach().clone(), requires_grad=param.requires_grad))
        del param
        gc.collect()
        assert replaced and not any(whole() is not None for whole in replaced)


def test_what_an_objective_keeps_frozen_stays_as_it_is():
    objective = Probe()
    with frozen_parts(objective, (("frozen", 0.0),)):  # it is already
        assert objective.training and not objective.frozen.training
    assert not any(p.requires_grad for p in objective.frozen.parameters()) and not objective.frozen.training
    assert objective.head.weight.requires_grad and objective.head.training


def test_a_frozen_phase_is_refused():
    objective = Adversarial()
    with frozen_parts(objective, (("generator", 0.0),)), pytest.raises(UserError, match="nothing to train in phase"):
        AdamW().build(objective, objective.phases()[0])


@pytest.mark.parametrize(
    ("pattern", "factor", "nearest"),
    [
        ("netwrk", 0.0, "network"),
        ("network.block", 0.1, r"network\.blocks"),
        ("encoder", 0.0, "the nearest are "),
        ("network.head.weigh", 2.0, r"network\.head\.weight"),
    ],
)
def test_a_pattern_that_matches_nothing_names_the_nearest_part(tmp_path, pattern, factor, nearest):
    with pytest.raises(UserError, match=rf"optim\.rates: '{pattern}' matches .*Regression.*{nearest}"):
        train(tmp_path / "run", optim=AdamW(rates=((pattern, factor),)))
    assert not list((tmp_path / "run").iterdir())


def test_a_rate_of_what_is_frozen_anyway_is_refused():
    with (
        pytest.raises(UserError, match="'frozen' matches the beginning of no trained"),
        frozen_parts(Probe(), (("frozen", 0.1),)),
    ):
        pass


def test_a_pattern_that_is_no_regular_expression_is_refused():
    with pytest.raises(UserError, match=r"optim\.rates: '\[' is not a regular expression"):
        AdamW(rates=(("[", 0.0),))


def test_the_first_layers_are_frozen_by_their_number(tmp_path):
    objective = fresh(dropout=0.5)
    before = {name: p.detach().clone() for name, p in objective.named_parameters()}
    train(tmp_path, objective, optim=AdamW(lr=1e-2, freeze="1"), steps=2, save_every=1)
    moved = {name for name, p in objective.named_parameters() if not torch.equal(p, before[name])}
    assert moved == optimised(tmp_path) == {name for name in before if "blocks.0" not in name}
    with frozen_parts(objective, (), "1"):
        first, second = objective.network.blocks
        assert not any(part.training for part in first.modules()) and second.mlp[2].training
    assert all(part.training for part in objective.modules())


@pytest.mark.parametrize("system", ["recognition.vit", "recognition.video_swin", "recognition.finetuned"])
def test_a_frozen_backbone_leaves_the_head(system):
    objective = systems.find(f"{system}:tiny").objective.build()
    with frozen_parts(objective, (), "backbone"):
        trained = {name.partition(".")[0] for name, p in objective.named_parameters() if p.requires_grad}
        assert trained <= {"head", "norm"} and "head" in trained
        assert not any(part.training for part in objective.encoder.modules()) and objective.head.training


@pytest.mark.parametrize(
    ("objective", "freeze", "message"),
    [
        (Regression, "3", "has 3 layers: give 2 at most"),
        (Probe, "1", "tells no layers apart: freeze parts by"),
    ],
)
def test_layers_that_are_not_there_cannot_be_frozen(objective, freeze, message):
    with pytest.raises(UserError, match=message), frozen_parts(objective(), (), freeze):
        pass
    with pytest.raises(UserError, match=r"optim\.freeze is 'head': expected backbone, or a number"):
        AdamW(freeze="head")
