"""InternVideo2's first stage (``pretraining.internvideo2``) and the published code, by stored outputs."""

import pytest
import torch
import torch.nn.functional as F
from published import TOLERANCE, recipe_video, stored

from filmstrip.errors import UserError
from filmstrip.objectives.teachers import VideoTransformerConfig
from filmstrip.runs.initial_weights import start
from filmstrip.systems.pretraining.internvideo2 import FrameEncoderConfig, InternVideo2Config, look
from filmstrip.weights.released import from_published, published_names, to_published

COMMON = dict(size=32, depth=3, num_heads=4, layer_scale=0.1, pool_num_heads=2)
CONFIG = InternVideo2Config(
    **COMMON,
    width=48,
    num_frames=8,
    patch_size=(2, 8, 8),
    pool_width=24,
    image_teacher=FrameEncoderConfig(**COMMON, width=32, patch_size=(1, 8, 8), pool_width=20),
    image_layers=2,
    video_teacher=VideoTransformerConfig(width=40, depth=2, num_heads=2, num_frames=8, size=32, patch_size=(2, 8, 8)),
    video_layers=2,
)


def part(name):
    """The weights of the image teacher, or of the student and its heads."""
    weights = stored("internvideo2").weights()
    if name:
        return {key.removeprefix(name): value for key, value in weights.items() if key.startswith(name)}
    return {key: value for key, value in weights.items() if not key.startswith("image.")}


def kept_positions():
    """Three in each frame of each clip, as the published network was given them."""
    kept = torch.zeros(2, 4, 16, dtype=torch.bool)
    for clip in range(2):
        for step in range(4):
            kept[clip, step, [(3 * clip + 5 * step + 4 * i) % 16 for i in range(3)]] = True
    return kept.flatten(1).nonzero()[:, 1].view(2, 12)


def loaded():
    objective = CONFIG.build().eval()
    objective.load_state_dict(from_published(part(""), objective), strict=False)
    teacher = torch.nn.Module()
    teacher.encoder = objective.image_teacher.encoder
    teacher.load_state_dict(from_published(part("image."), teacher), strict=False)
    return objective


@torch.no_grad()
def test_student_teacher_saliency_and_losses_are_the_published_ones():
    kept, objective, visible = stored("internvideo2"), loaded(), kept_positions()
    video = recipe_video("video", (2, 8, 3, 32, 32))
    looked = look(objective.image_teacher, video, 2)
    assert kept.error("image_target", torch.stack(looked.layers)) < TOLERANCE
    assert kept.error("pooled_target", looked.pooled) < TOLERANCE
    assert kept.error("saliency", looked.saliency) < TOLERANCE
    seen = objective.encoder.layers(video, visible, count=2)
    image, pooled, motion = objective.predict(seen, visible)
    assert kept.error("image", torch.stack(image)) < TOLERANCE
    assert kept.error("pooled", pooled) < TOLERANCE
    assert kept.error("video", torch.stack(motion)) < TOLERANCE
    losses = objective.losses(video, visible, looked)
    assert kept.error("loss_image", losses["image"]) < TOLERANCE
    assert kept.error("loss_pooled", losses["pooled"]) < TOLERANCE
    own = {name: module for name, module in objective.named_children() if "teacher" not in name}
    assert not kept.other_eps(torch.nn.ModuleDict(own), published_names(objective))


def test_released_weights_start_a_run_and_are_written_back(tmp_path):
    weights, objective, file = part(""), CONFIG.build(), tmp_path / "checkpoint.pth"
    torch.save({"module": weights}, file)
    start(objective, file)
    back = to_published(objective)
    assert back.keys() == weights.keys()
    assert all(torch.equal(back[name], tensor) for name, tensor in weights.items())
    assert F.cosine_similarity(objective.image_positions, weights["clip_pos_embed"][0]).min() > 0.999
    del weights["blocks.2.ls1.gamma"]
    torch.save({"module": weights}, file)
    with pytest.raises(UserError, match=r"blocks\.2\.ls1\.gamma"):
        start(CONFIG.build(), file)
