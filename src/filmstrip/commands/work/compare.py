"""Comparison of classifiers trained on the same videos within the same budget, as a table and a figure.

The budget is a number of optimiser steps with a batch size. Every system receives the same clips in the same order,
cropped and augmented with the same seeds, and is tested on the same views of the same videos. Network, optimiser,
learning rate and the shape of its schedule are the system's own. The number of steps is equal, their duration is not:
it depends on the machine as much as on the method, and is a column of the table.

A network whose preset has another clip is built for the shared one
(:meth:`~filmstrip.runs.config.Run.on_clip`), and a note of the table lists those.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from filmstrip import systems
from filmstrip.commands.compare import Budget
from filmstrip.commands.stopping import keeping
from filmstrip.commands.work.side_by_side import MOTIONS, clips_per_second, entry_of, printed
from filmstrip.data.config import Augment, Clip, Data
from filmstrip.data.sources import Source, open_source
from filmstrip.errors import UserError
from filmstrip.evals.multi_view import MultiView
from filmstrip.files import write_csv, write_json
from filmstrip.inference import device_of
from filmstrip.protocols import Classifier
from filmstrip.report import Facts, Report, Section, Table
from filmstrip.report.comparison import (
    Entry,
    best,
    chance,
    clips_of,
    comparison_table,
    confusion_of,
    training_curves,
)
from filmstrip.report.run import duration
from filmstrip.report.scatter import Scatter, Spot, unbeaten
from filmstrip.runs import experiment
from filmstrip.runs.config import Run
from filmstrip.runs.contents import history
from filmstrip.runs.evaluation import Subject
from filmstrip.runs.loading import load_objective
from filmstrip.runs.preflight import check_readable
from filmstrip.train.lengths import Steps

GROUP = "recognition."
"""Group of systems that is compared by default; rows omit this prefix."""
LARGER = 1.2
"""Maximum ratio of a training frame's short side to the clip's size, when videos are scaled before cropping."""
SAVE_EVERY = 100
SPEED = "speed.json"
"""File in a run folder with the speed of its network; without it, the speed is measured again."""
MAX_CURVES = 6
"""Maximum number of training curves in the figure, those of the most accurate systems, so that it stays legible."""


def compare(
    addresses: Sequence[str],
    out: Path,
    *,
    data: Path | None = None,
    budget: Budget | None = None,
    measure: bool = True,
    console: Console | None = None,
) -> int:
    """Train every named system (by default all of recognition) or resume its training; measure; report.

    ``out`` receives a run folder for each, ``table.json``, ``table.csv`` and ``report.html``. A system that fails is
    marked as failed in the table, is tried again by the next call, and does not stop the others. With ``measure``,
    networks whose speed is not known yet are measured alternately after all training; otherwise a later call does it.

    Returns:
        the exit code: 1 if a system failed, else 0.

    Raises:
        UserError: a name is unknown or not a classifier, the data cannot be used, or ``out`` holds other runs.
        OSError: ``out`` cannot be written; completed training is kept.
    """
    console, budget = console or Console(), budget or Budget()
    if data is not None:
        open_source(Data(path=data))  # checked before any network is built
    runs = planned(addresses, budget, data)
    source = open_source(next(iter(runs.values())).data)
    if len(source.classes) < 2:
        raise UserError(f"compare needs videos of at least two classes, and {source.root} has fewer")
    runs = {address: run.bound(source.info(run.data.train_split)) for address, run in runs.items()}
    folders = {address: out / address.replace(":", "-") for address in runs}
    _check_unclaimed(runs, folders)
    shared = next(iter(runs.values())).data
    check_readable(source, shared, shared.eval_split)

    def kept() -> str:
        done = sum(_is_done(folder, runs[address]) for address, folder in folders.items())
        return f"{out} keeps {done} of {len(runs)} trained systems: the same command resumes"

    with keeping(kept):
        failures = _train(runs, folders, console)
    trained = {address: run for address, run in runs.items() if address not in failures}
    if measure:
        _measure(trained, folders, source, console)
    entries = [_entry(address, folders[address], run) for address, run in trained.items()]
    found = _Comparison(budget, source, runs, entries, {_name(address): why for address, why in failures.items()})
    found.write(out, console)
    return 1 if failures else 0


def planned(addresses: Sequence[str], budget: Budget, data: Path | None) -> dict[str, Run]:
    """The runs of a comparison, by address.

    Raises:
        UserError: the system or preset does not exist, or is not a classifier.
    """
    addresses = addresses or [
        name for name in systems.names() if name.startswith(GROUP) and not systems.find(name).objective.on_another_run
    ]
    for address in addresses:
        with torch.device("meta"):
            objective = systems.find(address).objective.build()
        if not isinstance(objective, Classifier):
            raise UserError(
                f"{address} is not a classifier, and compare takes only classifiers: `filmstrip list` shows {GROUP}*"
            )
    return {address: plan(address, budget, data) for address in addresses}


def plan(address: str, budget: Budget, data: Path | None) -> Run:
    """A preset's run on the shared data, within the budget."""
    run = systems.find(address)
    longest = round(LARGER * budget.size) if data else budget.size  # the synthetic set is rendered at the clip's size
    clip = Clip(num_frames=budget.frames, stride=budget.stride, size=budget.size, short_side=(budget.size, longest))
    shared = Data(
        path=data,
        synthetic=None if data else MOTIONS,
        augment=Augment(mirror=0.5),  # ignored for directional data such as the synthetic set
        batch_size=budget.batch_size,
        num_workers=budget.num_workers,
    )
    return replace(
        replace(run, data=shared).on_clip(clip),
        train=replace(run.train, length=Steps(budget.steps), eval_every=0, save_every=SAVE_EVERY),
        evals=(MultiView(num_clips=budget.views, num_crops=1),),
        seed=budget.seed,
    )


def _check_unclaimed(runs: Mapping[str, Run], folders: Mapping[str, Path]) -> None:
    """Check before training that no folder holds a run of another comparison, or of a shorter one."""
    for address, folder in folders.items():
        try:
            experiment.check_goes_on(folder, runs[address])
        except UserError as error:
            raise UserError(f"the folder holds a different comparison: {error}") from None


def _train(runs: Mapping[str, Run], folders: Mapping[str, Path], console: Console) -> dict[str, str]:
    """Train and test the runs that are not finished; returns the reasons of failures."""
    failures = {}
    for i, (address, run) in enumerate(runs.items(), 1):
        folder = folders[address]
        console.rule(f"{i} of {len(runs)}: {_name(address)}", align="left")
        if _is_done(folder, run):
            console.print(f"trained already: {folder}")
            continue
        try:
            experiment.train(run, folder)
        except UserError as error:
            failures[address] = str(error)
        except OSError:  # a full disk affects all systems
            raise
        except Exception as error:  # any failure leaves the other systems' results intact
            failures[address] = f"{type(error).__name__}: {error}"
            console.print_exception()
        if address in failures:
            console.print(f"{_name(address)} failed: {failures[address]}", style="red", markup=False)
    return failures


def _is_done(folder: Path, run: Run) -> bool:
    """Whether the folder's run was tested after its last step."""
    steps, _ = history(folder).get("eval/top1", ([], []))
    return bool(steps) and run.train.length == Steps(int(steps[-1]))


def _measure(runs: Mapping[str, Run], folders: Mapping[str, Path], source: Source, console: Console) -> None:
    """Measure the networks whose folders hold no speed, alternately, and write the speeds into their folders."""
    subjects = {}
    for address in runs:
        if not (folders[address] / SPEED).exists():
            subjects[address] = _subject(folders[address], source)
    if not subjects:
        return
    console.rule("Measuring clips/s", align="left")
    batch_size = next(iter(runs.values())).data.batch_size
    for address, speed in clips_per_second(subjects, batch_size=batch_size).items():
        device = str(subjects[address].device)
        threads = torch.get_num_threads()
        values = {"clips_per_second": speed, "batch_size": batch_size, "device": device, "threads": threads}
        write_json(values, folders[address] / SPEED)


def _subject(folder: Path, source: Source) -> Subject:
    """The evaluation subject of a trained run."""
    objective, run = load_objective(folder)
    return Subject(objective=objective, source=source, data=run.data, device=device_of(objective))


def _entry(address: str, folder: Path, run: Run) -> Entry:
    """The report's entry of a finished run, read from its folder."""
    recorded = {name: values[-1] for name, (_, values) in history(folder).items()}
    speed = json.loads((folder / SPEED).read_text())["clips_per_second"] if (folder / SPEED).exists() else None
    return entry_of(
        _name(address),
        folder,
        run,
        accuracy=recorded["eval/top1"],
        videos=round(recorded["eval/count"]),
        clips_per_second=speed,
    )


def _name(address: str) -> str:
    """The name of a system's row."""
    return address.removeprefix(GROUP)


class _Comparison:
    """The results of a comparison, to be printed and written."""

    def __init__(
        self,
        budget: Budget,
        source: Source,
        runs: Mapping[str, Run],
        entries: Sequence[Entry],
        failures: Mapping[str, str],
    ) -> None:
        self.budget, self.source, self.runs, self.failures = budget, source, runs, failures
        self.entries = sorted(entries, key=lambda entry: (-entry.accuracy, entry.parameters))
        self.data = next(iter(runs.values())).data
        test = source.split(self.data.eval_split)
        self.chance = chance([sample.label for sample in test if sample.label is not None])

    def write(self, out: Path, console: Console) -> None:
        """Write the table as JSON and CSV, print it, and write the report."""
        rows = [_row(entry) for entry in self.entries]
        rows += [{"system": name, "failure": why} for name, why in self.failures.items()]
        write_json({"budget": asdict(self.budget), "chance": self.chance, "rows": rows}, out / "table.json")
        write_csv(rows, out / "table.csv", list(dict.fromkeys(key for row in rows for key in row)))
        table = self.table()
        console.rule(self.budget_text(), align="left")
        console.print(printed(table), crop=False)  # never truncated on a narrow terminal
        console.print(self.report(table).write(out / "report.html"), soft_wrap=True)

    def budget_text(self) -> str:
        """The budget as text."""
        b = self.budget
        return f"{b.steps} steps of {b.batch_size} clips of {b.frames} frames, {b.stride} apart, {b.size} × {b.size}"

    def table(self) -> Table:
        """The table with a row for every system."""
        notes = [
            f"Every system was trained for {self.budget_text()}, on the same clips in the same order, with its own "
            f"learning rate, and tested on {self.budget.views} clips of each video."
        ]
        if adapted := [text for address, run in self.runs.items() if (text := _own_clip(address, run))]:
            notes.append(f"Built for these clips; their presets use others: {', '.join(adapted)}.")
        return comparison_table(self.entries, self.chance, notes, self.failures)

    def report(self, table: Table) -> Report:
        """The report: a paragraph with the finding, followed by all results."""
        title = "Systems compared"
        if not self.entries:
            return Report(title, "No system could be trained: the table says why.", [table])
        winner, picture = best(self.entries), self.picture()
        sections: list[Section] = [self.facts(winner), picture, table, self.curves(), *self.errors_of(winner)]
        cheap = [picture.spots[i].name for i in unbeaten(picture.spots)]
        lead = (
            f"{winner.name} classifies {winner.accuracy:.1%} of {winner.videos} test videos correctly after "
            f"{self.budget.steps} steps of {self.budget.batch_size} clips, the budget of every system; always "
            f"predicting the most frequent class gives {self.chance:.1%}. On the Pareto front of accuracy and "
            f"compute: {_listed(cheap)}."
        )
        return Report(title, lead, sections)

    def facts(self, winner: Entry) -> Facts:
        """The key figures."""
        facts = [
            ("best top-1", f"{winner.accuracy:.1%}"),
            ("systems", str(len(self.entries))),
            ("classes", str(len(self.source.classes))),
            ("training videos", f"{len(self.source.split(self.data.train_split)):,}"),
            ("test videos", f"{winner.videos:,}"),
            ("clips seen by each", f"{self.budget.steps * self.budget.batch_size:,}"),
            ("training, all of them", duration(sum(entry.train_seconds for entry in self.entries))),
        ]
        return Facts("At a glance", facts)

    def picture(self) -> Scatter:
        """Accuracy against compute."""
        spots = []
        for entry in self.entries:
            low, high = entry.interval
            gmacs = entry.multiply_adds / 1e9
            tooltip = f"{entry.name}: {entry.accuracy:.1%} ({low:.0%} to {high:.0%}), {gmacs:.3f} GMACs"
            spots.append(Spot(entry.name, gmacs, 100 * entry.accuracy, tooltip))
        note = (
            "The line is the Pareto front: no other system is more accurate with less compute. For close pairs, "
            "compare the confidence intervals in the table."
        )
        commonest = ("most frequent class", 100 * self.chance)
        labels = {"x_label": "GMACs per clip", "y_label": "top-1, %"}
        return Scatter("Accuracy against compute", spots, level=commonest, note=note, **labels)

    def curves(self) -> Section:
        """Training curves of the most accurate systems."""
        folders = {entry.name: entry.folder for entry in self.entries[:MAX_CURVES]}
        values = {"loss": "Loss", "top1": "Accuracy on training clips"}
        return training_curves(folders, values, f"Training of the best {len(folders)}")

    def errors_of(self, winner: Entry) -> list[Section]:
        """The confusion matrix and clips of the best system."""
        views = MultiView(num_clips=self.budget.views, num_crops=1)
        predictions = views.predictions(_subject(winner.folder, self.source))
        return [
            confusion_of(winner.name, predictions),
            clips_of(winner.name, predictions, self.source, self.data),
        ]


def _own_clip(address: str, run: Run) -> str | None:
    """A preset's own clip as text; None if it is the shared one."""
    own, shared = systems.find(address).data.clip, run.data.clip
    same = (own.num_frames, own.size) == (shared.num_frames, shared.size)
    return None if same else f"{_name(address)} ({own.num_frames} frames of {own.size} × {own.size})"


def _row(entry: Entry) -> dict[str, Any]:
    """A row of ``table.json``, in plain units."""
    low, high = entry.interval
    return {
        "system": entry.name,
        "top1": entry.accuracy,
        "low": low,
        "high": high,
        "videos": entry.videos,
        "parameters": entry.parameters,
        "multiply_adds": entry.multiply_adds,
        "train_seconds": entry.train_seconds,
        "step_memory_bytes": entry.training_memory,
        "clips_per_second": entry.clips_per_second,
    }


def _listed(names: Sequence[str]) -> str:
    """``a``, ``a and b``, ``a, b and c``."""
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))
