"""MasaCtrl's attention (``editing.masactrl``) in a U-Net of images against the published code, by stored outputs.

Recipe: TencentARC/MasaCtrl ``d0ba16b``, ``MutualSelfAttentionControl(start_step=1, start_layer=3, total_steps=3)``
registered in a ``UNet2DConditionModel`` of ``diffusers`` 0.42 with the sizes of ``test_diffusers_unet.py``. Images
``x`` (2 x 4 x 8 x 8), source and edit, each with the vectors ``empty`` (1 x 5 x 12, for both), then with those of
``text`` (2 x 5 x 12), at time 850. ``laid_out``: of the first call, in which nothing is read; ``read``: of the
second.
"""

import pytest
import torch
from published import TOLERANCE, recipe_input, stored

from filmstrip.models.video_unet import VideoUNet, VideoUNetArchitecture, from_diffusers_unet
from filmstrip.objectives.attention_editing import Steps
from filmstrip.objectives.diffusion_sampling import DiffusionSampling
from filmstrip.systems.editing.masactrl import MutualSelfAttention

SIZES = VideoUNetArchitecture(
    widths=(16, 32, 32), depth=1, attention_levels=(0, 1), head_dim=8, context_width=12, groups=4, temporal=False
)


@pytest.mark.parametrize(("name", "done"), [("laid_out", 0), ("read", 1)])
@torch.no_grad()
def test_the_published_attention(name, done):
    kept, unet = stored("masactrl"), VideoUNet(SIZES, inputs=4, outputs=4).eval()
    unet.load_state_dict(from_diffusers_unet(kept.weights(), unet.state_dict()))
    steps = Steps(DiffusionSampling(steps=3))
    steps.done = done
    control = MutualSelfAttention(steps, first_step=1, first_layer=3)
    x, time = recipe_input("x", (2, 4, 8, 8))[:, None], torch.tensor([850, 850])
    texts = recipe_input("empty", (1, 5, 12)).expand(2, -1, -1), recipe_input("text", (2, 5, 12))
    found = torch.cat([unet(x, time, text, control=control)[:, 0] for text in texts])
    assert kept.error(name, found) < TOLERANCE
