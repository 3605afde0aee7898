import pytest
import torch

from filmstrip.protocols import Grid
from filmstrip.systems.language.video_llama2.connector import RegBlock, SpaceTimeConv


def test_sizes_of_the_connector_are_those_of_the_authors_code():
    with torch.device("meta"):
        connector = SpaceTimeConv(1024, 4096)
    assert sum(parameter.numel() for parameter in connector.parameters()) == 489_188_608


def test_eight_frames_become_576_tokens():
    with torch.device("meta"):
        connector = SpaceTimeConv(8, 16, depth=1)
        tokens = connector(torch.empty(1, 8 * 24 * 24, 8), Grid(8, 24, 24))
    assert tokens.shape == (1, 576, 16) and connector.num_tokens(Grid(8, 24, 24)) == 576


@torch.no_grad()
def test_a_tiny_case_by_hand():
    """Without blocks: sums of cubes of 2 x 2 x 2 positions, through SiLU and two layers that double and add one."""
    connector = SpaceTimeConv(1, 1, depth=0)
    connector.conv.weight.fill_(1.0)
    connector.conv.bias.fill_(-4.0)
    for layer, scale, bias in ((connector.readout.fc1, 2.0, 0.0), (connector.readout.fc2, 1.0, 1.0)):
        layer.weight.fill_(scale)
        layer.bias.fill_(bias)
    frames = torch.zeros(2, 2, 4)
    frames[0, :, :2] = 1.0  # four of the eight positions of the left cube: 4 - 4 = 0
    frames[:, :, 2:] = 1.0  # all eight of the right one: 8 - 4 = 4
    tokens = connector(frames.view(1, -1, 1), Grid(2, 2, 4))
    four = torch.nn.functional.silu(torch.tensor(4.0))
    want = torch.stack([torch.tensor(1.0), torch.nn.functional.gelu(2 * four) + 1])
    torch.testing.assert_close(tokens[0, :, 0], want)


@torch.no_grad()
def test_blocks_do_not_mix_frames():
    torch.manual_seed(0)
    block = RegBlock(4, 6)
    frames = torch.randn(3, 5, 5, 4)
    other = frames.clone()
    other[1] += 1
    assert (block(frames) == block(other)).flatten(1).all(dim=1).tolist() == [True, False, True]


@torch.no_grad()
def test_frames_that_do_not_fill_a_kernel_repeat_the_last():
    torch.manual_seed(0)
    connector = SpaceTimeConv(4, 6, depth=1).eval()
    tokens = torch.randn(1, 3 * 4, 4)
    filled = torch.cat([tokens, tokens[:, -4:]], dim=1)
    assert torch.equal(connector(tokens, Grid(3, 2, 2)), connector(filled, Grid(4, 2, 2)))
    assert connector.num_tokens(Grid(3, 2, 2)) == 2


@torch.no_grad()
@pytest.mark.parametrize("place, changed", [(0, 0), (5, 0), (40, 1)])
def test_order_in_time_is_kept(place, changed):
    torch.manual_seed(0)
    connector = SpaceTimeConv(4, 6, depth=0).eval()
    tokens = torch.randn(1, 4 * 16, 4)
    other = tokens.clone()
    other[0, place] += 1
    a, b = (connector(x, Grid(4, 4, 4)) for x in (tokens, other))
    differs = (a != b).any(dim=-1)[0].unflatten(0, (2, -1)).any(dim=1)
    assert differs.nonzero().flatten().tolist() == [changed]
