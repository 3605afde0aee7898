"""What VEDIT promises beyond what every system does."""

from dataclasses import replace

import pytest
import torch
from drawn import draw_batch

from filmstrip import systems
from filmstrip.data.sources import open_source
from filmstrip.errors import UserError
from filmstrip.runs import experiment, initial_weights
from filmstrip.runs.config import write_config
from filmstrip.runs.run_folder import RunFolder
from filmstrip.systems.procedures import vedit
from filmstrip.train.lengths import Steps

SIZES = {"feature_width": 16, "num_tokens": 2, "num_steps": 8}
SMALL = dict(width=16, depth=2, num_heads=2, denoising_steps=2, num_targets=None, **SIZES)


@pytest.fixture
def batch():
    return draw_batch(systems.find("procedures.vedit").data, size=3, seed=1)


@pytest.fixture
def objective():
    torch.manual_seed(0)
    objective = vedit.VEDITConfig(**SMALL).build()
    for parameter in objective.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return objective


def test_it_says_nothing_where_nothing_is_asked(objective, batch):
    logits = objective.forecast(batch)
    assert logits.shape == (3, 1, 5, 8)
    assert not logits[:, 0][~batch["target"]].any() and logits[:, 0][batch["target"]].all()


def test_draws_differ_and_come_again(objective, batch):
    logits = objective.forecast(batch, samples=3, seed=5)
    assert torch.equal(logits, objective.forecast(batch, samples=3, seed=5))
    assert not torch.allclose(logits[:, 0], logits[:, 1])
    later = objective.forecast({k: batch[k][1:] for k in ("features", "seen", "target")}, samples=3, seed=6)
    torch.testing.assert_close(logits[1:], later, rtol=1e-4, atol=1e-5)


def test_true_steps_are_not_read(objective, batch):
    told = {key: batch[key] for key in ("features", "seen", "target")}
    assert torch.equal(objective.forecast(batch), objective.forecast(told))
    shown = {**told, "features": batch["features"] + 9.0 * batch["target"][..., None, None]}
    torch.testing.assert_close(objective.forecast(shown), objective.forecast(told))


def test_pretraining_hides_one_seen_clip_of_each_window(batch):
    torch.manual_seed(0)
    objective = vedit.PretrainingConfig(**SMALL).build()
    asked = []
    own = objective.predictor.predict

    def spy(features, seen, target, seeds):
        asked.append((seen, target))
        return own(features, seen, target, seeds)

    objective.predictor.predict = spy
    loss = objective(batch).total
    seen, hidden = asked[0]
    assert hidden.sum(dim=1).tolist() == [1, 1, 1] and not (seen & hidden).any()
    assert torch.equal(seen | hidden, batch["seen"])
    loss.backward()
    assert loss.isfinite() and objective.predictor.network.out.weight.grad.any()
    for seed in range(8):
        objective({**batch, "seed": batch["seed"] + seed})
    assert len({tuple(hidden.nonzero()[:, 1].tolist()) for _, hidden in asked}) > 1


def test_a_pretrained_predictor_starts_a_forecaster(tmp_path):
    run = vedit.tiny_pretrain()
    run = replace(run, train=replace(run.train, length=Steps(1)), data=replace(run.data, num_workers=0))
    learnt = experiment.train(run, tmp_path / "run").objective
    fresh = vedit.tiny().bound(open_source(vedit.tiny().data).info("train")).objective.build()
    initial_weights.start(fresh, tmp_path / "run")
    for name, weight in learnt.predictor.state_dict().items():
        assert torch.equal(fresh.predictor.state_dict()[name], weight)


def test_what_has_no_predictor_starts_nothing(tmp_path, objective):
    run = replace(vedit.coin_step(), objective=vedit.StepClassifierConfig(depth=0, **SIZES))
    write_config(run, tmp_path / "config.json")
    RunFolder(tmp_path).save_weights(run.objective.build())
    with pytest.raises(UserError, match="no predictor"):
        initial_weights.start(objective, tmp_path)


def test_steps_of_clips_that_are_seen():
    torch.manual_seed(0)
    classifier = vedit.StepClassifierConfig(**SIZES).build()
    assert len(classifier.classifier.blocks) == 3
    batch = {
        "features": torch.randn(2, 1, 2, 16),
        "step": torch.tensor([[1], [2]]),
        "seen": torch.ones(2, 1, dtype=torch.bool),
        "target": torch.ones(2, 1, dtype=torch.bool),
        "seed": torch.arange(2),
    }
    assert classifier.forecast(batch).shape == (2, 1, 1, 8)
    assert classifier(batch).total.isfinite()


@pytest.mark.parametrize("preset", [p for p in systems.presets("procedures.vedit") if "plan" in p or "ego" in p])
def test_as_many_places_are_asked_for_as_the_data_asks(preset):
    run = systems.find(f"procedures.vedit:{preset}")
    assert run.objective.num_targets in (run.data.reads.horizon, None)


def test_features_are_needed():
    with pytest.raises(UserError, match="needs features"):
        vedit.PretrainingConfig().build()
