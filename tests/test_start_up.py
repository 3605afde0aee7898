"""What commands do not wait for: seen in the modules that a process of its own has imported when it ends."""

import json
import subprocess
import sys

import pytest

LISTED = "--- modules"
SCRIPT = f"""
import json, sys
from filmstrip.__main__ import main
try:
    code = main(sys.argv[1:])
except SystemExit as done:
    code = done.code
print({LISTED!r}, json.dumps([code or 0, sorted(sys.modules)]))
"""


def imported(*words):
    """The exit code of a command, and the modules that it has imported."""
    done = subprocess.run([sys.executable, "-c", SCRIPT, *words], capture_output=True, text=True)
    assert LISTED in done.stdout, done.stderr
    code, modules = json.loads(done.stdout.rpartition(LISTED)[2])
    return code, set(modules)


@pytest.mark.parametrize(
    "words",
    [
        "--help",
        "--version",
        "list",
        "list --help",
        "train --help",
        "eval --help",
        "predict --help",
        "data --help",
        "data check --help",
    ],
)
def test_help_and_the_list_need_no_torch(words):
    code, modules = imported(*words.split())
    assert code == 0 and not {"torch", "numpy", "av"} & modules


def test_the_list_has_every_system_all_the_same():
    said = subprocess.run([sys.executable, "-m", "filmstrip", "list"], capture_output=True, text=True).stdout
    assert "recognition.vit" in said and "base_k400" in said and "tokenizers.elastictok" in said


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("train recognition.vit --help", 0),
        ("train generation.videogpt --help", 0),
        ("eval no/such/run", 2),
        ("eval no/such/run --protocol multi_view", 2),
        ("predict no/such/run a.mp4", 2),
        ("forecast no/such/run a.mp4", 2),
        ("encode no/such/run README.md --out no/such/folder", 2),
        ("generate no/such/run", 2),
        ("detect no/such/run a.mp4 --boxes b.csv", 2),
    ],
)
def test_commands_begin_without_what_only_some_of_them_need(words, expected):
    code, modules = imported(*words.split())
    assert code == expected and "torch" in modules
    slow = {"transformers", "scipy", "matplotlib", "torchmetrics", "accelerate", "tensorboard", "diffusers"}
    slow |= {"huggingface_hub"}
    assert not (slow | {"sympy", "torch.distributed.tensor", "torch.distributed.fsdp"}) & modules
