"""The network of VEDIT: places, times, and what it has no way of knowing."""

import pytest
import torch

from filmstrip.systems.procedures.vedit import VEDiT, VEDITConfig


@pytest.fixture
def network():
    torch.manual_seed(0)
    network = VEDiT(VEDITConfig(feature_width=6, width=16, depth=2, num_heads=2))
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return network.eval()


def velocity(network, noise, clips, places, time=500.0):
    """Of targets that stand at the first of ``places``, given the ``clips`` at the others."""
    count = noise.shape[1]
    used = torch.ones(places.shape, dtype=torch.bool)
    places = network.place(places[:, :count], places[:, count:], used[:, :count], used[:, count:], noise.shape[2])
    at = network.at_times(torch.tensor([time]))[0]
    with torch.no_grad():
        return network(noise, network.embed(clips), at, places)


NOISE = torch.randn(2, 1, 3, 6, generator=torch.Generator().manual_seed(1))
CLIPS = torch.randn(2, 3, 3, 6, generator=torch.Generator().manual_seed(2))
PLACES = torch.tensor([[2, 0, 1, 3]] * 2)


def test_order_matters_only_through_places(network):
    before = velocity(network, NOISE, CLIPS, PLACES)
    order = torch.tensor([2, 0, 1])
    carried = torch.cat([PLACES[:, :1], PLACES[:, 1:][:, order]], dim=1)
    torch.testing.assert_close(velocity(network, NOISE, CLIPS[:, order], carried), before, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(velocity(network, NOISE, CLIPS[:, order], PLACES), before, atol=1e-3)


def test_places_count_from_anywhere(network):
    before = velocity(network, NOISE, CLIPS, PLACES)
    torch.testing.assert_close(velocity(network, NOISE, CLIPS, PLACES + 7), before, rtol=1e-4, atol=1e-4)


def test_tokens_of_a_clip_have_no_order(network):
    before = velocity(network, NOISE, CLIPS, PLACES)
    torch.testing.assert_close(velocity(network, NOISE, CLIPS.flip(2), PLACES), before, rtol=1e-4, atol=1e-5)


def test_windows_do_not_see_each_other(network):
    alone = velocity(network, NOISE[:1], CLIPS[:1], PLACES[:1])
    torch.testing.assert_close(velocity(network, NOISE, CLIPS, PLACES)[:1], alone, rtol=1e-4, atol=1e-5)


def test_times_together_are_times_one_by_one(network):
    together = network.at_times(torch.tensor([1000.0, 300.0]))
    alone = network.at_times(torch.tensor([300.0]))[0]
    torch.testing.assert_close(together[1].last, alone.last)
    for ours, theirs in zip(together[1].blocks, alone.blocks):
        torch.testing.assert_close(ours, theirs)
    assert not torch.allclose(together[0].last, together[1].last)


def test_depths_order_the_network(network):
    depths = {name: network.depth_of(name) for name, _ in network.named_parameters()}
    assert depths["time.fc1.weight"] == depths["seen_in.weight"] == 0
    assert depths["blocks.1.target_mlp.fc1.weight"] == 2 and depths["out.bias"] == 3
