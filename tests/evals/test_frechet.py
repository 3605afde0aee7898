import math

import numpy as np
import pytest
import scipy.linalg
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from filmstrip.evals.frechet import FrechetPair, Moments, frechet_distance


def moments(features):
    found = Moments(features.shape[1])
    found.update(features)
    return found


def draw(seed, count, width, scale=1.0, shift=0.0):
    generator = torch.Generator().manual_seed(seed)
    mix = torch.randn(width, width, generator=generator, dtype=torch.float64) * scale
    return torch.randn(count, width, generator=generator, dtype=torch.float64) @ mix + shift


def with_moments(mean, covariance, count=4000):
    """Features whose sample moments are exactly these."""
    width = len(mean)
    noise = torch.randn(count, width, generator=torch.Generator().manual_seed(width), dtype=torch.float64)
    noise -= noise.mean(dim=0)
    white = noise @ torch.linalg.inv(torch.linalg.cholesky(noise.T @ noise / (count - 1))).T
    return white @ torch.linalg.cholesky(covariance).T + mean


def test_moments_of_a_stream_are_those_of_the_whole():
    features = draw(0, 101, 7, shift=1e6).float()
    stream = Moments(7)
    for part in features.split([1, 0, 30, 70]):
        stream.update(part)
    assert stream.count == 101
    np.testing.assert_allclose(stream.mean, features.double().mean(dim=0), rtol=1e-12)
    np.testing.assert_allclose(stream.covariance, np.cov(features.double().T), rtol=1e-6, atol=1e-9)
    joined = moments(features[:40]) + moments(features[40:])
    np.testing.assert_allclose(joined.covariance, stream.covariance, rtol=1e-9, atol=1e-9)


def test_closed_form_of_diagonal_gaussians():
    mean = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    a, b = (torch.tensor(v, dtype=torch.float64) for v in ([4.0, 1.0, 9.0], [1.0, 25.0, 9.0]))
    found = frechet_distance(
        moments(with_moments(torch.zeros(3, dtype=torch.float64), a.diag())), moments(with_moments(mean, b.diag()))
    )
    assert found == pytest.approx(float(mean.square().sum() + (a.sqrt() - b.sqrt()).square().sum()), rel=1e-9)


@pytest.mark.parametrize(("count", "width"), [(300, 20), (15, 40), (64, 64)])
def test_scipys_square_root_agrees(count, width):
    a, b = draw(1, count, width), draw(2, count + 5, width, scale=0.7, shift=0.3)
    root = scipy.linalg.sqrtm(np.cov(a.T) @ np.cov(b.T)).real
    expected = float((a.mean(0) - b.mean(0)).square().sum() + np.trace(np.cov(a.T) + np.cov(b.T) - 2 * root))
    assert frechet_distance(moments(a), moments(b)) == pytest.approx(expected, rel=1e-3)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 30), st.integers(2, 30), st.integers(1, 8), st.floats(-100, 100))
def test_identity_symmetry_and_shift(seed, n, m, width, shift):
    a, b = draw(seed, n, width), draw(seed + 1, m, width)
    scale = float(moments(a).covariance.trace() + moments(b).covariance.trace())
    forth, back = frechet_distance(moments(a), moments(b)), frechet_distance(moments(b), moments(a))
    assert forth >= 0 and forth == pytest.approx(back, rel=1e-6, abs=1e-6 * scale)
    assert frechet_distance(moments(a), moments(a)) <= 1e-6 * scale
    moved = frechet_distance(moments(a + shift), moments(b + shift))
    assert moved == pytest.approx(forth, rel=1e-6, abs=1e-6 * scale)
    assert frechet_distance(moments(a), moments(a + shift)) == pytest.approx(width * shift**2, abs=1e-6 * scale)


def same_gaussian(count, seed, width=400):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2, count, width, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize(("count", "expected", "left"), [(256, 300.0, 0.65), (2048, 39.5, 0.05)])
def test_bias_of_two_samples_of_one_gaussian(count, expected, left):
    """Their true distance is zero: the figures say what sampling alone gives, and how much the estimate explains."""
    pair = FrechetPair()
    for a, b in zip(*(side.split(100) for side in same_gaussian(count, seed=0))):
        pair.update(a, b)
    found = pair.compute()
    assert found.distance == pytest.approx(expected, rel=0.02)
    assert abs(found.corrected) < left * found.distance
    assert found.counts == (count, count) and found.width == 400
    assert ("underestimate" in found.warning) == (count == 256)


def test_bias_is_small_and_goes_unmentioned_where_samples_are_plenty():
    pair = FrechetPair()
    pair.update(draw(0, 4000, 4), draw(1, 4000, 4, shift=3.0))
    found = pair.compute()
    assert abs(found.bias) < 0.01 * found.distance
    assert found.warning is None
    assert found.corrected == found.distance - found.bias


def test_sides_may_come_one_after_the_other_and_order_is_shared_between_halves():
    a, b = draw(3, 50, 3), draw(4, 31, 3)
    together, apart = FrechetPair(), FrechetPair()
    together.update(a, b)
    for row in a:
        apart.update(a=row[None])
    apart.update(b=b[:7])
    apart.update(b=b[7:])
    assert apart.compute().distance == pytest.approx(together.compute().distance)
    assert apart.compute().bias == pytest.approx(together.compute().bias)


def test_few_samples_have_no_estimate_and_too_few_no_distance():
    pair = FrechetPair()
    with pytest.raises(ValueError, match="both sides"):
        pair.compute()
    pair.update(draw(0, 3, 2), draw(1, 3, 2))
    found = pair.compute()
    assert math.isnan(found.bias) and "only 3 and 3 samples" in found.warning
    alone = FrechetPair()
    alone.update(draw(0, 1, 2), draw(1, 3, 2))
    with pytest.raises(ValueError, match="two features or more"):
        alone.compute()
    with pytest.raises(ValueError, match="cannot be compared"):
        frechet_distance(moments(draw(0, 5, 2)), moments(draw(0, 5, 3)))
