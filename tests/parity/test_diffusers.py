"""VQ-GAN and VAE against ``diffusers``, through the key map, both ways."""

from dataclasses import replace

import pytest
import torch

from filmstrip import systems
from filmstrip.errors import UserError
from filmstrip.objectives.codebook import Codebook
from filmstrip.protocols import Tokens
from filmstrip.runs.tokenizers import start_tokenizer, with_tokenizer
from filmstrip.systems.tokenizers.vae_kl import VAEKLConfig
from filmstrip.systems.tokenizers.vqgan import VQGANConfig
from filmstrip.weights.diffusers import to_diffusers

diffusers = pytest.importorskip("diffusers")

SHARED = dict(
    block_out_channels=(16, 32, 32),
    layers_per_block=1,
    norm_num_groups=8,
    down_block_types=("DownEncoderBlock2D", "DownEncoderBlock2D", "AttnDownEncoderBlock2D"),
    up_block_types=("AttnUpDecoderBlock2D", "UpDecoderBlock2D", "UpDecoderBlock2D"),
)
# Their per-level attention takes its heads from attention_head_dim, of which VQModel has no argument: leave it out.
PLAIN = SHARED | dict(down_block_types=("DownEncoderBlock2D",) * 3, up_block_types=("UpDecoderBlock2D",) * 3)
SIZES = dict(widths=(16, 32, 32), depth=1, groups=8)


def randomise(model):
    torch.manual_seed(0)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return model.eval()


def load(objective, theirs):
    weights = objective.from_published(theirs.state_dict())
    missing, unknown = objective.load_state_dict(weights, strict=False)
    assert not unknown and not [name for name in missing if name.startswith(("autoencoder.", "bottleneck."))]
    back = to_diffusers(objective.state_dict())
    assert back.keys() == theirs.state_dict().keys()
    assert all(torch.equal(back[name], tensor) for name, tensor in theirs.state_dict().items())
    return objective.eval()


@pytest.fixture
def frames():
    return torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def test_vae(frames, assert_close):
    theirs = randomise(diffusers.AutoencoderKL(latent_channels=4, **SHARED))
    ours = load(VAEKLConfig(latent_dim=4, attention_levels=(2,), **SIZES).build(), theirs)
    tokens = ours.encode(frames[:, None])
    latents = theirs.encode(frames * 2 - 1).latent_dist.mode()
    assert_close(tokens.latents, latents.flatten(2).mT)
    assert_close(
        ours.autoencoder.decode(latents.movedim(1, -1)[:, None])[:, 0], theirs.decode(latents).sample / 2 + 0.5
    )


@torch.no_grad()
@pytest.mark.parametrize("dim", [8, 48])  # codes may be wider than the network
def test_vqgan(frames, dim, assert_close):
    theirs = randomise(diffusers.VQModel(latent_channels=dim, num_vq_embeddings=16, **PLAIN))
    ours = load(VQGANConfig(codebook=Codebook(kind="learnt", size=16, dim=dim), **SIZES).build(), theirs)
    latents = theirs.encode(frames * 2 - 1).latents
    _, _, (_, _, ids) = theirs.quantize(latents)
    tokens = ours.encode(frames[:, None])
    assert torch.equal(tokens.ids.flatten(), ids)
    assert len(ids.unique()) > 1
    rebuilt = theirs.decode(latents).sample / 2 + 0.5
    assert_close(ours.decode(Tokens(tokens.grid, ids=tokens.ids))[:, 0], rebuilt.clamp(0, 1))


@torch.no_grad()
def test_amused_has_no_attention_and_reads_pixels_from_zero_to_one(frames, assert_close, tmp_path):
    """A folder that diffusers wrote is the tokenizer of a model of codes, as its own pipelines use it."""
    theirs = diffusers.VQModel(latent_channels=8, num_vq_embeddings=16, mid_block_add_attention=False, **PLAIN)
    randomise(theirs).save_pretrained(tmp_path / "vqvae")
    run = systems.find("language.lwm:tiny")
    run = replace(run, objective=replace(run.objective, tokenizer_run=str(tmp_path / "vqvae")))
    run = with_tokenizer(run)
    model = replace(run.objective, begin=(5,), end=(6,)).build().eval()
    start_tokenizer(model, run)
    latents = theirs.encode(frames).latents
    _, _, (_, _, ids) = theirs.quantize(latents)
    tokens = model.tokenizer.encode(frames[:, None])
    assert torch.equal(tokens.ids.flatten(), ids) and len(ids.unique()) > 1
    assert_close(model.video_of(tokens)[:, 0], theirs.decode(latents).sample.clamp(0, 1))
    (tmp_path / "vqvae" / "diffusion_pytorch_model.safetensors").unlink()
    with pytest.raises(UserError, match=r"diffusion_pytorch_model\.safetensors is needed"):
        with_tokenizer(replace(run, objective=replace(run.objective, tokenizer_run=str(tmp_path / "vqvae"))))


PAPERS = [
    *(
        f"tokenizers.vqgan:{name}"
        for name in ("amused", "minecraft", "habitat", "viper_dmc", "viper_atari", "viper_rlbench")
    ),
    *(f"tokenizers.vae_kl:{name}" for name in ("minecraft", "habitat", "stable_diffusion")),
]


@pytest.mark.parametrize("address", PAPERS)
def test_paper_presets_have_their_weights(address):
    """Without DMLab's, of which two levels lie at one resolution: they have no such network."""
    config = systems.find(address).objective
    levels = [i in config.attention_levels for i in range(len(config.widths))]
    shared = dict(
        block_out_channels=config.widths,
        layers_per_block=config.depth,
        down_block_types=["AttnDownEncoderBlock2D" if level else "DownEncoderBlock2D" for level in levels],
        up_block_types=["AttnUpDecoderBlock2D" if level else "UpDecoderBlock2D" for level in levels[::-1]],
    )
    with torch.device("meta"):
        ours = config.build()
        if "vqgan" in address:
            codes = dict(
                mid_block_add_attention=config.middle_attention,
                latent_channels=config.codebook.dim,
                num_vq_embeddings=config.codebook.size,
            )
            theirs = diffusers.VQModel(**shared, **codes)
        else:
            theirs = diffusers.AutoencoderKL(latent_channels=config.latent_dim, **shared)
    shapes = {name: tensor.shape for name, tensor in to_diffusers(ours.state_dict()).items()}
    assert shapes == {name: tensor.shape for name, tensor in theirs.state_dict().items()}
