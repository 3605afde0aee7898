"""What commands do not wait for: seen in the modules that a process of its own has imported when it ends."""

import json
import subprocess
import sys

LISTED = "--- modules"
SCRIPT = f"""
import json, sys
from filmstrip.__main__ import main
found = []
for words in sys.argv[1:]:
    try:
        code = main(words.split())
    except SystemExit as done:
        code = done.code
    found.append([code or 0, sorted(sys.modules)])
print({LISTED!r}, json.dumps(found))
"""


def imported(*commands):
    """The exit codes of commands that one process runs in turn, and what it has imported after each."""
    done = subprocess.run([sys.executable, "-c", SCRIPT, *commands], capture_output=True, text=True)
    assert LISTED in done.stdout, done.stderr
    found = json.loads(done.stdout.rpartition(LISTED)[2])
    return {words: (code, set(modules)) for words, (code, modules) in zip(commands, found, strict=True)}


def test_help_and_the_list_need_no_torch():
    plain = ("--help", "--version", "list")
    helps = ("list --help", "train --help", "eval --help", "predict --help", "data --help", "data check --help")
    for words, (code, modules) in imported(*plain, *helps).items():
        assert code == 0 and not {"torch", "numpy", "av"} & modules, words


def test_the_list_has_every_system_all_the_same():
    said = subprocess.run([sys.executable, "-m", "filmstrip", "list"], capture_output=True, text=True).stdout
    assert "recognition.vit" in said and "base_k400" in said and "tokenizers.elastictok" in said


EXPECTED = {
    "train recognition.vit --help": 0,
    "train generation.videogpt --help": 0,
    "eval no/such/run": 2,
    "eval no/such/run --protocol multi_view": 2,
    "predict no/such/run a.mp4": 2,
    "forecast no/such/run a.mp4": 2,
    "encode no/such/run README.md --out no/such/folder": 2,
    "generate no/such/run": 2,
    "detect no/such/run a.mp4 --boxes b.csv": 2,
}
"""Commands that need torch, and their exit codes."""


def test_commands_begin_without_what_only_some_of_them_need():
    slow = {"transformers", "scipy", "matplotlib", "torchmetrics", "accelerate", "tensorboard", "diffusers"}
    slow |= {"huggingface_hub", "sympy", "torch.distributed.tensor", "torch.distributed.fsdp"}
    for words, (code, modules) in imported(*EXPECTED).items():
        assert code == EXPECTED[words] and "torch" in modules, words
        assert not slow & modules, words
