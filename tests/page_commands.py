"""The commands of a page of documentation: read from its source, made small, and run in the page's order.

Commands stand in blocks of the language ``sh``, Python in blocks of ``python``. A comment in front of a block, which
readers of the page do not see, says what its commands need that a test does not have:

    <!-- not run here: hub -->

They are then parsed, options and all, and not run. What is needed is one of :data:`NEEDS`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import re
import shlex
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from filmstrip import systems
from filmstrip.__main__ import command_class, main
from filmstrip.data.synthetic import sets

NEEDS = {
    "hub": "weights from the Hub",
    "gpu": "a GPU",
    "cluster": "several processes or machines",
    "own": "files that only the reader has",
    "code": "code that the reader writes first, without which not even the options exist",
    "long": "minutes; another test runs the command with less work",
    "install": "a package registry",
    "serves": "somebody who ends it",
}
"""What a command may need that tests do not have, by the word in the comment in front of its block."""

BLOCK = re.compile(
    r"(?:^<!-- not run here: (?P<needs>\w+) -->\n)?^```(?P<language>\w*)\n(?P<body>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
SHELL = ("cp", "mkdir")
"""Commands other than ``filmstrip`` that are run as they stand."""
LAUNCHERS = re.compile(r"^(?:torchrun|accelerate launch|srun)\b.*? -m filmstrip ")
"""Beginning of a command that starts ``filmstrip`` in several processes."""

UNKNOWN = ("code", "install")
"""Needs without which commands are not parsed either."""

STEPS = 2
SMALL_SETS = {
    **dict.fromkeys(("test_per_class", "train_per_task"), 2),
    **dict.fromkeys(("test_per_task", "num_test"), 3),
    "train_per_class": 5,  # of which a probe holds one out
    "num_train": 6,
}
"""Sizes of synthetic sets in tests."""
OPTIONS: dict[str, tuple[str, ...]] = {
    "train": ("--train.steps", str(STEPS), "--data.num-workers", "0"),
    "compare": ("--steps", str(STEPS), "--num-workers", "0", "--views", "1"),
    "dagger": ("--rounds", "1", "--episodes", "1"),
    "visualize": ("--steps", "2"),
    "rl record": ("--episodes", "5", "--max-steps", "12"),
    "probe": ("--k", "1", "--epochs", "1", "--probes", "knn", "attentive"),
    "data check": ("--workers", "1"),
    "scale": (
        *("--tokens", "9000", "--passes", "20", "--sweep", "none", "--checkpoints", "1"),
        *("--held-out", "4", "--resamples", "10"),
        *("--objective.width", "16", "--objective.depth", "1", "--objective.num-heads", "1"),
        *("--objective.mlp-dim", "64", "--data.num-workers", "0"),
    ),
}
"""Options that make a command small, behind its own: of options given twice the last one counts."""
UNBOUND = ("--init", "--objective.encoder-run", "--objective.decoder-run", "--objective.tokenizer-run")
"""Options of training that read another run as soon as they are parsed."""


@dataclass(frozen=True)
class Line:
    """A command, or a block of Python, of a page."""

    number: int
    """Number of its line in the page."""
    text: str
    language: str
    needs: str | None

    @property
    def words(self) -> list[str]:
        """The command's words, without the comment behind it."""
        return shlex.split(self.text, comments=True)


def lines(page: Path) -> list[Line]:
    """The commands and blocks of Python of a page, in its order; a backslash joins lines."""
    text = page.read_text(encoding="utf-8")
    found = []
    for block in BLOCK.finditer(text):
        first = text.count("\n", 0, block.start("body")) + 1
        if block["language"] == "python":
            found.append(Line(first, block["body"], "python", block["needs"]))
        elif block["language"] == "sh":
            body = block["body"].replace("\\\n", "\0\n")
            pending, start = "", first
            for i, line in enumerate(body.splitlines(), first):
                pending, start = pending + line, start if pending else i
                if not line.endswith("\0"):
                    if shlex.split(pending.replace("\0", ""), comments=True):
                        found.append(Line(start, pending.replace("\0", ""), "sh", block["needs"]))
                    pending = ""
                    continue
    return found


def stray(page: Path) -> Iterator[str]:
    """Commands that stand in blocks of another language, where no test would see them; and unknown needs."""
    for block in BLOCK.finditer(page.read_text(encoding="utf-8")):
        if block["language"] not in ("sh", "python") and re.search(r"^filmstrip ", block["body"], re.MULTILINE):
            yield block["body"]
        if block["needs"] not in (None, *NEEDS):
            yield f"not run here: {block['needs']}"


def small(words: list[str]) -> list[str]:
    """A command of ``filmstrip``, its words without that name, with little work to do."""
    name, arguments = words[0], words[1:]
    if name == "data":
        options = _small_set(sets.named(arguments[1]), "--") if arguments[0] == "make" else ()
        return [*words, *options, *OPTIONS.get(f"data {arguments[0]}", ())]
    if name == "rl":
        return [*words, *OPTIONS.get(f"rl {arguments[0]}", ())]
    if name == "train":
        arguments = _without(arguments, "--train.epochs")
        first = next(iter(systems.stages(arguments[0])), arguments[0])
        synthetic = systems.find(first).data.synthetic
        if synthetic is not None and "--data" not in arguments:
            arguments += _small_set(type(synthetic), "--data.synthetic.")
    if name == "scale" and ":" not in arguments[0]:
        arguments = [f"{arguments[0]}:tiny", *arguments[1:]]
    return [name, *arguments, *OPTIONS.get(name, ())]


def run(line: Line, names: dict[str, object]) -> str:
    """Run a command, made small, or a block of Python with the names of those before it; what it printed.

    Raises:
        AssertionError: the command ended with another code than 0.
    """
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(out):
        if line.language == "python":
            exec(compile(line.text, f"line {line.number}", "exec"), names)
            return out.getvalue()
        words = line.words
        if words[0] in SHELL:
            subprocess.run(words, check=True)
            return ""
        assert words[0] == "filmstrip", f"line {line.number}: no test can run {line.text}"
        try:
            code = main(small(words[1:]))
        except SystemExit as stopped:
            code = stopped.code
    assert not code, f"line {line.number}: {line.text}\nended with {code}:\n{out.getvalue()[-2000:]}"
    return out.getvalue()


def parse(line: Line) -> None:
    """Read a command's options without running it, and without the runs that some of them name.

    Raises:
        AssertionError: an option does not exist or has an invalid value.
    """
    text = LAUNCHERS.sub("filmstrip ", line.text)
    words = shlex.split(text, comments=True)
    if words[0] != "filmstrip":
        return
    arguments = words[2:]
    for option in UNBOUND:
        arguments = _without(arguments, option)
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()) as said:
        try:
            command_class(words[1]).parse(arguments, f"filmstrip {words[1]}")
        except SystemExit as stopped:
            assert not stopped.code, f"line {line.number}: {line.text}\n{said.getvalue()[-2000:]}"


def _without(arguments: list[str], option: str) -> list[str]:
    """The arguments without an option and its value."""
    if option not in arguments:
        return list(arguments)
    place = arguments.index(option)
    return [*arguments[:place], *arguments[place + 2 :]]


def small_sizes(kind: type) -> dict[str, int]:
    """The fields of a synthetic set that make it small."""
    fields = {field.name for field in dataclasses.fields(kind)}
    return {name: count for name, count in SMALL_SETS.items() if name in fields}


def _small_set(kind: type, prefix: str) -> list[str]:
    """Options that make a synthetic set small."""
    found = ((prefix + name.replace("_", "-"), str(count)) for name, count in small_sizes(kind).items())
    return [word for pair in found for word in pair]
