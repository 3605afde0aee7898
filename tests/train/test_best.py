"""The best weights by a metric, and stopping when there are none better."""

import pytest
import torch
from safetensors.torch import load_file
from toys import differing, rows, train, weights

from filmstrip.errors import UserError
from filmstrip.train.best import Best, is_lowest
from filmstrip.train.config import Loop
from filmstrip.train.lengths import Steps

SCORES = {2: 0.1, 4: 0.7, 6: 0.3, 8: 0.7, 10: 0.2}


class PowerCut(Exception):
    pass


def scored(scores=SCORES, seen=None, cut=None):
    """An evaluation with a fixed score for each step; it notes the weights that it sees."""

    def evaluate(objective, step):
        if step == cut:
            raise PowerCut
        if seen is not None:
            seen.append((step, {name: x.clone() for name, x in objective.state_dict().items()}))
        yield "other", 1.0
        yield "score", scores[step]

    return evaluate


def test_the_best_weights_are_kept_and_returned(tmp_path):
    seen = []
    objective = train(
        tmp_path, steps=10, eval_every=2, save_every=3, ema=0.5, best="score", evaluate=scored(seen=seen)
    )
    by_step = dict(seen[:5])
    assert [step for step, _ in seen] == [2, 4, 6, 8, 10, 4], "the best is evaluated again at the end"
    assert differing(weights(tmp_path), by_step[4]) == []
    assert differing(load_file(tmp_path / "last.safetensors"), by_step[10]) == []
    assert differing(objective.state_dict(), by_step[4]) == [] and differing(by_step[4], by_step[10])
    assert differing(seen[-1][1], by_step[4]) == []
    assert [row["step"] for row in rows(tmp_path) if "eval/score" in row] == [2, 4, 6, 8, 10]


def test_the_lowest_may_be_the_best(tmp_path):
    seen = []
    spec = {"steps": 10, "eval_every": 2, "best": "eval/score", "best_is": "lowest"}
    train(tmp_path, evaluate=scored(seen=seen), **spec)
    assert differing(weights(tmp_path), dict(seen)[2]) == []


@pytest.mark.parametrize("metric", ["mae", "numbers/mae", "fvd/n64", "mse_at_4", "loss", "bits_per_dim_error/n8"])
def test_errors_and_distances_are_best_where_they_are_lowest(metric):
    assert is_lowest(metric, "auto") and not is_lowest(metric, "highest")


@pytest.mark.parametrize(
    "metric", ["top1", "mAP", "linear_probe/best_top1", "spearman", "J&F", "mean_class_accuracy"]
)
def test_shares_are_best_where_they_are_highest(metric):
    assert not is_lowest(metric, "auto") and is_lowest(metric, "lowest")


def test_training_stops_when_nothing_gets_better(tmp_path, capsys):
    train(tmp_path, steps=40, eval_every=2, best="score", patience=2, evaluate=scored())
    recorded = rows(tmp_path)
    assert max(row["step"] for row in recorded) == 8
    assert "Stopped after step 8: 2 evaluations were no better" in capsys.readouterr().out
    # The same again finds nothing left to do; with more patience it goes on from there.
    train(tmp_path, steps=40, eval_every=2, best="score", patience=2, evaluate=scored(dict.fromkeys(range(9), 1.0)))
    assert rows(tmp_path) == recorded
    train(tmp_path, steps=40, eval_every=2, best="score", patience=3, evaluate=scored())
    assert max(row["step"] for row in rows(tmp_path)) == 10


@pytest.mark.parametrize("cut", [{"at_step": 7}, {"in_evaluation": 8}, {"in_evaluation": 4}])
def test_a_resumed_run_keeps_the_same_best(tmp_path, cut):
    spec = {"steps": 12, "eval_every": 2, "save_every": 2, "best": "score", "patience": 3}
    scores = {2: 0.1, 4: 0.7, 6: 0.8, 8: 0.9, 10: 0.2, 12: 0.3}
    through = train(tmp_path / "through", evaluate=scored(scores), **spec)

    def before(step):
        if step == cut.get("at_step"):
            raise PowerCut

    with pytest.raises(PowerCut):
        train(tmp_path / "broken", before=before, evaluate=scored(scores, cut=cut.get("in_evaluation")), **spec)
    resumed = train(tmp_path / "broken", evaluate=scored(scores), **spec)
    assert differing(through.state_dict(), resumed.state_dict()) == []
    for name in ("weights", "last"):
        left, right = (load_file(tmp_path / run / f"{name}.safetensors") for run in ("through", "broken"))
        assert differing(left, right) == []
    values = [
        {row["step"]: row["eval/score"] for row in rows(tmp_path / run) if "eval/score" in row}
        for run in ("through", "broken")
    ]
    assert values[0] == values[1] == scores


def test_what_makes_no_sense_is_refused_before_anything(tmp_path):
    with pytest.raises(UserError, match=r"name it with --train\.best"):
        Loop(length=Steps(4), patience=2)
    with pytest.raises(UserError, match="there is no evaluation"):
        train(tmp_path / "run", best="score")
    assert not (tmp_path / "run" / "metrics.jsonl").exists()
    with pytest.raises(UserError, match=r"'top1', which the run's evaluations do not measure; they measure other"):
        train(tmp_path / "run", steps=4, eval_every=2, best="top1", evaluate=scored())


def test_a_metric_that_is_no_number_is_never_the_best():
    best = Best(Loop(length=Steps(9), best="score"))
    nan = float("nan")
    taken = [best.is_improved_by({"eval/score": value}, step) for step, value in enumerate((nan, 0.2, nan, 0.1))]
    assert taken == [True, True, False, False] and (best.step, best.value) == (1, 0.2)
    assert torch.isfinite(torch.tensor(best.value))
