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
    """What every system is given alike."""

    steps: Count = 300
    """The budget: optimiser steps of each system, of BATCH_SIZE clips."""
    batch_size: Count = 16
    """Clips in a step."""
    frames: Count = 8
    """Frames of a clip, which every network is made for."""
    stride: Count = 2
    """Frames of the video from one frame of a clip to the next."""
    size: Count = 64
    """Height and width of a clip, pixels."""
    views: Count = 4
    """Clips of each test video, evenly spaced, whose probabilities are averaged."""
    seed: Seed = 0
    """Decides weights, order, clips and augmentation."""
    num_workers: CountOrZero = 2
    """Processes that read videos; they change no result."""

    def __post_init__(self) -> None:
        check_numbers(self)


@dataclass(frozen=True, kw_only=True)
class Compare(Command):
    """Train classifiers on the same clips within the same budget; one table, and accuracy against compute.

    Each keeps its own learning rate. An interrupted comparison goes on; a system that fails stops no other.
    """

    usage = "[--systems SYSTEM[:PRESET],...] [--data PATH] [options]"
    systems: str | None = None
    """SYSTEM[:PRESET], separated by commas; by default the tiny preset of every recognition system."""
    data: Path | None = None
    """A folder class_name/*.mp4, or a manifest; by default a synthetic set that is made first."""
    out: Path = Path("runs/compare")
    """Where the runs, table.json, table.csv and report.html go."""
    budget: Annotated[Budget, tyro.conf.arg(name="")] = field(default_factory=Budget)
    measure: bool = True
    """Measure clips/s when everything is trained, of networks that were not measured yet; without it, a later call
    does, on a quiet machine."""

    def __call__(self) -> int:
        from filmstrip.commands.work.compare import compare

        addresses = dict.fromkeys(filter(None, (word.strip() for word in (self.systems or "").split(","))))
        return compare(list(addresses), self.out, data=self.data, budget=self.budget, measure=self.measure)
