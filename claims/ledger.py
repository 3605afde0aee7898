"""The ledger of claims: what a claim declares, what is recorded of it, and the verdict that follows from both.

A claim is a file of this folder with ``CLAIM = Claim(...)`` and ``measure(seed, folder)``, which trains or counts
once and returns its figures by name; ``folder`` is empty, and gone afterwards. The runner calls it for each seed and
writes ``results/NAME.json`` after each; :func:`judge` has the rule by which a verdict follows.
"""

from __future__ import annotations

import ast
import difflib
import hashlib
import importlib
import json
import math
import os
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import torch

from filmstrip import __version__
from filmstrip.errors import UserError
from filmstrip.files import write_json
from filmstrip.measure.interval import half_interval
from filmstrip.runs.run_folder import git_hash

FOLDER = Path(__file__).parent
RESULTS = FOLDER / "results"
PLANNING = FOLDER.parents[1] / "shared/data/planning"
"""Annotations and text features of real procedures, which two claims read."""

Verdict = Literal["reproduced", "partly", "not", "too noisy to say"]
Figures = dict[str, float]


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One number that a seed measures."""

    says: str
    """What it is, with its unit."""
    paper: str = ""
    """The paper's own number for this row, with its data set where that is another; never one of ours."""
    digits: int = 1
    """Decimals that are shown."""


@dataclass(frozen=True, kw_only=True)
class Expectation:
    """What the finding lets one expect of a figure's difference from its baseline, of the same seed."""

    says: str
    figure: str
    than: str | float
    """The baseline: another figure, or a number."""
    direction: Literal["above", "below", "equal"]
    by: float = 0.0
    """The least size of the difference; of "equal", the largest."""
    relative: bool = False
    """Whether the difference is in percent of the baseline: for figures of which each seed has a scale of its own."""

    def __post_init__(self) -> None:
        if self.direction == "equal" and self.by < 0:
            raise ValueError(f"{self.says}: two figures cannot differ by {self.by} at most")

    def difference(self, figures: Mapping[str, float]) -> float:
        """Figure less baseline, the other way around where less is expected: positive is as expected."""
        than = figures[self.than] if isinstance(self.than, str) else self.than
        found = than - figures[self.figure] if self.direction == "below" else figures[self.figure] - than
        return 100 * found / abs(than) if self.relative else found


def above(figure: str, than: str | float, says: str, *, by: float = 0.0) -> Expectation:
    """A figure is larger than its baseline, by so much; with a negative ``by``, at most so much smaller."""
    return Expectation(says=says, figure=figure, than=than, direction="above", by=by)


def below(figure: str, than: str | float, says: str, *, by: float = 0.0, relative: bool = False) -> Expectation:
    """A figure is smaller than its baseline, by so much; with a negative ``by``, at most so much larger."""
    return Expectation(says=says, figure=figure, than=than, direction="below", by=by, relative=relative)


def equal(figure: str, than: str | float, says: str, *, within: float) -> Expectation:
    """A figure differs from its baseline by so much at most, to either side."""
    return Expectation(says=says, figure=figure, than=than, direction="equal", by=within)


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A paper's finding and how it is re-run here."""

    systems: tuple[str, ...]
    """Whose finding it is: names such as ``recognition.vivit``; empty for one of a measure."""
    finding: str
    """One sentence."""
    paper: str
    """What the paper says, with who and when, table or figure, and data set."""
    here: str
    """What is run here."""
    baseline: str
    """What it is compared with."""
    figures: Mapping[str, Figure]
    expected: tuple[Expectation, ...]
    """What should be seen; the first is the finding's main direction."""
    minutes: float
    """What all default seeds take with one thread that has a processor to itself."""
    seeds: int = 3
    needs: tuple[Path, ...] = ()
    """Files that are not part of the repository."""
    analysis: str = ""
    """Why it came out otherwise, where it did, and what has been tried."""

    def __post_init__(self) -> None:
        named = {name for e in self.expected for name in (e.figure, e.than) if isinstance(name, str)}
        if unknown := named - set(self.figures):
            raise ValueError(f"expectations name figures that are not declared: {', '.join(sorted(unknown))}")
        if not self.expected:
            raise ValueError("a claim without an expectation has no verdict")


@dataclass(frozen=True)
class Interval:
    """A mean over seeds with its 95% interval, by Student's distribution; unbounded for a single seed."""

    mean: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Interval:
        """The interval of so many values, at least one."""
        mean, half = math.fsum(values) / len(values), half_interval(values)
        return cls(mean, mean - half, mean + half)


def judge(expectation: Expectation, differences: Sequence[float]) -> Verdict:
    """The verdict on one expectation, from the 95% interval of its differences over seeds.

    "Above" and "below", where differences are positive as expected and ``by`` is the least size:

    - reproduced: the whole interval is at least ``by``, and above zero unless ``by`` is negative;
    - partly: it is above zero, but not all of it reaches ``by``: the direction is shown, the size is not;
    - not: it excludes what is expected: it reaches neither zero nor, where one is given, the size;
    - too noisy to say: anything else, and any single seed.

    "Equal": reproduced if the whole interval is within ``by`` of zero, not if it is all outside, else too noisy.
    """
    if len(differences) < 2:
        return "too noisy to say"
    found, by = Interval.of(differences), expectation.by
    if expectation.direction == "equal":
        if -by <= found.low and found.high <= by:
            return "reproduced"
        return "not" if found.low > by or found.high < -by else "too noisy to say"
    if found.low >= by and (found.low > 0 or by < 0):
        return "reproduced"
    if found.low > 0:
        return "partly"
    if found.high < by or (by >= 0 and found.high <= 0):
        return "not"
    return "too noisy to say"


def combined(verdicts: Iterable[Verdict]) -> Verdict:
    """The verdict on a claim: reproduced if every expectation is, not if none is shown and all are excluded.

    Partly, where at least one is shown, or partly; too noisy to say, where none is shown and not all are excluded.
    """
    kinds = set(verdicts)
    if len(kinds) == 1:
        return kinds.pop()
    return "partly" if kinds & {"reproduced", "partly"} else "too noisy to say"


def names() -> list[str]:
    """All claims."""
    return sorted(path.stem for path in FOLDER.glob("*.py") if "\nCLAIM = Claim(" in path.read_text())


def find(name: str) -> Claim:
    """A claim by name.

    Raises:
        UserError: there is none of this name.
    """
    return _module(name).CLAIM


def _module(name: str) -> Any:
    if name not in (known := names()):
        close = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {close[0]!r}?" if close else "`filmstrip claims --list` has all"
        raise UserError(f"there is no claim {name!r}; {hint}")
    return importlib.import_module(f"claims.{name}")


def recipe(name: str) -> str:
    """A fingerprint of how a claim is measured: of its code and that of files beside it that it imports.

    What it declares and explains is left out: seeds stay valid when only words or expectations change.
    """
    tree = ast.parse((FOLDER / f"{name}.py").read_text())
    code, others = [], set()
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("claims."):
            others.add(node.module.removeprefix("claims."))
        elif isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Assign | ast.AnnAssign) and not (
            isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "CLAIM"
        ):
            code.append(ast.dump(_without_docstrings(node)))
    code += [recipe(other) for other in sorted(others - {"ledger"})]
    return hashlib.sha256("\n".join(code).encode()).hexdigest()[:16]


def _without_docstrings(node: ast.stmt) -> ast.stmt:
    for inner in ast.walk(node):
        if isinstance(inner, ast.FunctionDef | ast.ClassDef) and ast.get_docstring(inner) is not None:
            inner.body = inner.body[1:]
    return node


@dataclass
class Record:
    """What is recorded of a claim: figures by seed, and where, when and how fast each was measured."""

    path: Path
    recipe: str
    """The recipe that the figures were measured by."""
    seeds: dict[int, dict[str, Any]]

    @classmethod
    def read(cls, name: str) -> Record | None:
        """The record of a claim; none if it has not been run."""
        path = RESULTS / f"{name}.json"
        if not path.exists():
            return None
        try:
            content = json.loads(path.read_text())
            return cls(path, content["recipe"], {int(seed): entry for seed, entry in content["seeds"].items()})
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(
                f"{path} is not a record of a claim ({error}): delete it, and run the claim again"
            ) from None

    def figures(self) -> list[Figures]:
        """Each seed's figures, in the order of seeds."""
        return [self.seeds[seed]["figures"] for seed in sorted(self.seeds)]

    def interval(self, figure: str) -> Interval:
        """Mean and interval of a figure."""
        return Interval.of([figures[figure] for figures in self.figures()])

    def differences(self, expectation: Expectation) -> list[float]:
        """Each seed's difference."""
        return [expectation.difference(figures) for figures in self.figures()]

    def verdict(self, claim: Claim) -> Verdict:
        """The verdict on a claim, from these figures."""
        return combined(judge(expectation, self.differences(expectation)) for expectation in claim.expected)

    def shows_direction(self, claim: Claim) -> bool:
        """Whether the main expectation, the first one, came out as expected, if not in its size."""
        main = claim.expected[0]
        return judge(main, self.differences(main)) in ("reproduced", "partly")

    def write(self, claim: Claim) -> None:
        """Write the figures of every seed, and what follows from them, for readers other than this program."""
        found = {figure: self.interval(figure) for figure in claim.figures}
        bounded = len(self.seeds) > 1  # JSON has no infinity
        content = {
            "recipe": self.recipe,
            "seeds": {str(seed): self.seeds[seed] for seed in sorted(self.seeds)},
            "mean": {figure: interval.mean for figure, interval in found.items()},
            "interval": {figure: [i.low, i.high] if bounded else None for figure, i in found.items()},
            "verdict": self.verdict(claim),
        }
        write_json(content, self.path)


def run(name: str, seeds: int | None = None, *, again: bool = False) -> Record:
    """Measure a claim for the seeds that are not recorded yet; each is on the disk before the next begins.

    Seeds that were measured by another recipe are dropped, and with ``again`` all.

    Raises:
        UserError: there is no such claim, or a file that it needs is absent.
    """
    claim = find(name)
    for path in claim.needs:
        if not path.exists():
            raise UserError(
                f"the claim {name} needs {path}, which is not there: put it there, or leave the claim out"
            )
    now, record = recipe(name), Record.read(name)
    if record is None or record.recipe != now or again:
        if record is not None:
            print(f"{name}: {'measured again' if again else 'its code has changed'}; earlier seeds are dropped")
        record = Record(RESULTS / f"{name}.json", now, {})
    for seed in range(seeds or claim.seeds):
        if seed in record.seeds:
            continue
        record.seeds[seed] = _measured(name, claim, seed)
        record.write(claim)
        shown = ", ".join(
            f"{key} {value:.{claim.figures[key].digits}f}" for key, value in record.seeds[seed]["figures"].items()
        )
        print(f"{name}, seed {seed} ({record.seeds[seed]['seconds']:.0f} s): {shown}", flush=True)
    return record


def confirm(name: str) -> Record:
    """Measure the first recorded seed of a claim by its present code, which must give the figures that are recorded.

    The record is then that of the present code: for code that was rewritten, and means the same.

    Raises:
        UserError: nothing is recorded, or a figure is another now. The record stays as it was.
    """
    claim, record = find(name), Record.read(name)
    if record is None or not record.seeds:
        raise UserError(f"nothing is recorded of the claim {name}: run it without --confirm")
    seed = min(record.seeds)
    now, before = _measured(name, claim, seed)["figures"], record.seeds[seed]["figures"]
    others = [
        f"{key} {value:.6g}, recorded {before.get(key, math.nan):.6g}"
        for key, value in now.items()
        if not math.isclose(value, before.get(key, math.nan), rel_tol=1e-4, abs_tol=1e-6)
    ]
    if others:
        raise UserError(f"{name}, seed {seed}: {'; '.join(others)}: run it again without --confirm")
    record = Record(record.path, recipe(name), record.seeds)
    record.write(claim)
    print(f"{name}, seed {seed}: the figures are those recorded", flush=True)
    return record


def _measured(name: str, claim: Claim, seed: int) -> dict[str, Any]:
    """The entry of one seed in a record."""
    began, worked = time.perf_counter(), _processor_seconds()
    with tempfile.TemporaryDirectory() as folder:
        figures = {key: float(value) for key, value in _module(name).measure(seed, Path(folder)).items()}
    check(claim, figures)
    return {
        "figures": figures,
        "seconds": round(time.perf_counter() - began, 1),
        "processor_seconds": round(_processor_seconds() - worked, 1),
        "threads": torch.get_num_threads(),
        "version": __version__,
        "git": git_hash(),
    }


def _processor_seconds() -> float:
    """Processor time of this process and of those that it has started and seen end."""
    spent = os.times()
    return spent.user + spent.system + spent.children_user + spent.children_system


def check(claim: Claim, figures: Figures) -> None:
    """That a seed measured what the claim declares.

    Raises:
        ValueError: figures are missing, not declared, or not finite.
    """
    if set(figures) != set(claim.figures):
        raise ValueError(f"declared are {', '.join(claim.figures)}; measured were {', '.join(figures)}")
    if bad := [key for key, value in figures.items() if not math.isfinite(value)]:
        raise ValueError(f"not finite: {', '.join(bad)}")


VERDICTS: tuple[Verdict, ...] = get_args(Verdict)
