"""Parts shared by the demo and comparisons: synthetic videos, measurements of trained classifiers, printed tables."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from statistics import median

from rich.table import Table as Printed

from filmstrip.data.synthetic.motions import Motions
from filmstrip.evals.throughput import median_seconds, random_batch
from filmstrip.inference import inference
from filmstrip.measure.complexity import of_run
from filmstrip.progress import tracked
from filmstrip.protocols import Classifier
from filmstrip.report import Table
from filmstrip.report.comparison import Entry
from filmstrip.runs.config import Run
from filmstrip.runs.contents import training_seconds
from filmstrip.runs.evaluation import Subject

MOTIONS = Motions(train_per_class=100, test_per_class=20, difficulty=0.0)
"""800 training and 160 test videos whose classes cannot be recognised from a single frame."""


def clips_per_second(subjects: Mapping[str, Subject], *, batch_size: int, rounds: int = 5) -> dict[str, float]:
    """Number of noise clips that each classifier classifies per second.

    Medians over rounds in which the networks alternate, so that other load on the machine affects all equally.
    """
    seconds: dict[str, list[float]] = {name: [] for name in subjects}
    for _ in tracked(range(rounds), "measuring"):
        for name, subject in subjects.items():
            video = random_batch(subject, batch_size)["video"]
            objective = subject.objective
            assert isinstance(objective, Classifier), "only classifiers are compared"
            with inference(objective):
                classify = partial(objective.classify, video)
                seconds[name].append(median_seconds(classify, subject.device, rounds=1))
    return {name: batch_size / median(times) for name, times in seconds.items()}


def entry_of(
    name: str, folder: Path, run: Run, *, accuracy: float, videos: int, clips_per_second: float | None
) -> Entry:
    """A row of the table: a trained run's accuracy and speed, with its cost."""
    cost = of_run(run)
    return Entry(
        name=name,
        folder=folder,
        accuracy=accuracy,
        videos=videos,
        parameters=cost.parameters,
        multiply_adds=cost.multiply_adds,
        clip=run.data.clip,
        training_memory=cost.training_memory(run.data.batch_size),
        train_seconds=training_seconds(folder),
        clips_per_second=clips_per_second,
    )


def printed(table: Table) -> Printed:
    """A report's table for a terminal, without its notes; headings may wrap, values do not."""
    printed = Printed(box=None, padding=(0, 1, 0, 0))
    for i, column in enumerate(table.columns):
        values = [column.text(row[i]) for row in table.rows]
        width = max(map(len, values), default=0)
        printed.add_column(column.name, justify="right" if i else "left", header_style="bold", min_width=width)
    for row in table.rows:
        printed.add_row(*(column.text(cell) for column, cell in zip(table.columns, row, strict=True)))
    return printed
