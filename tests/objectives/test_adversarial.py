import dataclasses

import pytest
import torch
import torch.nn.functional as F

from filmstrip.errors import UserError
from filmstrip.objectives.codebook import Codebook
from filmstrip.systems.tokenizers import vqgan
from filmstrip.weights.diffusers import from_diffusers, to_diffusers


def build(**changes):
    torch.manual_seed(0)
    return dataclasses.replace(vqgan.tiny().objective, **changes).build()


@pytest.fixture
def batch():
    return {"video": torch.rand(2, 2, 3, 32, 32, generator=torch.Generator().manual_seed(0))}


def gradients(module):
    return [p.grad for p in module.parameters() if p.grad is not None]


def test_each_phase_moves_its_own_part_only(batch):
    objective = build()
    assert [phase.name for phase in objective.phases()] == ["main", "discriminator"]
    objective(batch, "main").total.backward()
    assert gradients(objective.autoencoder) and gradients(objective.bottleneck)
    assert not gradients(objective.discriminator) and not gradients(objective.perceptual)
    objective.zero_grad()
    objective(batch, "discriminator").total.backward()
    assert gradients(objective.discriminator) and not gradients(objective.autoencoder)


def test_the_weight_balances_gradients_at_the_last_layer(batch):
    objective = build(adversarial_weight=0.5, gan_loss="hinge")
    last = objective.autoencoder.last_weight
    loss = objective(batch)
    rebuilt, passage = objective.pass_through(batch["video"])
    fooling = -objective.discriminator(rebuilt).mean()
    errors = loss.total - passage.loss - loss.metrics["adaptive_weight"] * fooling
    of_errors = torch.autograd.grad(errors, last, retain_graph=True)[0]
    of_fooling = torch.autograd.grad(loss.metrics["adaptive_weight"] * fooling, last)[0]
    torch.testing.assert_close(of_fooling.norm() / of_errors.norm(), torch.tensor(0.5), rtol=0.01, atol=0)


@pytest.mark.parametrize("gan_loss", ["hinge", "log"])
def test_discriminator_losses(batch, gan_loss):
    objective = build(gan_loss=gan_loss)
    with torch.no_grad():
        rebuilt, _ = objective.pass_through(batch["video"])
        real, made = objective.discriminator(batch["video"]), objective.discriminator(rebuilt)
    if gan_loss == "hinge":
        expected = (F.relu(1 - real).mean() + F.relu(1 + made).mean()) / 2
    else:
        expected = -(real.sigmoid().log().mean() + (1 - made.sigmoid()).log().mean()) / 2
    torch.testing.assert_close(objective(batch, "discriminator").total, expected)


def test_the_discriminator_joins_at_its_step(batch):
    objective = build(start=3)
    for step in range(1, 4):
        loss = objective(batch)
        assert loss.metrics["adaptive_weight"] == 0 and objective(batch, "discriminator").total == 0
        objective.after_step(step)
    assert objective(batch).metrics["adaptive_weight"] > 0
    assert objective(batch, "discriminator").total > 0
    again = build(start=3)
    again.load_state_dict(objective.state_dict())
    assert again(batch).metrics["adaptive_weight"] > 0


def test_it_can_be_evaluated_without_gradients(batch):
    objective = build().eval()
    with torch.inference_mode():
        loss = objective(batch)
    assert loss.total.isfinite() and loss.metrics["adaptive_weight"] == 0


def test_the_stand_in_is_named_in_the_metrics(batch):
    metrics = build()(batch).metrics
    assert "random_features" in metrics and "lpips" not in metrics


def test_autoencoders_of_diffusers_fit_whole_or_not_at_all():
    config = vqgan.VQGANConfig(codebook=Codebook(kind="learnt", size=16, dim=8), widths=(16, 32), depth=1, groups=8)
    ours = config.build().state_dict()
    theirs = to_diffusers(ours)
    assert from_diffusers(theirs, ours)
    with pytest.raises(UserError, match=r"no place for: encoder\.extra\.bias"):
        from_diffusers(theirs | {"encoder.extra.bias": torch.ones(1)}, ours)
    without_codes = {name: tensor for name, tensor in theirs.items() if not name.startswith("quantize.")}
    with pytest.raises(UserError, match=r"lacks quantize\.embedding\.weight"):
        from_diffusers(without_codes, ours)
    with pytest.raises(UserError, match=r"no place for: quantize\.embedding\.weight"):
        from_diffusers(theirs, {name: tensor for name, tensor in ours.items() if name != "bottleneck.codes"})
