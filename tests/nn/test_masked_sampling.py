import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from filmstrip.errors import UserError
from filmstrip.nn.masked_sampling import MaskedSampling, draft_log_probs, draw_masks, fill, masked_share, partition
from filmstrip.nn.sampling import Sampling

K, N = 5, 12
METHODS = [
    MaskedSampling(steps=4),
    MaskedSampling(steps=N),
    MaskedSampling(steps=40),
    MaskedSampling(steps=3, schedule="linear", temperature=0.5, top_k=2),
    MaskedSampling(method="draft_and_revise", steps=3, rounds=2, revise_steps=2),
]


class Counting:
    """A network that has random opinions on every set of codes, and notes what it was shown."""

    def __init__(self):
        self.shown = []
        self.table = torch.randn(N, K + 1, N, K, generator=torch.Generator().manual_seed(0))

    def __call__(self, ids):
        self.shown.append(ids)
        return self.table[torch.arange(N), ids].sum(dim=1)


def test_schedules_go_from_everything_to_nothing():
    for schedule in ("cosine", "linear", "square"):
        share = masked_share(torch.linspace(0, 1, 11), schedule)
        assert share[0] == 1 and share[-1].abs() < 1e-6 and (share.diff() < 0).all()
    assert masked_share(torch.tensor(0.5), "cosine").item() == pytest.approx(math.sqrt(0.5))
    with pytest.raises(UserError, match="unknown schedule 'sine'"):
        masked_share(torch.tensor(0.5), "sine")


def test_masks_follow_the_schedule_group_by_group():
    masks = draw_masks(torch.arange(2000), 3, 16, schedule="cosine", use="test")
    counts = masks.sum(dim=2)
    assert masks.shape == (2000, 3, 16) and counts.min() == 1 and counts.max() == 16
    progress = torch.rand(100_000, generator=torch.Generator().manual_seed(0))
    expected = (masked_share(progress, "cosine") * 16).ceil().clamp(min=1).mean()
    assert counts.float().mean().item() == pytest.approx(expected.item(), rel=0.02)
    assert masks.float().mean(dim=(0, 1)).std() < 0.02  # no place is preferred
    assert not torch.equal(masks[:, 0], masks[:, 1])
    assert torch.equal(draw_masks(torch.tensor([7]), 3, 16, schedule="cosine", use="test")[0], masks[7])


@settings(max_examples=40, deadline=None)
@given(known=st.integers(0, 9), parts=st.integers(1, 12), seed=st.integers(0, 2**40))
def test_partitions_are_even_and_leave_known_places_alone(known, parts, seed):
    unknown = torch.arange(10) >= known
    part = partition(torch.tensor([seed]), unknown[None], parts, "test")[0]
    assert (part[:known] == -1).all()
    sizes = torch.bincount(part[known:], minlength=parts)
    assert len(sizes) == parts and sizes.sum() == 10 - known and sizes.max() - sizes.min() <= 1


@pytest.mark.parametrize("sampling", METHODS, ids=str)
class TestFill:
    def run(self, sampling, seeds, index=0, known=3):
        predict = Counting()
        ids = torch.arange(N).remainder(K).expand(len(seeds), N)
        unknown = (torch.arange(N) >= known).expand(len(seeds), N)
        with torch.no_grad():
            made = fill(predict, ids, unknown, mask_id=K, seeds=seeds, sampling=sampling, use="test", index=index)
        return made, predict.shown

    def test_it_takes_the_passes_it_says_and_keeps_what_is_known(self, sampling):
        made, shown = self.run(sampling, torch.arange(6))
        assert len(shown) == sampling.passes
        assert made.min() >= 0 and made.max() < K
        for ids in [made, *shown]:
            assert torch.equal(ids[:, :3], torch.tensor([0, 1, 2]).expand(6, 3))
        assert (shown[0][:, 3:] == K).all()

    def test_every_pass_settles_codes_for_good_or_revises_them(self, sampling):
        made, shown = self.run(sampling, torch.arange(6))
        if sampling.method == "confidence":
            for before, after in itertools.pairwise([*shown, made]):
                settled = before != K
                assert torch.equal(before[settled], after[settled])
                assert (((after == K).sum(1) < (before == K).sum(1)) | ((before == K).sum(1) == 0)).all()
        else:
            halves = shown[-2:]
            assert ((halves[0] == K) ^ (halves[1] == K))[:, 3:].all()

    def test_a_sample_depends_on_its_seed_alone(self, sampling):
        made, _ = self.run(sampling, torch.tensor([4, 9, 5]))
        assert torch.equal(self.run(sampling, torch.tensor([9]))[0][0], made[1])
        assert len({tuple(row) for row in self.run(sampling, torch.arange(20))[0].tolist()}) > 10
        assert not torch.equal(self.run(sampling, torch.tensor([4, 9, 5]), index=1)[0], made)


def test_independent_codes_have_their_distribution():
    logits = torch.randn(2, K, generator=torch.Generator().manual_seed(1))
    seeds = torch.arange(20_000)
    for method in ("confidence", "draft_and_revise"):
        made = fill(
            lambda ids: logits.expand(len(ids), 2, K),
            torch.zeros(len(seeds), 2, dtype=torch.int64),
            torch.ones(len(seeds), 2, dtype=torch.bool),
            mask_id=K,
            seeds=seeds,
            # without noise, likely codes would be kept and unlikely ones drawn anew
            sampling=MaskedSampling(method=method, steps=2, confidence_noise=1e6),
            use="test",
        )
        for place in range(2):
            share = torch.bincount(made[:, place], minlength=K) / len(seeds)
            torch.testing.assert_close(share, logits[place].softmax(0), atol=0.015, rtol=0)


def test_a_draft_has_a_distribution():
    """Over all grids the probabilities of one split add up to one."""
    grids = torch.tensor(list(itertools.product(range(2), repeat=4)))
    table = torch.randn(4, 3, 4, 2, generator=torch.Generator().manual_seed(2))
    nats = draft_log_probs(
        lambda ids: table[torch.arange(4), ids].sum(dim=1),
        grids,
        torch.ones_like(grids, dtype=torch.bool),
        mask_id=2,
        seeds=torch.full((16,), 3),
        parts=3,
        use="test",
    ).sum(dim=1)
    assert nats.exp().sum().item() == pytest.approx(1, abs=1e-5)


def test_wishes():
    own = MaskedSampling(steps=3, temperature=0.7)
    assert own.adapted(None) is own
    assert own.adapted(MaskedSampling(steps=9)).steps == 9
    adapted = own.adapted(Sampling(top_k=4))
    assert (adapted.steps, adapted.top_k, adapted.temperature) == (3, 4, 1.0)


@pytest.mark.parametrize("wrong", [{"steps": 0}, {"rounds": -1}, {"revise_steps": 0}, {"temperature": -1.0}])
def test_settings_that_cannot_be(wrong):
    with pytest.raises(UserError):
        MaskedSampling(**wrong)
