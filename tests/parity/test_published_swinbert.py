"""SwinBERT's transformer, mask and losses against the authors' code (``VideoTransformer``), by stored outputs."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from published import TOLERANCE, recipe_input, stored

from filmstrip import systems
from filmstrip.runs.initial_weights import start
from filmstrip.weights.released import from_published, published_names, to_published

IDS, TOKENS = 31, 8
OWN = systems.find("language.swinbert:tiny").objective
CONFIG = replace(
    OWN,
    num_frames=4,
    size=32,
    width=10,
    num_heads=(2, 2),
    patch_size=(2, 8, 8),
    narrow_width=16,
    joint_width=32,
    vocab_size=IDS,
    max_length=12,
    mask="scores",
)


@pytest.fixture(scope="module")
def kept():
    return stored("swinbert")


def whole(kept):
    """The stored weights, with those of a Swin, which stood aside when they were stored."""
    torch.manual_seed(0)
    swin = {n: w for n, w in to_published(CONFIG.build()).items() if n.startswith("swin.")}
    return kept.weights() | swin


def built(kept, **changes):
    objective = replace(CONFIG, **changes).build().eval()
    objective.load_state_dict(from_published(whole(kept), objective), strict=False)
    return objective


def visual(objective):
    return objective.visual(objective.narrow(recipe_input("features", (2, TOKENS, 20))))


def captions():
    return (recipe_input("ids", (2, 7)).abs() * 1e4).long() % IDS


@torch.no_grad()
@pytest.mark.parametrize(("name", "factor", "hard"), [("soft", 1, False), ("steep", 12, False), ("hard", 1, True)])
def test_logits_and_sparsity_agree(kept, name, factor, hard):
    objective = built(kept, hard=hard)
    objective.mask_logits.mul_(factor)
    assert kept.error(f"logits_{name}", objective.logits(visual(objective), captions())) < TOLERANCE
    objective.config = replace(objective.config, hard=False)  # theirs measures the table before it is cut
    assert kept.error(f"sparsity_{name}", objective.mask().fill_diagonal_(0.0).mean()[None]) < TOLERANCE


def test_the_loss_agrees_and_captions_do_not_reach_the_table(kept):
    objective = built(kept)
    chosen = torch.zeros(2, 7, dtype=torch.bool)
    chosen[0, [2, 5]] = chosen[1, 1] = True
    named = F.cross_entropy(objective.logits(visual(objective), captions())[chosen], torch.tensor([4, 17, 29]))
    total = named + objective.config.sparsity * objective.mask().fill_diagonal_(0.0).mean()
    assert kept.error("loss", total[None]) < TOLERANCE
    (gradient,) = torch.autograd.grad(named, objective.mask_logits, retain_graph=True)
    assert gradient.abs().max() == 0  # measured in the authors' code, too
    other = built(kept, mask="weights")
    named = F.cross_entropy(other.logits(visual(other), captions())[chosen], torch.tensor([4, 17, 29]))
    assert torch.autograd.grad(named, other.mask_logits)[0].abs().max() > 1e-4


def test_norms_agree(kept):
    objective = built(kept)
    names = {n: key for n, key in published_names(objective).items() if not n.startswith("encoder.")}
    parts = torch.nn.ModuleDict({n: m for n, m in objective.named_children() if n != "encoder"})
    assert kept.other_eps(parts, names) == {}


def test_released_weights_start_a_run_and_are_written_back(kept, tmp_path):
    theirs = whole(kept)
    torch.save(theirs | {"trans_encoder.bert.pooler.dense.weight": torch.ones(2, 2)}, tmp_path / "model.bin")
    objective = CONFIG.build()
    start(objective, tmp_path / "model.bin")
    back = to_published(objective)
    assert back.keys() == theirs.keys()
    kinds, places = (f"trans_encoder.bert.embeddings.{kind}_embeddings.weight" for kind in ("token_type", "position"))
    assert torch.equal(back.pop(places), theirs.pop(places) + theirs.pop(kinds)[0]) and not back.pop(kinds).any()
    assert all(torch.equal(back[name], tensor) for name, tensor in theirs.items())
