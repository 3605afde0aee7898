import pytest
import torch

from filmstrip.systems.recognition.uniformer import LocalBlock, UniFormer, UniFormerConfig
from filmstrip.systems.recognition.uniformer_v2 import UniFormerV2, UniFormerV2Config


@torch.no_grad()
def test_local_relations_reach_two_places_and_positions_one():
    torch.manual_seed(0)
    block = LocalBlock(4).eval()
    x = torch.randn(1, 4, 9, 9, 9)
    other = x.clone()
    other[:, :, 4, 4, 4] += 1
    changed = (block(x) - block(other)).abs().amax(dim=(0, 1)) > 1e-6
    reach = 3  # the positions' one place, then two of the affinities
    assert changed[4 - reach : 5 + reach, 4, 4].all() and changed.sum() == (2 * reach + 1) ** 3


def test_clips_that_the_strides_do_not_tile_are_refused():
    network = UniFormer(
        UniFormerConfig(widths=(16, 16, 16, 16), depths=(1, 1, 1, 1), head_dim=16, local_stages=2, num_classes=5)
    )
    with pytest.raises(ValueError, match="multiple of patches"):
        network(torch.rand(1, 4, 3, 48, 48))


@torch.no_grad()
@pytest.mark.parametrize(("local_stages", "sees_everything"), [(0, True), (1, False)])
def test_the_first_global_stage_relates_all_places(local_stages, sees_everything):
    torch.manual_seed(0)
    network = UniFormer(
        UniFormerConfig(widths=(16,), depths=(1,), head_dim=16, local_stages=local_stages, num_classes=5)
    ).eval()
    video = torch.rand(1, 4, 3, 64, 64)
    other = video.clone()
    other[:, :, :, :4, :4] = 1 - other[:, :, :, :4, :4]
    changed = (network(video).tokens - network(other).tokens).abs().amax(dim=-1)
    assert (changed > 0).all() == sees_everything


def armed(**changes):
    torch.manual_seed(0)
    options = {"width": 32, "depth": 2, "num_heads": 2, "patch_size": 16, "size": 32, "global_layers": (1,)}
    options |= {"reduction": 1.5, "num_classes": 5}
    return UniFormerV2(UniFormerV2Config(**options | changes)).eval()


@torch.no_grad()
def test_an_armed_image_network_begins_as_the_image_network():
    network, plain = armed(), armed(reduction=None)
    plain.load_state_dict({n: t for n, t in network.state_dict().items() if n in plain.state_dict()})
    video = torch.rand(1, 3, 3, 32, 32)
    torch.testing.assert_close(network(video).tokens, plain(video).tokens)
    frames = torch.cat([plain(frame).tokens for frame in video.split(1, dim=1)], dim=1)
    torch.testing.assert_close(plain(video).tokens, frames, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_an_armed_network_sees_the_order_of_frames():
    video = torch.rand(1, 4, 3, 32, 32)
    for network, sees in ((armed(start_as_image=False), True), (armed(reduction=None), False)):
        difference = (network(video).tokens.mean(1) - network(video.flip(1)).tokens.mean(1)).abs().max()
        assert (difference > 1e-5) == sees
