"""Two gloo processes that share the tokens of every row train a language model of text as one process does."""

import json

import pytest
from safetensors.torch import load_file

from filmstrip.data.synthetic.haystack import Haystack
from started import run

pytestmark = pytest.mark.multiprocess


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    hay = Haystack(num_train=20, num_test=3, words=30, digits=2, cities=4)
    return hay.generate(tmp_path_factory.mktemp("hay") / "a")


@pytest.mark.parametrize(
    ("preset", "more"),
    [("tiny", ["--data.reads.length", "31"]), ("tiny_chat", ["--data.reads.pack", "131"])],
    ids=["documents", "shared rows"],
)
def test_a_run_of_two_is_that_of_one(data, preset, more, tmp_path):
    """Neither length is a multiple of two."""
    command = [
        "-m",
        "filmstrip",
        "train",
        f"language.lwm_text:{preset}",
        "--data",
        str(data),
        "--data.num-workers",
        "0",
    ]
    command += ["--train.steps", "3", "--train.log-every", "1", "--data.batch-size", "2", *more]
    run(*command, "--out", tmp_path / "one")
    run(*command, "--out", tmp_path / "two", "--train.context", 2, processes=2)

    def lines(name):
        return [json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]

    for one, two in zip(lines("one"), lines("two"), strict=True):
        for key in ("loss", "grad_norm", "top1", "fill", "eval/nats"):
            assert (key in one) == (key in two)
            assert one.get(key) == pytest.approx(two.get(key), rel=1e-4), key
    one, two = (load_file(tmp_path / name / "weights.safetensors") for name in ("one", "two"))
    assert one.keys() == two.keys()
    assert all((one[name] - two[name]).norm() <= 1e-3 * one[name].norm() for name in one)
