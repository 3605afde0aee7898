import pytest
import torch

from filmstrip.errors import UserError
from filmstrip.nn.sampling import Sampling, draw, guided, restricted
from filmstrip.randomness import uniform

LOGITS = torch.tensor([0.0, 2.0, 1.0, -1.0]).log_softmax(0)


def frequencies(sampling, count=20_000):
    numbers = uniform(torch.arange(count), 1, "test")[:, 0]
    ids = draw(LOGITS.expand(count, -1), numbers, sampling)
    return ids.bincount(minlength=4) / count


def test_draws_follow_the_distribution():
    assert frequencies(Sampling()) == pytest.approx(LOGITS.exp(), abs=0.015)
    assert frequencies(Sampling(temperature=0.5)) == pytest.approx((2 * LOGITS).softmax(0), abs=0.015)


def test_temperature_zero_takes_the_most_likely():
    assert frequencies(Sampling(temperature=0.0))[1] == 1


def test_top_k_and_top_p_leave_the_rest_out_and_keep_proportions():
    two = LOGITS.exp() * torch.tensor([0, 1, 1, 0])
    assert frequencies(Sampling(top_k=2)) == pytest.approx(two / two.sum(), abs=0.015)
    assert LOGITS.exp()[1] < 0.7 < two.sum()
    assert frequencies(Sampling(top_p=0.7)) == pytest.approx(two / two.sum(), abs=0.015)
    assert frequencies(Sampling(top_p=1e-6))[1] == 1
    assert frequencies(Sampling(top_k=1))[1] == 1


def test_the_ends_of_the_range_draw_what_is_possible():
    logits = torch.tensor([[float("-inf"), 0.0, 3.0, float("-inf")]]).expand(2, -1)
    edges = torch.tensor([0.0, 1 - 2**-24])
    assert draw(logits, edges, Sampling()).tolist() == [1, 2]


def test_a_batch_changes_nothing():
    logits = torch.randn(5, 3, 11, generator=torch.Generator().manual_seed(0))
    numbers = torch.rand(5, 3, generator=torch.Generator().manual_seed(1))
    sampling = Sampling(temperature=0.8, top_k=7, top_p=0.9)
    alone = torch.cat([draw(logits[i : i + 1], numbers[i : i + 1], sampling) for i in range(5)])
    assert torch.equal(draw(logits, numbers, sampling), alone)


def test_guidance_extrapolates():
    with_it, without = torch.randn(2, 4), torch.randn(2, 4)
    torch.testing.assert_close(guided(with_it, without, 1.0), with_it)
    torch.testing.assert_close(guided(with_it, without, 0.0), without)
    torch.testing.assert_close(guided(with_it, without, 3.0), without + 3 * (with_it - without))


def test_ties_at_the_kth_place_all_stay():
    assert restricted(torch.zeros(1, 4), Sampling(top_k=2)).isfinite().all()


@pytest.mark.parametrize("wrong", [{"temperature": -1.0}, {"top_k": 0}, {"top_p": 0.0}, {"top_p": 1.5}])
def test_impossible_settings_are_refused(wrong):
    with pytest.raises(UserError, match=next(iter(wrong))):
        Sampling(**wrong)
