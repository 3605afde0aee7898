"""``filmstrip probe``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from filmstrip.bounds import Count
from filmstrip.commands.command import Command

ProbeName = Literal["linear", "knn", "attentive"]
"""A linear classifier or the nearest neighbours of pooled features; a learned query that attends to all tokens."""


@dataclass(frozen=True, kw_only=True)
class Probe(Command):
    """Measure what each layer of frozen encoders knows of labelled videos: one pass, several probes, one chart.

    All layers are encoded at once. The layer is chosen on a fifth of the training videos, never on the test videos.
    """

    usage = "ENCODER... --data PATH [--probes linear knn attentive] [--out FOLDER] [options]"
    encoders: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="ENCODER...")]
    """Encoders to compare: run folders, hf:OWNER/NAME, short names such as dinov2-base, local folders in the Hub's
    layout."""
    data: Path | None = None
    """Labelled videos; by default those of the run."""
    out: Path = Path("probes")
    """Output folder: probes.html with the curves, probes.csv and probes.json with every accuracy, and predictions/
    with tables of each file's predicted classes."""
    probes: tuple[ProbeName, ...] = ("linear", "knn", "attentive")
    """Probes to train on each layer; attentive ones take longest."""
    pooling: Literal["block", "plain"] = "plain"
    """Pooling of the attentive probe: one attention alone (Toto), or a block with a feed-forward network (V-JEPA)."""
    k: Count = 20
    """Number of neighbours of k-NN."""
    epochs: Count = 20
    """Number of passes of the attentive probe over the training videos."""
    batch_size: Count = 16
    """Number of clips that are encoded at once, and of the attentive probe's steps."""
    cache: Path | None = None
    """Folder in which features are kept for another time."""

    def __call__(self) -> None:
        from filmstrip.commands.work.probe import probe

        probe(self)
