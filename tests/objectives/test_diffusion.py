"""Diffusion: schedules, what is predicted, conditions that are dropped, and guidance by several conditions."""

import itertools

import pytest
import torch

from filmstrip.errors import UserError
from filmstrip.nn.noise_schedule import flow_levels, kept_signal
from filmstrip.objectives.diffusion import ConditionDropout, DiffusionConfig, guided_in_order

ZERO_SNR = DiffusionConfig(prediction="v", zero_terminal_snr=True)
KINDS = [
    DiffusionConfig(prediction="epsilon"),
    ZERO_SNR,
    DiffusionConfig(prediction="clean", schedule="cosine"),
    DiffusionConfig(prediction="velocity", shift=3.0),
]


@pytest.mark.parametrize("schedule", ["linear", "scaled_linear", "cosine"])
def test_the_signal_only_falls_and_a_rescaled_one_ends_at_nothing(schedule):
    plain = kept_signal(1000, schedule=schedule, start=0.00085, end=0.012)
    rescaled = kept_signal(1000, schedule=schedule, start=0.00085, end=0.012, zero_terminal_snr=True)
    assert (plain.diff() < 0).all() and (rescaled.diff() < 0).all()
    assert plain[-1] > 0 and rescaled[-1] == 0
    torch.testing.assert_close(rescaled[0], plain[0])


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_flow_levels_are_those_of_diffusers(shift):
    from diffusers import FlowMatchEulerDiscreteScheduler

    scheduler = FlowMatchEulerDiscreteScheduler(shift=shift)
    scheduler.set_timesteps(24)
    torch.testing.assert_close(torch.tensor(flow_levels(24, shift)), scheduler.sigmas, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("config", KINDS, ids=lambda config: config.prediction)
def test_a_true_prediction_gives_signal_and_noise_back(config):
    process = config.build()
    generator = torch.Generator().manual_seed(0)
    clean, noise = (torch.randn(5, 3, 4, generator=generator) for _ in range(2))
    time = torch.tensor([1, 250, 500, 750, 990])
    noisy = process.noised(clean, noise, time)
    split = process.split(noisy, process.target(clean, noise, time), time)
    torch.testing.assert_close(split.clean, clean, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(split.noise, noise, rtol=1e-3, atol=1e-3)


def test_the_last_time_of_a_zero_terminal_schedule_is_noise_alone_and_asks_for_the_signal():
    process = ZERO_SNR.build()
    clean, noise, last = torch.randn(2, 3), torch.randn(2, 3), torch.tensor([999, 999])
    assert torch.equal(process.noised(clean, noise, last), noise)
    assert torch.equal(process.target(clean, noise, last), -clean)
    assert process.times(64)[0] == 999 and DiffusionConfig().build().times(50, "leading")[0] == 980


def test_settings_that_contradict_each_other_are_refused():
    with pytest.raises(UserError, match="v or clean"):
        DiffusionConfig(prediction="epsilon", zero_terminal_snr=True).build()
    with pytest.raises(UserError, match="min_snr"):
        DiffusionConfig(zero_terminal_snr=True, min_snr=5.0).build()
    with pytest.raises(UserError, match="1000 times"):
        ZERO_SNR.build().times(1001)


def test_weights_by_the_smaller_ratio_are_one_where_noise_is_little_for_noise_and_fall_with_it():
    time = torch.tensor([0, 400, 999])
    for prediction in ("epsilon", "v", "clean"):
        process = DiffusionConfig(prediction=prediction, min_snr=5.0).build()
        alpha, sigma = process.levels(time)
        ratio = (alpha / sigma) ** 2
        # The weight of the same error in the clean signal is the capped ratio, whatever is predicted.
        of_clean = {"epsilon": ratio, "v": ratio + 1, "clean": torch.ones(3)}[prediction]
        torch.testing.assert_close(process.weights(time) * of_clean, ratio.clamp(max=5.0))
    assert torch.equal(ZERO_SNR.build().weights(time), torch.ones(3))


def test_the_loss_of_a_perfect_network_is_zero_and_of_none_the_targets_size():
    process = ZERO_SNR.build()
    clean, seeds = torch.randn(64, 2, 8), torch.arange(64)

    def perfect(noisy, time):
        alpha, sigma = (level.view(-1, 1, 1) for level in process.levels(time))
        noise = torch.where(sigma > 0, (noisy - alpha * clean) / sigma, noisy)
        return alpha * noise - sigma * clean

    losses, times = process.losses(perfect, clean, seeds, "test")
    assert losses.max() < 1e-6 and times.min() >= 0 and times.max() <= 999 and times.float().std() > 200
    nothing, again = process.losses(lambda noisy, time: torch.zeros_like(noisy), clean, seeds, "test")
    assert torch.equal(times, again) and 0.7 < nothing.mean() < 1.3


TABLE = ConditionDropout(
    table=tuple((row, 0.1) for row in ("text", "image", "motion", "text+image", "text+motion", "image+motion")),
    also=(("motion", 0.5),),
)
NAMES = ("image", "text", "motion")


def test_conditions_are_dropped_as_often_as_the_table_says():
    dropped = TABLE.draw(torch.arange(100_000), NAMES, "test")
    image, text, motion = (dropped[name] for name in NAMES)

    def share(*condition):
        return torch.stack(condition).all(dim=0).float().mean().item()

    wanted = {
        share(~image, ~text, ~motion): 0.20,
        share(~image, ~text, motion): 0.30,
        share(~image, text, motion): 0.15,
        share(image, text, motion): 0.05,
        share(~image, text, ~motion): 0.05,
        share(image, ~text, ~motion): 0.05,
        share(image, text, ~motion): 0.05,
        share(image, ~text, motion): 0.15,
        share(motion): 0.65,
    }
    assert all(found == pytest.approx(expected, abs=0.01) for found, expected in wanted.items())


def test_a_table_of_other_conditions_or_of_more_than_all_is_refused():
    with pytest.raises(UserError, match="names motion"):
        TABLE.check(("image", "text"))
    with pytest.raises(UserError, match=r"sum to 1\.2"):
        ConditionDropout(table=(("text", 0.6), ("image", 0.6))).check(NAMES)


class Calls:
    """A network whose prediction depends on which conditions it has; counts its calls."""

    def __init__(self):
        generator = torch.Generator().manual_seed(1)
        sets = [frozenset(c) for n in range(4) for c in itertools.combinations(NAMES, n)]
        self.values = {given: torch.randn(4, 5, generator=generator) for given in sets}
        self.made = []

    def __call__(self, given):
        self.made.append(given)
        return self.values[given]


def test_guidance_is_the_sum_of_differences_in_the_stated_order():
    calls = Calls()
    found = guided_in_order(calls, NAMES, {"image": 1.5, "text": 7.5, "motion": 2.0})
    none, image, both, every = (calls.values[frozenset(NAMES[:n])] for n in range(4))
    torch.testing.assert_close(found, none + 1.5 * (image - none) + 7.5 * (both - image) + 2.0 * (every - both))
    assert len(calls.made) == 4


def test_scales_of_one_are_the_conditional_prediction_bit_for_bit_and_zeros_save_calls():
    calls = Calls()
    found = guided_in_order(calls, NAMES, dict.fromkeys(NAMES, 1.0))
    assert torch.equal(found, calls.values[frozenset(NAMES)]) and len(calls.made) == 1
    calls = Calls()
    guided_in_order(calls, NAMES, {"image": 1.5, "text": 7.5, "motion": 0.0})
    assert len(calls.made) == 3 and frozenset(NAMES) not in calls.made
    assert torch.equal(guided_in_order(calls, NAMES, dict.fromkeys(NAMES, 0.0)), calls.values[frozenset()])
