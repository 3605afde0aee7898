"""ElasticTok's masks, its memory of earlier blocks, and the lengths that it finds."""

import dataclasses

import pytest
import torch
from drawn import draw_batch

from filmstrip import systems
from filmstrip.data.config import Data
from filmstrip.errors import UserError
from filmstrip.models.vit import ViT, ViTArchitecture
from filmstrip.objectives.elastic import ElasticTokenizer, cosine_distance, mean_squared_error
from filmstrip.protocols import Grid, Tokens
from filmstrip.systems.tokenizers import elastic_regressor, elastictok

BLOCKS = 3
NETWORKS = {"discrete": {}, "continuous": {"codebook": None, "latent_dim": 4}}


def build(**changes):
    torch.manual_seed(0)
    tokenizer = dataclasses.replace(elastictok.tiny().objective, **changes).build()
    for parameter in tokenizer.parameters():  # fresh weights are so small that nothing depends on anything
        parameter.data.mul_(4)
    return tokenizer.eval()


def clip_of(batch=2, blocks=BLOCKS):
    clip = dataclasses.replace(elastictok.tiny().data.clip, num_frames=2 * blocks)
    return draw_batch(Data(clip=clip), size=batch, seed=1)["video"]


@pytest.fixture(params=NETWORKS)
def tokenizer(request):
    return build(**NETWORKS[request.param])


def values(tokens):
    return tokens.latents if tokens.ids is None else tokens.ids


class TestLengths:
    def test_it_is_elastic(self, tokenizer):
        assert isinstance(tokenizer, ElasticTokenizer)
        assert (tokenizer.tokens_per_block, tokenizer.block_frames, tokenizer.min_tokens) == (32, 2, 4)

    def test_the_first_tokens_of_each_block_are_kept_and_the_rest_are_zero(self, tokenizer):
        lengths = torch.tensor([[4, 32, 1], [7, 9, 20]])
        tokens = tokenizer.encode(clip_of(), lengths)
        kept = tokens.kept()
        assert torch.equal(tokens.lengths, lengths)
        for b in range(2):
            for block in range(BLOCKS):
                row = kept[b, block * 32 : (block + 1) * 32]
                assert row[: lengths[b, block]].all() and not row[lengths[b, block] :].any()
        assert not values(tokens)[~kept].any()
        assert values(tokens)[kept].any()

    def test_what_is_not_kept_changes_nothing(self, tokenizer):
        tokens = tokenizer.encode(clip_of(), 6)
        noisy = dataclasses.replace(tokens)
        filled = torch.ones_like(values(tokens))
        kept = tokens.kept() if tokens.ids is not None else tokens.kept()[..., None]
        name = "latents" if tokens.ids is None else "ids"
        setattr(noisy, name, torch.where(kept, values(tokens), filled))
        assert torch.equal(tokenizer.decode(tokens), tokenizer.decode(noisy))

    def test_a_length_for_all_is_that_length_for_each(self, tokenizer):
        video = clip_of()
        same, each = tokenizer.encode(video, 5), tokenizer.encode(video, torch.full((2, BLOCKS), 5))
        assert torch.equal(values(same), values(each)) and torch.equal(same.lengths, each.lengths)

    def test_by_default_all_tokens_count(self, tokenizer):
        video = clip_of()
        whole, counted = tokenizer.encode(video), tokenizer.encode(video, tokenizer.tokens_per_block)
        assert whole.lengths is None and whole.kept() is None
        assert torch.equal(tokenizer.decode(whole), tokenizer.decode(counted))

    def test_the_encoder_knows_what_will_be_kept(self, tokenizer):
        video = clip_of().float() / 255
        latents = [
            tokenizer.autoencoder.encode(video, Tokens(Grid(3 * 2, 4, 4), lengths=torch.full((2, 3), n)).kept())
            for n in (4, 32)
        ]
        assert not torch.allclose(latents[0][:, 0, 0], latents[1][:, 0, 0], atol=1e-3)

    def test_a_fixed_length(self):
        tokenizer = build(min_tokens=9, max_tokens=9)
        video = clip_of()
        assert (tokenizer.draw_lengths(torch.arange(50), BLOCKS) == 9).all()
        assert (tokenizer.encode(video).lengths == 9).all()
        assert (tokenizer.encode_to(video, 0.0).tokens.lengths == 9).all()
        with pytest.raises(UserError, match="a block of 32 tokens cannot keep 9 to 8"):
            build(min_tokens=9, max_tokens=8)

    @pytest.mark.parametrize("length", [0, 33])
    def test_lengths_that_cannot_be(self, tokenizer, length):
        with pytest.raises(ValueError, match="lengths are from 1 to 32"):
            tokenizer.encode(clip_of(), length)

    def test_half_a_block_is_refused(self, tokenizer):
        with pytest.raises(ValueError, match="codes blocks of 2 frames of 32 x 32, got 3 frames"):
            tokenizer.encode(clip_of()[:, :3])
        with pytest.raises(ValueError, match="2 frames of 32 x 40"):
            tokenizer.encode(torch.zeros(1, 2, 3, 32, 40))
        with pytest.raises(ValueError, match="do not divide into 2 blocks"):
            Tokens(Grid(3, 1, 1), lengths=torch.ones(1, 2)).kept()


class TestTraining:
    def test_lengths_are_uniform_and_belong_to_the_sample(self, tokenizer):
        seeds = torch.arange(4000)
        lengths = tokenizer.draw_lengths(seeds, 2)
        assert lengths.min() == 4 and lengths.max() == 32
        counts = lengths.flatten().bincount(minlength=33)[4:].double()
        assert (counts / counts.mean() - 1).abs().max() < 0.3  # 8000 draws over 29 lengths: 6% is one deviation
        assert torch.corrcoef(lengths.T.double())[0, 1].abs() < 0.06
        assert torch.equal(tokenizer.draw_lengths(seeds[7:9], 2), lengths[7:9])

    def test_the_loss_is_that_of_the_kept_tokens(self, tokenizer):
        video, seeds = clip_of(), torch.tensor([3, 8])
        loss = tokenizer({"video": video, "seed": seeds})
        rebuilt = tokenizer.decode(tokenizer.encode(video, tokenizer.draw_lengths(seeds, BLOCKS)))
        error = mean_squared_error(rebuilt, video.float() / 255).mean()
        torch.testing.assert_close(loss.metrics["mse"], error)
        if tokenizer.codebook_size is not None:
            torch.testing.assert_close(loss.total, 4 * error)

    def test_divergence_is_summed_over_the_kept_tokens_of_a_block(self):
        tokenizer = build(**NETWORKS["continuous"], kl_weight=0.5)
        video, seeds = clip_of(), torch.tensor([3, 8])
        kept = Tokens(Grid(3 * 2, 4, 4), lengths=tokenizer.draw_lengths(seeds, BLOCKS)).kept()
        loss = tokenizer({"video": video, "seed": seeds})
        moments = tokenizer.autoencoder.encode(video.float() / 255, kept).flatten(1, 3)[kept]
        mean, log_variance = moments.chunk(2, dim=-1)
        nats = 0.5 * (mean**2 + log_variance.exp() - 1 - log_variance).sum() / (2 * BLOCKS)
        torch.testing.assert_close(loss.total - 4 * loss.metrics["mse"], 0.5 * nats, rtol=1e-4, atol=1e-5)

    def test_usage_counts_kept_codes_only(self):
        tokenizer = build(min_tokens=1)
        tokenizer.draw_lengths = lambda seeds, blocks: torch.ones(len(seeds), blocks, dtype=torch.int64)
        metrics = tokenizer({"video": clip_of(), "seed": torch.arange(2)}).metrics
        assert metrics["used"] * tokenizer.codebook_size <= 2 * BLOCKS + 1e-3

    def test_stills_show_the_first_frame_of_each_block(self):
        tokenizer = build(still_share=0.5)
        video = clip_of(batch=64).float()
        changed = tokenizer.with_stills(video, torch.arange(64))
        still = (changed != video).flatten(1).any(dim=1)
        assert 16 < still.sum() < 48
        assert torch.equal(changed[still], video[still][:, [0, 0, 2, 2, 4, 4]])

    def test_perceptual_error_is_added(self):
        tokenizer = build(perceptual_weight=0.1)
        batch = {"video": clip_of(), "seed": torch.arange(2)}
        loss = tokenizer(batch)
        torch.testing.assert_close(
            loss.total, 4 * loss.metrics["mse"] + 0.1 * loss.metrics["random_features"], rtol=1e-5, atol=1e-6
        )
        assert loss.metrics["random_features"] > 0


class TestBlocks:
    def test_no_block_sees_the_future(self, tokenizer):
        video = clip_of().float() / 255
        other = video.clone()
        other[:, 4:] = 1 - other[:, 4:]
        latents, changed = (tokenizer.autoencoder.encode(v) for v in (video, other))
        torch.testing.assert_close(latents[:, :4], changed[:, :4])
        assert not torch.allclose(latents[:, 4:], changed[:, 4:], atol=1e-3)
        latents = torch.randn(2, 6, 4, 4, tokenizer.bottleneck.latent_dim)
        pixels = tokenizer.autoencoder.decode(latents)
        latents[:, 4:] += 1
        later = tokenizer.autoencoder.decode(latents)
        torch.testing.assert_close(pixels[:, :4], later[:, :4])
        assert not torch.allclose(pixels[:, 4:], later[:, 4:], atol=1e-3)

    def test_the_past_is_seen(self, tokenizer):
        video = clip_of().float() / 255
        other = video.clone()
        other[:, :2] = 1 - other[:, :2]
        latents, changed = (tokenizer.autoencoder.encode(v) for v in (video, other))
        assert not torch.allclose(latents[:, 4:], changed[:, 4:], atol=1e-3)

    @pytest.mark.parametrize("size", [32, 128])  # blocks of 32 tokens, under a mask, and of 512, one after the other
    def test_with_a_memory_blocks_are_coded_as_in_one_pass(self, tokenizer, size):
        if size != 32:
            tokenizer = build(size=size, codebook=None)
        video = clip_of().float() / 255 if size == 32 else torch.rand(1, 6, 3, size, size)
        lengths = torch.randint(1, tokenizer.tokens_per_block, (len(video), BLOCKS))
        kept = tokenizer._grid(lengths).kept()
        past = tokenizer.autoencoder.start(len(video), BLOCKS)
        with torch.no_grad():
            decoded, passage = tokenizer.pass_through(video, kept)
            for i, clip in enumerate(video.split(2, dim=1)):
                for tried in (torch.ones_like(lengths[:, i]), lengths[:, i]):  # a failed attempt leaves no trace
                    rebuilt, ours = tokenizer._attempt(clip, tried, past, i)
                torch.testing.assert_close(rebuilt, decoded[:, 2 * i : 2 * i + 2], rtol=1e-4, atol=1e-5)
                torch.testing.assert_close(ours.latents, passage.latents[:, 2 * i : 2 * i + 2], rtol=1e-4, atol=1e-5)
        assert past.length == BLOCKS * tokenizer.tokens_per_block


class TestSearch:
    def brute_force(self, tokenizer, video, target, distance=mean_squared_error):
        """Block after block, every length on the whole video so far, without any memory."""
        chosen = []
        for block in range(video.shape[1] // 2):
            clip = video[:, : 2 * block + 2]
            found = torch.full((len(video),), 32)
            for length in range(32, 3, -1):
                lengths = torch.stack([*chosen, torch.full((len(video),), length)], dim=1)
                rebuilt = tokenizer.decode(tokenizer.encode(clip, lengths))
                met = distance(rebuilt[:, -2:], clip[:, -2:]) <= target
                found = torch.where(met, length, found)
            chosen.append(found)
        return torch.stack(chosen, dim=1)

    @torch.no_grad()
    def test_full_search_is_brute_force(self, tokenizer):
        video = clip_of(blocks=2).float() / 255
        middle = mean_squared_error(tokenizer.decode(tokenizer.encode(video, 12)), video).mean().item()
        fitted = tokenizer.encode_to(video, middle, method="full")
        want = self.brute_force(tokenizer, video, middle)
        assert torch.equal(fitted.tokens.lengths, want) and fitted.evaluations == 29
        again = tokenizer.encode(video, want)
        torch.testing.assert_close(values(again), values(fitted.tokens), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(tokenizer.decode(fitted.tokens), fitted.rebuilt, rtol=1e-4, atol=1e-5)
        errors = [mean_squared_error(ours, clip) for ours, clip in zip(fitted.rebuilt.split(2, 1), video.split(2, 1))]
        torch.testing.assert_close(fitted.errors, torch.stack(errors, dim=1))

    def test_the_extremes(self, tokenizer):
        video = clip_of()
        easy, hard = tokenizer.encode_to(video, 1.0), tokenizer.encode_to(video, 0.0)
        assert (easy.tokens.lengths == 4).all() and (easy.errors <= 1).all()
        assert (hard.tokens.lengths == 32).all() and (hard.errors > 0).all()
        assert easy.evaluations == hard.evaluations == 5  # 29 lengths

    def test_binned_search_looks_at_its_bins(self, tokenizer):
        fitted = tokenizer.encode_to(clip_of(), 1.0, method="binned", bins=4)
        assert (fitted.tokens.lengths == 11).all() and fitted.evaluations == 4

    @torch.no_grad()
    def test_any_target(self, tokenizer):
        """A network's features instead of pixels; and something that has no gradient at all."""
        vit = ViT(ViTArchitecture(width=24, depth=1, num_heads=2, num_frames=2, size=32, patch_size=(2, 8, 8))).eval()
        video = clip_of(blocks=1).float() / 255
        distance = cosine_distance(vit)
        middle = distance(tokenizer.decode(tokenizer.encode(video, 12)), video).mean().item()
        fitted = tokenizer.encode_to(video, middle, method="full", distance=distance)
        assert torch.equal(fitted.tokens.lengths, self.brute_force(tokenizer, video, middle, distance))
        fitted = tokenizer.encode_to(video, 1.0, distance=lambda ours, theirs: torch.tensor([0.0, 2.0]))
        assert fitted.tokens.lengths.tolist() == [[4], [32]]


class TestRegressor:
    def build(self, **tokenizer):
        torch.manual_seed(1)
        config = elastic_regressor.tiny().objective
        return dataclasses.replace(config, tokenizer=dataclasses.replace(config.tokenizer, **tokenizer)).build()

    def test_it_starts_from_the_weights_that_its_tokenizer_is_given(self):
        regressor, trained = self.build(), build()
        regressor.tokenizer.load_state_dict(trained.state_dict())
        ours, theirs = regressor.network.state_dict(), trained.autoencoder.state_dict()
        assert ours and all(torch.equal(value, theirs[name]) for name, value in ours.items())

    def test_what_it_learnt_survives_its_tokenizers_weights(self):
        regressor, again = self.build(), self.build()
        for parameter in regressor.network.parameters():
            parameter.data.add_(1)
        again.load_state_dict(regressor.state_dict())
        assert all(map(torch.equal, regressor.network.parameters(), again.network.parameters()))

    def test_it_learns_the_lengths_that_a_search_finds(self):
        regressor = self.build(codebook=None)
        regressor.tokenizer.load_state_dict(build(codebook=None).state_dict())
        video = clip_of(batch=4, blocks=2)
        rebuilt = regressor.tokenizer.decode(regressor.tokenizer.encode(video, 12))
        regressor.target = mean_squared_error(rebuilt, video.float() / 255).median().item()
        found = regressor.tokenizer.encode_to(video, regressor.target).tokens.lengths
        assert found.unique().numel() > 2
        optimiser = torch.optim.AdamW((p for p in regressor.parameters() if p.requires_grad), lr=1e-3)
        for _ in range(60):
            optimiser.zero_grad()
            loss = regressor({"video": video})
            loss.total.backward()
            optimiser.step()
        lengths = regressor.encode(video).lengths
        assert (lengths - found).abs().float().mean() < 0.3 * (found - found.float().mean()).abs().mean()
        assert lengths.min() >= 4 and lengths.max() <= 32

    def test_a_tokenizer_of_one_length(self):
        config = elastic_regressor.tiny().objective
        fixed = dataclasses.replace(config, tokenizer=systems.find("tokenizers.dvae").objective)
        with pytest.raises(UserError, match="DVAEConfig has one length"):
            fixed.build()


@pytest.mark.parametrize("preset, tokens, latents", [("continuous", 2048, 8), ("discrete", 4096, 6)])
def test_blocks_of_the_published_size(preset, tokens, latents):
    with torch.device("meta"):
        tokenizer = systems.find(f"tokenizers.elastictok:{preset}").objective.build()
    assert tokenizer.tokens_per_block == tokens and tokenizer.block_frames == 4
    assert tokenizer.bottleneck.latent_dim == latents
    assert tokenizer.codebook_size == (64_000 if preset == "discrete" else None)


def test_long_videos_need_no_other_weights():
    shapes = []
    for preset in ("continuous", "continuous_16"):
        with torch.device("meta"):
            tokenizer = systems.find(f"tokenizers.elastictok:{preset}").objective.build()
        shapes.append({name: tensor.shape for name, tensor in tokenizer.state_dict().items()})
    assert shapes[0] == shapes[1]
