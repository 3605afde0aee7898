"""Tokenizers have the papers' sizes: millions of parameters, or the codes and layers of their tables."""

import dataclasses

import pytest
import torch
from sizes import unnamed

from filmstrip import systems
from filmstrip.train.lengths import Steps
from filmstrip.train.schedules import Constant

ELASTIC = tuple(
    f"{kind}{stage}"
    for kind in ("continuous", "discrete")
    for stage in ("_image", "", "_2", "_4", "_16", "_64", "_128", "_256")
)
# Millions of parameters, without what only the loss needs.
TOKENIZERS = {f"tokenizers.elastictok:{preset}": 210 for preset in ELASTIC} | {
    # Counted over the published layout: 53,786,240 in the encoder and 43,829,766 in the decoder, of which 128 are a
    # bias that codes hold here.
    "tokenizers.dvae:dalle": 97.615878,
    # Nothing is printed of these: counted over diffusers' networks of the same layers (tests/parity).
    "tokenizers.vqgan:amused": 146.244675,
    "tokenizers.vqgan:minecraft": 30.364803,
    "tokenizers.vqgan:habitat": 81.677955,
    "tokenizers.vqgan:viper_dmc": 16.621635,
    "tokenizers.vqgan:viper_atari": 15.439427,
    "tokenizers.vqgan:viper_rlbench": 20.755523,
    "tokenizers.vae_kl:minecraft": 28.818919,
    "tokenizers.vae_kl:habitat": 77.200619,
    "tokenizers.vae_kl:stable_diffusion": 83.653863,
}
# What the papers' tables say of codes: how many along time, height and width, of what codebook (none: continuous), of
# how many channels.
CODES = {
    "tokenizers.vqvae3d:moving_mnist": ((4, 16, 16), 512, 64),
    "tokenizers.vqvae3d:bair": ((8, 32, 32), 1024, 256),
    "tokenizers.vqvae3d:vizdoom": ((8, 32, 32), 1024, 256),
    "tokenizers.vqvae3d:ucf101": ((4, 32, 32), 1024, 256),
    "tokenizers.vqvae3d:ucf101_128": ((4, 32, 32), 1024, 256),
    "tokenizers.vqvae3d:tgif": ((4, 32, 32), 1024, 256),
    "tokenizers.vqgan:amused": ((1, 16, 16), 8192, 64),
    "tokenizers.vqgan:dmlab": ((1, 16, 16), 1024, 256),
    "tokenizers.vqgan:minecraft": ((1, 16, 16), 1024, 256),
    "tokenizers.vqgan:habitat": ((1, 16, 16), 8192, 256),
    "tokenizers.vqgan:kinetics600": ((1, 16, 16), 8192, 256),
    "tokenizers.vqgan:viper_dmc": ((1, 8, 8), 1024, 64),
    "tokenizers.vqgan:viper_atari": ((1, 16, 16), 1024, 64),
    "tokenizers.vqgan:viper_rlbench": ((1, 16, 16), 1024, 64),
    "tokenizers.vae_kl:dmlab": ((1, 16, 16), None, 4),
    "tokenizers.vae_kl:minecraft": ((1, 16, 16), None, 4),
    "tokenizers.vae_kl:habitat": ((1, 16, 16), None, 8),
    "tokenizers.vae_kl:stable_diffusion": ((1, 32, 32), None, 4),
    "tokenizers.vae_kl:kinetics600": ((1, 16, 16), None, 8),
    "tokenizers.dvae:dalle": ((1, 32, 32), 8192, 128),
    "tokenizers.elastictok:continuous": ((2, 32, 32), None, 8),
    "tokenizers.elastictok:discrete": ((4, 32, 32), 64_000, 6),
}
# Appendix C.2 of ElasticTok: blocks, clips of a step, thousands of steps and of those to warm up, share of stills.
STAGES = {
    "_image": (1, 256, 200, 10, 1.0),
    "": (1, 256, 200, 10, 0.5),
    "_2": (2, 256, 80, 5, 0.5),
    "_4": (4, 256, 50, 2, 0.25),
    "_16": (16, 64, 10, 1, 0.25),
    "_64": (64, 16, 1, 0.2, 0.25),
    "_128": (128, 8, 0.5, 0.1, 0.25),
    "_256": (256, 4, 0.2, 0.025, 0.25),
}
# Table A.1 of VideoGPT: hidden and residual units, residual layers, attention, channels of a code; how many times the
# axis that shrinks most is halved, and the codes along each.
VQVAES = {
    "moving_mnist": (240, 128, 2, False, 64, 2, (4, 16, 16)),
    "bair": (240, 128, 4, True, 256, 1, (8, 32, 32)),
    "vizdoom": (240, 128, 4, True, 256, 1, (8, 32, 32)),
    "ucf101": (240, 128, 4, True, 256, 2, (4, 32, 32)),
    "ucf101_128": (240, 128, 4, True, 256, 2, (4, 32, 32)),
    "tgif": (240, 128, 4, True, 256, 2, (4, 32, 32)),
}


@pytest.mark.parametrize("address", TOKENIZERS)
def test_tokenizers(address):
    with torch.device("meta"):
        objective = systems.find(address).objective.build()
    coding = (objective.autoencoder, objective.bottleneck)
    parameters = sum(p.numel() for module in coding for p in module.parameters())
    assert parameters / 1e6 == pytest.approx(TOKENIZERS[address], rel=0.01)


@pytest.mark.parametrize("address", CODES)
def test_codes(address):
    grid, codebook_size, dim = CODES[address]
    run = systems.find(address)
    clip = run.data.clip
    with torch.device("meta"):
        tokenizer = run.objective.build()
        latents = tokenizer.autoencoder.encode(torch.empty(1, clip.num_frames, 3, clip.size, clip.size))
    assert latents.shape == (1, *grid, tokenizer.bottleneck.input_dim)
    assert (tokenizer.codebook_size, tokenizer.bottleneck.latent_dim) == (codebook_size, dim)


def test_dalle_shortens_pictures_192_times():
    grid, _, _ = CODES["tokenizers.dvae:dalle"]
    clip = systems.find("tokenizers.dvae:dalle").data.clip
    assert 3 * clip.size**2 / (grid[1] * grid[2]) == 192


@pytest.mark.parametrize("form", ["paper", "released"])
@pytest.mark.parametrize("preset", VQVAES)
def test_vqvaes_have_the_layers_of_their_table(preset, form):
    w, r, layers, attention, dim, halvings, grid = VQVAES[preset]
    config = systems.find(f"tokenizers.vqvae3d:{preset}").objective
    kernel = 27
    if form == "paper":
        config = dataclasses.replace(config, form="paper", residual_width=r)
    else:  # its code has half the units, kernels of 4 x 4 x 4 where it halves, and no positions
        r, kernel = w // 2, 64
    with torch.device("meta"):
        objective = config.build()
    block = 2 * w + 27 * w * r + 2 * r + r * w  # two norms, 3 x 3 x 3 and 1 x 1 x 1, no biases
    block += attention * (2 * w + 3 * (4 * w * w + w))  # a norm; queries, keys, values and output along three axes
    inner = halvings - 1
    encoder = kernel * 3 * w + w + inner * (kernel * w * w + w) + 27 * w * w + w
    encoder += layers * block + 2 * w + w * dim + dim
    decoder = dim * w + w + layers * block + 2 * w + inner * (64 * w * w + w) + 64 * w * 3 + 3
    positions = attention * (form == "paper") * sum(grid) * w // 3
    assert sum(p.numel() for p in objective.parameters()) == encoder + decoder + positions


@pytest.mark.parametrize("kind", ["continuous", "discrete"])
@pytest.mark.parametrize("stage", STAGES)
def test_stages_of_elastictok(kind, stage):
    blocks, batch_size, steps, warmup, stills = STAGES[stage]
    run = systems.find(f"tokenizers.elastictok:{kind}{stage}")
    assert (run.data.clip.num_frames, run.data.clip.size, run.data.batch_size) == (4 * blocks, 256, batch_size)
    assert run.train.length == Steps(1000 * steps) and run.optim.schedule == Constant(warmup=Steps(1000 * warmup))
    assert (run.optim.lr, run.optim.weight_decay, run.objective.still_share) == (2e-4, 1e-4, stills)
    with torch.device("meta"):
        tokenizer = run.objective.build()
    most, fewest = {"continuous": (2048, 128), "discrete": (4096, 256)}[kind]
    assert (tokenizer.tokens_per_block, tokenizer.max_tokens, tokenizer.min_tokens) == (most, most, fewest)


@pytest.mark.parametrize(
    "address", ["tokenizers.elastic_regressor:continuous", "tokenizers.elastic_regressor:discrete"]
)
def test_a_regressor_is_the_encoder_half_of_its_tokenizer(address):
    with torch.device("meta"):
        regressor = systems.find(address).objective.build()
    own = sum(p.numel() for part in (regressor.network, regressor.head) for p in part.parameters())
    assert own / 1e6 == pytest.approx(210 / 2, rel=0.01)


def test_every_preset_is_named():
    elsewhere = ("tokenizers.elastic_regressor:",)
    assert not unnamed("tokenizers", TOKENIZERS, CODES, elsewhere=elsewhere)
