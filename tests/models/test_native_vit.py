import pytest
import torch

from filmstrip.errors import UserError
from filmstrip.models.native_vit import NativeViT, NativeViTConfig, TileMerger
from filmstrip.protocols import Encoder, Grid
from filmstrip.video.geometry import native_size


@pytest.fixture
def tower():
    torch.manual_seed(0)
    network = NativeViT(NativeViTConfig(width=16, depth=2, num_heads=2, mlp_dim=32, patch_size=(2, 4, 4))).eval()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return network


def test_it_is_an_encoder_of_any_size(tower):
    assert isinstance(tower, Encoder)
    for frames, height, width, grid in [(4, 8, 12, (2, 2, 3)), (3, 4, 4, (2, 1, 1)), (1, 16, 4, (1, 4, 1))]:
        features = tower(torch.rand(2, frames, 3, height, width), layers=True)
        assert tuple(features.grid) == grid
        assert features.tokens.shape == (2, grid[0] * grid[1] * grid[2], 16)
        assert len(features.layers) == 2 and torch.equal(features.layers[1], features.tokens)


@torch.no_grad()
def test_tokens_depend_on_their_own_time_step_alone(tower):
    video = torch.rand(1, 6, 3, 8, 8)
    other = video.clone()
    other[:, 2] = 0
    same = (tower(video).tokens == tower(other).tokens).all(dim=-1).view(3, 4)
    assert same.tolist() == [[True] * 4, [False] * 4, [True] * 4]


@torch.no_grad()
def test_places_matter(tower):
    video = torch.rand(1, 2, 3, 8, 8)
    moved = tower(video.roll(4, dims=-1)).tokens.view(2, 2, -1).roll(1, dims=1)
    assert not torch.allclose(moved, tower(video).tokens.view(2, 2, -1), atol=1e-3)


def test_frames_that_patches_do_not_tile_are_refused(tower):
    with pytest.raises(ValueError, match="multiple of patches"):
        tower(torch.rand(1, 2, 3, 8, 10))


def test_squares_that_do_not_tile_are_refused():
    with pytest.raises(ValueError, match="do not tile a grid"):
        TileMerger(8, 8)(torch.rand(1, 6, 8), Grid(1, 2, 3))


def test_merged_tokens_are_squares_of_their_neighbours():
    torch.manual_seed(0)
    merger = TileMerger(4, 5)
    tokens = torch.randn(1, 2 * 4 * 4, 4)
    grid = Grid(2, 4, 4)
    other = tokens.clone()
    other[0, 16 + 4 * 1 + 2, 0] += 1  # second time step, row 1, column 2
    a, b = merger(tokens, grid), merger(other, grid)
    assert merger.merged(grid) == Grid(2, 2, 2) and a.shape[1] == merger.num_tokens(grid) == 8
    assert (a != b).any(dim=-1)[0].nonzero().flatten().tolist() == [4 + 1]


@pytest.mark.parametrize("side", [(28, 5601), (5601, 28)])
def test_frames_that_are_too_long_are_refused(side):
    with pytest.raises(UserError, match="at most 200 times"):
        native_size(*side, multiple=28, min_pixels=3136, max_pixels=1003520)


@pytest.mark.parametrize("outputs, millions", [(1536, 665.3), (3584, 675.8), (8192, 699.4)])
def test_sizes_of_the_towers_of_qwen2_vl(outputs, millions):
    with torch.device("meta"):
        tower = NativeViT(NativeViTConfig(width=1280, depth=32, num_heads=16, mlp_dim=5120, patch_size=(2, 14, 14)))
        merger = TileMerger(1280, outputs)
    count = sum(p.numel() for part in (tower, merger) for p in part.parameters())
    assert count == pytest.approx(millions * 1e6, rel=1e-4)
