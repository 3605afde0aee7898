"""What every tokenizer promises beside being a system; runs on its ``tiny()``."""

import dataclasses
from itertools import pairwise

import pytest
import torch

from filmstrip import systems
from filmstrip.errors import UserError
from filmstrip.measure import complexity
from filmstrip.objectives.codebook import Codebook
from filmstrip.protocols import Grid, Tokenizer, Tokens
from filmstrip.systems.tokenizers.dvae import logit_laplace

NAMES = [name for name in systems.names() if name.startswith("tokenizers.")]
DISCRETE = [name for name in NAMES if hasattr(systems.find(name).objective, "codebook")]
KINDS = ["ema", "learnt", "fsq", "lookup_free", "gumbel"]


def build(name, **codebook):
    torch.manual_seed(0)
    config = systems.find(name).objective
    if codebook:
        config = dataclasses.replace(config, codebook=dataclasses.replace(config.codebook, **codebook))
    return config.build().eval()


def clip_of(name, batch=2):
    clip = systems.find(name).data.clip
    generator = torch.Generator().manual_seed(0)
    shape = (batch, clip.num_frames, 3, clip.size, clip.size)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)


@pytest.mark.parametrize("name", NAMES)
class TestEvery:
    def test_codes_fill_the_grid_and_come_back_as_video(self, name):
        tokenizer, video = build(name), clip_of(name)
        assert isinstance(tokenizer, Tokenizer)
        tokens = tokenizer.encode(video)
        size = (video.shape[1], *video.shape[3:])
        assert tokens.grid == Grid(*(n // p for n, p in zip(size, tokenizer.patch_size)))
        filled = tokens.latents if tokens.ids is None else tokens.ids
        assert filled.shape[:2] == (2, tokens.grid.t * tokens.grid.h * tokens.grid.w)
        rebuilt = tokenizer.decode(tokens)
        assert rebuilt.shape == video.shape and rebuilt.min() >= 0 and rebuilt.max() <= 1

    def test_bytes_and_floats_give_the_same_tokens(self, name):
        tokenizer, video = build(name), clip_of(name)
        ours, floats = tokenizer.encode(video), tokenizer.encode(video.float() / 255)
        torch.testing.assert_close(dataclasses.astuple(ours), dataclasses.astuple(floats))

    def test_clips_of_a_batch_are_independent(self, name):
        tokenizer, video = build(name), clip_of(name)
        both, one = tokenizer.encode(video), tokenizer.encode(video[:1])
        parts = (both.ids, both.latents, both.lengths)
        first = Tokens(both.grid, *(part if part is None else part[:1] for part in parts))
        torch.testing.assert_close(tokenizer.decode(one), tokenizer.decode(first), atol=1e-4, rtol=1e-4)

    def test_wrong_shapes_are_refused(self, name):
        tokenizer, video = build(name), clip_of(name)
        with pytest.raises(ValueError, match=r"expected video of shape \(B, T, 3, H, W\)"):
            tokenizer.encode(video[:, :, :1])
        with pytest.raises(ValueError, match="not a multiple of patches"):
            tokenizer.encode(video[..., :-1])
        tokens = tokenizer.encode(video)
        with pytest.raises(ValueError, match="on a grid of"):
            tokenizer.decode(Tokens(Grid(1, 1, 1), tokens.ids, tokens.latents))

    def test_tokens_of_the_other_kind_are_refused(self, name):
        tokenizer = build(name)
        discrete = tokenizer.codebook_size is not None
        ids = None if discrete else torch.zeros(1, 1, dtype=torch.int64)
        with pytest.raises(ValueError, match="decodes ids" if discrete else "decodes latents"):
            tokenizer.decode(Tokens(Grid(1, 1, 1), ids=ids))

    def test_every_preset_builds_and_its_clip_fits(self, name):
        runs = [systems.find(f"{name}:{preset}") for preset in systems.presets(name)]
        for run in {(repr(run.objective), run.data.clip): run for run in runs}.values():
            clip = run.data.clip
            if clip.num_frames * clip.size**2 > 8 * 256**2:  # the same network as of fewer frames, and seconds each
                with torch.device("meta"):
                    assert clip.num_frames % run.objective.build().patch_size[0] == 0
                continue
            complexity.try_out(run)


@pytest.mark.parametrize("name", DISCRETE)
class TestDiscrete:
    def test_ids_outside_the_codebook(self, name):
        tokenizer, video = build(name), clip_of(name)
        tokens = tokenizer.encode(video)
        for wrong in (-1, tokenizer.codebook_size):
            tokens.ids[0, 0] = wrong
            with pytest.raises(ValueError, match=rf"ids lie in 0\.\.{tokenizer.codebook_size - 1}; .*were given"):
                tokenizer.decode(tokens)

    def test_a_decoded_id_is_the_latent_that_training_decodes(self, name):
        tokenizer, video = build(name), clip_of(name).float() / 255
        with torch.no_grad():
            decoded, _ = tokenizer.pass_through(video)
            rebuilt = tokenizer.decode(tokenizer.encode(video))
        torch.testing.assert_close(tokenizer.pixels(decoded), rebuilt)

    @pytest.mark.parametrize("kind", KINDS)
    def test_any_quantiser_trains_it(self, name, kind):
        tokenizer = build(name, kind=kind, size=32, dim=8, levels=(5, 4, 3)).train()
        batch = {"video": clip_of(name), "seed": torch.arange(2)}
        for phase in tokenizer.phases():
            loss = tokenizer(batch, phase.name)
            loss.total.backward()
            assert loss.total.isfinite() and all(value.isfinite() for value in loss.metrics.values())
        assert tokenizer.codebook_size == (60 if kind == "fsq" else 32)
        first = next(tokenizer.autoencoder.parameters())
        assert first.grad.any()

    def test_several_codebooks(self, name):
        tokenizer, video = build(name, kind="ema", dim=8, num_codebooks=2), clip_of(name)
        tokens = tokenizer.encode(video)
        assert tokens.ids.shape == (2, 2 * tokens.grid.t * tokens.grid.h * tokens.grid.w)
        assert tokenizer.decode(tokens).shape == video.shape


@pytest.mark.parametrize("wrong", [dict(size=1), dict(kind="lookup_free", size=100), dict(dim=10, num_codebooks=3)])
def test_codebooks_that_cannot_be(wrong):
    with pytest.raises(UserError):
        Codebook(**wrong).build()


class TestVQVAE3D:
    def test_loss_is_the_error_over_the_variance(self):
        tokenizer = build("tokenizers.vqvae3d")
        video = clip_of("tokenizers.vqvae3d")
        loss = tokenizer({"video": video})
        decoded, passage = tokenizer.pass_through(video.float() / 255)
        nmse = (decoded - video.float() / 255).square().mean() / 0.06
        torch.testing.assert_close(loss.metrics["nmse"], nmse.detach())
        torch.testing.assert_close(loss.total, nmse + passage.loss)

    @pytest.mark.parametrize(
        "preset, grid",
        [("moving_mnist", (4, 16, 16)), ("bair", (8, 32, 32)), ("vizdoom", (8, 32, 32)), ("ucf101", (4, 32, 32))],
    )
    def test_presets_have_the_papers_latent_sizes(self, preset, grid):
        run = systems.find(f"tokenizers.vqvae3d:{preset}")
        with torch.device("meta"):
            tokenizer = run.objective.build()
        clip = run.data.clip
        size = (clip.num_frames, clip.size, clip.size)
        assert tuple(n // p for n, p in zip(size, tokenizer.patch_size)) == grid


class TestDVAE:
    def test_density_integrates_to_one(self):
        pixels = torch.linspace(1e-5, 1 - 1e-5, 200_001, dtype=torch.float64)
        for mean, log_scale in ((0.0, 0.0), (1.5, -1.0), (-2.0, -0.5)):
            nats = logit_laplace(pixels, torch.tensor(mean).double(), torch.tensor(log_scale).double())
            assert torch.trapezoid((-nats).exp(), pixels).item() == pytest.approx(1, abs=1e-3)

    def test_it_learns_to_rebuild_a_batch(self):
        tokenizer = build("tokenizers.dvae").train()
        coarse = torch.rand(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
        video = torch.nn.functional.interpolate(coarse, scale_factor=8, mode="bilinear")[:, None]
        optimiser = torch.optim.Adam(tokenizer.parameters(), lr=2e-3)
        errors = []
        for _ in range(100):
            optimiser.zero_grad()
            loss = tokenizer({"video": video})
            loss.total.backward()
            optimiser.step()
            errors.append(loss.metrics["mse"].item())
        assert errors[-1] < 0.5 * errors[0]

    def test_the_published_size(self):
        """The decoder's first convolution has 128 biases more than our codes."""
        cost = complexity.of_run(systems.find("tokenizers.dvae:dalle"))
        encoder = sum(_published_block(i, o, 3, 1) for i, o in _pairs([256, 256, 512, 1024, 2048]))
        decoder = sum(_published_block(i, o, 1, 3) for i, o in _pairs([128, 2048, 1024, 512, 256]))
        ends = (3 * 49 + 1) * 256 + (2048 + 1) * 8192 + 8192 * 128 + (256 + 1) * 6
        assert cost.parameters == encoder + decoder + ends


def _pairs(widths):
    """Inputs and outputs of the two blocks of each group."""
    return [pair for i, o in pairwise(widths) for pair in ((i, o), (o, o))]


def _published_block(inputs, outputs, first, last):
    inner = outputs // 4
    sizes = [(inputs, inner, first), (inner, inner, 3), (inner, inner, 3), (inner, outputs, last)]
    sizes += [(inputs, outputs, 1)] if inputs != outputs else []
    return sum((i * kernel**2 + 1) * o for i, o, kernel in sizes)


def test_a_relaxed_choice_is_sharp_when_its_run_says_so():
    objective = build("tokenizers.dvae:tiny", warmup_steps=4, anneal_steps=10)
    objective.after_step(2)
    assert objective.bottleneck.weight.item() == pytest.approx(objective.bottleneck.kl_weight / 2)
    objective.after_step(10)
    assert objective.bottleneck.temperature.item() == pytest.approx(1 / 16)
    run = systems.find("tokenizers.dvae:tiny")
    assert run.objective.codebook.anneal_steps < run.train.length.steps
