"""What the demo and comparisons share: the videos they are about, and how trained classifiers are measured."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from statistics import median

from filmstrip.data.synthetic.motions import Motions
from filmstrip.evals.throughput import median_seconds, random_batch
from filmstrip.inference import inference
from filmstrip.measure.complexity import of_run
from filmstrip.progress import tracked
from filmstrip.report.comparison import Entry
from filmstrip.runs.config import Run
from filmstrip.runs.contents import training_seconds
from filmstrip.runs.evaluation import Subject

MOTIONS = Motions(train_per_class=100, test_per_class=20, difficulty=0.0)
"""800 training and 160 test videos that no single frame tells apart."""


def clips_per_second(subjects: Mapping[str, Subject], *, batch_size: int, rounds: int = 5) -> dict[str, float]:
    """Clips of noise that each classifier names in a second.

    Medians over rounds in which the networks take turns, so that what else the machine does meets them alike.
    """
    seconds: dict[str, list[float]] = {name: [] for name in subjects}
    for _ in tracked(range(rounds), "measuring"):
        for name, subject in subjects.items():
            video = random_batch(subject, batch_size)["video"]
            with inference(subject.objective):
                classify = partial(subject.objective.classify, video)
                seconds[name].append(median_seconds(classify, subject.device, rounds=1))
    return {name: batch_size / median(times) for name, times in seconds.items()}


def entry_of(
    name: str, folder: Path, run: Run, *, accuracy: float, videos: int, clips_per_second: float | None
) -> Entry:
    """A row of the table: what was measured of a trained run, with what it costs."""
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
