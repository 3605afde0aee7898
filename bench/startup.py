"""What commands cost before they work, as multiples of ``import torch``: each in a process of its own, in turns.

python bench/startup.py                              # this checkout
python bench/startup.py --source ../before/src       # another one's, beside it

Runs that do not exist end a command where it would begin to work, so that what is measured is its start alone (but
`show` also tries its network out). Processor time counts, user's and system's: starts use one core, and on a busy
machine it varies less than what a clock shows.
"""

import os
import statistics
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import tyro

TORCH = "import torch"
COMMANDS = (
    "--help",
    "list",
    "train recognition.vit --help",
    "show recognition.vit",
    "eval no/such/run",
    "predict no/such/run video.mp4",
    "forecast no/such/run video.mp4",
    "encode no/such/run README.md --out no/such/folder",
)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How it is measured."""

    rounds: int = 7
    """How often each is started; the median counts."""
    source: Path | None = None
    """The src folder of another checkout, to be measured in the same rounds."""
    commands: tuple[str, ...] = COMMANDS
    """What is started, each with its words."""


def seconds(code: str, source: Path) -> float:
    """The processor time of one Python process."""
    before = os.times()
    subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(source)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    after = os.times()
    return after.children_user + after.children_system - before.children_user - before.children_system


def main(settings: Settings) -> None:
    here = Path(__file__).resolve().parents[1] / "src"
    sources = [here] if settings.source is None else [settings.source.resolve(), here]
    codes = {
        c: f"import sys; from filmstrip.__main__ import main; sys.exit(main({c.split()!r}))"
        for c in settings.commands
    }
    found: dict[tuple[str, Path], list[float]] = {}
    for _ in range(settings.rounds):
        for source in sources:
            for name, code in {TORCH: TORCH, **codes}.items():
                found.setdefault((name, source), []).append(seconds(code, source))
    medians = {key: statistics.median(times) for key, times in found.items()}
    torch = statistics.median(time for source in sources for time in found[TORCH, source])
    print(f"{TORCH}: {torch:.2f} s")
    for name in settings.commands:
        print(f"{name:<52}", *(f"{medians[name, s]:6.2f} s {medians[name, s] / torch:5.2f}" for s in sources))


if __name__ == "__main__":
    main(tyro.cli(Settings))
