import pytest
import torch

from filmstrip.models.vit import ViT, ViTArchitecture
from filmstrip.nn.patches import take
from filmstrip.protocols import Encoder, Grid


def build(**changes):
    sizes = dict(width=24, depth=3, num_heads=2, num_frames=4, size=16, patch_size=(2, 8, 4))
    return ViT(ViTArchitecture(**sizes | changes))


@pytest.fixture
def vit():
    torch.manual_seed(0)
    return build().eval()


@pytest.fixture
def video():
    return torch.randint(0, 256, (2, 4, 3, 16, 16), dtype=torch.uint8)


def test_it_is_an_encoder(vit, video):
    assert isinstance(vit, Encoder)
    features = vit(video)
    assert features.grid == Grid(2, 2, 4)
    assert features.tokens.shape == (2, 16, 24) and features.pooled().shape == (2, 24)
    assert features.layers == ()


def test_layers_are_the_blocks_outputs(vit, video):
    features = vit(video, layers=True)
    assert len(features.layers) == 3
    assert torch.equal(vit.norm(features.layers[-1]), features.tokens)
    again = vit.blocks[2](features.layers[1])
    torch.testing.assert_close(again, features.layers[2])


def test_bytes_and_fractions_give_the_same_tokens(vit, video):
    torch.testing.assert_close(vit(video.float() / 255).tokens, vit(video).tokens, rtol=1e-4, atol=1e-5)


def test_all_cubes_visible_is_the_same_as_none_hidden(vit, video):
    everything = torch.arange(16).expand(2, 16)
    torch.testing.assert_close(vit(video, visible=everything).tokens, vit(video).tokens)


def test_hidden_cubes_are_not_looked_at(vit, video):
    visible = torch.tensor([[0, 3, 9], [1, 2, 15]])
    tokens = vit(video, visible=visible).tokens
    assert tokens.shape == (2, 3, 24)
    changed = video.clone()
    changed[0, 2:, :, :8, :4] += 100  # the cube at place 8, which is hidden
    assert torch.equal(vit(changed, visible=visible).tokens, tokens)
    changed[0, :2, :, :8, :4] += 100  # the cube at place 0, which is not
    assert not torch.equal(vit(changed, visible=visible).tokens[0], tokens[0])


def test_order_of_visible_cubes_does_not_matter(vit, video):
    visible, shuffle = torch.tensor([[0, 3, 9], [1, 2, 15]]), torch.tensor([[2, 0, 1], [1, 2, 0]])
    want = take(vit(video, visible=visible).tokens, shuffle)
    torch.testing.assert_close(vit(video, visible=take(visible, shuffle)).tokens, want, rtol=1e-4, atol=1e-5)


def test_other_sizes_are_refused_with_both_sizes_named(vit):
    with pytest.raises(ValueError, match=r"grid of \(2, 2, 4\).*got \(3, 2, 4\)"):
        vit(torch.zeros(1, 6, 3, 16, 16))
    with pytest.raises(ValueError, match="not a multiple"):
        vit(torch.zeros(1, 4, 3, 15, 16))
    with pytest.raises(ValueError, match="not a multiple of patches"):
        build(num_frames=5)


def test_depths_rise_from_embedding_to_norm(vit):
    depths = {name: vit.depth_of(name) for name, _ in vit.named_parameters()}
    assert depths["embed.proj.weight"] == 0
    assert depths["blocks.0.mlp.fc1.weight"] == 1 and depths["blocks.2.norm1.bias"] == 3
    assert depths["norm.weight"] == 4


def test_drop_path_rises_with_depth():
    vit = build(drop_path=0.2)
    assert [block.drop_path.rate for block in vit.blocks] == pytest.approx([0, 0.1, 0.2])


def test_only_weights_and_pixel_statistics_are_saved(vit):
    assert not [name for name in vit.state_dict() if "positions" in name]
    assert "embed.normalise.mean" in vit.state_dict()
