"""Windows of procedures as a collection: read by the same loader, in the same order, as clips of videos."""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch

from filmstrip.data.annotations.coin import read_coin
from filmstrip.data.annotations.crosstask import read_crosstask
from filmstrip.data.annotations.ego4d import read_ego4d
from filmstrip.data.annotations.niv import read_niv
from filmstrip.data.annotations.own import read_own
from filmstrip.data.cached import CachedClip
from filmstrip.data.config import Data, DataInfo, Procedures
from filmstrip.data.procedures import windows
from filmstrip.data.procedures.clips import ClipFeatures, open_clips
from filmstrip.data.procedures.types import Annotations
from filmstrip.data.procedures.windows import Window
from filmstrip.data.sample import Sample, Source
from filmstrip.errors import UserError

log = logging.getLogger(__name__)

KEYS = frozenset({"features", "step", "seen", "target", "task"})


@dataclass(frozen=True, kw_only=True)
class ProcedureSample(Sample):
    """One window."""

    window: Window = field(repr=False)
    features: ClipFeatures = field(repr=False, compare=False)

    def cut(
        self, *, rng: np.random.Generator | None = None, num_clips: int = 1, num_crops: int = 1
    ) -> list[CachedClip]:
        """What a batch takes from the window, ``num_clips`` times over: nothing in it is drawn.

        Raises:
            OSError: features of a place cannot be read.
            UserError: crops were asked for.
        """
        if num_crops != 1:
            raise UserError("procedures have features, which have no crops: set num_crops to 1")
        grid, places = self.features.grid, self.window.places
        features = torch.zeros(len(places), grid.t * grid.h * grid.w, self.features.width)
        for s, place in enumerate(places):
            if place.given is not None:
                features[s] = self.features.read(self.window.procedure.video, place.given)
        content = {
            "features": features,
            "step": torch.tensor([place.step for place in places]),
            "seen": torch.tensor([place.given is not None for place in places]),
            "target": torch.tensor([place.target for place in places]),
            "task": torch.tensor(self.window.procedure.task),
        }
        return [CachedClip(content=content, times=self.window.span)] * num_clips


@dataclass(frozen=True, kw_only=True)
class ProcedureSource(Source):
    """Windows of annotated procedures, with the features of the clips that are given."""

    annotations: Annotations = field(repr=False)
    config: Procedures
    features: ClipFeatures = field(repr=False)

    @property
    def gives(self) -> frozenset[str]:
        """What batches hold of a window."""
        return KEYS

    @property
    def clip_seconds(self) -> float:
        """How long a clip that is given lasts, the median over all windows."""
        spans = [
            place.given.end - place.given.start
            for sample in self.samples
            for place in sample.window.places
            if place.given is not None
        ]
        return float(np.median(spans))

    def info(self, train_split: str) -> DataInfo:
        """What an objective may want to know of the collection before it is built."""
        return replace(
            super().info(train_split),
            steps=self.classes,
            tasks=self.annotations.tasks,
            window=windows.window_size(self.config),
            grid=tuple(self.features.grid),
            width=self.features.width,
        )


def open_procedures(data: Data) -> ProcedureSource:
    """The windows that ``data.procedures`` describes, with features from ``data.path``.

    Videos without features are left out, with a warning; public sets are rarely complete.

    Raises:
        UserError: annotations or features are missing, or no procedure is long enough for a window.
    """
    config = data.procedures
    windows.check(config)
    annotations = read_annotations(config, data)
    features = open_clips(data.path, config, len(annotations.steps))
    there = [procedure for procedure in annotations.procedures if procedure.video in features]
    if not there:
        raise UserError(
            f"{data.path} has features of none of the {len(annotations.procedures)} annotated videos, such as "
            f"{annotations.procedures[0].video}: files are called as the videos are"
        )
    if missing := len(annotations.procedures) - len(there):
        log.warning("%d of %d annotated videos have no features and are left out", missing, missing + len(there))
    samples, counts = [], Counter()
    for procedure in there:
        for i, window in enumerate(windows.windows(procedure, config)):
            samples.append(
                ProcedureSample(
                    path=str(data.path or annotations.root),
                    name=f"{procedure.video} [{i}]",
                    split=procedure.split,
                    window=window,
                    features=features,
                )
            )
            counts[procedure.split] += 1
    for split in (data.train_split, data.eval_split):
        if not counts[split] and any(procedure.split == split for procedure in there):
            raise UserError(_too_short(annotations, config, split))
    return ProcedureSource(
        root=Path(data.path or annotations.root),
        classes=windows.names(annotations, config),
        samples=tuple(samples),
        annotations=annotations,
        config=config,
        features=features,
    )


def read_annotations(config: Procedures, data: Data | None = None) -> Annotations:
    """The annotations of a set.

    Raises:
        UserError: there are none, or they cannot be read.
    """
    root = config.annotations
    if root is None:
        described = getattr(data.synthetic, "annotations", None) if data else None
        if described is None:
            raise UserError(
                "procedures need annotations (--data.procedures.annotations FOLDER): the folder of a public set "
                "(--data.procedures.dataset coin), or a procedures.json"
            )
        return described()
    root = Path(root).expanduser()
    match config.dataset:
        case "coin":
            return read_coin(root, config.division)
        case "crosstask":
            return read_crosstask(root, config.division, config.shared_steps)
        case "niv":
            return read_niv(root, config.division)
        case "ego4d":
            return read_ego4d(root, config.vocabulary)
    return read_own(root)


def _too_short(annotations: Annotations, config: Procedures, split: str) -> str:
    longest = max(len(procedure.steps) for procedure in annotations.split(split))
    if config.task == "task_classification":
        return f"{annotations.root}: no video of {split!r} has a task and a step"
    needed = config.horizon
    if config.task in ("forecast", "anticipation"):
        needed += config.observed if config.task == "anticipation" else 1
    return (
        f"{annotations.root}: the longest video of {split!r} has {longest} steps, and {config.task} with horizon "
        f"{config.horizon} needs {needed}: set a smaller data.procedures.horizon"
    )
