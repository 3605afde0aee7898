"""Two gloo processes against one with the same batches. Each pair is started once, for all of its trainings."""

import json
import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file

from started import run

pytestmark = pytest.mark.multiprocess

WORKER = Path(__file__).parents[1] / "train" / "worker.py"
CASES = {
    "plain": {"objective": "Regression"},
    "accumulated": {"objective": "Regression", "accumulate": 2},
    "adversarial": {"objective": "Adversarial"},
    "momentum": {"objective": "Momentum"},
    "frozen": {"objective": "Probe"},
    "elsewhere": {"objective": "Referring"},
    "frozen part": {"objective": "Regression", "optim": {"kind": "sgd", "rates": [["network.blocks.0", 0.0]]}},
    "muon": {"objective": "Regression", "optim": {"kind": "muon", "lr": 1e-3, "weight_decay_end": 0.2}},
    "best": {"objective": "Regression", "ema": 0.5, "evaluate": True, "best": "mean"},
    "averaged": {"objective": "Regression", "ema": 0.9, "checkpoint": True, "evaluate": True},
}
AVERAGED = CASES["averaged"]
BREAKS = {"broken": {"stop_at": 5}, "interrupted": {"press_at": 2}, "terminated": {"press_at": 2, "press": "SIGTERM"}}
"""Ways to end the training of "averaged" early; it is then resumed."""


def trainings(folder, shard):
    """What each process trains, one after another."""
    specs = [{"folder": name, **case} for name, case in CASES.items()]
    for name, way in BREAKS.items():
        specs += [{"folder": name, **AVERAGED, **way}, {"folder": name, **AVERAGED}]
    return [{**spec, "folder": str(folder / spec["folder"]), "shard": shard, "save_every": 2} for spec in specs]


def start(folder, world, shard="none"):
    """Run all trainings in ``world`` processes; returns the folder of their results."""
    run(WORKER, json.dumps(trainings(folder, shard)), processes=world)
    return folder


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    return start(tmp_path_factory.mktemp("alone"), world=1)


@pytest.fixture(scope="module", params=["none", "fsdp"])
def together(request, tmp_path_factory):
    return start(tmp_path_factory.mktemp(request.param), world=2, shard=request.param)


def trace(folder):
    """Losses, gradient norms and evaluations, by name, in the order of their steps."""
    found = {}
    for line in (folder / "metrics.jsonl").read_text().splitlines():
        for name, value in json.loads(line).items():
            if name.endswith(("loss", "grad_norm")) or name.startswith("eval/"):
                found.setdefault(name, []).append(value)
    return found


def test_the_loss_traces_are_those_of_one_process(alone, together):
    for name in CASES:
        expected, got = trace(alone / name), trace(together / name)
        assert len(expected["loss"]) == 6 and got.keys() == expected.keys()
        for term, values in expected.items():
            assert got[term] == pytest.approx(values, rel=1e-4, abs=1e-6), (name, term)


def test_the_weights_are_those_of_one_process(alone, together):
    for name in CASES:
        expected = load_file(alone / name / "weights.safetensors")
        got = load_file(together / name / "weights.safetensors")
        assert expected.keys() == got.keys()
        for key, tensor in expected.items():
            assert got[key].flatten().tolist() == pytest.approx(tensor.flatten().tolist(), rel=1e-2, abs=1e-4), key


@pytest.mark.parametrize("name", BREAKS)
def test_resuming_is_exact(together, name):
    assert trace(together / "averaged") == trace(together / name)
    expected, got = (load_file(together / which / "weights.safetensors") for which in ("averaged", name))
    assert all(tensor.equal(got[key]) for key, tensor in expected.items())


def test_one_process_goes_on_from_what_two_began(alone, together, tmp_path):
    """States hold whole tensors: whoever reads them may be split otherwise."""
    for origin in (alone, together):
        shutil.copytree(origin / "averaged", tmp_path / origin.name)
    specs = [{**AVERAGED, "folder": str(tmp_path / origin.name), "steps": 8} for origin in (alone, together)]
    run(WORKER, json.dumps(specs))
    expected, got = (trace(tmp_path / origin.name)["loss"] for origin in (alone, together))
    assert len(expected) == 8 and got == pytest.approx(expected, rel=1e-3)
