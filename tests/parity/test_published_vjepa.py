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
    objective.draw_masks = lambda seeds, image: [(visible, masked)] * 2
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


def dense():
    """V-JEPA 2.1: four layers of features, of encoders of 12 blocks."""
    return VJEPAConfig(
        width=40,
        depth=12,
        num_heads=2,
        mlp_ratio=2.0,
        num_frames=4,
        size=64,
        patch_size=(2, 16, 16),
        positions="paired_rotary",
        position_range=16,
        feature_layers=(3, 6, 9, 12),
        image_tokens=True,
        image_weight=0.5,
        predictor_width=28,
        predictor_depth=4,
        predictor_num_heads=2,
        num_mask_tokens=3,
        shared_mask_token=True,
        num_blocks=(1,),
        block_scales=(0.3,),
        image_num_blocks=(1,),
        image_block_scales=(0.3,),
        context_weight=0.5,
        context_by_distance=True,
    ).build()


def dense_parts(steps):
    rows = [
        ((0, 1, 2, 4, 5, 8, 12), (6, 7, 10, 11, 14, 15)),
        ((1, 2, 3, 11, 13, 14, 15), (0, 4, 5, 8, 9, 12)),
    ]
    both = (torch.tensor([row[part] for row in rows]) for part in (0, 1))
    return tuple(torch.cat([one + 16 * step for step in range(steps)], dim=1) for one in both)


@torch.no_grad()
@pytest.mark.parametrize(("kind", "frames"), [("video", 4), ("image", 1)])
def test_dense_features_predictions_and_losses_agree(kind, frames):
    kept, objective = stored("vjepa2_1"), dense().eval()
    weights = from_published(checkpoint("vjepa2_1"), objective)
    missing, unexpected = objective.load_state_dict(weights, strict=False)
    assert not unexpected and all("normalise" in name or name == "context_share" for name in missing)
    steps = max(1, frames // 2)
    video, (visible, masked) = recipe_video(kind, (2, frames, 3, 64, 64)), dense_parts(steps)
    assert kept.error(f"{kind}_whole", objective.encoder(video).tokens) < TOLERANCE
    assert kept.error(f"{kind}_levels", objective.teacher.features(video)[0]) < TOLERANCE
    assert kept.error(f"{kind}_seen", objective.student.features(video, visible)[0]) < TOLERANCE
    predicted, context = objective.predict_both(video, visible, masked)
    assert kept.error(f"{kind}_predicted", predicted) < TOLERANCE
    assert kept.error(f"{kind}_context", context) < TOLERANCE
    assert kept.error(f"{kind}_distance", objective.distances(visible, masked, steps).sqrt()) < TOLERANCE
    objective.draw_masks = lambda seeds, image: [(visible, masked)]
    batch = {"video": video, "seed": torch.zeros(2, dtype=torch.int64)}
    objective.image_weight = 0.0
    near = objective(batch)
    objective.context_by_distance = False
    plain = objective(batch)
    losses = [
        near.metrics["loss_mask_0"],
        near.metrics["loss_context"],
        plain.metrics["loss_context"],
        near.total,
    ]
    assert kept.error(f"{kind}_losses", torch.stack(losses)) < TOLERANCE
    assert not kept.other_eps(objective, published_names(objective, "training"))


def test_a_dense_checkpoint_starts_a_run_and_is_written_back(tmp_path):
    file, given, objective = tmp_path / "checkpoint.pt", checkpoint("vjepa2_1"), dense()
    torch.save({**given, "opt": {"state": {}}, "epoch": 300, "loss": 0.4}, file)
    start(objective, file)
    back = to_published(objective, "training")
    for part, state in given.items():
        assert back[part].keys() == state.keys()
        assert all(torch.equal(back[part][name], tensor) for name, tensor in state.items())


def test_of_a_distilled_network_the_encoder_starts_student_and_teacher(tmp_path):
    """Its predictor has the width of the network that was distilled, and is left out."""
    file, given, objective = tmp_path / "distilled.pt", checkpoint("vjepa2_1"), dense()
    fresh = {name: tensor.clone() for name, tensor in objective.predictor.state_dict().items()}
    encoder = given["encoder"]
    torch.save(
        {"ema_encoder": encoder, "predictor": {"module.backbone.predictor_proj.weight": torch.ones(9, 9)}}, file
    )
    start(objective, file)
    for network in (objective.student, objective.teacher):
        assert torch.equal(network.norm.weight, encoder["module.backbone.norms_block.3.weight"])
        assert torch.equal(network.level_norms[0].bias, encoder["module.backbone.norms_block.0.bias"])
    assert all(torch.equal(tensor, fresh[name]) for name, tensor in objective.predictor.state_dict().items())
    del encoder["module.backbone.blocks.3.mlp.fc1.bias"]
    torch.save({"ema_encoder": encoder}, file)
    with pytest.raises(UserError, match=r"distilled\.pt: .*lacks .*encoder\.blocks\.3\.mlp\.fc1\.bias"):
        start(objective, file)
