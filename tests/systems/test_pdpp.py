"""What makes PDPP a projected diffusion."""

from dataclasses import replace

import pytest
import torch

from filmstrip.errors import UserError
from filmstrip.systems.procedures import pdpp

TASKS, STEPS = 3, 6


def network(**changes):
    torch.manual_seed(0)
    config = replace(
        pdpp.tiny().objective, num_steps=STEPS, num_tasks=TASKS, feature_width=4, num_tokens=2, **changes
    )
    built = config.build().eval()
    for parameter in built.unet.parameters():  # convolutions that begin at zero would leave nothing to test
        torch.nn.init.normal_(parameter, std=0.2)
    return built


def conditions():
    generator = torch.Generator().manual_seed(1)
    return torch.randn(2, 2, 2, 4, generator=generator), torch.eye(TASKS)[[2, 0]]


@pytest.mark.parametrize("sampling_steps", [None, 5])
def test_denoising_never_changes_what_is_known(sampling_steps):
    model, (ends, task) = network(sampling_steps=sampling_steps), conditions()
    seen = []
    model.unet.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].clone()))
    with torch.no_grad():
        seen.append(model.denoise(ends, task, 4, torch.arange(2)))
    assert len(seen) == (sampling_steps or 20) + 1
    for x in seen:
        assert torch.equal(x[..., :TASKS], task[:, None].expand(2, 4, TASKS))
        assert torch.equal(x[:, [0, -1], TASKS + STEPS :], ends.flatten(2))
        assert not x[:, 1:-1, TASKS + STEPS :].any()
    plans = torch.stack(seen)[..., TASKS : TASKS + STEPS]
    assert (plans[1:] - plans[:-1]).abs().amax(dim=(1, 2, 3)).min() > 1e-3


def test_only_steps_are_learned_by_the_denoiser():
    model, (ends, _) = network(), conditions()
    model.unet.forward = lambda x, time: (
        x
        + torch.cat(
            [torch.full_like(x[..., :TASKS], 9.0), 0 * x[..., TASKS : TASKS + STEPS], x[..., TASKS + STEPS :] * 9],
            dim=-1,
        )
    )
    model.kept.fill_(1.0)  # no noise: a denoiser that copies has no error in its steps
    window = {
        "features": torch.nn.functional.pad(ends[:, :1], (0, 0, 0, 0, 0, 4)) + 0,
        "seen": torch.tensor([[True, False, False, False, True]]).expand(2, 5),
        "target": torch.tensor([[False, True, True, True, False]]).expand(2, 5),
        "step": torch.tensor([[-1, 1, 2, 3, -1]]).expand(2, 5),
        "task": torch.tensor([2, 0]),
        "seed": torch.arange(2),
    }
    window["features"][:, 4] = ends[:, 1]
    assert model(window).metrics["error"].item() == 0


def test_the_schedule_falls_from_nearly_all_to_nearly_nothing():
    kept = pdpp.cosine_schedule(200)
    assert (kept.diff() < 0).all() and kept[0] > 0.999 and kept[-1] < 1e-4


def test_a_perfect_denoiser_is_followed_to_the_end():
    plan = torch.eye(STEPS)[[4, 1, 1, 0]]
    for sampling_steps in (None, 5):
        model, (ends, task) = network(sampling_steps=sampling_steps), conditions()
        model.unet.forward = lambda x, time: torch.cat(
            [x[..., :TASKS], plan.expand(2, 4, STEPS), x[..., TASKS + STEPS :]], dim=-1
        )
        found = model.denoise(ends, task, 4, torch.arange(2))[..., TASKS : TASKS + STEPS]
        torch.testing.assert_close(found, plan.expand(2, 4, STEPS), rtol=0, atol=1e-4)


def test_samples_differ_and_belong_to_their_seed():
    model, (ends, _) = network(), conditions()
    with torch.no_grad():
        one, again, other = (model.plan(ends, 3, torch.tensor([a, b])) for a, b in ((1, 2), (1, 2), (2, 1)))
    assert torch.equal(one, again) and not torch.equal(one, other)


def test_short_plans_are_refused():
    model, (ends, task) = network(), conditions()
    with pytest.raises(UserError, match="3 steps or more"):
        model.denoise(ends, task, 2, torch.arange(2))
    with pytest.raises(UserError, match="1 to 20"):
        network(sampling_steps=21)
