"""SCHEMA (``procedures.schema``) and the published code, by stored outputs."""

import pytest
import torch
import torch.nn.functional as F
from published import TOLERANCE, recipe_input, stored

from filmstrip.errors import UserError
from filmstrip.runs.initial_weights import start
from filmstrip.systems.procedures.schema import SCHEMAConfig

CONFIG = SCHEMAConfig(
    num_steps=7, num_tasks=3, feature_width=12, num_tokens=1, text_width=10, width=16, num_heads=4, mlp_ratio=2.0
)
ENDS = recipe_input("ends", (4, 2, 12))[:, :, None]
STEPS, TASK = torch.tensor([[1, 4, 6], [0, 0, 2], [5, 3, 1], [2, 6, 4]]), torch.tensor([2, 0, 1, 1])


@pytest.fixture
def model():
    model = CONFIG.build().eval()
    follows = recipe_input("follows", (7, 7)) + 3**0.5
    given = {"texts": recipe_input("texts", (7, 6, 10)), "followed": follows / follows.sum(dim=1, keepdim=True)}
    model.load_state_dict(model.from_published(stored("schema").weights()) | given)
    return model


@pytest.fixture
def seen(model):
    """What some layers say, by name."""
    said = {}
    for name in ("state_out", "step_head", "task_head"):
        model.get_submodule(name).register_forward_hook(lambda m, i, out, name=name: said.update({name: out}))
    return said


@torch.no_grad()
def test_plans_agree(model, seen):
    kept, paths = stored("schema"), model.plan(ENDS, 3, torch.zeros(4))
    assert kept.error("states", seen["state_out"]) < TOLERANCE
    assert kept.error("logits", seen["step_head"]) < TOLERANCE
    assert kept.error("tasks", seen["task_head"]) < TOLERANCE
    assert kept.error("paths", paths.argmax(dim=-1)) == 0.0
    norms = {m.eps for m in model.modules() if isinstance(m, torch.nn.LayerNorm)}
    assert norms == set(kept.eps.values()) == {1e-5}


@torch.no_grad()
def test_losses_agree(model, seen):
    batch = {
        "features": torch.cat([ENDS[:, :1], torch.zeros(4, 3, 1, 12), ENDS[:, 1:]], dim=1),
        "seen": torch.tensor([[1, 0, 0, 0, 1]] * 4).bool(),
        "target": torch.tensor([[0, 1, 1, 1, 0]] * 4).bool(),
        "step": F.pad(STEPS, (1, 1), value=-1),
        "task": TASK,
    }
    kept, loss = stored("schema"), model(batch)
    assert kept.error("logits_told", seen["step_head"]) < TOLERANCE
    assert kept.error("nats", loss.metrics["nats"][None]) < TOLERANCE
    assert kept.error("distance", loss.metrics["distance"][None]) < TOLERANCE
    parts = kept.outputs["nats"] + kept.outputs["ends"] + kept.outputs["task_nats"] + 0.1 * kept.outputs["distance"]
    assert loss.total.item() == pytest.approx(parts.item(), rel=TOLERANCE)


def test_released_files_start_it_whole_or_not_at_all(model, tmp_path):
    weights, other, file = stored("schema").weights(), CONFIG.build(), tmp_path / "T3_model_best.pth"
    torch.save(weights | {"state_decoder.pos_encoder.pe": torch.zeros(1, 4, 16)}, file)
    start(other, file)
    assert all(torch.equal(a, b) for a, b in zip(other.parameters(), model.parameters()))
    torch.save(weights | {"action_decoder.decoder.layers.2.norm1.bias": torch.zeros(16)}, file)
    with pytest.raises(UserError, match=r"no place for: action_decoder\.decoder\.layers\.2\.norm1\.bias"):
        start(other, file)
    torch.save({name: t for name, t in weights.items() if name != "task_decoder.3.bias"}, file)
    with pytest.raises(UserError, match=r"lacks task_decoder\.3\.bias;"):
        start(other, file)
