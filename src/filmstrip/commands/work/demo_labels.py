"""The demo's first part: what pretraining without labels is worth when labels are few.

One network learns without labels to predict the frames that follow. From it, and from random weights, the same
classifier is then trained on a few labelled videos of each class, and on all of them, in the same number of steps.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean

import torch

from filmstrip.data.augment.levels import to_levels
from filmstrip.inference import inference
from filmstrip.measure.interval import half_interval
from filmstrip.report import Column, Curves, Group, Section, Strip, Strips, Table
from filmstrip.report.comparison import training_curves, videos_named
from filmstrip.runs import experiment
from filmstrip.runs.config import Run
from filmstrip.systems.pretraining.future_frames import FutureFrames
from filmstrip.train.lengths import Steps

FEW = (5,)
"""Numbers of labelled videos of each class."""
NUM_PREDICTIONS = 8
PREDICTION_FPS = 6.0
DIMMED = 0.3
"""Brightness of the frames that a network sees before it predicts."""
_NBSP = "\N{NO-BREAK SPACE}"


@dataclass(frozen=True, order=True)
class Arm:
    """One classifier: its labelled videos a class (none: all of them), the choice of them, and where it begins."""

    labels: int | None
    seed: int
    pretrained: bool

    @property
    def folder(self) -> str:
        """The name of its run folder."""
        start = "pretrained" if self.pretrained else "scratch"
        return f"{start}-all-labels" if self.labels is None else f"{start}-{self.labels}-labels-{self.seed}"

    @property
    def said(self) -> str:
        """The arm in words."""
        count = "all labels" if self.labels is None else f"{self.labels} labels a class, choice {self.seed + 1}"
        return f"R(2+1)D {'pretrained' if self.pretrained else 'from scratch'}, {count}"


def arms(most: int, seeds: int) -> list[Arm]:
    """Those of a dataset with at most so many training videos of a class: pairs that differ in their start alone."""
    counts = [(count, seed) for count in FEW if count < most for seed in range(seeds)]
    return [Arm(count, seed, start) for count, seed in [*counts, (None, 0)] for start in (True, False)]


def planned(classifier: Run, arm: Arm, pretrained: Path, steps_on_all: int) -> Run:
    """The run of an arm: a classifier's on the arm's videos, for longer where these are all."""
    data = replace(classifier.data, videos_per_class=arm.labels, subset_seed=arm.seed)
    train = classifier.train if arm.labels is not None else replace(classifier.train, length=Steps(steps_on_all))
    init = str(pretrained) if arm.pretrained else None
    return replace(classifier, data=data, train=train, seed=arm.seed, init=init)


@dataclass(frozen=True)
class Gain:
    """Accuracies with some number of labelled videos a class, of each seed in order."""

    labels: int
    """Number of labelled videos a class; where all are used, the number of the class that has most."""
    videos: int
    """Number of labelled videos."""
    steps: int
    """Number of training steps of each classifier."""
    scratch: tuple[float, ...]
    pretrained: tuple[float, ...]

    @property
    def difference(self) -> tuple[float, float | None]:
        """The mean over seeds of what pretraining adds, and half of its 95% interval; none for a single seed."""
        each = [after - before for after, before in zip(self.pretrained, self.scratch, strict=True)]
        return mean(each), half_interval(each) if len(each) > 1 else None


def gains(accuracy: Mapping[Arm, float], steps: Mapping[Arm, int], sizes: Mapping[int, int]) -> list[Gain]:
    """What pretraining gains, by the number of labels.

    ``steps`` has the number of training steps of each arm, ``sizes`` the number of training videos of each class.
    """
    found = []
    for labels in [*sorted({arm.labels for arm in accuracy if arm.labels is not None}), None]:
        scratch, pretrained = (
            tuple(value for arm, value in accuracy.items() if arm.labels == labels and arm.pretrained == start)
            for start in (False, True)
        )
        count = max(sizes.values()) if labels is None else labels
        videos = sum(min(count, size) for size in sizes.values())
        (length,) = {steps[arm] for arm in accuracy if arm.labels == labels}
        found.append(Gain(labels=count, videos=videos, steps=length, scratch=scratch, pretrained=pretrained))
    return found


def gain_sections(found: Sequence[Gain], folders: Mapping[Arm, Path], pretrained: Path, note: str) -> list[Section]:
    """A table and a chart of the gains, and curves of what was trained for them."""
    columns = (
        Column("labels a class", "d"),
        Column("videos", ",d"),
        Column("steps", ",d"),
        Column("from scratch", ".1%"),
        Column("pretrained", ".1%"),
        Column("gain, points"),
        Column("from scratch, each choice"),
        Column("pretrained, each choice"),
    )
    rows = [
        (
            gain.labels,
            gain.videos,
            gain.steps,
            mean(gain.scratch),
            mean(gain.pretrained),
            said(gain),
            _each(gain.scratch),
            _each(gain.pretrained),
        )
        for gain in found
    ]
    counts = [float(gain.labels) for gain in found]
    means = {
        "pretrained": (counts, [100 * mean(gain.pretrained) for gain in found]),
        "from scratch": (counts, [100 * mean(gain.scratch) for gain in found]),
    }
    fewest = min((arm.labels for arm in folders if arm.labels is not None), default=None)
    shown = {
        "pretrained" if arm.pretrained else "from scratch": folder
        for arm, folder in folders.items()
        if arm.labels == fewest and arm.seed == 0
    }
    without = training_curves({"": pretrained}, {"over_last_frame": "Without labels: error over repeating a frame"})
    labels = "all labels" if fewest is None else f"{fewest} labels a class"
    fine = training_curves(shown, {"loss": f"With {labels}: loss", "top1": f"With {labels}: training clips named"})
    chart = Curves("Unseen videos named correctly, %", means, x_label="labelled videos a class", shown=(0.0, 100.0))
    return [
        Table("What pretraining without labels is worth", columns, rows, (note,)),
        Group("Labels, and training", (chart, *without.sections, *fine.sections)),
    ]


def said(gain: Gain) -> str:
    """What pretraining adds, in percentage points, with its interval if there is one."""
    value, reach = gain.difference
    points = f"{100 * value:+.1f}"
    return points if reach is None else f"{points}{_NBSP}±{_NBSP}{100 * reach:.1f}"


def _each(shares: Sequence[float]) -> str:
    return f",{_NBSP}".join(f"{share:.1%}" for share in shares) if len(shares) > 1 else "–"


def prediction_strips(pretrained: experiment.Result) -> Strips:
    """The first test video of some classes: what happens, and what the network without labels expects."""
    objective, subject = pretrained.objective, pretrained.subject
    assert isinstance(objective, FutureFrames), "the run without labels predicts frames"
    split = subject.source.split(subject.data.eval_split)
    first = {sample.label: sample.name for sample in reversed(split)}
    names = sorted(first.values())[:NUM_PREDICTIONS]
    videos = videos_named(subject.source, subject.data, set(names))
    names = [name for name in names if name in videos]
    video = torch.stack([videos[name] for name in names])
    seen = objective.num_seen
    with inference(objective):
        predicted = to_levels(objective.predict(video[:, :seen].to(subject.device)).clamp(0, 1)).cpu()
    # As many frames before as after: the middle one, which stands still in print, is the first that is predicted.
    before = video[:, max(0, seen - predicted.shape[1]) : seen]
    happens = torch.cat([before, video[:, seen:]], dim=1)
    expected = torch.cat([(before.float() * DIMMED).to(torch.uint8), predicted], dim=1)
    strips = [Strip(pair, name) for *pair, name in zip(happens, expected, names, strict=True)]
    note = (
        f"Test videos, not used in training. The network sees {seen} frames, of which the last are dimmed on the "
        f"right, and predicts the {predicted.shape[1]} that follow, all at once. What is uncertain is blurred."
    )
    return Strips("What comes next", strips, ("what happens", "what it expects"), fps=PREDICTION_FPS, note=note)
