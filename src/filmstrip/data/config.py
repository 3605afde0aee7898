"""What a run reads: the source, how clips are cut from it, how they are augmented and batched."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from filmstrip.bounds import (
    Ascending,
    Bounds,
    Count,
    CountOrZero,
    PositiveShare,
    Rate,
    Share,
    Weight,
)
from filmstrip.data.kinds.kind import Kind
from filmstrip.settings import FREE


@dataclass(frozen=True, kw_only=True)
class Clip:
    """How a clip is cut from a video, in time and in space."""

    num_frames: Count = 16
    stride: Count = 4
    """Frames between two sampled frames, at the video's own rate (``dense`` sampling only)."""
    sampling: Literal["dense", "uniform", "segments"] = "dense"
    """``dense``: consecutive frames ``stride`` apart; ``uniform``: spread evenly over the video; ``segments``: one
    frame from each of ``num_frames`` equal segments, at random in training (TSN)."""
    size: Count = 224
    """Height and width of the clip, pixels."""
    crop: Literal["short_side", "random_resized"] = "short_side"
    """Training crop: scale the short side to a random length and cut out a square, or cut out a random part of a
    random shape and scale it (``area``, ``aspect``)."""
    short_side: Annotated[tuple[Count, Count], Ascending] = (256, 320)
    """Range of the short side in training, pixels; evaluation scales the short side to ``size``."""
    area: Annotated[tuple[PositiveShare, PositiveShare], Ascending] = (0.5, 1.0)
    """Range of the share of the frame that a random resized crop covers."""
    aspect: Annotated[tuple[Rate, Rate], Ascending] = (3 / 4, 4 / 3)
    """Range of a random resized crop's width over height."""
    snap: bool = False
    """In training, take a neighbouring frame where that saves decoding."""
    key_starts: bool = False
    """In training, begin dense clips at a key frame: faster, and varied enough where key frames are close."""


@dataclass(frozen=True, kw_only=True)
class Augment:
    """Random changes to a batch, on the device, each drawn from the sample's own seed."""

    mirror: Share = 0.5
    """Probability of a left-right flip; zero where the data set's classes are directional."""
    brightness: Weight = 0.0
    contrast: Weight = 0.0
    saturation: Weight = 0.0
    hue: Share = 0.0
    """Largest relative change of each colour property (hue: of the full circle)."""
    rand_ops: CountOrZero = 0
    """Operations of the RandAugment-style set applied to each clip."""
    rand_magnitude: Annotated[float, Bounds(min=0, max=10)] = 9.0
    """Their magnitude, 0 to 10."""
    mixup: Weight = 0.0
    """Beta parameter of mixup; zero for none."""
    cutmix: Weight = 0.0
    """Beta parameter of cutmix; zero for none. With both, each batch uses one or the other."""
    erase: Share = 0.0
    """Probability of erasing a random box through all frames."""


@dataclass(frozen=True, kw_only=True)
class Synthetic:
    """A data set that is generated, as real encoded files, the first time it is used."""


def _clips() -> Kind:
    # Its file reads this one.
    from filmstrip.data.kinds.clips import Clips

    return Clips()


@dataclass(frozen=True, kw_only=True)
class Data:
    """Where clips come from and how they reach the device."""

    path: Path | None = None
    """A folder ``class/*.mp4``, a manifest (CSV or Parquet), WebDataset shards (``name-{000..012}.tar``), or what
    ``filmstrip encode`` wrote of them."""
    synthetic: Synthetic | None = None
    """What to generate and read when no ``path`` is given."""
    reads: Kind = field(default_factory=_clips)
    """The kind of sample that is read, and which: one of those in ``filmstrip.data.kinds``."""
    train_split: str = "train"
    eval_split: str = field(default="test", metadata=FREE)
    clip: Clip = field(default_factory=Clip)
    augment: Augment = field(default_factory=Augment)
    batch_size: Count = 8
    """Clips in one optimiser step, over all processes and accumulation steps."""
    clips_per_video: Count = 1
    """Clips cut from one decode of a video (repeated augmentation)."""
    num_workers: CountOrZero = field(default=2, metadata=FREE)
    """Processes that decode, for each training process."""
    max_unreadable: Share = field(default=0.05, metadata=FREE)
    """Stop when more than this fraction of the samples read so far could not be decoded."""
    backend: Literal["auto", "pyav", "torchcodec"] = "auto"


@dataclass(frozen=True, kw_only=True)
class DataInfo:
    """What an objective may want to know of the data before it is built; kinds of samples have more to say."""

    classes: tuple[str, ...]
    num_train: int
    """Training videos."""
    directional: bool
    """Whether mirroring changes what a clip means."""
