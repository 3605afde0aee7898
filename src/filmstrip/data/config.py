"""What a run reads: the source, how clips are cut from it, how they are augmented and batched."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from filmstrip.bounds import (
    AnyNumber,
    Ascending,
    Bounds,
    Count,
    CountOrZero,
    PositiveShare,
    Rate,
    Seed,
    Share,
    Weight,
)
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


@dataclass(frozen=True, kw_only=True)
class Procedures:
    """Which annotated procedures are read, and what is asked of them.

    ``data.path`` then holds the features of their videos: what ``filmstrip encode`` wrote, a folder ``VIDEO.npy`` (or
    npz) as public planners read it, or a ``.npy`` with an embedding of each step, which stands for clips that are not
    there. Without a path, each step has a random embedding.
    """

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


@dataclass(frozen=True, kw_only=True)
class Localisation:
    """Which untrimmed videos are read as sequences of features, with the actions in them.

    ``data.path`` then holds the features: clips along each video that ``filmstrip encode`` wrote, or a folder
    ``VIDEO.npy`` (or npz) as public code reads it. Without a path, each action has a random embedding, and noise.
    """

    dataset: Literal["own", "thumos14", "activitynet"] = "own"
    """Whose annotations they are; ``own``: a ``procedures.json``."""
    annotations: Path | None = None
    """The folder of the annotations; none for a synthetic set, which knows its own."""
    max_length: Count = 2304
    """Features of a training sample: a random part of longer videos; shorter ones are padded."""
    resized: bool = False
    """Bring every video to ``max_length`` features, by linear interpolation."""
    crop: PositiveShare = 1.0
    """In training, the least share of a shorter video that is kept; one keeps all of it."""
    kept: Share = 0.5
    """The least share of an action that must lie within such a part to count."""
    stride: Count = 4
    """Of arrays and random embeddings, frames from one feature to the next."""
    window: Count = 16
    """Of arrays and random embeddings, frames that a feature is made of."""
    fps: Rate = 30.0
    """Frames a second of videos whose annotations do not say."""
    noise: Weight = 1.0
    """Of random embeddings, the noise's deviation over their root mean square."""
    width: Count = 64
    """Of random embeddings, their size."""
    seed: Seed = 0
    """Of random embeddings and of noise."""


@dataclass(frozen=True, kw_only=True)
class Detection:
    """Which key frames are read, as clips around them, with boxes of the actors and what each of them does.

    ``data.path`` is then the folder of the videos, which are called as in the annotations. In training a clip is a
    random crop (``clip.short_side``); in evaluation it shows whole frames whose short side is ``clip.size``.
    """

    dataset: Literal["own", "ava_v2.1", "ava_v2.2"] = "own"
    """Whose annotations they are; ``own``: files as AVA's, without a version in their names."""
    annotations: Path | None = None
    """The folder of the annotations; none for a synthetic set, which brings its own."""
    proposals: Path | None = None
    """Boxes that a detector found, as a table with scores: looked at in evaluation, in place of the annotated
    ones."""
    train_boxes: Path | None = None
    """Such boxes with classes, or with none for what does nothing: learned from beside the annotated ones."""
    min_score: AnyNumber = 0.8
    """Of such boxes, those with lower scores are left out."""
    offset: AnyNumber = 0.0
    """The annotations' second at which files begin: 900 for films cut to the quarter of an hour that AVA
    annotates."""
    max_actors: Count = 16
    """Most actors in a training sample; of more, random ones are taken."""
    kept: Share = 0.2
    """Least share of a box that must lie within a training crop to count."""


@dataclass(frozen=True, kw_only=True)
class Data:
    """Where clips come from and how they reach the device."""

    path: Path | None = None
    """A folder ``class/*.mp4``, a manifest (CSV or Parquet), WebDataset shards (``name-{000..012}.tar``), or what
    ``filmstrip encode`` wrote of them."""
    layout: Literal["auto", "folder", "ucf101", "kinetics", "ssv2", "teco"] = "auto"
    """How a folder is laid out; ``auto`` looks. ``folder`` is a folder of classes, whatever else lies in it."""
    fold: Annotated[int, Bounds(min=1, max=3)] = 1
    """Which of the divisions into training and test of UCF-101, 1 to 3."""
    synthetic: Synthetic | None = None
    """What to generate and read when no ``path`` is given."""
    procedures: Procedures | None = None
    """Read windows of procedures instead of clips."""
    localisation: Localisation | None = None
    """Read untrimmed videos as sequences of features instead of clips."""
    detection: Detection | None = None
    """Read clips around key frames, with the boxes of those who act in them."""
    train_split: str = "train"
    eval_split: str = field(default="test", metadata=FREE)
    clip: Clip = field(default_factory=Clip)
    augment: Augment = field(default_factory=Augment)
    batch_size: Count = 8
    """Clips in one optimiser step, over all processes and accumulation steps."""
    clips_per_video: Count = 1
    """Clips cut from one decode of a video (repeated augmentation)."""
    cached_clips: CountOrZero = 0
    """Clips in a row that make one sample of encoded videos, ``B clips N D``; zero for single ones, ``B N D``."""
    num_workers: CountOrZero = field(default=2, metadata=FREE)
    """Processes that decode, for each training process."""
    max_unreadable: Share = field(default=0.05, metadata=FREE)
    """Stop when more than this fraction of the samples read so far could not be decoded."""
    backend: Literal["auto", "pyav", "torchcodec"] = "auto"
    actions: bool = True
    """Read the actions of videos that come with them."""


@dataclass(frozen=True, kw_only=True)
class DataInfo:
    """What an objective may want to know of the data before it is built."""

    classes: tuple[str, ...]
    num_train: int
    """Training videos."""
    directional: bool
    """Whether mirroring changes what a clip means."""
    num_actions: int = 0
    """How many discrete actions there are; zero where there are none, or they are vectors."""
    action_dim: int = 0
    """Length of a continuous action; zero where there are none, or they are discrete."""
    action_names: tuple[str, ...] = ()
    """What discrete actions are called, in order, where the data says."""
    grid: tuple[int, int, int] | None = None
    """Of encoded videos, the places of a clip's features or tokens along time, height and width."""
    codebook_size: int = 0
    """Of token ids, how many there are; zero for video and for features."""
    width: int = 0
    """Size of a feature; of token ids, how many codebooks there are."""
    steps: tuple[str, ...] = ()
    """Of procedures, what the steps are called, in the order of their ids."""
    tasks: tuple[str, ...] = ()
    """Of procedures, what the tasks are called, in the order of their ids."""
    window: int = 0
    """Of procedures, the places of a sample, S."""
    class_numbers: tuple[int, ...] = ()
    """Of key frames with boxes, the numbers of the classes in the annotations' files."""
