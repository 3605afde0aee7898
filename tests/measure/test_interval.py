import pytest

from filmstrip.measure.interval import binomial_interval


@pytest.mark.parametrize(
    ("successes", "trials", "expected"),
    [(12, 16, (0.4762, 0.9273)), (10, 16, (0.3543, 0.8480)), (0, 20, (0.0, 0.1684)), (20, 20, (0.8316, 1.0))],
)
def test_the_exact_interval_of_a_share(successes, trials, expected):
    assert binomial_interval(successes, trials) == pytest.approx(expected, abs=1e-4)


def test_the_exact_interval_is_that_of_the_beta_distribution():
    beta = pytest.importorskip("scipy.stats").beta
    for successes, trials in ((1, 3), (7, 50), (399, 400)):
        low, high = binomial_interval(successes, trials, 0.9)
        assert low == pytest.approx(beta.ppf(0.05, successes, trials - successes + 1))
        assert high == pytest.approx(beta.ppf(0.95, successes + 1, trials - successes))
