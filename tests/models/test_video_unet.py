"""What looks at attention from outside: it sees every layer, and changes nothing unless it says so."""

import pytest
import torch

from filmstrip.models.video_unet import VideoUNet, VideoUNetArchitecture

SIZES = dict(widths=(16, 32), depth=1, attention_levels=(0, 1), head_dim=8, context_width=12, groups=4)


@pytest.fixture
def unet():
    torch.manual_seed(0)
    unet = VideoUNet(VideoUNetArchitecture(**SIZES), inputs=4, outputs=4).eval()
    for parameter in unet.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return unet


@pytest.fixture
def inputs():
    generator = torch.Generator().manual_seed(2)
    video, text = torch.randn(2, 3, 4, 8, 8, generator=generator), torch.randn(2, 5, 12, generator=generator)
    return video, torch.tensor([3, 850]), text


@torch.no_grad()
def test_a_control_sees_every_attention_and_leaves_it_as_it_is(unet, inputs):
    seen = []
    found = unet(*inputs, control=lambda place, q, k, v: seen.append((place, q.shape, k.shape)))
    assert torch.equal(found, unet(*inputs))
    # One block and two in the two levels, and the middle; over time also before all of them.
    for kind, count in (("self", 7), ("cross", 7), ("time", 16)):
        assert len([place for place, *_ in seen if place.kind == kind]) == count
    places = [place for place, *_ in seen if place.kind == "self"]
    assert [place.layer for place in places] == list(range(7)) and places[0].num_frames == 3
    assert (6, 2, 64, 8) in {tuple(q) for place, q, _ in seen if place.kind == "self"}
    assert {k[2] for place, _, k in seen if place.kind == "cross"} == {5}
    assert {q[2] for place, q, _ in seen if place.kind == "time"} == {3}


@torch.no_grad()
def test_what_a_control_returns_takes_the_place_of_attention(unet, inputs):
    def same(place, q, k, v):
        return (q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5).softmax(dim=-1) @ v

    def none(place, q, k, v):
        return torch.zeros_like(q) if place.kind == "cross" else None

    plain = unet(*inputs)
    torch.testing.assert_close(unet(*inputs, control=same), plain, rtol=1e-4, atol=1e-5)
    without = unet(*inputs, control=none)
    assert not torch.allclose(without, plain)
    video, time, text = inputs
    assert torch.equal(without, unet(video, time, text + 1, control=none))


@torch.no_grad()
def test_an_added_vector_shifts_the_times(unet, inputs):
    video, time, text = inputs
    later = unet.time(time + 5) - unet.time(time)
    torch.testing.assert_close(
        unet(video, time, text, added=later), unet(video, time + 5, text), rtol=1e-4, atol=1e-5
    )
