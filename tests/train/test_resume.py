import json
import random
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from toys import Momentum, Regression, differing, losses, rows, train, weights

from filmstrip.errors import UserError
from filmstrip.train.random_state import random_state, random_state_kept, restore_random_state
from started import Started

WORKER = Path(__file__).with_name("worker.py")
CPU = torch.device("cpu")


class PowerCut(Exception):
    pass


def cut_at(stop):
    def before(step):
        if step == stop:
            raise PowerCut

    return before


@pytest.mark.parametrize("objective", ["Regression", "Adversarial", "Momentum", "Probe", "Referring"])
def test_a_run_that_was_broken_off_ends_as_one_that_was_not(tmp_path, objective):
    through = train(tmp_path / "through", objective, save_every=2, ema=0.9)
    with pytest.raises(PowerCut):
        train(tmp_path / "broken", objective, save_every=2, ema=0.9, before=cut_at(5))
    resumed = train(tmp_path / "broken", objective, save_every=2, ema=0.9)
    assert differing(through.state_dict(), resumed.state_dict()) == []
    assert differing(weights(tmp_path / "through"), weights(tmp_path / "broken")) == []
    assert losses(tmp_path / "through") == losses(tmp_path / "broken")
    assert [row["step"] for row in rows(tmp_path / "broken")] == [1, 2, 3, 4, 5, 6]


def test_dropout_goes_on_where_it_was(tmp_path):
    def dropping():
        torch.manual_seed(0)
        return Regression(dropout=0.5)

    through = train(tmp_path / "through", dropping(), save_every=2)
    with pytest.raises(PowerCut):
        train(tmp_path / "broken", dropping(), save_every=2, before=cut_at(3))
    torch.manual_seed(123)
    resumed = train(tmp_path / "broken", dropping(), save_every=2)
    assert differing(through.state_dict(), resumed.state_dict()) == []
    assert differing(through.state_dict(), train(tmp_path / "other", Regression(dropout=0.5)).state_dict())


def test_a_killed_process_resumes_bit_by_bit(tmp_path):
    spec = {"objective": "Regression", "steps": 9, "save_every": 2, "ema": 0.9, "accumulate": 2}
    runs = [
        [{**spec, "folder": str(tmp_path / "killed"), "kill_at": 7}],
        [{**spec, "folder": str(tmp_path / "killed")}, {**spec, "folder": str(tmp_path / "through")}],
    ]
    ends = [Started(WORKER, json.dumps(run)).wait(timeout=120) for run in runs]
    assert ends == [-signal.SIGKILL, 0]
    assert differing(weights(tmp_path / "through"), weights(tmp_path / "killed")) == []
    assert losses(tmp_path / "through") == losses(tmp_path / "killed")


def test_a_save_that_was_cut_short_costs_only_steps(tmp_path):
    through = train(tmp_path / "through", save_every=2)
    with pytest.raises(PowerCut):
        train(tmp_path / "broken", save_every=2, before=cut_at(5))
    state = tmp_path / "broken" / "state"
    assert sorted(path.name for path in state.iterdir()) == ["000000002", "000000004"]
    (state / "partial").mkdir()
    (state / "partial" / "tensors.safetensors").write_bytes(b"half a fi")
    with (tmp_path / "broken" / "metrics.jsonl").open("a") as file:
        file.write('{"step": 5, "lo')
    resumed = train(tmp_path / "broken", save_every=2)
    assert differing(through.state_dict(), resumed.state_dict()) == []
    assert [row["step"] for row in rows(tmp_path / "broken")] == [1, 2, 3, 4, 5, 6]
    assert sorted(path.name for path in state.iterdir()) == ["000000004", "000000006"]


def test_a_finished_run_is_only_evaluated_again(tmp_path):
    first = train(tmp_path, ema=0.9)
    seen = []
    again = train(tmp_path, ema=0.9, evaluate=lambda objective, step: seen.append(step) or iter([("x", 1.0)]))
    assert seen == [6] and differing(first.state_dict(), again.state_dict()) == []
    assert differing(again.state_dict(), weights(tmp_path)) == []


@pytest.mark.parametrize("name", ["tensors.safetensors", "step-4/state.json", "000000004/tensors.safetensors"])
def test_a_state_that_something_else_wrote_is_refused_and_left_alone(tmp_path, name):
    path = tmp_path / "state" / name
    path.parent.mkdir(parents=True)
    path.write_text("{}")
    with pytest.raises(UserError, match="state that this version can resume from"):
        train(tmp_path, "Regression", steps=2)
    assert path.exists()


def test_the_state_of_another_network_is_refused(tmp_path):
    train(tmp_path, "Regression", steps=2)
    with pytest.raises(UserError, match=r"is the state of another network \(weights/network"):
        train(tmp_path, Momentum(), steps=4)


def test_seconds_go_on(tmp_path):
    train(tmp_path, steps=3)
    train(tmp_path, steps=6)
    seconds = [row["seconds"] for row in rows(tmp_path)]
    assert seconds == sorted(seconds) and len(seconds) == 6


def test_generators_are_restored():
    draws = lambda: (torch.rand(3).tolist(), random.gauss(0, 1), np.random.randn(), random.random())  # noqa: E731
    draws()  # leaves a second normal number behind in Python's and NumPy's generators
    state = random_state(CPU)
    expected = draws()
    with random_state_kept(CPU):
        draws()
    following = draws()
    restore_random_state(state, CPU)
    assert (draws(), draws()) == (expected, following)
