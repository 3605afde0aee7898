import pytest
import torch
from torch import nn

from filmstrip.errors import UserError
from filmstrip.systems.recognition.nonlocal_net import NonLocalNetConfig
from filmstrip.weights.inflate import inflate, inflate_weights


class Residual(nn.Module):
    """A little of everything that 2D networks are made of."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, 8, 7, stride=2, padding=3, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(3, 2, 1)
        )
        self.body = nn.Sequential(nn.Conv2d(8, 8, 3, padding="same", groups=2), nn.BatchNorm2d(8), nn.ReLU())
        self.mix = nn.Conv2d(8, 12, 1, stride=2)
        self.pool = nn.AvgPool2d(2)

    def forward(self, x):
        x = self.stem(x)
        return self.pool(self.mix(x + self.body(x)).relu())


@torch.no_grad()
@pytest.mark.parametrize("frames", [3, 5, lambda name: 1 if name == "mix" else 3])
def test_a_static_video_is_seen_as_its_frame_away_from_the_ends(frames):
    torch.manual_seed(0)
    flat = Residual()
    for module in flat.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.2, 0.2), nn.init.uniform_(module.weight, 0.5, 1.5)
    flat.eval()
    solid = inflate(flat, frames)
    image = torch.rand(2, 3, 32, 32)
    seen = solid(image[:, :, None].expand(-1, -1, 15, -1, -1))
    assert seen.shape == (2, 12, 15, 2, 2)
    # Three convolutions over time, each of which reaches half its length further.
    expected = flat(image)[:, :, None]
    torch.testing.assert_close(seen[:, :, 6:9], expected.expand(-1, -1, 3, -1, -1), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(seen[:, :, :1], expected, rtol=1e-2)
    assert isinstance(flat.stem[0], nn.Conv2d) and not any(m.training for m in solid.modules())


@torch.no_grad()
def test_our_own_networks_start_from_their_2d_selves():
    torch.manual_seed(0)
    shape = {"stem_width": 8, "depths": (1, 2), "nonlocal_after": ((), ()), "num_classes": 5}
    flat = NonLocalNetConfig(stem_frames=1, frames=((1,), (1,)), **shape).build().encoder
    solid = NonLocalNetConfig(stem_frames=5, frames=((3,), (3, 1)), **shape).build().encoder
    for module in flat.modules():
        if isinstance(module, nn.BatchNorm3d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
    missing = solid.load_state_dict(inflate_weights(flat.state_dict(), solid.state_dict()), strict=False).missing_keys
    assert not missing
    image = torch.rand(1, 1, 3, 32, 32)
    seen = solid.eval()(image.expand(-1, 13, -1, -1, -1)).tokens.unflatten(1, (13, -1))
    torch.testing.assert_close(seen[:, 6], flat.eval()(image).tokens, rtol=1e-4, atol=1e-5)


def test_what_cannot_be_inflated_is_named():
    with pytest.raises(ValueError, match="0 was to span 4 frames"):
        inflate(nn.Sequential(nn.Conv2d(3, 4, 3)), 4)
    with pytest.raises(ValueError, match="ConvTranspose2d, which is not inflated"):
        inflate(nn.Sequential(nn.ConvTranspose2d(3, 4, 3)))
    with pytest.raises(UserError, match=r"w of shape \(4, 3, 3, 3\) cannot be inflated to \(4, 3, 3, 5, 5\)"):
        inflate_weights({"w": torch.zeros(4, 3, 3, 3)}, {"w": torch.zeros(4, 3, 3, 5, 5)})
