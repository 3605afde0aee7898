"""V-JEPA and V-JEPA 2 (``pretraining.vjepa``) and the published codes of both, by stored outputs."""

import pytest
import torch
from published import TOLERANCE, recipe_video, stored

from filmstrip.errors import UserError
from filmstrip.runs.initial_weights import start
from filmstrip.systems.pretraining.vjepa import VJEPAConfig
from filmstrip.weights.released import from_published, published_names, to_published

METHODS = {"vjepa": "sincos", "vjepa2": "rotary"}


def built(method):
    return VJEPAConfig(
        width=40,
        depth=2,
        num_heads=2,
        num_frames=8,
        size=32,
        patch_size=(2, 8, 8),
        positions=METHODS[method],
        predictor_width=28,
        predictor_depth=2,
        predictor_num_heads=2,
        block_scales=(0.1, 0.3),
    ).build()


def checkpoint(method):
    """The file that a published training would have written."""
    file = {part: {} for part in ("encoder", "predictor", "target_encoder")}
    for name, tensor in stored(method).weights().items():
        part, _, rest = name.partition(".")
        file[part][rest] = tensor
    return file


def parts():
    index = torch.arange(64)
    order = torch.stack([(index * 37 + 5) % 64, (index * 29 + 11) % 64])
    return order[:, :20].sort(dim=1).values, order[:, 20:50].sort(dim=1).values


@torch.no_grad()
@pytest.mark.parametrize("method", METHODS)
def test_teacher_student_predictor_and_loss_agree(method):
    kept, objective, (visible, masked) = stored(method), built(method).eval(), parts()
    weights = from_published(checkpoint(method), objective)
    objective.load_state_dict(weights, strict=False)
    video = recipe_video("video", (2, 8, 3, 32, 32))
    assert kept.error("whole", objective.encoder(video).tokens) < TOLERANCE
    assert kept.error("seen", objective.student(video, visible=visible).tokens) < TOLERANCE
    for index in range(2):
        assert kept.error(f"predicted{index}", objective.predict(video, visible, masked, index)) < TOLERANCE
    objective.draw_masks = lambda seeds: [(visible, masked)] * 2
    loss = objective({"video": video, "seed": torch.zeros(2, dtype=torch.int64)}).total
    assert kept.error("loss", loss) < TOLERANCE
    assert not kept.other_eps(objective, published_names(objective, "training"))


@pytest.mark.parametrize("method", METHODS)
def test_checkpoints_start_a_run_and_are_written_back(method, tmp_path):
    file, given, objective = tmp_path / "checkpoint.pth.tar", checkpoint(method), built(method)
    # Fixed positions lie in the files of both, whether they are used or not; and a training keeps more.
    given["encoder"]["module.backbone.pos_embed"] = torch.ones(1, 64, 40)
    given["predictor"]["module.backbone.predictor_pos_embed"] = torch.ones(1, 64, 28)
    torch.save({**given, "opt": {"state": {}}, "epoch": 300, "loss": 0.4}, file)
    start(objective, file)
    back = to_published(objective, "training")
    del given["encoder"]["module.backbone.pos_embed"], given["predictor"]["module.backbone.predictor_pos_embed"]
    for part, state in given.items():
        assert back[part].keys() == state.keys()
        assert all(torch.equal(back[part][name], tensor) for name, tensor in state.items())
    assert not torch.equal(objective.student.norm.weight, objective.teacher.norm.weight)


def test_without_a_teacher_the_encoder_is_its_own():
    given, objective = checkpoint("vjepa2"), built("vjepa2")
    del given["target_encoder"]
    weights = from_published(given, objective)
    assert torch.equal(weights["teacher.norm.weight"], given["encoder"]["module.backbone.norm.weight"])


def test_half_a_predictor_is_refused(tmp_path):
    file, given, objective = tmp_path / "checkpoint.pt", checkpoint("vjepa2"), built("vjepa2")
    del given["predictor"]["module.backbone.predictor_blocks.1.attn.qkv.weight"]
    torch.save(given, file)
    with pytest.raises(UserError, match=r"checkpoint\.pt: .*lacks predictor\.predictor_blocks\.1\.attn\.qkv"):
        start(objective, file)
