"""PDPP (``procedures.pdpp``) and the published code, by stored outputs, with the same noise."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from published import TOLERANCE, recipe_input, stored

from filmstrip.errors import UserError
from filmstrip.runs.initial_weights import start
from filmstrip.systems.procedures import pdpp
from filmstrip.systems.procedures.pdpp import PDPPConfig

CONFIG = PDPPConfig(
    num_steps=7, num_tasks=3, feature_width=12, num_tokens=1, widths=(64, 128), diffusion_steps=20, ends_weight=10.0
)
SHAPE = (2, 3, 22)
ENDS, TASK = recipe_input("ends", (2, 2, 12))[:, :, None], torch.tensor([2, 0])
TIMES = torch.tensor([3, 17])


@pytest.fixture
def model():
    model = CONFIG.build().eval()
    unet, classifier = parts(stored("pdpp").weights())
    loaded = model.from_published(unet) | model.from_published(classifier)
    assert loaded.keys() == model.state_dict().keys()
    model.load_state_dict(loaded)
    return model


def parts(weights):
    unet = {name: tensor for name, tensor in weights.items() if name.startswith("model.")}
    return unet, {name: tensor for name, tensor in weights.items() if name not in unet}


@pytest.fixture
def noise(monkeypatch):
    """The recipe's noise in the order in which the published code drew it, in place of that of the seeds."""

    def normal(seeds, count, use, *index):
        name = {
            "pdpp.noise": "noise101",
            "pdpp.start": "start",
            "pdpp.fresh_noise": f"noise{20 - sum(index)}",
        }[use]
        return recipe_input(name, SHAPE).flatten(1)

    monkeypatch.setattr(pdpp, "normal", normal)
    monkeypatch.setattr(pdpp, "uniform", lambda seeds, count, use: (TIMES[:, None] + 0.5) / 20)


@torch.no_grad()
def test_networks_agree(model):
    kept = stored("pdpp")
    assert kept.error("denoised", model.unet(recipe_input("x", SHAPE), torch.tensor([0, 13]))) < TOLERANCE
    assert kept.error("task_logits", model.classifier(ENDS.flatten(2))) < TOLERANCE
    assert set(kept.eps.values()) == {m.eps for m in model.modules() if isinstance(m, torch.nn.GroupNorm)}


@torch.no_grad()
@pytest.mark.parametrize(("name", "steps"), [("plan_ddpm", None), ("plan_ddim", 10)])
def test_plans_agree(model, noise, name, steps):
    model.config = replace(model.config, sampling_steps=steps)
    plan = model.denoise(ENDS, F.one_hot(TASK, 3), 3, torch.zeros(2))
    assert stored("pdpp").error(name, plan) < TOLERANCE


@torch.no_grad()
def test_errors_agree(model, noise):
    steps = torch.tensor([[1, 4, 6], [0, 0, 2]])
    batch = {
        "features": torch.cat([ENDS[:, :1], torch.zeros(2, 3, 1, 12), ENDS[:, 1:]], dim=1),
        "seen": torch.tensor([[1, 0, 0, 0, 1]] * 2).bool(),
        "target": torch.tensor([[0, 1, 1, 1, 0]] * 2).bool(),
        "step": F.pad(steps, (1, 1), value=-1),
        "task": TASK,
        "seed": torch.zeros(2, dtype=torch.long),
    }
    # Theirs is the sum over the batch, ours its mean.
    assert stored("pdpp").error("error", 2 * model(batch).metrics["error"][None]) < TOLERANCE


def test_released_files_start_a_whole_part_or_nothing(model, tmp_path):
    unet, classifier = parts(stored("pdpp").weights())
    other, file = CONFIG.build(), tmp_path / "epoch.pth.tar"
    constants = {"betas": torch.ones(20), "sqrt_recipm1_alphas_cumprod": torch.ones(20)}
    torch.save({"ema": unet | constants, "model": {}, "epoch": 1}, file)
    before = other.classifier.head.weight.clone()
    start(other, file)
    assert all(torch.equal(a, b) for a, b in zip(other.unet.parameters(), model.unet.parameters()))
    assert torch.equal(other.classifier.head.weight, before)
    torch.save({"model": {f"module.{name}": tensor for name, tensor in classifier.items()}}, file)
    start(other, file)
    assert all(torch.equal(a, b) for a, b in zip(other.parameters(), model.parameters()))
    torch.save({"ema": unet | {"alphas": torch.ones(20)}}, file)
    with pytest.raises(UserError, match=r"no place for: alphas$"):
        start(other, file)
    torch.save({"model": {name: t for name, t in classifier.items() if name != "fc3.bias"}}, file)
    with pytest.raises(UserError, match=r"lacks fc3\.bias;"):
        start(other, file)
