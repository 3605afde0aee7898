"""V-JEPA 2-AC (``control.vjepa_ac``) and its published code, by stored outputs."""

from dataclasses import replace

import pytest
import torch
from published import TOLERANCE, recipe_input, recipe_video, stored

from filmstrip.errors import UserError
from filmstrip.runs.initial_weights import start
from filmstrip.systems.control.vjepa_ac import VJEPAACConfig
from filmstrip.systems.pretraining.vjepa import VJEPAConfig
from filmstrip.weights.released import from_published, published_names, to_published

CONFIG = VJEPAACConfig(
    width=40,
    depth=2,
    num_heads=2,
    num_frames=4,
    size=32,
    patch_size=(2, 8, 8),
    predictor_width=28,
    predictor_depth=2,
    predictor_num_heads=2,
    action_dim=7,
    state_dim=7,
    rollout=3,
)
VIDEO = recipe_video("video", (2, 4, 3, 32, 32))
BATCH = {"video": VIDEO, "action": recipe_input("actions", (2, 4, 7)), "state": recipe_input("states", (2, 4, 7))}


def checkpoint():
    """The file that the published training would have written."""
    file = {part: {} for part in ("encoder", "predictor")}
    for name, tensor in stored("vjepa2_ac").weights().items():
        part, _, rest = name.partition(".")
        file[part][rest] = tensor
    return file


@pytest.fixture
def objective():
    built = CONFIG.build().eval()
    missing, unexpected = built.load_state_dict(from_published(checkpoint(), built), strict=False)
    assert not unexpected and all("normalise" in name for name in missing)
    return built


@torch.no_grad()
def test_features_predictions_and_losses_agree(objective):
    kept = stored("vjepa2_ac")
    features = objective.encoder.frames(VIDEO)
    assert kept.error("features", features) < TOLERANCE
    given = features[:, :-1], BATCH["action"][:, 1:], BATCH["state"][:, :-1]
    assert kept.error("raw", objective.predictor(*given)) < TOLERANCE
    loss = objective(BATCH)
    losses = torch.stack([loss.metrics["teacher_forcing"], loss.metrics["rollout"], loss.total])
    assert kept.error("losses", losses) < TOLERANCE
    names = {ours: theirs for ours, theirs in published_names(objective, "training").items()}
    assert not kept.other_eps(objective, names)


@torch.no_grad()
def test_energies_of_plans_agree(objective):
    plans = recipe_input("plans", (1, 5, 2, 7)) * 0.05
    plans[..., 3:6] = 0
    features = objective.encoder.frames(VIDEO)[:1]
    state = BATCH["state"][:1, 0]
    found = objective.planner.energy(objective.next, features[:, :1], features[:, 3], state, plans)
    assert stored("vjepa2_ac").error("energies", found[0]) < TOLERANCE


@torch.no_grad()
def test_a_predictor_that_reads_the_cameras_pose_agrees():
    objective = replace(CONFIG, extrinsics_dim=6).build().eval()
    objective.load_state_dict(from_published(checkpoint(), objective), strict=False)
    features = objective.encoder.frames(VIDEO)
    pose = recipe_input("extrinsics", (2, 4, 6))
    given = features[:, :-1], BATCH["action"][:, 1:], BATCH["state"][:, :-1], pose[:, :-1]
    assert stored("vjepa2_ac").error("extrinsics", objective.predictor(*given)) < TOLERANCE
    assert objective.requires == ("video", "action", "state", "extrinsics")


def test_the_checkpoint_starts_encoder_and_predictor_and_is_written_back(objective, tmp_path):
    file, given, begun = tmp_path / "vjepa2-ac.pt", checkpoint(), replace(CONFIG, extrinsics_dim=6).build()
    torch.save({**given, "target_encoder": given["encoder"], "opt": {"state": {}}, "epoch": 315}, file)
    start(begun, file)
    wanted = objective.state_dict()
    assert all(torch.equal(tensor, wanted[name]) for name, tensor in begun.state_dict().items() if name in wanted)
    back = to_published(begun, "training")
    for part, state in given.items():
        for name, tensor in state.items():
            assert torch.equal(back[part][f"module.backbone.{name.removeprefix('module.')}"], tensor)
    with pytest.raises(UserError, match=r"lacks predictor\.predictor_blocks\.1\.attn\.qkv\.weight"):
        del given["predictor"]["module.predictor_blocks.1.attn.qkv.weight"]
        torch.save(given, file)
        start(begun, file)


def test_of_a_pretraining_the_teacher_starts_the_encoder(tmp_path):
    file, given = tmp_path / "vitg.pt", stored("vjepa2").weights()
    parts = {part: {} for part in ("encoder", "predictor", "target_encoder")}
    for name, tensor in given.items():
        part, _, rest = name.partition(".")
        parts[part][rest] = tensor
    torch.save(parts, file)
    objective = CONFIG.build()
    fresh = {name: tensor.clone() for name, tensor in objective.predictor.state_dict().items()}
    start(objective, file)
    assert torch.equal(objective.encoder.norm.weight, parts["target_encoder"]["module.backbone.norm.weight"])
    assert all(torch.equal(tensor, fresh[name]) for name, tensor in objective.predictor.state_dict().items())


def test_a_model_of_the_hub_starts_the_encoder(tmp_path):
    transformers = pytest.importorskip("transformers")
    sizes = dict(hidden_size=40, num_hidden_layers=2, num_attention_heads=2, frames_per_clip=4, crop_size=32)
    more = dict(patch_size=8, tubelet_size=2, pred_hidden_size=28, pred_num_attention_heads=2)
    model = transformers.VJEPA2Model(transformers.VJEPA2Config(**sizes, **more, pred_num_hidden_layers=1)).eval()
    model.save_pretrained(tmp_path / "hub")
    objective = CONFIG.build()
    start(objective, tmp_path / "hub")
    network = VJEPAConfig(width=40, depth=2, num_heads=2, num_frames=4, size=32, patch_size=(2, 8, 8)).build()
    assert network.student.grid == (2, 4, 4)
    state = model.state_dict()
    assert torch.equal(objective.encoder.norm.weight, state["encoder.layernorm.weight"])
    assert torch.equal(
        objective.encoder.blocks[1].attention.qkv.weight[:40], state["encoder.layer.1.attention.query.weight"]
    )
