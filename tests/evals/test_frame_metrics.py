import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torchmetrics.functional.image import peak_signal_noise_ratio

from filmstrip.errors import UserError
from filmstrip.evals.frame_metrics import EQUAL_PSNR, FrameMetrics, psnr, ssim
from filmstrip.models.perceptual import Perceptual


def images(seed, *shape):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def ssim_by_definition(a, b):
    """Wang et al. 2004, equations 14 to 16 and 13, over every window that lies within the image."""
    offset = torch.arange(11, dtype=torch.float64) - 5
    line = torch.exp(-(offset**2) / (2 * 1.5**2))
    window = torch.outer(line, line)
    window = (window / window.sum()).view(1, 1, 11, 11)
    a, b = (x.double().flatten(0, 1)[:, None] for x in (a, b))

    def mean(x):
        return F.conv2d(x, window)

    variance_a, variance_b = mean(a * a) - mean(a) ** 2, mean(b * b) - mean(b) ** 2
    covariance = mean(a * b) - mean(a) * mean(b)
    c1, c2 = 0.01**2, 0.03**2
    place = (2 * mean(a) * mean(b) + c1) * (2 * covariance + c2)
    place /= (mean(a) ** 2 + mean(b) ** 2 + c1) * (variance_a + variance_b + c2)
    return place.mean(dim=(1, 2, 3))


def test_ssim_is_its_definition():
    a = images(0, 4, 3, 20, 31)
    b = (a + 0.3 * images(1, *a.shape)).clamp(0, 1)
    expected = ssim_by_definition(a, b).view(4, 3).mean(dim=1)
    torch.testing.assert_close(ssim(a, b), expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize("level", [0.0, 0.46875, 1.0])
def test_flat_frames_are_like_themselves(level):
    flat = torch.full((2, 3, 16, 16), level)
    torch.testing.assert_close(ssim(flat, flat), torch.ones(2, dtype=torch.float64), rtol=0, atol=1e-9)


def test_psnr_by_hand_and_by_torchmetrics():
    a = images(0, 2, 5, 3, 8, 8)
    assert psnr(a, a).unique().tolist() == [EQUAL_PSNR]
    assert psnr(torch.zeros(1, 3, 4, 4), torch.full((1, 3, 4, 4), 0.1)).item() == pytest.approx(20.0)
    b = images(1, *a.shape)
    expected = peak_signal_noise_ratio(a[1, 2], b[1, 2], data_range=1.0)
    assert psnr(a, b)[1, 2].item() == pytest.approx(expected.item(), rel=1e-5)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6), st.floats(0, 1), st.floats(0, 1))
def test_bounds_symmetry_and_identity(seed, base, spread):
    a = (base + spread * (images(seed, 3, 3, 16, 16) - 0.5)).clamp(0, 1)
    b = images(seed + 1, 3, 3, 16, 16)
    torch.testing.assert_close(ssim(a, b), ssim(b, a), atol=1e-9, rtol=0)
    assert (ssim(a, b).abs() <= 1 + 1e-9).all() and (ssim(a, a) > 1 - 1e-9).all()
    torch.testing.assert_close(psnr(a, b), psnr(b, a))
    assert ((psnr(a, b) >= 0) & (psnr(a, b) <= EQUAL_PSNR)).all()


def test_videos_are_compared_frame_by_frame():
    metrics = FrameMetrics(device=torch.device("cpu"), frames_at_once=3)
    video, truth = images(0, 2, 4, 3, 16, 24), images(1, 2, 4, 3, 16, 24)
    found = metrics(video, truth)
    assert tuple(found) == metrics.names == ("psnr", "ssim", "random_features")
    assert metrics.higher_is_better == {"psnr": True, "ssim": True, "random_features": False}
    perceptual = Perceptual.stand_in()
    for b, t in ((0, 0), (0, 3), (1, 2)):
        a, c = video[b, t][None], truth[b, t][None]
        assert found["psnr"][b, t].item() == pytest.approx(psnr(a, c).item())
        assert found["ssim"][b, t].item() == pytest.approx(ssim(a, c).item(), rel=1e-4)
        assert found["random_features"][b, t].item() == pytest.approx(perceptual(a, c).item(), rel=1e-4)
    assert all(values.shape == (2, 4) and values.dtype == torch.float64 for values in found.values())


def test_bytes_are_pixels_over_255():
    metrics = FrameMetrics(device=torch.device("cpu"))
    video = torch.randint(0, 256, (1, 2, 3, 16, 16), dtype=torch.uint8)
    found = metrics(video, video.roll(1, dims=1))
    expected = metrics(video / 255, video.roll(1, dims=1) / 255)
    assert all(torch.allclose(found[name], expected[name]) for name in metrics.names)
    assert math.isfinite(metrics(video, video)["psnr"].mean())


def test_bad_input_is_named():
    metrics = FrameMetrics(device=torch.device("cpu"))
    with pytest.raises(ValueError, match="cannot be compared"):
        metrics(images(0, 1, 2, 3, 16, 16), images(0, 1, 3, 3, 16, 16))
    with pytest.raises(UserError, match="8 x 16 pixels are too small"):
        metrics(images(0, 1, 2, 3, 8, 16), images(0, 1, 2, 3, 8, 16))
