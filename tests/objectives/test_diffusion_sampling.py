"""Samplers: DDIM and its inverse against diffusers, second order against first, and inversion that comes back."""

import pytest
import torch

from filmstrip.errors import UserError
from filmstrip.objectives.diffusion import DiffusionConfig
from filmstrip.objectives.diffusion_sampling import DiffusionSampling, denoise, invert

V = DiffusionConfig(prediction="v", zero_terminal_snr=True)
EPSILON = DiffusionConfig(prediction="epsilon")
FLOW = DiffusionConfig(prediction="velocity")
KINDS = {"epsilon": "epsilon", "v": "v_prediction", "clean": "sample"}


def ideal(process, spread=0.5, mean=0.3):
    """The best prediction for signals from a normal distribution, exact at every time: smooth, and nonlinear in
    time."""

    def predict(x, time):
        alpha, sigma = (level.view(-1, 1, 1) for level in process.levels(time))
        total = alpha**2 * spread**2 + sigma**2
        clean = mean + alpha * spread**2 / total * (x - alpha * mean)
        noise = sigma / total * (x - alpha * mean)
        return {
            "epsilon": noise,
            "clean": clean,
            "velocity": noise - clean,
            "v": alpha * noise - sigma * clean,
        }[process.prediction]

    return predict


def wavy(x, time):
    """Any function of signals and time."""
    return torch.sin(2 * x) + 0.3 * x + (time / 1000).view(-1, 1, 1)


def noise(seed=0):
    return torch.randn(2, 3, 8, generator=torch.Generator().manual_seed(seed))


def by_diffusers(scheduler, x, steps, predict):
    scheduler.set_timesteps(steps)
    for time in scheduler.timesteps:
        x = scheduler.step(predict(x, time.expand(len(x))), time, x).prev_sample
    return x


@pytest.mark.parametrize("config", [V, EPSILON, DiffusionConfig(prediction="clean", schedule="linear")])
@pytest.mark.parametrize("spacing", ["trailing", "leading"])
def test_ddim_is_that_of_diffusers(config, spacing):
    from diffusers import DDIMScheduler

    scheduler = DDIMScheduler(
        beta_start=config.beta_start,
        beta_end=config.beta_end,
        beta_schedule=config.schedule,
        prediction_type=KINDS[config.prediction],
        rescale_betas_zero_snr=config.zero_terminal_snr,
        timestep_spacing=spacing,
        clip_sample=False,
    )
    theirs = by_diffusers(scheduler, noise(), 50, wavy)
    ours = denoise(config.build(), wavy, noise(), DiffusionSampling(steps=50, spacing=spacing))
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("config", [V, EPSILON])
def test_its_inverse_is_that_of_diffusers(config):
    from diffusers import DDIMInverseScheduler

    scheduler = DDIMInverseScheduler(
        beta_start=config.beta_start,
        beta_end=config.beta_end,
        beta_schedule=config.schedule,
        prediction_type=KINDS[config.prediction],
        rescale_betas_zero_snr=config.zero_terminal_snr,
        timestep_spacing="trailing",
        clip_sample=False,
    )
    theirs = by_diffusers(scheduler, noise(), 50, wavy)
    ours = invert(config.build(), wavy, noise(), DiffusionSampling(steps=50))
    assert len(ours) == 51 and torch.equal(ours[-1], noise())
    torch.testing.assert_close(ours[0], theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("config", [V, EPSILON, FLOW], ids=lambda config: config.prediction)
def test_inversion_comes_back_the_better_the_more_steps(config):
    process = config.build()
    predict, clean = ideal(process), 0.3 + 0.5 * noise()

    def error(steps, refinements=0):
        sampling = DiffusionSampling(steps=steps, refinements=refinements)
        start = invert(process, predict, clean, sampling)[0]
        return (denoise(process, predict, start, sampling) - clean).abs().max().item()

    errors = [error(steps) for steps in (10, 40, 160)]
    assert errors[0] > 2 * errors[1] > 4 * errors[2] and errors[2] < 0.05
    assert error(40, refinements=6) < errors[1] / 10


@pytest.mark.parametrize("config", [V, FLOW], ids=lambda config: config.prediction)
def test_the_midpoint_rule_is_nearer_at_equal_calls(config):
    process = config.build()
    exact = 0.3 + 0.5 * noise()  # where the flow of a normal distribution carries it

    def error(solver, steps):
        found = denoise(process, ideal(process), noise(), DiffusionSampling(solver=solver, steps=steps))
        return (found - exact).abs().max().item()

    assert error("midpoint", 20) < error("ddim", 40) / 2


@pytest.mark.parametrize(
    ("solver", "config"),
    [
        *((solver, config) for solver in ("euler", "heun", "dpm_solver", "uni_pc") for config in (V, EPSILON)),
        ("uni_pc", FLOW),
    ],
    ids=lambda value: getattr(value, "prediction", value),
)
def test_other_solvers_end_where_ddim_does(solver, config):
    process = config.build()
    predict = ideal(process)
    exact = denoise(process, predict, noise(), DiffusionSampling(steps=1000))
    found = denoise(process, predict, noise(), DiffusionSampling(solver=solver, steps=100))
    torch.testing.assert_close(found, exact, rtol=0, atol=0.05)


def test_fresh_noise_is_each_samples_own_and_leaves_the_distribution():
    process = V.build()
    x = torch.randn(2000, 1, 4, generator=torch.Generator().manual_seed(3))
    seeds, sampling = torch.arange(2000), DiffusionSampling(steps=250, eta=1.0)
    found = denoise(process, ideal(process), x, sampling, seeds=seeds)
    assert found.mean() == pytest.approx(0.3, abs=0.03) and found.std() == pytest.approx(0.5, abs=0.03)
    alone = denoise(process, ideal(process), x[7:8], sampling, seeds=seeds[7:8])
    torch.testing.assert_close(alone[0], found[7])
    assert not torch.allclose(alone[0], denoise(process, ideal(process), x[7:8], DiffusionSampling(steps=250))[0])


def test_what_a_solver_cannot_do_is_refused():
    process = FLOW.build()
    with pytest.raises(UserError, match="ddim, midpoint or uni_pc"):
        denoise(process, wavy, noise(), DiffusionSampling(solver="heun"))
    with pytest.raises(UserError, match="eta"):
        denoise(process, wavy, noise(), DiffusionSampling(eta=1.0), seeds=torch.arange(2))
    with pytest.raises(UserError, match="only goes from noise"):
        denoise(V.build(), wavy, noise(), DiffusionSampling(solver="heun"), first=3)
