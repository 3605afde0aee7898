import math
import os
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from hypothesis import given, settings
from hypothesis import strategies as st

from filmstrip.distributed.parallel import parallelise
from filmstrip.errors import UserError
from filmstrip.nn.quantise import EMAQuantiser, VectorQuantiser, nearest, usage
from filmstrip.nn.quantise_free import FSQ, LookupFree
from filmstrip.nn.quantise_gumbel import GumbelQuantiser
from started import run


def every_quantiser():
    torch.manual_seed(0)
    ema = EMAQuantiser(16, 8)
    ema.codes.normal_()
    sliced = EMAQuantiser(16, 8, num_codebooks=2)
    sliced.codes.normal_()
    learnt = VectorQuantiser(16, 8)
    torch.nn.init.normal_(learnt.codes)
    return [
        ema,
        sliced,
        learnt,
        VectorQuantiser(16, 8, unit=True),
        FSQ((8, 5, 3)),
        LookupFree(6),
        GumbelQuantiser(16, 8),
    ]


@pytest.mark.parametrize("quantiser", every_quantiser(), ids=lambda q: f"{type(q).__name__}{q.num_codebooks}")
class TestEvery:
    def test_ids_stand_for_the_latents_that_came_with_them(self, quantiser):
        out = quantiser.eval()(torch.randn(2, 3, 4, quantiser.input_dim))
        books = () if quantiser.num_codebooks == 1 else (quantiser.num_codebooks,)
        assert out.latents.shape == (2, 3, 4, quantiser.latent_dim)
        assert out.ids.shape == (2, 3, 4, *books) and out.ids.dtype == torch.int64
        assert out.ids.min() >= 0 and out.ids.max() < quantiser.codebook_size
        torch.testing.assert_close(quantiser.decode(out.ids), out.latents)

    def test_gradients_reach_latents_and_parameters(self, quantiser):
        quantiser.train().after_step(1)
        latents = torch.randn(4, 6, quantiser.input_dim, requires_grad=True)
        out = quantiser(latents)
        (out.latents.square().sum() + out.loss).backward()
        for tensor in (latents, *quantiser.parameters()):
            assert tensor.grad.isfinite().all() and tensor.grad.abs().sum() > 0

    def test_half_precision_in_and_out(self, quantiser):
        latents = torch.randn(4, 6, quantiser.input_dim, dtype=torch.bfloat16)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            out = quantiser.eval()(latents)
        assert out.latents.dtype == torch.bfloat16 and out.loss.dtype == torch.float32
        torch.testing.assert_close(out.ids, quantiser(latents.float()).ids)


class TestNearest:
    @settings(max_examples=30, deadline=None)
    @given(st.integers(1, 40), st.integers(1, 3), st.integers(1, 20), st.integers(1, 9), st.integers(0, 10**6))
    def test_agrees_with_all_distances(self, n, books, codes, dim, seed):
        generator = torch.Generator().manual_seed(seed)
        z = torch.randn(n, books, dim, generator=generator, dtype=torch.float64)
        table = torch.randn(books, codes, dim, generator=generator, dtype=torch.float64)
        distances = (z[:, :, None] - table[None]).square().sum(-1)
        assert torch.equal(nearest(z, table), distances.argmin(-1))

    def test_unit_codes_are_chosen_by_angle(self):
        quantiser = VectorQuantiser(8, 4, unit=True)
        z = torch.randn(32, 4)
        out = quantiser(z * 100)
        assert torch.equal(out.ids, (z @ quantiser.codes[0].T / quantiser.codes[0].norm(dim=1)).argmax(1))
        torch.testing.assert_close(out.latents.norm(dim=1), torch.ones(32))

    def test_straight_through(self):
        quantiser = VectorQuantiser(8, 4)
        z = torch.randn(5, 4, requires_grad=True)
        weight = torch.randn(5, 4)
        (quantiser(z).latents * weight).sum().backward()
        torch.testing.assert_close(z.grad, weight)

    def test_codebook_loss_pulls_both_ways(self):
        quantiser = VectorQuantiser(1, 2, commitment=0.25)
        torch.nn.init.zeros_(quantiser.codes)
        z = torch.tensor([[1.0, 3.0]], requires_grad=True)
        out = quantiser(z)
        out.loss.backward()
        assert out.loss.item() == pytest.approx(1.25 * 5)
        torch.testing.assert_close(z.grad, 0.25 * z.detach())
        torch.testing.assert_close(quantiser.codes.grad[0], -z.detach())

    def test_channels_must_divide(self):
        with pytest.raises(UserError, match="3 codebooks cannot split latents of 8"):
            EMAQuantiser(4, 8, num_codebooks=3)


class TestEMA:
    def ready(self, codes, **options):
        quantiser = EMAQuantiser(len(codes), len(codes[0]), **options)
        quantiser.codes.copy_(torch.tensor(codes)[None])
        quantiser.total.copy_(quantiser.codes)
        quantiser.size.fill_(1)
        return quantiser

    def test_equals_a_hand_computation(self):
        quantiser = self.ready([[0.0, 0.0], [10.0, 10.0]], decay=0.9, restart_below=0.0)
        quantiser(torch.tensor([[1.0, 0.0], [3.0, 2.0], [8.0, 9.0]]))
        quantiser.after_step(1)
        # code 0: size 0.9 + 0.1 * 2, total 0.9 * (0, 0) + 0.1 * (4, 2); code 1: size 1, total (9, 9) + (0.8, 0.9)
        torch.testing.assert_close(quantiser.size, torch.tensor([[1.1, 1.0]]))
        torch.testing.assert_close(quantiser.codes[0], torch.tensor([[0.4 / 1.1, 0.2 / 1.1], [9.8, 9.9]]))

    def test_micro_batches_equal_one_batch(self):
        z = torch.randn(64, 2)
        whole, parts = (self.ready([[-1.0, 0.0], [1.0, 0.0]], restart_below=0.0) for _ in range(2))
        whole(z)
        parts(z[:32])
        parts(z[32:])
        for quantiser in (whole, parts):
            quantiser.after_step(1)
        torch.testing.assert_close(whole.codes, parts.codes)

    def test_several_codebooks_are_as_many_quantisers(self):
        z, codes = torch.randn(64, 6), torch.randn(2, 5, 3)
        singles = [self.ready(book.tolist(), restart_below=0.0) for book in codes]
        both = EMAQuantiser(5, 6, num_codebooks=2, restart_below=0.0)
        for buffer in ("codes", "total", "size"):
            getattr(both, buffer).copy_(torch.cat([getattr(single, buffer) for single in singles]))
        outs = [single(part) for single, part in zip(singles, z.split(3, dim=1))]
        out = both(z)
        assert torch.equal(out.ids, torch.stack([part.ids for part in outs], dim=1))
        torch.testing.assert_close(out.latents, torch.cat([part.latents for part in outs], dim=1))
        for quantiser in (both, *singles):
            quantiser.after_step(1)
        torch.testing.assert_close(both.codes, torch.cat([single.codes for single in singles]))

    def test_first_step_takes_codes_from_the_latents(self):
        quantiser = EMAQuantiser(16, 4)
        z = torch.randn(100, 4) + 5
        quantiser(z)
        quantiser.after_step(1)
        assert (quantiser.codes[0, :, None] == z).all(dim=2).any(dim=1).all()

    def test_dead_codes_restart_from_latents_and_living_ones_stay(self):
        quantiser = self.ready([[0.0, 0.0], [99.0, 99.0]], decay=0.5, restart_below=1.0)
        z = 0.1 * torch.randn(50, 2)
        quantiser(z)
        quantiser.after_step(1)
        dead, alive = quantiser.codes[0, 1], quantiser.codes[0, 0]
        assert (z == dead).all(dim=1).any()
        torch.testing.assert_close(alive, 0.5 * z.sum(0) / 25.5)
        assert quantiser(z).ids.unique().tolist() == [0, 1]

    def test_unused_codes_stay_put_without_restarts(self):
        quantiser = self.ready([[0.0, 0.0], [99.0, 99.0]], decay=0.01, restart_below=0.0)
        for step in range(100):
            quantiser(torch.zeros(4, 2))
            quantiser.after_step(step)
        torch.testing.assert_close(quantiser.codes[0, 1], torch.tensor([99.0, 99.0]))

    def test_gathers_in_training_only(self):
        quantiser = self.ready([[0.0], [1.0]])
        with torch.no_grad():
            quantiser(torch.ones(8, 1))
        quantiser.eval()(torch.ones(8, 1))
        assert quantiser.step_size.sum() == 0
        quantiser.train()(torch.ones(8, 1))
        assert quantiser.step_size.tolist() == [[0, 8]]

    def test_resumes_exactly(self):
        torch.manual_seed(0)
        z = torch.randn(6, 64, 4)

        def run(quantiser, batches):
            for i, batch in enumerate(batches):
                torch.manual_seed(i)
                quantiser(batch)
                quantiser.after_step(i + 1)
            return quantiser

        once = run(EMAQuantiser(8, 4, restart_below=0.0), z)
        first = run(EMAQuantiser(8, 4, restart_below=0.0), z[:3])
        again = EMAQuantiser(8, 4, restart_below=0.0)
        again.load_state_dict(first.state_dict())
        torch.testing.assert_close(run(again, z[3:]).codes, once.codes, rtol=0, atol=0)

    def test_units_stay_units(self):
        quantiser = EMAQuantiser(8, 4, unit=True)
        for step in range(3):
            quantiser(torch.randn(64, 4))
            quantiser.after_step(step)
        torch.testing.assert_close(quantiser.codes.norm(dim=2), torch.ones(1, 8))

    @pytest.mark.multiprocess
    def test_two_processes_move_codes_as_one_would(self, tmp_path):
        z = torch.randn(2, 32, 2)
        alone = self.ready([[-1.0, 0.0], [1.0, 0.0]], restart_below=0.0)
        alone(z.flatten(0, 1))
        alone.after_step(1)
        torch.save(z, tmp_path / "latents.pt")
        run(__file__, tmp_path, processes=2)
        moved, restarted = zip(*(torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2)))
        for codes in moved:
            torch.testing.assert_close(codes, alone.codes)
        assert torch.equal(*restarted)


def _one_of_two(folder):
    rank, z = int(os.environ["RANK"]), torch.load(folder / "latents.pt", weights_only=True)
    dist.init_process_group("gloo")
    torch.manual_seed(rank)
    moving = TestEMA().ready([[-1.0, 0.0], [1.0, 0.0]], restart_below=0.0)
    restarting = EMAQuantiser(8, 2)
    whole = torch.nn.ModuleList([moving, restarting, torch.nn.Linear(1, 1)])  # replicated are those with parameters
    parallelise(whole, "none", blocks=(), device=torch.device("cpu"), partial=False)
    for quantiser in (moving, restarting):
        quantiser(z[rank])
        quantiser.after_step(1)
    torch.save([moving.codes, restarting.codes], folder / f"{rank}.pt")
    dist.destroy_process_group()


class TestFSQ:
    @settings(max_examples=30, deadline=None)
    @given(st.lists(st.integers(2, 9), min_size=1, max_size=5))
    def test_ids_and_points_are_one_to_one(self, levels):
        quantiser = FSQ(levels)
        ids = torch.arange(min(quantiser.codebook_size, 2000))
        points = quantiser.decode(ids)
        assert points.unique(dim=0).shape[0] == len(ids)
        assert points.min() >= -1 and points.max() <= 1
        reached = quantiser(_before_bound(quantiser, points))
        assert torch.equal(reached.ids, ids)
        torch.testing.assert_close(reached.latents, points)

    def test_every_level_of_every_channel_is_reached(self):
        quantiser = FSQ((8, 8, 8, 5, 5, 5))
        assert quantiser.codebook_size == 64_000
        points = quantiser(torch.linspace(-20, 20, 4001)[:, None].expand(-1, 6)).latents
        assert [len(points[:, i].unique()) for i in range(6)] == [8, 8, 8, 5, 5, 5]

    def test_the_bound_is_the_published_one(self):
        # By hand, for 8 levels and 5: tanh(z + tan(0.5 / 3.4965)) * 3.4965 - 0.5, and tanh(z) * 1.998.
        bounded = FSQ((8, 5))._bound(torch.tensor([[0.0, 0.0], [0.5, 0.5], [9.0, 9.0]]))
        expected = [[-0.000014, 0.0], [1.484632, 0.923310], [2.9965, 1.998]]
        torch.testing.assert_close(bounded, torch.tensor(expected), atol=2e-6, rtol=0)

    def test_refuses_one_level(self):
        with pytest.raises(UserError, match="two levels"):
            FSQ((8, 1))


def _before_bound(quantiser, points):
    """Latents that the bound maps onto the points."""
    half = (quantiser.levels - 1) * (1 - 1e-3) / 2
    offset = torch.where(quantiser.levels % 2 == 0, 0.5, 0.0)
    inside = ((points * (quantiser.levels // 2) + offset) / half).clamp(-0.9999, 0.9999)
    return torch.atanh(inside) - torch.tan(offset / half)


class TestLookupFree:
    def test_entropies_equal_their_definition(self):
        torch.manual_seed(0)
        quantiser = LookupFree(4, commitment=0.0, entropy=1.0)
        z = torch.randn(50, 4)
        corners = quantiser.decode(torch.arange(16))
        p = (-(z[:, None] - corners).square().sum(-1)).softmax(dim=1)
        sure = -(p * p.log()).sum(1).mean()
        spread = -(p.mean(0) * p.mean(0).log()).sum()
        torch.testing.assert_close(quantiser(z).loss, sure - spread)

    def test_entropy_spreads_latents_over_the_codes(self):
        torch.manual_seed(0)
        quantiser = LookupFree(4, entropy=1.0)
        z = torch.nn.Parameter(0.3 * torch.randn(256, 4) + 0.5)
        before = quantiser(z).metrics["perplexity"]
        optimiser = torch.optim.Adam([z], lr=0.05)
        for _ in range(200):
            optimiser.zero_grad()
            quantiser(z).loss.backward()
            optimiser.step()
        after = quantiser(z).metrics["perplexity"]
        assert before < 2 and after > 10


class TestGumbel:
    def test_cold_and_certain_choices_are_codes(self):
        quantiser = GumbelQuantiser(8, 4, anneal_steps=10)
        quantiser.after_step(10)
        assert quantiser.temperature.item() == pytest.approx(1 / 16)
        ids = torch.arange(8)
        logits = 50.0 * torch.nn.functional.one_hot(ids, 8)
        torch.testing.assert_close(quantiser.train()(logits).latents, quantiser.codes[ids])

    def test_samples_follow_the_logits(self):
        torch.manual_seed(0)
        quantiser = GumbelQuantiser(3, 3, anneal_steps=1, final_temperature=1e-3)
        torch.nn.init.eye_(quantiser.codes)
        quantiser.after_step(1)
        p = torch.tensor([0.2, 0.3, 0.5])
        shares = quantiser.train()(p.log().expand(20_000, 3)).latents.mean(0)
        torch.testing.assert_close(shares.detach(), p, atol=0.02, rtol=0)

    def test_divergence_from_uniform(self):
        quantiser = GumbelQuantiser(8, 4, kl_weight=2.0, warmup_steps=4)
        quantiser.after_step(2)
        assert quantiser(torch.zeros(5, 8)).loss.item() == pytest.approx(0, abs=1e-6)
        certain = 50.0 * torch.eye(8)
        assert quantiser(certain).loss.item() == pytest.approx(1.0 * math.log(8), rel=1e-4)


def test_usage_of_known_ids():
    metrics = usage(torch.tensor([0, 0, 1, 1]), 8)
    assert metrics["perplexity"].item() == pytest.approx(2)
    assert metrics["used"].item() == pytest.approx(0.25)


def test_usage_of_the_ids_that_count():
    ids, counted = torch.tensor([[0, 3], [5, 3], [1, 2], [1, 3]]), torch.tensor([True, False, True, False])
    metrics, alone = usage(ids, 8, counted), usage(ids[counted], 8)
    assert metrics["perplexity"] == alone["perplexity"] == 2 and metrics["used"] == alone["used"] == 0.25


if __name__ == "__main__":
    _one_of_two(Path(sys.argv[1]))
