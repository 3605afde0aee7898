"""Contrastive losses over several processes are those of one with the whole batch."""

from pathlib import Path

import pytest
from safetensors.torch import load_file

from started import run

pytestmark = pytest.mark.multiprocess

WORKER = Path(__file__).with_name("pairs.py")


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    folder = tmp_path_factory.mktemp("alone")
    run(WORKER, folder)
    return folder


@pytest.fixture(scope="module", params=[pytest.param(2, marks=pytest.mark.slow), 4])
def together(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("together")
    run(WORKER, folder, processes=request.param)
    return folder


@pytest.mark.parametrize("loss", ["sigmoid", "softmax"])
def test_losses_and_gradients_are_those_of_the_whole_batch(alone, together, loss):
    expected, got = (load_file(folder / f"{loss}.safetensors") for folder in (alone, together))
    assert expected.keys() == got.keys()
    for name, value in expected.items():
        tolerance = {"rel": 1e-4, "abs": 1e-5} if name.startswith("weights.") else {"rel": 1e-12, "abs": 1e-12}
        assert got[name].flatten().tolist() == pytest.approx(value.flatten().tolist(), **tolerance), name
    assert expected["weights.text.embed.weight"].any() and expected["weights.encoder.embed.proj.weight"].any()


@pytest.mark.parametrize("name", ["language.blip", "language.omnivl"])
def test_queues_and_gradients_are_those_of_one_process(alone, together, name):
    """Keys of all processes are in the queue, in the order of the batch, and are what each compares with."""
    expected, got = (load_file(folder / f"{name}.safetensors") for folder in (alone, together))
    assert expected.keys() == got.keys() and {"queue.video", "queue.index", "weights.text_head.weight"} <= got.keys()
    marks = expected["queue.index"].tolist()
    assert len(marks) == 12 and len(set(marks)) == (12 if name == "language.blip" else 6)
    for key, value in expected.items():
        tolerance = {"rel": 1e-4, "abs": 1e-5}
        assert got[key].flatten().tolist() == pytest.approx(value.flatten().tolist(), **tolerance), key
