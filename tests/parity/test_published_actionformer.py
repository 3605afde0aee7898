"""ActionFormer (``localisation.actionformer``) and the published code, by stored outputs.

Features fill the sequence: what stands in padding is one of the documented deviations.
"""

import numpy as np
import pytest
import torch
from published import TOLERANCE, recipe_input, stored

from filmstrip.data.kinds.untrimmed import Part, UntrimmedVideos, draw_part
from filmstrip.errors import UserError
from filmstrip.runs.initial_weights import start
from filmstrip.systems.localisation.actionformer import ActionFormerConfig, Suppression, assign

CONFIG = ActionFormerConfig(
    num_classes=5,
    feature_width=24,
    width=32,
    num_heads=4,
    windows=(5, 5, None),
    positions=True,
    radius=1.5,
    first_normaliser=100.0,
    label_smoothing=0.1,
    distance_weight=2.0,
    suppression=Suppression(min_score=0.05, candidates=40, min_rows=0.05, sigma=0.5, max_segments=20),
)
BATCH = {
    "sequence": recipe_input("features", (2, 64, 24)),
    "length": torch.tensor([64, 64]),
    "segments": torch.tensor([[[3.2, 9.7], [20.4, 52.1], [30.0, 33.5]], [[0.5, 40.0], [41.0, 63.0], [10.0, 12.6]]]),
    "classes": torch.tensor([[0, 3, 1], [2, 2, 4]]),
    # Windows of 16 frames, one every 4, of 30 frames a second
    "timing": torch.tensor([[8 / 30, 4 / 30]] * 2, dtype=torch.float64),
    "seconds": torch.tensor([9.0, 9.0], dtype=torch.float64),
}


@pytest.fixture
def model():
    model = CONFIG.build()
    model.load_state_dict(model.from_published(stored("actionformer").weights()), strict=False)
    return model


@torch.no_grad()
def test_logits_distances_targets_and_losses_are_the_published_ones(model):
    kept = stored("actionformer")
    logits, distances, valid, points = model.eval().look(BATCH["sequence"], BATCH["length"])
    assert valid.all()
    assert kept.error("logits", logits) < TOLERANCE
    assert kept.error("distances", distances) < TOLERANCE
    targets = assign(points, BATCH["segments"], BATCH["classes"], num_classes=5, radius=1.5)
    assert kept.error("targets", targets.classes) == 0.0
    assert kept.error("target_distances", targets.distances[targets.positive]) < TOLERANCE
    loss = model.train()(BATCH)
    for name, value in (("focal", loss.metrics["focal"]), ("diou", loss.metrics["diou"]), ("total", loss.total)):
        assert kept.error(name, value[None]) < TOLERANCE, name


def test_what_is_found_is_what_the_published_code_finds(model):
    kept = stored("actionformer")
    for i, found in enumerate(model.eval().localise(BATCH)):
        assert kept.error(f"scores{i}", found.scores) < TOLERANCE
        assert kept.error(f"segments{i}", found.segments.float()) < 1e-4
        assert kept.error(f"classes{i}", found.classes.float()) == 0.0


class Drawn:
    """A generator that draws what it is told."""

    def __init__(self, *numbers):
        self.numbers = list(numbers)

    def integers(self, *bounds):
        drawn = self.numbers.pop(0)
        assert (bounds[0] if len(bounds) > 1 else 0) <= drawn < bounds[-1]
        return np.int64(drawn)


def test_training_samples_are_cut_as_published():
    kept = stored("actionformer").outputs
    segments = torch.tensor([[3.2, 9.7], [-1.5, 0.9], [20.4, 43.1], [30.0, 33.5]])
    whole = Part(0, 40, segments, torch.ones(4, dtype=torch.bool))
    sizes, starts = kept["crops_sizes"].tolist(), kept["crops_starts"].tolist()
    cuts = sorted(set(zip(sizes, starts)))
    assert len(cuts) == 10
    found = []
    for size, start_ in cuts:
        config = UntrimmedVideos(max_length=16 if size == 16 else 2304, crop=0.9)
        drawn = [int(start_)] * 200 if size == 16 else [int(size), *[int(start_)] * 200]
        part = draw_part(whole, 2.0, config, Drawn(*drawn))
        found += [
            (size, start_, float(k), *(part.segments[k] - part.start).tolist()) for k in part.kept.nonzero()[:, 0]
        ]
    names = ("sizes", "starts", "labels", "firsts", "lasts")
    expected = torch.stack([kept[f"crops_{name}"] for name in names], dim=1)
    torch.testing.assert_close(torch.tensor(found), expected)


def test_released_files_start_it_whole_or_not_at_all(model, tmp_path):
    weights = {f"module.{name}": tensor for name, tensor in stored("actionformer").weights().items()}
    other, file = CONFIG.build(), tmp_path / "epoch_035.pth.tar"
    torch.save({"state_dict_ema": weights, "state_dict": {}, "epoch": 35}, file)
    start(other, file)
    for name, tensor in other.state_dict().items():
        assert torch.equal(tensor, model.state_dict()[name])
    torch.save({"state_dict": weights | {"module.neck.fpn_norms.3.weight": torch.ones(1, 32, 1)}}, file)
    with pytest.raises(UserError, match=r"no place for: neck\.fpn_norms\.3\.weight"):
        start(other, file)
    del weights["module.reg_head.scale.2.scale"]
    torch.save({"state_dict": weights}, file)
    with pytest.raises(UserError, match=r"lacks reg_head\.scale\.2\.scale"):
        start(other, file)


def test_norms_add_what_the_published_ones_do(model):
    assert set(stored("actionformer").eps.values()) == {1e-5}
    assert {m.eps for m in model.modules() if isinstance(m, torch.nn.LayerNorm)} == {1e-5}
