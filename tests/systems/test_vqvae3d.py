import pytest
import torch
import torch.nn.functional as F

from filmstrip.errors import UserError
from filmstrip.systems.tokenizers.vqvae3d import DownConv, ResidualBlock, UpConv, VideoAutoencoder, VQVAE3DConfig


def published_up_convolution(x, conv):
    """The published layer: pad by kernel - stride (the odd one before), then transpose with padding kernel - 1."""
    total = [4 - s for s in conv.stride]
    pad = [amount for t in reversed(total) for amount in (t // 2 + t % 2, t // 2)]
    return F.conv_transpose3d(F.pad(x, pad), conv.weight, conv.bias, stride=conv.stride, padding=3)


@pytest.mark.parametrize("stride", [(2, 2, 2), (2, 1, 1), (1, 2, 2)])
def test_up_convolution_pads_as_published(stride):
    conv = UpConv(3, 2, stride)
    x = torch.randn(1, 3, 4, 5, 6)
    out = conv(x)
    assert out.shape == (1, 2, 4 * stride[0], 5 * stride[1], 6 * stride[2])
    torch.testing.assert_close(out, published_up_convolution(x, conv))


@pytest.mark.parametrize("stride", [(2, 2, 2), (2, 1, 1), (1, 2, 2)])
def test_down_convolution_pads_as_published(stride):
    conv = DownConv(3, 2, stride)
    x = torch.randn(1, 3, 4, 6, 8)
    out = conv(x)
    assert out.shape == (1, 2, *(size // s for size, s in zip(x.shape[2:], stride)))
    # pad by kernel - stride, the odd one before
    pad = [amount for s in reversed(stride) for amount in ((4 - s) // 2 + (4 - s) % 2, (4 - s) // 2)]
    torch.testing.assert_close(out, F.conv3d(F.pad(x, pad), conv.weight, conv.bias, stride=stride))


def build(**changes):
    sizes = dict(patch_size=(2, 4, 4), num_frames=4, size=16, width=12, residual_width=6, depth=1)
    return VideoAutoencoder(VQVAE3DConfig(**(sizes | changes)), input_dim=5, latent_dim=7)


@pytest.mark.parametrize("patch_size", [(2, 4, 4), (4, 2, 2), (1, 2, 2)])
@pytest.mark.parametrize("form", ["paper", "released"])
def test_shapes(patch_size, form):
    model = build(patch_size=patch_size, form=form)
    latents = model.encode(torch.rand(2, 4, 3, 16, 16))
    grid = tuple(size // patch for size, patch in zip((4, 16, 16), patch_size))
    assert latents.shape == (2, *grid, 5)
    assert model.decode(torch.randn(2, *grid, 7)).shape == (2, 4, 3, 16, 16)


def test_attention_sees_the_whole_clip_where_convolutions_do_not():
    def reach(num_heads):
        torch.manual_seed(0)
        model = build(num_heads=num_heads, size=64, patch_size=(1, 4, 4), num_frames=1, depth=1)
        video = torch.rand(1, 1, 3, 64, 64, requires_grad=True)
        model.encode(video)[0, 0, 8, 8].sum().backward()
        return (video.grad[0, 0, :, 32:36].abs().sum(dim=(0, 1)) > 0).sum()

    assert reach(2) == 64 > reach(0)


def test_encoder_and_decoder_share_positions():
    model = build()
    model.decode(model.encode(torch.rand(1, 4, 3, 16, 16)).repeat(1, 1, 1, 1, 2)[..., :7]).sum().backward()
    assert sum("axes" in name for name, _ in model.named_parameters()) == 3
    assert all(axis.grad.any() for axis in model.positions.axes)


def test_longer_video_than_positions():
    with pytest.raises(ValueError, match="learned positions"):
        build().encode(torch.rand(1, 8, 3, 16, 16))
    for free in (dict(num_heads=0), dict(form="released")):
        assert build(**free).encode(torch.rand(1, 8, 3, 32, 32)).shape == (1, 4, 8, 8, 5)


def test_a_block_without_heads_has_no_attention():
    block = ResidualBlock(VQVAE3DConfig(width=12, residual_width=6, num_heads=0))
    assert not any("attention" in name for name, _ in block.named_parameters())


@pytest.mark.parametrize("patch_size", [(3, 2, 2), (1, 1, 1), (0, 2, 2)])
def test_patches_are_powers_of_two(patch_size):
    with pytest.raises(UserError, match="powers of two"):
        build(patch_size=patch_size)
