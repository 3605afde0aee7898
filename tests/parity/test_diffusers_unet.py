"""The U-Net of `editing.moca` and `editing.sdedit` against ``diffusers``, of video and of images, both ways."""

import pytest
import torch

from filmstrip.errors import UserError
from filmstrip.models.video_unet import (
    VideoUNet,
    VideoUNetArchitecture,
    from_diffusers_unet,
    to_diffusers_unet,
)

diffusers = pytest.importorskip("diffusers")

SIZES = dict(widths=(16, 32, 32), depth=1, attention_levels=(0, 1), head_dim=8, context_width=12, groups=4)
THEIRS = dict(
    block_out_channels=(16, 32, 32), layers_per_block=1, norm_num_groups=4, cross_attention_dim=12, in_channels=4
)
OF_VIDEO = dict(
    down_block_types=("CrossAttnDownBlock3D", "CrossAttnDownBlock3D", "DownBlock3D"),
    up_block_types=("UpBlock3D", "CrossAttnUpBlock3D", "CrossAttnUpBlock3D"),
    attention_head_dim=8,
)
OF_IMAGES = dict(
    down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
    up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
    attention_head_dim=(2, 4, 4),  # which are numbers of heads there
)
TIME = torch.tensor([3, 850])


def randomise(model):
    torch.manual_seed(0)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return model.eval()


def unet(inputs=4, **options):
    torch.manual_seed(1)
    return VideoUNet(VideoUNetArchitecture(**(SIZES | options)), inputs=inputs, outputs=4).eval()


@pytest.fixture
def inputs():
    generator = torch.Generator().manual_seed(2)
    return torch.randn(2, 3, 4, 8, 8, generator=generator), torch.randn(2, 5, 12, generator=generator)


@torch.no_grad()
def test_video(inputs, assert_close):
    video, text = inputs
    theirs = randomise(diffusers.UNet3DConditionModel(**THEIRS, **OF_VIDEO))
    ours = unet()
    ours.load_state_dict(from_diffusers_unet(theirs.state_dict(), ours.state_dict()))
    expected = theirs(video.transpose(1, 2), TIME, text).sample.transpose(1, 2)
    assert_close(ours(video, TIME, text), expected)
    back = to_diffusers_unet(ours.state_dict())
    assert back.keys() == theirs.state_dict().keys()
    assert all(torch.equal(back[name], tensor) for name, tensor in theirs.state_dict().items())


@pytest.mark.parametrize("linear", [True, False])
@torch.no_grad()
def test_images(inputs, assert_close, linear):
    video, text = inputs
    theirs = randomise(diffusers.UNet2DConditionModel(**THEIRS, **OF_IMAGES, use_linear_projection=linear))
    ours = unet(temporal=False)
    ours.load_state_dict(from_diffusers_unet(theirs.state_dict(), ours.state_dict()))
    found = ours(video, TIME, text)
    for frame in range(3):
        assert_close(found[:, frame], theirs(video[:, frame], TIME, text).sample)


@torch.no_grad()
def test_a_video_network_starts_as_the_image_network_on_every_frame_bit_for_bit(inputs):
    video, text = inputs
    theirs = randomise(diffusers.UNet2DConditionModel(**THEIRS, **OF_IMAGES)).state_dict()
    image, clip = unet(temporal=False), unet(inputs=12)
    image.load_state_dict(from_diffusers_unet(theirs, image.state_dict()))
    weights = from_diffusers_unet(theirs, clip.state_dict())
    missing, unknown = clip.load_state_dict(weights, strict=False)
    assert not unknown and missing and all(clip.is_temporal(name) for name in missing)
    conditioned = torch.cat([video, torch.randn(2, 3, 8, 8, 8)], dim=2)
    found = clip(conditioned, TIME, text)
    # New channels are zero, which a convolution over more channels may sum in another order.
    torch.testing.assert_close(found, image(video, TIME, text), rtol=1e-4, atol=1e-5)
    same = unet()
    same.load_state_dict(from_diffusers_unet(theirs, same.state_dict()), strict=False)
    assert torch.equal(same(video, TIME, text), image(video, TIME, text))


def test_the_papers_network_has_1411_million_parameters():
    with torch.device("meta"):
        ours = VideoUNet(VideoUNetArchitecture(), inputs=4, outputs=4)
        theirs = diffusers.UNet3DConditionModel()
    count = sum(p.numel() for p in ours.parameters())
    assert count == sum(p.numel() for p in theirs.parameters())
    assert count / 1e6 == pytest.approx(1411.2, abs=0.1)
    assert to_diffusers_unet(ours.state_dict()).keys() == theirs.state_dict().keys()
    of_stable_diffusion = sum(p.numel() for name, p in ours.named_parameters() if not ours.is_temporal(name))
    assert of_stable_diffusion / 1e6 == pytest.approx(865.9, abs=0.1)


def test_another_network_is_refused_by_the_names_of_its_weights():
    theirs = diffusers.UNet3DConditionModel(**THEIRS, **OF_VIDEO).state_dict()
    theirs["add_embedding.linear_1.weight"] = torch.zeros(1)
    with pytest.raises(UserError, match="add_embedding"):
        from_diffusers_unet(theirs, unet().state_dict())
    del theirs["add_embedding.linear_1.weight"], theirs["conv_out.bias"]
    with pytest.raises(UserError, match=r"lacks conv_out\.bias"):
        from_diffusers_unet(theirs, unet().state_dict())


def test_sizes_that_do_not_fit_are_refused(inputs):
    with pytest.raises(UserError, match="multiples of 5"):
        VideoUNet(VideoUNetArchitecture(**(SIZES | {"groups": 5})), inputs=4, outputs=4)
    with pytest.raises(ValueError, match="multiples of 4"):
        unet()(inputs[0][..., :6], TIME, inputs[1])
