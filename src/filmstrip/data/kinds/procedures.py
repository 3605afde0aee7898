"""Windows of annotated procedures: features of clips, and the steps to predict."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
import torch.nn.functional as F

from filmstrip.bounds import Count, Rate, Seed, Weight
from filmstrip.data.annotations.coin import read_coin
from filmstrip.data.annotations.crosstask import read_crosstask
from filmstrip.data.annotations.ego4d import read_ego4d
from filmstrip.data.annotations.niv import read_niv
from filmstrip.data.annotations.own import read_own
from filmstrip.data.config import Data, DataInfo
from filmstrip.data.feature_records import FeatureRecord, read_feature_record
from filmstrip.data.kinds.clips import draw_common
from filmstrip.data.kinds.kind import Kind, Row
from filmstrip.data.kinds.specification import COMMON, Specification, of
from filmstrip.data.procedures import windows
from filmstrip.data.procedures.clips import ClipFeatures, open_clips
from filmstrip.data.procedures.types import Annotations
from filmstrip.data.procedures.windows import Window
from filmstrip.data.sample import FeatureSample, Source
from filmstrip.errors import UserError
from filmstrip.files import write_json
from filmstrip.protocols import Batch

log = logging.getLogger(__name__)

SPECIFICATION = Specification(
    {
        "features": of(
            "B S N D", torch.float32, "features of the clip at each position, padding where not seen", padding=0
        ),
        "step": of("B S", torch.int64, "step at each position", padding=-1),
        "seen": of("B S", torch.bool, "positions with features", padding=0),
        "target": of(
            "B S",
            torch.bool,
            "positions whose steps are to be predicted; disjoint from `seen`, or equal to it for classification",
            padding=0,
        ),
        "task": of("B", torch.int64, "task of the procedure, -1 if unknown", padding=-1),
        **COMMON,
    }
)
"""Windows of ``S`` positions in temporal order."""
RECORD = "features.json"
"""File in a run folder that describes its features."""


@dataclass(frozen=True, kw_only=True)
class Procedures(Kind):
    """Windows of annotated procedures.

    ``data.path`` holds the features of their videos: a folder that ``filmstrip encode`` wrote, a folder ``VIDEO.npy``
    (or npz) as public planners use it, or a ``.npy`` with an embedding of each step, which replaces missing clips.
    Without a path, each step has a random embedding.
    """

    specification: ClassVar[Specification] = SPECIFICATION

    dataset: Literal["own", "coin", "crosstask", "niv", "ego4d"] = "own"
    """Dataset of the annotations; ``own``: a ``procedures.json``."""
    annotations: Path | None = None
    """Folder of the annotations; None for a synthetic dataset, which includes them."""
    division: Literal["pdpp", "schema", "release"] = "pdpp"
    """Published split of the dataset into training and test."""
    shared_steps: bool = False
    """Whether steps of CrossTask with the same name are one step in all tasks (105 steps instead of 133)."""
    vocabulary: Literal["verb", "noun"] = "verb"
    """Part of Ego4D's actions to predict."""
    task: Literal["forecast", "planning", "task_classification", "step_classification", "anticipation"] = "forecast"
    """Task. ``forecast``: the next ``horizon`` steps from up to ``observed`` previous clips; ``anticipation``: the
    same from exactly ``observed`` clips; ``planning``: ``horizon`` steps from a start to a goal;
    ``task_classification``: the task, predicted as the step at a final position, from up to ``observed`` clips;
    ``step_classification``: the step of a clip."""
    horizon: Count = 1
    """Number of steps to predict."""
    observed: Count = 8
    """Maximum number of observed clips."""
    state_seconds: Rate = 3.0
    """Duration of the start and of the goal in planning, in seconds: the start begins with the first step, the goal
    ends with the last one."""
    rate: Rate = 1.0
    """Number of features per second in a folder of arrays."""
    noise: Weight = 1.0
    """Standard deviation of the noise added to stand-in embeddings, relative to their root mean square."""
    width: Count = 64
    """Dimension of random embeddings."""
    tokens: Count = 1
    """Number of tokens per clip of stand-in embeddings."""
    seed: Seed = 0
    """Seed of random embeddings and noise."""

    def open(self, data: Data) -> ProcedureSource:
        """The windows, with features from ``data.path``.

        Videos without features are skipped with a warning, since copies of public datasets are rarely complete.

        Raises:
            UserError: annotations or features are missing, or no procedure is long enough for a window.
        """
        return _open(self, data)

    def sizes(self, data: Data, network: Any) -> dict[str, int]:
        """Number of positions from the task; features and steps as the network expects them."""
        features = {"N": network.num_tokens, "D": network.feature_width}
        return {"S": windows.window_size(self), "K": network.num_steps, **features}

    def told_sizes(self, data: Data, info: ProcedureInfo) -> dict[str, int]:
        """Those of the windows; of steps and tasks as many as there are of both."""
        t, h, w = info.grid
        return {"S": info.window, "N": t * h * w, "D": info.width, "K": min(len(info.steps), len(info.tasks))}

    @staticmethod
    def example_info(sizes: Mapping[str, int], **told: Any) -> ProcedureInfo:
        """See :meth:`Kind.example_info`."""
        return ProcedureInfo(
            **told,
            steps=told["classes"],
            tasks=told["classes"],
            window=sizes["S"],
            grid=(sizes["N"], 1, 1),
            width=sizes["D"],
        )

    @staticmethod
    def example(sizes: Mapping[str, int], generator: torch.Generator) -> Batch:
        """Windows that :func:`draw_windows` makes; see :meth:`Kind.example`."""
        return draw_windows(sizes, generator) | draw_common(sizes["B"], generator)


@dataclass(frozen=True, kw_only=True)
class ProcedureInfo(DataInfo):
    """Properties of procedures that objectives need."""

    steps: tuple[str, ...]
    """Names of the steps, in the order of their ids."""
    tasks: tuple[str, ...]
    """Names of the tasks, in the order of their ids."""
    window: int
    """Number of positions of a window, S."""
    grid: tuple[int, int, int]
    """Grid of a clip's features: numbers of positions along time, height and width."""
    width: int
    """Dimension of a feature."""


@dataclass(frozen=True, kw_only=True)
class ProcedureSample(FeatureSample):
    """One window."""

    kind: ClassVar[type[Kind]] = Procedures

    window: Window = field(repr=False)
    features: ClipFeatures = field(repr=False, compare=False)

    def select(self, rng: np.random.Generator | None, num_clips: int, *, actions: bool) -> list[Row]:
        """The window's row, ``num_clips`` times: nothing in it is random.

        Raises:
            OSError: features of a position cannot be read.
        """
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
        return [Row(content=content, times=self.window.span)] * num_clips


@dataclass(frozen=True, kw_only=True)
class ProcedureSource(Source):
    """Windows of annotated procedures, with the features of observed clips."""

    kind: ClassVar[type[Kind]] = Procedures

    samples: tuple[ProcedureSample, ...]
    annotations: Annotations = field(repr=False)
    config: Procedures
    features: ClipFeatures = field(repr=False)

    @property
    def clip_seconds(self) -> float:
        """Median duration of observed clips over all windows, in seconds."""
        spans = [
            place.given.end - place.given.start
            for sample in self.samples
            for place in sample.window.places
            if place.given is not None
        ]
        return float(np.median(spans))

    def info(self, train_split: str) -> ProcedureInfo:
        """Properties of the collection that an objective needs before it is built."""
        t, h, w = self.features.grid
        return ProcedureInfo(
            **self.told(train_split),
            steps=self.classes,
            tasks=self.annotations.tasks,
            window=windows.window_size(self.config),
            grid=(t, h, w),
            width=self.features.width,
        )

    def record(self, folder: Path) -> None:
        """Record in the run folder how new videos must be encoded."""
        about = self.features.about
        known = {key: about[key] for key in ("encoder", "weights", "level") if key in about}
        write_json(asdict(StepRecord(clip_seconds=self.clip_seconds, **known)), folder / RECORD)


def _open(config: Procedures, data: Data) -> ProcedureSource:
    windows.check(config)
    annotations = read_annotations(config, data)
    features = open_clips(data.path, config, len(annotations.steps))
    there = [procedure for procedure in annotations.procedures if procedure.video in features]
    if not there:
        raise UserError(
            f"{data.path} has features of none of the {len(annotations.procedures)} annotated videos, such as "
            f"{annotations.procedures[0].video}: files must be named as in the annotations"
        )
    if missing := len(annotations.procedures) - len(there):
        log.warning("%d of %d annotated videos have no features and are skipped", missing, missing + len(there))
    samples: list[ProcedureSample] = []
    counts: Counter[str] = Counter()
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
    """The annotations of a dataset.

    Raises:
        UserError: the annotations are missing or cannot be read.
    """
    root = config.annotations
    if root is None:
        described = getattr(data.synthetic, "annotations", None) if data else None
        if described is None:
            raise UserError(
                "procedures need annotations (--data.reads.annotations FOLDER): the folder of a public dataset "
                "(--data.reads.dataset coin), or a procedures.json"
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
        f"{config.horizon} needs {needed}: reduce data.reads.horizon"
    )


@dataclass(frozen=True, kw_only=True)
class StepRecord(FeatureRecord):
    """How features of clips that show steps were made."""

    clip_seconds: float
    """Median duration of observed clips, in seconds."""


def recorded_features(folder: Path) -> StepRecord:
    """The record that :meth:`ProcedureSource.record` wrote.

    Raises:
        UserError: the run was not trained on procedures.
    """
    missing = f"{folder} was not trained on procedures: it has no {RECORD}"
    return read_feature_record(StepRecord, folder / RECORD, missing)


def draw_windows(sizes: Mapping[str, int], generator: torch.Generator) -> Batch:
    """Windows whose first and last clips are observed; the steps between, determined by the first, are targets."""
    rows, places, tokens, width, steps = (sizes[letter] for letter in "BSNDK")
    steps = min(steps, width)  # a feature marks its step
    step = (torch.randint(0, steps, (rows, 1), generator=generator) + torch.arange(places)) % steps
    seen = torch.zeros(rows, places, dtype=torch.bool)
    seen[:, [0, -1]] = True
    features = F.one_hot(step, width).float()[:, :, None]
    features = features + 0.1 * torch.randn(rows, places, tokens, width, generator=generator)
    return {
        "features": features * seen[..., None, None],
        "step": step,
        "seen": seen,
        "target": ~seen,
        "task": step[:, 0],
    }
