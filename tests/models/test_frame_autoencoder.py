import pytest
import torch

from filmstrip.errors import UserError
from filmstrip.models.frame_autoencoder import FrameAutoencoder, FrameAutoencoderArchitecture
from filmstrip.objectives.adversarial import PatchDiscriminator


def build(**changes):
    config = FrameAutoencoderArchitecture(**dict(widths=(8, 16, 16), depth=1, groups=4) | changes)
    return FrameAutoencoder(config, input_dim=6, latent_dim=3)


@pytest.mark.parametrize("halvings, side", [(None, 8), (2, 8), (1, 16), (0, 32)])
def test_halvings(halvings, side):
    model = build(halvings=halvings)
    latents = model.encode(torch.rand(2, 3, 3, 32, 32))
    assert latents.shape == (2, 3, side, side, 6)
    assert model.patch_size == (1, 32 // side, 32 // side)
    assert model.decode(latents[..., :3]).shape == (2, 3, 3, 32, 32)


def test_frames_are_coded_alone():
    model = build()
    video = torch.rand(1, 3, 3, 16, 16)
    frames = torch.cat([model.encode(video[:, i : i + 1]) for i in range(3)], dim=1)
    torch.testing.assert_close(model.encode(video), frames, rtol=1e-4, atol=1e-5)


def test_attention_stands_where_asked():
    names = [name for name, _ in build(attention_levels=(2,)).named_modules() if name.endswith(".attention")]
    assert [name for name in names if name.startswith("down")] == ["down.2.attentions.0.attention"]
    assert [name for name in names if name.startswith("up")] == [f"up.0.attentions.{i}.attention" for i in range(2)]


@pytest.mark.parametrize("wrong", [dict(widths=(8, 10)), dict(halvings=3), dict(halvings=-1)])
def test_sizes_that_cannot_be(wrong):
    with pytest.raises(UserError, match="multiples of 4"):
        build(**wrong)


def test_published_size():
    """The 83.6 million parameters of the kl-f8 autoencoder of latent diffusion."""
    with torch.device("meta"):
        config = FrameAutoencoderArchitecture(widths=(128, 256, 512, 512))
        model = FrameAutoencoder(config, input_dim=8, latent_dim=4)
    assert sum(p.numel() for p in model.parameters()) == 83_653_863


def test_discriminator_judges_overlapping_patches_of_each_frame():
    discriminator = PatchDiscriminator(width=8, depth=3)
    video = torch.rand(2, 3, 3, 64, 64)
    logits = discriminator(video)
    assert logits.shape == (6, 1, 6, 6)
    torch.testing.assert_close(discriminator(video[1:])[0], logits[3], rtol=1e-4, atol=1e-5)
    assert (
        max(
            conv.out_channels
            for conv in PatchDiscriminator(width=64, depth=5, max_width=128)
            if hasattr(conv, "out_channels")
        )
        == 128
    )
