"""``filmstrip compare``."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from filmstrip.bounds import Count, CountOrZero, Seed, check_numbers
from filmstrip.commands.command import Command


@dataclass(frozen=True, kw_only=True)
class Budget:
    """The budget and the clips that all systems share."""

    steps: Count = 300
    """Number of optimiser steps of each system."""
    batch_size: Count = 16
    """Number of clips in an optimiser step."""
    frames: Count = 8
    """Number of frames in a clip, for which every network is built."""
    stride: Count = 2
    """Temporal stride: number of video frames from one frame of a clip to the next."""
    size: Count = 64
    """Height and width of a clip, in pixels."""
    views: Count = 4
    """Number of evenly spaced clips of each test video, whose probabilities are averaged."""
    seed: Seed = 0
    """Random seed of weights, order, clips and augmentation."""
    num_workers: CountOrZero = 2
    """Number of worker processes that read videos; does not change results."""

    def __post_init__(self) -> None:
        check_numbers(self)


@dataclass(frozen=True, kw_only=True)
class Compare(Command):
    """Train classifiers on the same clips within the same budget; report one table, and accuracy against compute.

    Each system keeps its own optimiser and learning rate. The same command resumes an interrupted comparison; a
    system that fails does not stop the others.
    """

    usage = "[--systems SYSTEM[:PRESET],...] [--data PATH] [options]"
    systems: str | None = None
    """Systems to compare, SYSTEM[:PRESET] separated by commas; by default the tiny preset of every recognition
    system but those that probe what another run learnt."""
    data: Path | None = None
    """Folder class_name/*.mp4, or manifest; by default a synthetic dataset that is generated first."""
    out: Path = Path("runs/compare")
    """Output folder of the runs, table.json, table.csv and report.html."""
    budget: Annotated[Budget, tyro.conf.arg(name="")] = field(default_factory=Budget)
    measure: bool = True
    """Whether to measure the clips/s of networks not measured yet, after all training; with --no-measure, a later
    call can do that on an idle machine."""

    def __call__(self) -> int:
        from filmstrip.commands.work.compare import compare

        addresses = dict.fromkeys(filter(None, (word.strip() for word in (self.systems or "").split(","))))
        return compare(list(addresses), self.out, data=self.data, budget=self.budget, measure=self.measure)
