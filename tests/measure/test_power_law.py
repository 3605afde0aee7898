import numpy as np
import pytest

from filmstrip.measure.power_law import Point, envelope, exponent_interval, straight, with_offset


def points_of(law, noise=0.0, sizes=6, checkpoints=4):
    """Each size is on the law at its own best compute, and above it elsewhere."""
    rng = np.random.default_rng(0)
    found = []
    for size in range(1, sizes + 1):
        for step in range(1, checkpoints + 1):
            compute = 1e12 * size**3 * step
            excess = 1 + 0.05 * np.log(compute / (2.5e12 * size**3)) ** 2
            found.append(Point(size, compute, law(compute) * excess * np.exp(noise * rng.normal())))
    return found


def law(compute):
    return 7.42 * compute**-0.0386


def test_a_power_law_is_found_again():
    found = straight([Point(1, c, law(c)) for c in np.geomspace(1e10, 1e16, 9)])
    assert found.factor == pytest.approx(7.42) and found.exponent == pytest.approx(0.0386)
    assert found.r2 == pytest.approx(1) and found(1e13) == pytest.approx(law(1e13))


def test_an_offset_is_found_again():
    points = [Point(1, c, 1.5 + 40 * c**-0.15) for c in np.geomspace(1e10, 1e16, 9)]
    found = with_offset(points)
    assert found.offset == pytest.approx(1.5, rel=0.03) and found.exponent == pytest.approx(0.15, rel=0.03)
    assert found.r2 > 0.9999
    assert [found(p.compute) for p in points] == pytest.approx([p.loss for p in points], rel=1e-3)
    assert straight(points).exponent < 0.15  # a floor bends the line


def test_without_a_floor_the_offset_is_small_and_never_negative():
    points = [Point(1, c, 2 - 0.1 * np.log10(c / 1e10)) for c in np.geomspace(1e10, 1e16, 9)]  # concave
    assert with_offset(points).offset == 0


def test_the_envelope_has_what_nothing_cheaper_beats():
    points = [
        Point(1, 1, 5.0),
        Point(1, 2, 4.0),
        Point(2, 2, 4.5),
        Point(2, 4, 3.0),
        Point(1, 3, 4.2),
        Point(2, 5, 3),
    ]
    assert envelope(points) == [Point(1, 1, 5.0), Point(1, 2, 4.0), Point(2, 4, 3.0)]


def test_the_interval_holds_the_exponent_and_widens_with_noise():
    low, high = exponent_interval(points_of(law), resamples=200)
    noisy = exponent_interval(points_of(law, noise=0.02), resamples=200)
    assert low <= 0.0386 + 0.01 and high >= 0.0386 - 0.01 and high - low < noisy[1] - noisy[0]


def test_one_size_has_no_interval():
    assert exponent_interval(points_of(law, sizes=1), resamples=50) is None


def test_too_few_points_are_refused():
    with pytest.raises(ValueError, match="at least 3 points, got 2"):
        straight([Point(1, 1, 2.0), Point(1, 2, 1.0)])
