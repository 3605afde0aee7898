"""A plan's memory is what training has: in one process, along a ring, with replicated and sharded weights."""

import json
from pathlib import Path

import pytest
from measured_peak import measured, planned_run

from filmstrip.commands.show import Planning
from filmstrip.commands.work.step_plan import find_plan
from started import run

SCRIPT = Path(__file__).with_name("measured_peak.py")
CLOSE = 0.1


def plan(arguments, ranks=1):
    return find_plan(planned_run(arguments), Planning(ranks=ranks)).plan


@pytest.mark.parametrize(
    "arguments",
    [
        ["language.lwm_text:tiny"],
        ["pretraining.videomae:tiny", "--train.checkpoint", "--train.ema", "0.9"],
        pytest.param(["pretraining.videomae:tiny"], marks=pytest.mark.slow),
        pytest.param(["language.lwm_text:tiny", "--train.accumulate", "2"], marks=pytest.mark.slow),
        pytest.param(["language.lwm_text:tiny", "--train.checkpoint", "--optim", "sgd"], marks=pytest.mark.slow),
        pytest.param(["generation.videogpt:tiny"], marks=pytest.mark.slow),
        pytest.param(["recognition.r2plus1d:tiny"], marks=pytest.mark.slow),
        pytest.param(["recognition.vit:tiny", "--train.precision", "bfloat16"], marks=pytest.mark.slow),
    ],
    ids=" ".join,
)
def test_of_one_process(arguments, tmp_path):
    assert plan(arguments).total == pytest.approx(measured(arguments, tmp_path), rel=CLOSE)


@pytest.mark.multiprocess
@pytest.mark.parametrize(
    "arguments",
    [
        ["language.lwm_text:tiny", "--train.context", "2", "--data.batch-size", "4", "--data.reads.length", "512"],
        ["language.lwm_text:tiny", "--train.shard", "fsdp", "--objective.decoder.width", "512"],
        pytest.param(["recognition.r2plus1d:tiny"], marks=pytest.mark.slow),
        pytest.param(["pretraining.videomae:tiny", "--train.shard", "fsdp"], marks=pytest.mark.slow),
        pytest.param(
            ["language.lwm_text:tiny", "--train.shard", "fsdp", "--train.accumulate", "2"], marks=pytest.mark.slow
        ),
    ],
    ids=" ".join,
)
def test_of_each_of_two(arguments, tmp_path):
    run(SCRIPT, tmp_path / "peak", *arguments, processes=2)
    found = [json.loads((tmp_path / f"peak.{rank}").read_text()) for rank in range(2)]
    assert plan(arguments, ranks=2).total == pytest.approx(max(found), rel=CLOSE)


@pytest.mark.slow
def test_the_resident_memory_of_a_process(tmp_path):
    """Of a step large enough for what Python and kernels take for themselves to weigh little."""
    arguments = ["pretraining.videomae:tiny", "--data.batch-size", "256"]
    program = [str(SCRIPT), str(tmp_path / "peak"), "--resident", *arguments]
    run(*program)
    found = json.loads((tmp_path / "peak.0").read_text())
    assert plan(arguments).total == pytest.approx(found, rel=0.15)
