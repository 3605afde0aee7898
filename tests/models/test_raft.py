"""RAFT beside its parity with the published code: frames of any size, parts of clips, and that it learns."""

import pytest
import torch
import torch.nn.functional as F

from filmstrip.models import raft
from filmstrip.models.raft import RAFT, RAFTArchitecture

TINY = RAFTArchitecture(
    widths=(8, 8, 12, 16),
    bottleneck=False,
    feature_dim=16,
    context_norm="none",
    context_dim=8,
    hidden_dim=16,
    radius=2,
    similarity_widths=(16,),
    flow_widths=(8, 8),
    motion_dim=16,
    separable=True,
    head_width=16,
    learnt_upsampling=True,
)


@pytest.fixture
def network():
    torch.manual_seed(0)
    return RAFT(TINY).eval()


def shifted(shifts, size=64):
    """Two frames each of smooth textures, the second moved by ``shifts`` (``N 2``: right, down): ``N 2 3 H W``."""
    margin = 16
    side = size + 2 * margin
    coarse = torch.rand(len(shifts), 3, side // 6, side // 6, generator=torch.Generator().manual_seed(0))
    texture = F.interpolate(coarse, (side, side), mode="bicubic").clamp(0, 1)
    row, column = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    here = torch.stack([column, row], dim=-1) + margin
    places = [here.expand(len(shifts), -1, -1, -1), here - shifts[:, None, None]]
    frames = [F.grid_sample(texture, (2 * place + 1) / side - 1, align_corners=False) for place in places]
    return torch.stack(frames, dim=1)


@torch.no_grad()
def test_frames_that_fit_are_seen_as_they_are_and_each_pair_by_itself(network, monkeypatch):
    video = torch.rand(3, 4, 3, 128, 136, generator=torch.Generator().manual_seed(0))
    whole = network.flow(video, updates=2)
    torch.testing.assert_close(whole, network(video, updates=2)[0])
    assert whole.abs().max() > 0.01
    torch.testing.assert_close(network.flow(video[1:2, 2:], updates=2)[0, 0], whole[1, 2], rtol=1e-4, atol=1e-5)
    monkeypatch.setattr(raft, "_MOST_SIMILARITIES", 2 * (16 * 17) ** 2)  # two pairs at once
    torch.testing.assert_close(network.flow(video, updates=2), whole, rtol=1e-4, atol=1e-5)
    assert network.flow(video[:, :1]).shape == (3, 0, 2, 128, 136)
    pixels = (255 * video).to(torch.uint8)
    torch.testing.assert_close(network.flow(pixels, updates=2), network.flow(pixels.float() / 255, updates=2))


@pytest.mark.parametrize(
    ("size", "seen", "factor"), [((131, 150), (136, 152), 1), ((32, 48), (128, 192), 4), ((100, 64), (200, 128), 2)]
)
def test_other_sizes_are_enlarged_or_padded_and_the_flow_is_in_their_own_pixels(network, size, seen, factor):
    shapes = []

    def moved(video, updates):
        shapes.append(tuple(video.shape[-2:]))
        flow = torch.tensor([8.0, -4.0]).view(2, 1, 1).repeat(2, 3, 1, *video.shape[-2:])
        return [flow.view(2, 3, 2, *video.shape[-2:])]

    network.forward = moved
    flow = network.flow(torch.rand(2, 4, 3, *size))
    assert shapes == [seen]
    expected = torch.tensor([8.0, -4.0]).view(2, 1, 1) / factor
    torch.testing.assert_close(flow, expected.expand(2, 3, 2, *size))


def test_it_learns_how_far_two_textures_moved_below_a_pixel(network):
    truth = torch.tensor([[-1.1, 1.0], [3.7, 2.5]])
    video, wanted = shifted(truth), truth[:, None, :, None, None]
    optimiser = torch.optim.AdamW(network.train().parameters(), lr=3e-3)
    for _ in range(60):
        flows = network(video, updates=3, every=True)
        loss = sum(0.8**i * (flow - wanted).abs().mean() for i, flow in enumerate(reversed(flows)))
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
    assert all(parameter.grad is not None for parameter in network.parameters())
    error = (network(video, updates=3)[0] - wanted).norm(dim=2).mean()
    assert error < 0.8  # of 1.5 and 4.5 pixels
