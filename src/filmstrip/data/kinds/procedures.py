"""Windows of annotated procedures: features of clips, and the steps that are to be predicted."""

from __future__ import annotations

import json
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
        "features": of("B S N D", torch.float32, "of the clip at each place, padding where not given", padding=0),
        "step": of("B S", torch.int64, "what is done at each place", padding=-1),
        "seen": of("B S", torch.bool, "where the clip's features are given", padding=0),
        "target": of(
            "B S",
            torch.bool,
            "where the step is to be predicted; disjoint from `seen`, or equal to it where the given clips are named",
            padding=0,
        ),
        "task": of("B", torch.int64, "-1 where it is unknown", padding=-1),
        **COMMON,
    }
)
"""``S`` places in order of time."""
RECORD = "features.json"
"""What a run folder says of its features."""


@dataclass(frozen=True, kw_only=True)
class Procedures(Kind):
    """Read windows of annotated procedures: which, and what is asked of them.

    ``data.path`` then holds the features of their videos: what ``filmstrip encode`` wrote, a folder ``VIDEO.npy`` (or
    npz) as public planners read it, or a ``.npy`` with an embedding of each step, which stands for clips that are not
    there. Without a path, each step has a random embedding.
    """

    specification: ClassVar[Specification] = SPECIFICATION

    dataset: Literal["own", "coin", "crosstask", "niv", "ego4d"] = "own"
    """Whose annotations they are; ``own``: a ``procedures.json``."""
    annotations: Path | None = None
    """The folder of the annotations; none for a synthetic set, which knows its own."""
    division: Literal["pdpp", "schema", "release"] = "pdpp"
    """Who divided a public set into training and test."""
    shared_steps: bool = False
    """In CrossTask, count steps of one name as one (105), whatever their task (133)."""
    vocabulary: Literal["verb", "noun"] = "verb"
    """In Ego4D, what of an action is to be named."""
    task: Literal["forecast", "planning", "task_classification", "step_classification", "anticipation"] = "forecast"
    """``forecast``: the next ``horizon`` steps from up to ``observed`` clips before them; ``anticipation``: the same
    with as many observed clips in every window; ``planning``: ``horizon`` steps from a start to a goal;
    ``task_classification``: the task, which is asked for as a step at a last place, from up to ``observed`` clips;
    ``step_classification``: the step of a clip."""
    horizon: Count = 1
    """Steps to be predicted."""
    observed: Count = 8
    """Most clips that are given."""
    state_seconds: Rate = 3.0
    """In planning, seconds of video that show the start, from where the first step begins, and the goal, until the
    last one ends."""
    rate: Rate = 1.0
    """Of a folder of arrays, features in a second."""
    noise: Weight = 1.0
    """Of embeddings that stand for clips, the noise's deviation over their own root mean square."""
    width: Count = 64
    """Of random embeddings, their size."""
    tokens: Count = 1
    """Of embeddings that stand for clips, tokens in a clip."""
    seed: Seed = 0
    """Of random embeddings and of noise."""

    def open(self, data: Data) -> ProcedureSource:
        """The windows, with features from ``data.path``.

        Videos without features are left out, with a warning; public sets are rarely complete.

        Raises:
            UserError: annotations or features are missing, or no procedure is long enough for a window.
        """
        return _open(self, data)

    def sizes(self, data: Data, network: Any) -> dict[str, int]:
        """Places by the task; features and steps as the network expects them."""
        features = {"N": network.num_tokens, "D": network.feature_width}
        return {"S": windows.window_size(self), "K": network.num_steps, **features}

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
    """What objectives are told of procedures."""

    steps: tuple[str, ...]
    """What the steps are called, in the order of their ids."""
    tasks: tuple[str, ...]
    """What the tasks are called, in the order of their ids."""
    window: int
    """The places of a sample, S."""
    grid: tuple[int, int, int]
    """The places of a clip's features along time, height and width."""
    width: int
    """Size of a feature."""


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
    """Windows of annotated procedures, with the features of the clips that are given."""

    kind: ClassVar[type[Kind]] = Procedures

    annotations: Annotations = field(repr=False)
    config: Procedures
    features: ClipFeatures = field(repr=False)

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

    def info(self, train_split: str) -> ProcedureInfo:
        """What an objective may want to know of the collection before it is built."""
        return ProcedureInfo(
            **self.told(train_split),
            steps=self.classes,
            tasks=self.annotations.tasks,
            window=windows.window_size(self.config),
            grid=tuple(self.features.grid),
            width=self.features.width,
        )

    def record(self, folder: Path) -> None:
        """Keep in the run folder what new videos must be encoded with."""
        about = self.features.about
        known = {key: about[key] for key in ("encoder", "weights", "level") if key in about}
        write_json(asdict(FeatureRecord(clip_seconds=self.clip_seconds, **known)), folder / RECORD)


def _open(config: Procedures, data: Data) -> ProcedureSource:
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
                "procedures need annotations (--data.reads.annotations FOLDER): the folder of a public set "
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
        f"{config.horizon} needs {needed}: set a smaller data.reads.horizon"
    )


@dataclass(frozen=True, kw_only=True)
class FeatureRecord:
    """What a run folder says of the features that it was trained on, so that new videos can be encoded alike."""

    encoder: str | None = None
    """What encoded them: a run folder, ``hf:OWNER/NAME`` or a local folder; none where nobody said."""
    weights: str | None = None
    """The encoder's fingerprint."""
    level: str = "clip"
    clip_changes: str = "{}"
    """How clips differ from the encoder's own, as JSON."""
    clip_seconds: float
    """How long a clip was that was given, the median."""


def recorded_features(folder: Path) -> FeatureRecord:
    """What :meth:`ProcedureSource.record` kept.

    Raises:
        UserError: the run was not trained on procedures.
    """
    try:
        return FeatureRecord(**json.loads((folder / RECORD).read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise UserError(f"{folder} was not trained on procedures: it has no {RECORD}") from None
    except (ValueError, TypeError) as error:
        raise UserError(f"{folder / RECORD} cannot be read: {error}") from None


def draw_windows(sizes: Mapping[str, int], generator: torch.Generator) -> Batch:
    """Windows whose first and last clips are given; the steps between, which follow from the first, are asked for."""
    rows, places, tokens, width, steps = (sizes[letter] for letter in "BSNDK")
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
