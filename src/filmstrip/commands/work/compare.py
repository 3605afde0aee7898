"""Classifiers trained on the same videos within the same budget, in one table and one picture.

The budget is a number of optimiser steps of a number of clips. Every system is given the very same clips in the same
order, cut and augmented alike from the same seeds, and is tested on the same views of the same videos. Its own are
the network, the optimiser, and the learning rate with the shape of its schedule. Steps are equal and seconds are not:
how long a step takes says as much of the machine as of the method, and is a column of the table.

A network is made for the shared clip where its preset was for another
(:meth:`~filmstrip.runs.config.Run.on_clip`), and the table says of which this is so.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table as Printed

from filmstrip import systems
from filmstrip.commands.compare import Budget
from filmstrip.commands.stopping import keeping
from filmstrip.commands.work.side_by_side import MOTIONS, clips_per_second, entry_of
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
"""What is compared when nothing is named; rows leave it out."""
LARGER = 1.2
"""Longest short side of a training frame over the clip's size, where videos are scaled to be cropped."""
SAVE_EVERY = 100
SPEED = "speed.json"
"""How fast a run's network is, in its folder; without it, it is measured again."""
MOST_CURVES = 6
"""Systems whose training is drawn, the most accurate ones: more could not be told apart."""


def compare(
    addresses: Sequence[str],
    out: Path,
    *,
    data: Path | None = None,
    budget: Budget | None = None,
    measure: bool = True,
    console: Console | None = None,
) -> int:
    """Train every system that is named (by default all of recognition), or go on with it; measure; report.

    ``out`` gets a run folder for each, ``table.json``, ``table.csv`` and ``report.html``. A system that fails has a
    row that says so, is tried again by the next call, and stops no other. With ``measure``, networks whose speed is
    not known yet are measured in turns once everything is trained; without it, that is left to a later call.

    Returns:
        the exit code: 1 where a system failed, else 0.

    Raises:
        UserError: a name is unknown or no classifier, the data cannot be used, or ``out`` holds other runs.
        OSError: ``out`` cannot be written; what was trained before stays.
    """
    console, budget = console or Console(), budget or Budget()
    if data is not None:
        open_source(Data(path=data))  # before every network is built
    runs = planned(addresses, budget, data)
    source = open_source(next(iter(runs.values())).data)
    if len(source.classes) < 2:
        raise UserError(f"classifiers are compared, so {source.root} needs videos of at least two classes")
    runs = {address: run.bound(source.info(run.data.train_split)) for address, run in runs.items()}
    folders = {address: out / address.replace(":", "-") for address in runs}
    _check_unclaimed(runs, folders)
    shared = next(iter(runs.values())).data
    check_readable(source, shared, shared.eval_split)

    def kept() -> str:
        done = sum(_is_done(folder, runs[address]) for address, folder in folders.items())
        return f"{out} keeps {done} of {len(runs)} systems trained: the same command goes on"

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
        UserError: there is no such system or preset, or it is no classifier.
    """
    addresses = addresses or [name for name in systems.names() if name.startswith(GROUP)]
    for address in addresses:
        with torch.device("meta"):
            objective = systems.find(address).objective.build()
        if not isinstance(objective, Classifier):
            raise UserError(
                f"{address} is no classifier, and only those are compared: `filmstrip list` shows {GROUP}*"
            )
    return {address: plan(address, budget, data) for address in addresses}


def plan(address: str, budget: Budget, data: Path | None) -> Run:
    """A preset on the data that all share, within the budget."""
    run = systems.find(address)
    longest = round(LARGER * budget.size) if data else budget.size  # the motions are drawn as small as they are seen
    clip = Clip(num_frames=budget.frames, stride=budget.stride, size=budget.size, short_side=(budget.size, longest))
    shared = Data(
        path=data,
        synthetic=None if data else MOTIONS,
        augment=Augment(mirror=0.5),  # not where the data say that they are directional, as the motions do
        batch_size=budget.batch_size,
        num_workers=budget.num_workers,
    )
    return replace(
        replace(run, data=shared).on_clip(clip),
        train=replace(run.train, length=Steps(budget.steps), eval_every=None, save_every=SAVE_EVERY),
        evals=(MultiView(num_clips=budget.views, num_crops=1),),
        seed=budget.seed,
    )


def _check_unclaimed(runs: Mapping[str, Run], folders: Mapping[str, Path]) -> None:
    """Before anything is trained: no folder holds a run of another comparison, or of a shorter one."""
    for address, folder in folders.items():
        try:
            experiment.check_goes_on(folder, runs[address])
        except UserError as error:
            raise UserError(f"this is another comparison than before: {error}") from None


def _train(runs: Mapping[str, Run], folders: Mapping[str, Path], console: Console) -> dict[str, str]:
    """Train and test what is not done yet; returns why any failed."""
    failures = {}
    for i, (address, run) in enumerate(runs.items(), 1):
        folder = folders[address]
        console.rule(f"{i} of {len(runs)}: {_name(address)}", align="left")
        if _is_done(folder, run):
            console.print(f"is trained already: {folder}")
            continue
        try:
            experiment.train(run, folder)
        except UserError as error:
            failures[address] = str(error)
        except OSError:  # a disk that is full is full for all
            raise
        except Exception as error:  # whatever it is, the others' results are not lost for it
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
    """Measure together those networks whose folders hold no speed, and keep what comes out there."""
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
    """A trained network, to be looked at again."""
    objective, run = load_objective(folder)
    return Subject(objective=objective, source=source, data=run.data, device=device_of(objective))


def _entry(address: str, folder: Path, run: Run) -> Entry:
    """What a finished run's folder says of it."""
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
    """What a system's row is called."""
    return address.removeprefix(GROUP)


class _Comparison:
    """What was found, as it is printed and written."""

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
        """The table as JSON, as CSV and on the console, and the page."""
        rows = [_row(entry) for entry in self.entries]
        rows += [{"system": name, "failure": why} for name, why in self.failures.items()]
        write_json({"budget": asdict(self.budget), "chance": self.chance, "rows": rows}, out / "table.json")
        write_csv(rows, out / "table.csv", list(dict.fromkeys(key for row in rows for key in row)))
        table = self.table()
        console.rule(self.budget_text(), align="left")
        console.print(_printed(table), crop=False)  # a narrow terminal cuts off nothing
        console.print(self.report(table).write(out / "report.html"), soft_wrap=True)

    def budget_text(self) -> str:
        """The budget in words."""
        b = self.budget
        return f"{b.steps} steps of {b.batch_size} clips of {b.frames} frames, {b.stride} apart, {b.size} × {b.size}"

    def table(self) -> Table:
        """Every system's row."""
        notes = [
            f"Every system was trained for {self.budget_text()}, the same clips in the same order, with its own "
            f"learning rate, and tested on {self.budget.views} clips of each video."
        ]
        if adapted := [said for address, run in self.runs.items() if (said := _own(address, run))]:
            notes.append(f"Made for these clips here, and by their presets for others: {', '.join(adapted)}.")
        return comparison_table(self.entries, self.chance, notes, self.failures)

    def report(self, table: Table) -> Report:
        """The page: what was found in one paragraph, then everything it rests on."""
        title = "Systems compared"
        if not self.entries:
            return Report(title, "No system could be trained: the table says why.", [table])
        winner, picture = best(self.entries), self.picture()
        sections: list[Section] = [self.facts(winner), picture, table, self.curves(), *self.looked_at(winner)]
        cheap = [picture.spots[i].name for i in unbeaten(picture.spots)]
        lead = (
            f"{winner.name} names {winner.accuracy:.1%} of {winner.videos} unseen videos correctly, after "
            f"{self.budget.steps} steps of {self.budget.batch_size} clips like every other; naming the commonest "
            f"class would give {self.chance:.1%}. No other system gets as far for less compute than {_listed(cheap)}."
        )
        return Report(title, lead, sections)

    def facts(self, winner: Entry) -> Facts:
        """At a glance."""
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
            said = f"{entry.name}: {entry.accuracy:.1%} ({low:.0%} to {high:.0%}), {gmacs:.3f} GMACs"
            spots.append(Spot(entry.name, gmacs, 100 * entry.accuracy, said))
        note = (
            "The line joins the systems that no other beats with less compute. Where two are close, mind the "
            "intervals in the table."
        )
        commonest = ("the commonest class", 100 * self.chance)
        labels = {"x_label": "GMACs a clip", "y_label": "top-1, %"}
        return Scatter("Accuracy against compute", spots, level=commonest, note=note, **labels)

    def curves(self) -> Section:
        """How the most accurate systems learnt."""
        folders = {entry.name: entry.folder for entry in self.entries[:MOST_CURVES]}
        values = {"loss": "Loss", "top1": "Accuracy on training clips"}
        return training_curves(folders, values, f"Training of the best {len(folders)}")

    def looked_at(self, winner: Entry) -> list[Section]:
        """Where the best system errs."""
        views = MultiView(num_clips=self.budget.views, num_crops=1)
        predictions = views.predictions(_subject(winner.folder, self.source))
        return [
            confusion_of(winner.name, predictions),
            clips_of(winner.name, predictions, self.source, self.data),
        ]


def _own(address: str, run: Run) -> str | None:
    """The clip that a preset is made for, where it is another than the shared one; none where it is not."""
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


def _printed(table: Table) -> Printed:
    """A report's table for a terminal, without its notes; headings break where it is narrow, values do not."""
    printed = Printed(box=None, padding=(0, 1, 0, 0))
    for i, column in enumerate(table.columns):
        values = [column.text(row[i]) for row in table.rows]
        width = max(map(len, values), default=0)
        printed.add_column(column.name, justify="right" if i else "left", header_style="bold", min_width=width)
    for row in table.rows:
        printed.add_row(*(column.text(cell) for column, cell in zip(table.columns, row, strict=True)))
    return printed


def _listed(names: Sequence[str]) -> str:
    """``a``, ``a and b``, ``a, b and c``."""
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))
