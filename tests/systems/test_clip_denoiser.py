"""Denoising that is learnt through: the schedule, guidance, windows, recomputation."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from filmstrip.systems.procedures.vedit import ClipDenoiser, VEDITConfig

diffusers = pytest.importorskip("diffusers")
WIDTH, TOKENS = 6, 2


def denoiser(**options):
    torch.manual_seed(0)
    few = {"denoising_steps": 3, "guidance": 2.0, "num_targets": None}
    config = VEDITConfig(feature_width=WIDTH, width=16, depth=2, num_heads=2, **(few | options))
    module = ClipDenoiser(config)
    for parameter in module.network.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return module


def windows(rows):
    """Windows from strings: ``s`` seen, ``t`` asked for, ``.`` padding; the clips depend on the place among seen."""
    seen = torch.tensor([[c == "s" for c in row] for row in rows])
    target = torch.tensor([[c == "t" for c in row] for row in rows])
    clips = torch.randn(3, 10, TOKENS, WIDTH, generator=torch.Generator().manual_seed(1))
    features = torch.zeros(len(rows), len(rows[0]), TOKENS, WIDTH)
    for b in range(len(rows)):
        features[b, seen[b]] = clips[b, : seen[b].sum()]
    return features, seen, target, torch.arange(len(rows))


@torch.no_grad()
def predicted(module, rows):
    """The clips that were asked for, row by row."""
    found = module.eval().predict(*windows(rows))
    return [clips[used] for clips, used in zip(found.clips, found.used)]


@pytest.mark.parametrize("shift", [1.0, 3.0])
@pytest.mark.parametrize("steps", [1, 2, 24, 48])
def test_euler_steps_are_those_of_diffusers(steps, shift):
    module, velocities = denoiser(denoising_steps=steps, shift=shift), torch.randn(steps, 1, 1, TOKENS, WIDTH)
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=shift)
    scheduler.set_timesteps(steps)
    noise = theirs = torch.randn(1, 1, TOKENS, WIDTH)
    for time, velocity in zip(scheduler.timesteps, velocities):
        theirs = scheduler.step(velocity, time, theirs).prev_sample
    stream = iter(velocities)
    module.velocity = lambda *_: next(stream)
    with torch.no_grad():
        ours = module(noise, noise[:, :0], None)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


def test_the_network_hears_the_times_of_diffusers():
    module, heard = denoiser(denoising_steps=4), []
    own = module.network.at_times
    module.network.at_times = lambda times: heard.append(times) or own(times)
    predicted(module, ["st"])
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler()
    scheduler.set_timesteps(4)
    torch.testing.assert_close(heard[0], scheduler.timesteps)


@settings(max_examples=15, deadline=None)
@given(
    window=st.text("st.", min_size=1, max_size=6).filter(lambda w: "t" in w),
    before=st.integers(0, 2),
    after=st.integers(0, 2),
)
def test_padding_changes_nothing(window, before, after):
    module = denoiser()
    padded = "." * before + window + "." * after
    torch.testing.assert_close(predicted(module, [window]), predicted(module, [padded]), rtol=1e-3, atol=1e-4)


def test_branches_of_the_size_needed_give_the_same():
    rows = ["sst.", "st..", "..st"]
    torch.testing.assert_close(
        predicted(denoiser(), rows), predicted(denoiser(num_targets=1), rows), rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("row", ["stt", "sss"])
def test_a_window_with_more_than_promised_is_refused(row):
    with pytest.raises(RuntimeError, match="a window has more than"):
        predicted(denoiser(num_targets=1), [row])


def test_guidance_of_one_is_none_and_goes_on_from_there():
    module = denoiser(denoising_steps=1, guidance=1.0)
    runs = {}
    for guidance in (0.0, 1.0, 3.0):
        module.guidance = guidance
        runs[guidance] = predicted(module, ["sts"])[0]
    hidden = predicted(module, [".t."])[0]
    torch.testing.assert_close(runs[0.0], hidden, rtol=1e-4, atol=1e-5)  # nothing but the unconditional velocity
    torch.testing.assert_close(runs[3.0], hidden + 3 * (runs[1.0] - hidden), rtol=1e-4, atol=1e-4)
    assert not torch.allclose(runs[1.0], hidden, atol=1e-3)


def test_recomputing_changes_no_gradient():
    gradients = []
    for recompute in (False, True):
        module = denoiser(recompute=recompute)
        module.predict(*windows(["sts", ".st"])).clips.square().mean().backward()
        gradients.append([p.grad for p in module.parameters()])
    torch.testing.assert_close(*gradients)


def test_noise_belongs_to_the_row():
    features, seen, target, seeds = windows(["sts", "sts"])
    module = denoiser().eval()
    with torch.no_grad():
        clips = module.predict(features[:1].expand(2, -1, -1, -1), seen, target, seeds).clips
        alone = module.predict(features[:1], seen[:1], target[:1], seeds[1:]).clips
    torch.testing.assert_close(clips[1:], alone, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(clips[0], clips[1], atol=1e-3)
