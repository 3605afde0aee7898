import pytest
import torch
from torch import nn

from filmstrip.nn.block import Block
from filmstrip.nn.conv import Conv2Plus1D, SpatialConv, TemporalConv, matching_channels
from filmstrip.nn.drop_path import DropPath
from filmstrip.nn.mlp import GatedMLP
from filmstrip.nn.normalise import Normalise
from filmstrip.nn.patches import PatchEmbed, conv_to_linear, linear_to_conv, patchify, take, unpatchify
from filmstrip.nn.positions import sincos_table
from filmstrip.protocols import Grid


def test_patch_embedding_equals_the_convolution_it_stands_for():
    torch.manual_seed(0)
    conv = nn.Conv3d(3, 10, (2, 4, 8), stride=(2, 4, 8))
    embed = PatchEmbed(10, (2, 4, 8), mean=(0, 0, 0), std=(1, 1, 1))
    embed.proj.load_state_dict({"weight": conv_to_linear(conv.weight.data), "bias": conv.bias.data})
    video = torch.rand(2, 4, 3, 8, 16)
    want = conv(video.transpose(1, 2)).flatten(2).transpose(1, 2)
    torch.testing.assert_close(embed(video), want, rtol=1e-4, atol=1e-5)
    assert torch.equal(linear_to_conv(embed.proj.weight, (2, 4, 8)), conv.weight)


def test_visible_cubes_are_embedded_as_among_all():
    embed = PatchEmbed(6, (1, 2, 2))
    video = torch.randint(0, 256, (2, 2, 3, 4, 4), dtype=torch.uint8)
    visible = torch.tensor([[0, 5, 6], [7, 1, 2]])
    torch.testing.assert_close(embed(video, visible), take(embed(video), visible))


def test_unpatchify_undoes_patchify():
    video = torch.rand(2, 4, 3, 8, 6)
    patches = patchify(video, (2, 4, 3))
    assert patches.shape == (2, 2 * 2 * 2, 24, 3)
    assert torch.equal(patches[1, 3, :, 2], video[1, 0:2, 2, 4:8, 3:6].flatten())
    assert torch.equal(unpatchify(patches, Grid(2, 2, 2), (2, 4, 3)), video)


def test_normalise_takes_bytes_and_floats_and_leaves_them_alone():
    normalise = Normalise((0.5, 0.25, 0.0), (0.5, 1.0, 2.0))
    video = torch.full((1, 1, 3, 2, 2), 255, dtype=torch.uint8)
    want = torch.tensor([1.0, 0.75, 0.5])
    torch.testing.assert_close(normalise(video)[0, 0, :, 0, 0], want)
    floats = torch.ones(1, 1, 3, 2, 2)
    torch.testing.assert_close(normalise(floats)[0, 0, :, 1, 1], want)
    assert (floats == 1).all() and (video == 255).all()


def test_spatial_and_temporal_convolutions_equal_three_dimensional_ones():
    torch.manual_seed(0)
    x = torch.randn(2, 3, 6, 8, 8).contiguous(memory_format=torch.channels_last_3d)
    for stride in (1, 2):
        spatial, temporal = SpatialConv(3, 5, stride=stride), TemporalConv(3, 5, stride=stride)
        want = nn.functional.conv3d(x, spatial.weight.unsqueeze(2), stride=(1, stride, stride), padding=(0, 1, 1))
        torch.testing.assert_close(spatial(x), want, rtol=1e-4, atol=1e-5)
        want = nn.functional.conv3d(x, temporal.weight.unsqueeze(-1), stride=(stride, 1, 1), padding=(1, 0, 0))
        torch.testing.assert_close(temporal(x), want, rtol=1e-4, atol=1e-5)


def test_convolutions_keep_channels_last_memory_without_copies():
    x = torch.randn(2, 4, 6, 8, 8).contiguous(memory_format=torch.channels_last_3d)
    y = Conv2Plus1D(4, 8, middle=6, stride=2)(x)
    assert y.shape == (2, 8, 3, 4, 4)
    assert y.is_contiguous(memory_format=torch.channels_last_3d)


@pytest.mark.parametrize(("inputs", "outputs"), [(64, 64), (64, 128), (256, 512)])
def test_factorised_convolution_has_the_parameters_of_the_whole_one(inputs, outputs):
    middle = matching_channels(inputs, outputs)
    factorised = inputs * middle * 9 + middle * outputs * 3
    assert factorised == pytest.approx(27 * inputs * outputs, rel=0.01)


def test_positions_are_sines_and_cosines():
    table = sincos_table(5, 6)
    assert table.shape == (5, 6) and table.dtype == torch.float32
    assert table[0].tolist() == [0, 1, 0, 1, 0, 1]
    torch.testing.assert_close(table[3, 2], torch.tensor(3 / 10_000 ** (2 / 6)).sin())
    torch.testing.assert_close(table[3, 5], torch.tensor(3 / 10_000 ** (4 / 6)).cos())


def test_drop_path_drops_whole_samples_and_keeps_the_mean():
    torch.manual_seed(0)
    drop = DropPath(0.25)
    out = drop(torch.ones(4000, 2, 3))
    values = out.flatten(1)
    assert ((values == 0).all(1) | torch.isclose(values, torch.tensor(4 / 3)).all(1)).all()
    assert out.mean().item() == pytest.approx(1, abs=0.03)
    assert torch.equal(drop.eval()(torch.ones(3, 2)), torch.ones(3, 2))


def test_block_is_pre_norm_with_two_residual_branches():
    torch.manual_seed(0)
    block = Block(12, 3, mlp_ratio=2.0)
    x = torch.randn(2, 5, 12)
    middle = x + block.attention(block.norm1(x))
    torch.testing.assert_close(block(x), middle + block.mlp(block.norm2(middle)))


def test_a_gated_network_multiplies_two_projections():
    torch.manual_seed(0)
    mlp, x = GatedMLP(4, 6), torch.randn(2, 3, 4)
    gate, value = mlp.gate_and_value.weight.chunk(2)
    gated = (x @ gate.T) * torch.sigmoid(x @ gate.T) * (x @ value.T)
    torch.testing.assert_close(mlp(x), gated @ mlp.out.weight.T)


def test_a_llama_block_has_no_mean_to_subtract():
    torch.manual_seed(0)
    block, x = Block(8, 2, kind="llama", qkv_bias="none", mlp_ratio=2.0), torch.randn(1, 3, 8)
    normed = x / (x.square().mean(dim=-1, keepdim=True) + 1e-6).sqrt()
    attended = x + block.attention(normed)
    normed = attended / (attended.square().mean(dim=-1, keepdim=True) + 1e-6).sqrt()
    torch.testing.assert_close(block(x), attended + block.mlp(normed), rtol=1e-5, atol=1e-5)
