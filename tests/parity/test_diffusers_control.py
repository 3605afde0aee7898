"""The branch of `editing.depth_control` on single frames against ``diffusers``' ControlNet, with its U-Net."""

import re

import pytest
import torch

from filmstrip.models.video_unet import VideoUNet, VideoUNetArchitecture, from_diffusers_unet
from filmstrip.systems.editing.depth_control import DepthBranch

diffusers = pytest.importorskip("diffusers")

SIZES = VideoUNetArchitecture(
    widths=(16, 32, 32), depth=1, attention_levels=(0, 1), head_dim=8, context_width=12, groups=4, temporal=False
)
THEIRS = dict(
    block_out_channels=(16, 32, 32),
    layers_per_block=1,
    norm_num_groups=4,
    cross_attention_dim=12,
    in_channels=4,
    down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
    attention_head_dim=(2, 4, 4),  # which are numbers of heads there
)
RULES = (
    (r"^controlnet_cond_embedding\.conv_in\.", "picture.0."),
    (r"^controlnet_cond_embedding\.conv_out\.", "picture_out."),
    (r"^controlnet_down_blocks\.", "passed."),
    (r"^controlnet_mid_block\.", "passed_middle."),
)


def ours_of(theirs):
    """Weights of a branch from those of a ControlNet."""
    ours, rest = {}, {}
    for name, tensor in theirs.items():
        if block := re.match(r"^controlnet_cond_embedding\.blocks\.(\d+)\.(.*)", name):
            ours[f"picture.{int(block[1]) + 1}.{block[2]}"] = tensor
        elif name.startswith("controlnet_"):
            for pattern, own in RULES:
                name = re.sub(pattern, own, name)
            ours[name] = tensor
        else:
            rest[name] = tensor
    return ours, rest


def randomise(model):
    torch.manual_seed(0)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return model.eval()


@torch.no_grad()
def test_the_branch_and_what_the_network_makes_of_it(assert_close):
    generator = torch.Generator().manual_seed(2)
    x, text = torch.randn(2, 3, 4, 8, 8, generator=generator), torch.randn(2, 5, 12, generator=generator)
    pictures, time = torch.rand(2, 3, 3, 32, 32, generator=generator), torch.tensor([3, 850])
    theirs = randomise(
        diffusers.ControlNetModel(**THEIRS, conditioning_embedding_out_channels=(8, 16, 24), conditioning_channels=3)
    )
    unet = randomise(
        diffusers.UNet2DConditionModel(
            **THEIRS, up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D")
        )
    )
    branch, network = DepthBranch(SIZES, (8, 16, 24), inputs=4).eval(), VideoUNet(SIZES, inputs=4, outputs=4).eval()
    own, rest = ours_of(theirs.state_dict())
    wanted = {name: value for name, value in branch.state_dict().items() if name not in own}
    branch.load_state_dict(own | from_diffusers_unet(rest, wanted))
    network.load_state_dict(from_diffusers_unet(unet.state_dict(), network.state_dict()))
    absent = torch.tensor([False, True])
    passed, middle = branch(x, time, text, pictures, absent)
    found = network(x, time, text, beside=(passed, middle))
    for frame in range(3):
        each, last = theirs(x[:, frame], time, text, pictures[:, frame], return_dict=False)
        assert len(each) == len(passed) == 6
        for a, b in zip([*passed, middle], [*each, last]):
            assert_close(a.unflatten(0, (2, 3))[0, frame], b[0], 2e-5)
            assert not a.unflatten(0, (2, 3))[1].any()
        expected = unet(
            x[:1, frame],
            time[:1],
            text[:1],
            down_block_additional_residuals=[one[:1] for one in each],
            mid_block_additional_residual=last[:1],
        ).sample
        assert_close(found[:1, frame], expected, 2e-5)
        assert_close(found[1:, frame], unet(x[1:, frame], time[1:], text[1:]).sample, 2e-5)
