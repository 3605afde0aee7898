"""Optimisers: their groups, their rates, and that each trains, resumes and is chosen."""

import pytest
import torch
from safetensors.torch import load_file
from toys import Adversarial, Network, Regression, Stream, differing, losses, train, weights

from filmstrip.errors import UserError
from filmstrip.protocols import Objective
from filmstrip.runs.saved_states import newest_state
from filmstrip.train.config import Loop
from filmstrip.train.lengths import Epochs, Steps
from filmstrip.train.loop import total_steps
from filmstrip.train.optim import OPTIMISERS, SGD, AdamW, Muon, Optim, set_rates
from filmstrip.train.schedules import Constant, Cosine


def built(objective, optim):
    return [optim.build(objective, phase) for phase in objective.phases()]


def by_name(optimiser, key):
    return {name: group[key] for group in optimiser.param_groups for name in group["param_names"]}


def test_sgd_and_its_momentum():
    (optimiser,) = built(Regression(), SGD())
    assert isinstance(optimiser, torch.optim.SGD)
    assert all(group["momentum"] == 0.9 and group["nesterov"] for group in optimiser.param_groups)
    (optimiser,) = built(Regression(), SGD(momentum=0.7, nesterov=False))
    assert all(group["momentum"] == 0.7 and not group["nesterov"] for group in optimiser.param_groups)
    (optimiser,) = built(Regression(), SGD(momentum=0.0))
    assert all(group["momentum"] == 0 and not group["nesterov"] for group in optimiser.param_groups)


def test_adamw_and_its_settings():
    (optimiser,) = built(Regression(), AdamW(betas=(0.5, 0.6), eps=1e-3))
    assert isinstance(optimiser, torch.optim.AdamW)
    assert all(group["betas"] == (0.5, 0.6) and group["eps"] == 1e-3 for group in optimiser.param_groups)


def test_layers_further_from_the_output_learn_slower():
    (optimiser,) = built(Regression(), AdamW(lr=1.0, layer_decay=0.5, weight_decay=0.1))
    rates, decays = by_name(optimiser, "lr"), by_name(optimiser, "weight_decay")
    assert rates["network.blocks.0.mlp.0.weight"] == 0.25
    assert rates["network.blocks.1.mlp.0.weight"] == 0.5
    assert rates["network.head.weight"] == rates["network.head.bias"] == 1.0
    assert decays["network.head.weight"] == 0.1
    assert decays["network.head.bias"] == decays["network.blocks.0.norm.weight"] == 0.0


def test_a_step_sets_every_groups_rate_and_weight_decay():
    optim = AdamW(
        lr=1.0, layer_decay=0.5, weight_decay=0.1, weight_decay_end=0.3, schedule=Cosine(warmup=0.0, final=0.2)
    )
    optimisers = built(Regression(), optim)
    set_rates(optimisers, optim, 3, 10)
    assert set_rates(optimisers, optim, 5, 10) == pytest.approx(0.6)  # of the peak, not of what was set last
    assert sorted({round(rate, 6) for rate in by_name(optimisers[0], "lr").values()}) == [0.15, 0.3, 0.6]
    decays = by_name(optimisers[0], "weight_decay")
    assert decays["network.head.weight"] == pytest.approx(0.2) and decays["network.head.bias"] == 0.0


def test_each_phase_has_its_own_parameters_and_each_parameter_one_phase():
    objective = Adversarial()
    generator, discriminator = built(objective, AdamW())
    held = [{id(p) for g in one.param_groups for p in g["params"]} for one in (generator, discriminator)]
    assert held[0] == {id(p) for p in objective.generator.parameters()}
    assert held[1] == {id(p) for p in objective.discriminator.parameters()}


def test_frozen_parameters_are_in_no_optimiser():
    objective = Regression()
    objective.network.blocks.requires_grad_(False)
    (optimiser,) = built(objective, AdamW())
    assert sum(len(g["params"]) for g in optimiser.param_groups) == 2
    objective.requires_grad_(False)
    with pytest.raises(UserError, match=r"Regression has nothing to train in phase 'main'"):
        built(objective, AdamW())


class Embedded(Objective):
    """Blocks between a table of embeddings and a head, with a convolution in a block."""

    def __init__(self):
        super().__init__()
        self.embed = torch.nn.Embedding(10, 96)
        self.network = Network(depth=2)
        self.network.blocks[1].conv = torch.nn.Conv1d(4, 4, 3)

    def depth_of(self, name):
        return int(name.split(".")[2]) if ".blocks." in name else 2


def test_muon_has_the_matrices_of_the_blocks_and_adamw_the_rest():
    (joint,) = built(Embedded(), Muon(lr=0.5, adamw_lr=0.25, weight_decay=0.1, layer_decay=0.5, betas=(0.7, 0.8)))
    muon = {name for group in joint.param_groups if "ns_steps" in group for name in group["param_names"]}
    assert muon == {f"network.blocks.{i}.mlp.{j}.weight" for i in (0, 1) for j in (0, 3)}
    names = [name for group in joint.param_groups for name in group["param_names"]]
    assert sorted(names) == sorted(name for name, _ in Embedded().named_parameters())
    rates, decays = by_name(joint, "lr"), by_name(joint, "weight_decay")
    assert rates["network.blocks.0.mlp.0.weight"] == 0.125 and rates["network.blocks.0.mlp.0.bias"] == 0.0625
    assert rates["embed.weight"] == rates["network.head.weight"] == 0.25
    assert decays["network.blocks.0.mlp.0.weight"] == 0.1 and decays["network.blocks.1.conv.bias"] == 0.0
    assert all(group["betas"] == (0.7, 0.8) for group in joint.param_groups if "betas" in group)


def test_muon_without_a_block_to_train_is_refused():
    with pytest.raises(UserError, match=r"Adversarial trains none in phase 'generator': use --optim adamw"):
        built(Adversarial(), Muon())


def test_muon_does_what_torchs_optimisers_do_one_beside_the_other(tmp_path):
    optim = Muon(lr=0.01, adamw_lr=1e-3, weight_decay=0.1, schedule=Constant())
    trained = train(tmp_path, steps=3, optim=optim, clip_grad=None)
    torch.manual_seed(0)
    plain = Regression()
    named = dict(plain.named_parameters())
    matrices = [p for name, p in named.items() if "blocks" in name and p.ndim == 2]
    others = [
        {"params": [p], "weight_decay": 0.1 if name == "network.head.weight" else 0.0}
        for name, p in named.items()
        if not any(p is matrix for matrix in matrices)
    ]
    optimisers = [
        torch.optim.Muon(matrices, lr=0.01, weight_decay=0.1, momentum=0.95),
        torch.optim.AdamW(others, lr=1e-3, betas=(0.9, 0.95)),
    ]
    for _, batch in zip(range(3), Stream().stream(0)):
        plain(batch).total.backward()
        for optimiser in optimisers:
            optimiser.step()
            optimiser.zero_grad()
    # Muon multiplies in bfloat16: where a gradient differs by rounding, an update of lr does by up to 2**-7 of it.
    for name, param in trained.named_parameters():
        is_matrix = any(named[name] is matrix for matrix in matrices)
        assert torch.allclose(param, named[name], atol=0.01 * 2**-7 if is_matrix else 1e-6), name


@pytest.mark.parametrize("optim", [AdamW(lr=1e-2), SGD(lr=1e-2), Muon(lr=5e-3, adamw_lr=1e-2)])
def test_each_trains(tmp_path, optim):
    train(tmp_path, steps=60, optim=optim)
    found = losses(tmp_path)
    assert sum(found[-5:]) < 0.5 * sum(found[:5])


class PowerCut(Exception):
    pass


@pytest.mark.parametrize(
    "optim",
    [
        AdamW(lr=1e-2, weight_decay=0.04, weight_decay_end=0.4, eps=1e-6),
        SGD(lr=1e-2, momentum=0.8),
        SGD(lr=1e-2, momentum=0.0),
        Muon(lr=5e-3, schedule=Cosine(warmup=Steps(2))),
        Muon(lr=5e-3, rates=((r"network\.blocks\.0", 0.0), ("network.head", 3.0))),
    ],
)
def test_each_resumes_bit_by_bit(tmp_path, optim):
    def cut(step):
        if step == 5:
            raise PowerCut

    through = train(tmp_path / "through", optim=optim, save_every=2, ema=0.9)
    with pytest.raises(PowerCut):
        train(tmp_path / "broken", optim=optim, save_every=2, ema=0.9, before=cut)
    resumed = train(tmp_path / "broken", optim=optim, save_every=2, ema=0.9)
    assert differing(through.state_dict(), resumed.state_dict()) == []
    assert differing(weights(tmp_path / "through"), weights(tmp_path / "broken")) == []
    assert losses(tmp_path / "through") == losses(tmp_path / "broken")


def test_the_space_for_a_state_is_what_an_optimiser_keeps(tmp_path):
    for name, optim in {"adamw": AdamW(), "sgd": SGD(), "muon": Muon()}.items():
        trained = train(tmp_path / name, steps=1, optim=optim)
        saved = load_file(newest_state(tmp_path / name / "state").tensors)
        kept = sum(t.numel() for key, t in saved.items() if key.startswith("optimiser/") and t.ndim > 0)
        size = sum(p.numel() for p in trained.parameters())
        assert kept <= optim.moments * size and (kept == optim.moments * size or name == "muon")


def test_another_optimiser_keeps_schedule_and_factors():
    old = AdamW(lr=5.0, weight_decay=0.5, layer_decay=0.7, rates=(("a", 2.0),), schedule=Constant(start=0.1))
    new = old.changed_to(Muon)
    assert new == Muon(layer_decay=0.7, rates=(("a", 2.0),), schedule=Constant(start=0.1))
    assert old.changed_to(AdamW) == old
    assert set(OPTIMISERS.values()) == set(Optim.__subclasses__())


def test_total_steps():
    assert total_steps(Loop(length=Steps(7)), 2.5) == 7
    assert total_steps(Loop(length=Epochs(3)), 2.5) == 8
    with pytest.raises(UserError, match="at least one step"):
        total_steps(Loop(length=Steps(0)), 2.5)


def test_a_phase_has_its_own_eps_and_norm(tmp_path):
    torch.manual_seed(0)
    objective = Adversarial()
    optim = AdamW(lr=1e-3, eps=1e-8, phase_eps=(("discriminator", 1e-2),))
    found = {phase.name: optim.build(objective, phase).param_groups[0]["eps"] for phase in objective.phases()}
    assert found == {"generator": 1e-8, "discriminator": 1e-2}
    start = {name: value.clone() for name, value in objective.state_dict().items()}
    sgd = SGD(lr=1.0, weight_decay=0.0, momentum=0.0, nesterov=False, schedule=Constant())
    trained = train(
        tmp_path / "run", objective, steps=1, optim=sgd, clip_grad=1e-3, phase_clip_grad=(("discriminator", 1e-5),)
    )
    for part, norm in (("generator", 1e-3), ("discriminator", 1e-5)):
        moved = [(value - start[name]).square().sum() for name, value in trained.state_dict().items() if part in name]
        assert torch.stack(moved).sum().sqrt().item() == pytest.approx(norm, rel=1e-2)
    with pytest.raises(UserError, match="names 'actor': Adversarial has the phases generator, discriminator"):
        train(tmp_path / "other", Adversarial(), steps=1, optim=sgd, phase_clip_grad=(("actor", 1.0),))
