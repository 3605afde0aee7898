"""Clips around key frames, with the boxes of actors and their actions."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from filmstrip.bounds import AnyNumber, Count, Share
from filmstrip.data.actions import ActionSpace
from filmstrip.data.annotations.ava import read_ava, read_boxes
from filmstrip.data.boxes import area, intersection, mirrored
from filmstrip.data.config import Clip, Data, DataInfo
from filmstrip.data.detection.types import Actor, ActorAnnotations, Boxes, Moment
from filmstrip.data.kinds.clips import VIDEO, Clips, draw_clips
from filmstrip.data.kinds.kind import Kind, Row
from filmstrip.data.kinds.specification import COMMON, Specification, of
from filmstrip.data.layouts.folder import videos_by_name
from filmstrip.data.sample import Sample, Source, read_notes
from filmstrip.errors import UserError
from filmstrip.protocols import Batch
from filmstrip.video.batched_reading import read_batched
from filmstrip.video.decode import open_video
from filmstrip.video.decoder import Crop, DecodeError, Frames, Request, VideoInfo
from filmstrip.video.geometry import random_short_side
from filmstrip.video.sampling import dense_around

log = logging.getLogger(__name__)

SPECIFICATION = Specification(
    {
        "video": VIDEO,
        "boxes": of(
            "B M 4",
            torch.float32,
            "boxes of actors: left, top, right, bottom, as fractions of the clip's width and height",
            padding=0,
            mirrored=mirrored,
            unmixed="boxes",
        ),
        "is_actor": of("B M", torch.bool, "whether there is an actor, false in padding", padding=0),
        "box_labels": of("B M K", torch.float32, "1 for each class of the actor's actions", padding=0),
        "moment": of("B", torch.float64, "time of the key frame in the file, in seconds"),
        **COMMON,
    }
)
TRIALS = 20
"""Maximum number of random crops tried until one contains an actor."""
MULTIPLE = 32
"""Divisor of the long side of whole frames, in pixels: networks halve it up to five times."""


@dataclass(frozen=True, kw_only=True)
class ActorClips(Kind):
    """Clips around key frames, with the boxes and actions of actors.

    ``data.path`` is the folder of the videos, named as in the annotations. A training clip is a random crop
    (``clip.short_side``); an evaluation clip has whole frames whose short side is ``clip.size``.
    """

    specification: ClassVar[Specification] = SPECIFICATION

    dataset: Literal["own", "ava_v2.1", "ava_v2.2"] = "own"
    """Dataset of the annotations; ``own``: files in AVA's format, without a version in their names."""
    annotations: Path | None = None
    """Folder of the annotations; None for a synthetic dataset, which includes them."""
    proposals: Path | None = None
    """Table of a detector's boxes with scores, used in evaluation in place of the annotated ones."""
    train_boxes: Path | None = None
    """Table of a detector's boxes with classes (empty for no action), used in training in addition to the annotated
    ones."""
    min_score: AnyNumber = 0.8
    """Minimum score of a detector's boxes; others are ignored."""
    offset: AnyNumber = 0.0
    """Time in the annotations, in seconds, at which files begin: 900 for films trimmed to the 15 minutes that AVA
    annotates."""
    max_actors: Count = 16
    """Maximum number of actors in a training sample; of more, a random subset is used."""
    kept: Share = 0.2
    """Minimum fraction of a box's area that must lie within a training crop for the actor to be used."""

    def open(self, data: Data) -> ActorSource:
        """The key frames of the videos in ``data.path``.

        Missing videos are skipped with a warning, since copies of public datasets are rarely complete.

        Raises:
            UserError: annotations or videos are missing, or a row or a setting is invalid.
        """
        return _open(self, data)

    def sizes(self, data: Data, network: Any) -> dict[str, int]:
        """Sizes of a clip with one actor."""
        return {**Clips().sizes(data, network), "M": 1, "K": network.num_classes}

    def told_sizes(self, data: Data, info: ActorInfo) -> dict[str, int]:
        """A clip's, with one actor."""
        return {**Clips().sizes(data, None), "M": 1, "K": len(info.classes)}

    def shown(self, data: Data) -> str:
        """Length and size."""
        return Clips().shown(data)

    @staticmethod
    def example_info(sizes: Mapping[str, int], **told: Any) -> ActorInfo:
        """See :meth:`Kind.example_info`."""
        return ActorInfo(**told, class_numbers=tuple(range(1, sizes["K"] + 1)))

    @staticmethod
    def example(sizes: Mapping[str, int], generator: torch.Generator) -> Batch:
        """Clips with the boxes that :func:`draw_actors` makes; see :meth:`Kind.example`."""
        clips = draw_clips(sizes, generator)
        del clips["label"]
        return clips | draw_actors(sizes, generator)


@dataclass(frozen=True, kw_only=True)
class ActorInfo(DataInfo):
    """Properties of key frames that objectives need."""

    class_numbers: tuple[int, ...]
    """Numbers of the classes in the annotations' files."""


class ActorView(NamedTuple):
    """The clip that is decoded around a key frame, with its boxes."""

    request: Request
    boxes: Tensor
    """Boxes of the actors in the clip, ``M 4``."""
    chosen: Tensor
    """Indices of the boxes that are used."""


@dataclass(frozen=True, kw_only=True)
class ActorSample(Sample):
    """One key frame."""

    kind: ClassVar[type[Kind]] = ActorClips

    moment: float
    """Time of the key frame in the file, in seconds."""
    key: Moment
    """Video and time of the key frame in the annotations."""
    actors: tuple[Actor, ...] = field(repr=False)
    """Actors whose boxes are used."""
    num_classes: int
    config: ActorClips = field(repr=False)

    def cut(
        self,
        data: Data,
        *,
        rng: np.random.Generator | None = None,
        num_clips: int = 1,
        num_crops: int = 1,
        actions: ActionSpace | None = None,
    ) -> list[Row]:
        """The clip around it: whole frames; or with ``rng`` ``num_clips`` random crops, padded to ``max_actors``.

        Raises:
            DecodeError, OSError: the video cannot be read, or ends before the key frame.
            UserError: several clips or crops were requested.
        """
        with open_video(self.file(), backend=data.backend) as decoder:
            views = self.views(decoder.info, data.clip, rng=rng, num_clips=num_clips, num_crops=num_crops)
            clips = decoder.read([view.request for view in views])
        return self.clips(views, clips, None if rng is None else self.config.max_actors)

    @classmethod
    def cut_in_turn(
        cls, samples: Sequence[ActorSample], data: Data, num_clips: int = 1, num_crops: int = 1
    ) -> list[list[Row]]:
        """What :meth:`cut` cuts for evaluation around each of several key frames of one file.

        Raises:
            DecodeError, OSError, UserError: as :meth:`cut`, of any of them.
        """
        with open_video(samples[0].file(), backend=data.backend) as decoder:
            views = [
                sample.views(decoder.info, data.clip, num_clips=num_clips, num_crops=num_crops) for sample in samples
            ]
            read = read_batched(decoder, [[view.request for view in ours] for ours in views])
            return [sample.clips(ours, clips) for sample, ours, clips in zip(samples, views, read)]

    def views(
        self,
        info: VideoInfo,
        clip: Clip,
        *,
        rng: np.random.Generator | None = None,
        num_clips: int = 1,
        num_crops: int = 1,
    ) -> list[ActorView]:
        """The views of an open video that :meth:`cut` decodes and passes to :meth:`clips`.

        Raises:
            DecodeError: the video ends before the key frame.
            UserError: several clips or crops were requested.
        """
        if num_crops != 1 or (rng is None and num_clips != 1):
            raise UserError("a key frame is evaluated on one clip of whole frames: set num_clips and num_crops to 1")
        boxes = torch.tensor([actor.box for actor in self.actors], dtype=torch.float64).view(-1, 4)
        shown = [self._view(info, boxes, clip, rng) for _ in range(num_clips)]
        times = clip_times(info, self.moment, clip)
        return [ActorView(Request(times, box, size), placed, chosen) for box, size, placed, chosen in shown]

    def clips(self, views: Sequence[ActorView], clips: Sequence[Frames], room: int | None = None) -> list[Row]:
        """The rows of decoded views with their boxes, padded to ``room`` actors if that is provided."""
        return [
            Row(
                content={"video": clip.video, "moment": torch.tensor(self.moment, dtype=torch.float64)}
                | self._actors(view.boxes, view.chosen, room),
                times=(float(clip.times[0]), float(clip.times[-1])),
                damaged=clip.damaged,
                truncated=clip.truncated,
            )
            for clip, view in zip(clips, views)
        ]

    def _view(
        self, info: VideoInfo, boxes: Tensor, clip: Clip, rng: np.random.Generator | None
    ) -> tuple[Crop | None, tuple[int, int], Tensor, Tensor]:
        """The crop, its size, the boxes (``M 4``) in it, and the indices of those that are used."""
        if rng is None:
            return None, whole_size(info, clip), boxes, torch.arange(len(boxes))
        size = (clip.size, clip.size)
        for _ in range(TRIALS):
            crop = random_short_side(info.height, info.width, size, clip.short_side, rng)
            placed, seen = within(boxes, crop, info)
            chosen = (seen >= self.config.kept).nonzero()[:, 0]
            if len(chosen):
                break
        if len(chosen) > self.config.max_actors:
            chosen = chosen[np.sort(rng.choice(len(chosen), self.config.max_actors, replace=False))]
        return crop, size, placed, chosen

    def _actors(self, boxes: Tensor, chosen: Tensor, room: int | None) -> dict[str, Tensor]:
        """A batch's keys for the ``chosen`` boxes, padded to ``room`` actors."""
        labels = torch.zeros(len(self.actors), self.num_classes)
        for row, actor in zip(labels, self.actors):
            row[list(actor.classes)] = 1.0
        room = len(chosen) if room is None else room
        return {
            "boxes": _extended(boxes[chosen].float(), room),
            "is_actor": _extended(torch.ones(len(chosen), dtype=torch.bool), room),
            "box_labels": _extended(labels[chosen], room),
        }


def _extended(rows: Tensor, room: int) -> Tensor:
    """Rows padded with zeros to a number of ``room``."""
    return torch.cat([rows, rows.new_zeros(room - len(rows), *rows.shape[1:])])


def clip_times(info: VideoInfo, moment: float, clip: Clip) -> np.ndarray:
    """The times of the frames of the clip around a moment of a video.

    Raises:
        DecodeError: the moment is outside the video.
    """
    if not 0 <= moment < info.duration:
        raise DecodeError(info.path, info.stream, f"it lasts {info.duration:g} s; the key frame is at {moment:g} s")
    return dense_around(moment, clip.num_frames, clip.stride, info.fps, info.duration)


def whole_size(info: VideoInfo, clip: Clip) -> tuple[int, int]:
    """Height and width of whole frames: the short side is ``clip.size``, the long side nearly in proportion."""
    short, long = sorted((info.height, info.width))
    other = clip.size if short == long else max(MULTIPLE, round(clip.size * long / short / MULTIPLE) * MULTIPLE)
    return (clip.size, other) if info.height <= info.width else (other, clip.size)


def within(boxes: Tensor, crop: Crop, info: VideoInfo) -> tuple[Tensor, Tensor]:
    """Boxes (``M 4``, fractions of the frame) as fractions of a crop, clipped to it, and the visible share of
    each."""
    side = torch.tensor([info.width, info.height, info.width, info.height], dtype=boxes.dtype)
    corner = torch.tensor([crop.left, crop.top, crop.left, crop.top], dtype=boxes.dtype)
    cut = torch.tensor([crop.width, crop.height, crop.width, crop.height], dtype=boxes.dtype)
    placed = (boxes * side - corner) / cut
    shown = intersection(placed, torch.tensor([0.0, 0.0, 1.0, 1.0], dtype=boxes.dtype).expand_as(placed))
    return shown, area(shown) / area(placed)


@dataclass(frozen=True, kw_only=True)
class ActorSource(Source):
    """Key frames with boxes; classes are those of actions."""

    kind: ClassVar[type[Kind]] = ActorClips

    truth: Mapping[str, Boxes]
    """Annotated boxes of each split for the available videos, without excluded key frames."""
    evaluated: frozenset[int]
    """Indices of the classes that are evaluated."""
    numbers: tuple[int, ...]
    """Numbers of the classes in the annotations' files."""

    def info(self, train_split: str) -> ActorInfo:
        """The common properties and the numbers of classes."""
        return ActorInfo(**self.told(train_split), class_numbers=self.numbers)


def _open(config: ActorClips, data: Data) -> ActorSource:
    if config.max_actors < 1 or not (0 < config.kept <= 1 and 0 <= config.min_score <= 1):
        raise UserError("actors: max_actors is one or more, kept more than 0 and up to 1, min_score from 0 to 1")
    if data.clip.crop != "short_side" or data.clip.sampling != "dense":
        raise UserError("actors: clips around key frames need clip.sampling dense and clip.crop short_side")
    root = data.path and Path(data.path).expanduser()
    annotated = config.annotations and Path(config.annotations).expanduser()
    if root is None:
        if data.synthetic is None:
            raise UserError("actors need videos (--data FOLDER)")
        root = data.synthetic.generate()
        annotated = annotated or root
    if annotated is None:
        raise UserError(
            "actors need annotations (--data.reads.annotations FOLDER): those of AVA "
            "(--data.reads.dataset ava_v2.2), or files of the same format"
        )
    annotations = read_ava(annotated, config.dataset.removeprefix("own").removeprefix("ava"))
    files = video_files(root)
    samples: list[ActorSample] = []
    for split, boxes in annotations.splits.items():
        looked_at = _looked_at(split, boxes, annotations, config, trained=split == data.train_split)
        samples += _samples(split, looked_at, annotations, config, files)
    videos = {video for boxes in annotations.splits.values() for video, _ in boxes}
    if not samples:
        raise UserError(
            f"{root} holds none of the {len(videos)} annotated videos, such as {min(videos, default='?')}.mp4, with "
            "actors: files must be named as in the annotations"
        )
    if missing := len(videos - files.keys()):
        log.warning("%d of %d annotated videos are not in %s and are skipped", missing, len(videos), root)
    return ActorSource(
        root=root,
        classes=annotations.classes,
        samples=tuple(samples),
        directional=read_notes(root).directional,
        truth={
            split: {k: v for k, v in boxes.items() if k[0] in files and k not in annotations.excluded}
            for split, boxes in annotations.splits.items()
        },
        evaluated=annotations.evaluated,
        numbers=tuple(sorted(annotations.ids)),
    )


def video_files(root: Path) -> dict[str, Path]:
    """The videos below a folder by their names without extension.

    Raises:
        UserError: the folder does not exist.
    """
    if not root.is_dir():
        raise UserError(f"{root} is not a folder of videos")
    return videos_by_name(root)


def sure(boxes: Boxes, min_score: float) -> Boxes:
    """Boxes with a score of at least ``min_score``; key frames without any are kept."""
    return {key: tuple(actor for actor in actors if actor.score >= min_score) for key, actors in boxes.items()}


def _looked_at(
    split: str, boxes: Boxes, annotations: ActorAnnotations, config: ActorClips, *, trained: bool
) -> Boxes:
    """The boxes of a split's samples: annotated ones, in training also ``train_boxes``, in evaluation
    ``proposals``."""
    path = config.train_boxes if trained else config.proposals
    if path is None:
        return dict(boxes)
    found = sure(read_boxes(Path(path).expanduser(), annotations.ids if trained else None), config.min_score)
    videos = {video for video, _ in boxes}
    found = {key: actors for key, actors in found.items() if key[0] in videos}
    if not trained:
        return found
    return {key: (*boxes.get(key, ()), *found.get(key, ())) for key in {**boxes, **found}}


def _samples(
    split: str,
    looked_at: Boxes,
    annotations: ActorAnnotations,
    config: ActorClips,
    files: Mapping[str, Path],
) -> Iterator[ActorSample]:
    """A sample for each key frame with actors, for the available videos."""
    for key, actors in looked_at.items():
        video, second = key
        if video in files and key not in annotations.excluded and actors:
            yield ActorSample(
                path=str(files[video]),
                name=f"{video},{second:04g}",
                split=split,
                moment=second - config.offset,
                key=key,
                actors=actors,
                num_classes=len(annotations.classes),
                config=config,
            )


def draw_actors(sizes: Mapping[str, int], generator: torch.Generator) -> Batch:
    """Clips with two actors, left and right, with up to two actions each; a third actor is padding."""
    rows, classes = sizes["B"], sizes["K"]
    corner = torch.rand(rows, 2, 2, generator=generator) * torch.tensor([0.2, 0.5])
    corner[:, 1, 0] += 0.5
    length = 0.2 + 0.1 * torch.rand(rows, 2, 2, generator=generator)
    boxes = F.pad(torch.cat([corner, corner + length], dim=-1), (0, 0, 0, 1))
    done = torch.randint(0, classes, (rows, 3, 2), generator=generator)
    there = torch.tensor([True, True, False]).expand(rows, 3)
    labels = F.one_hot(done, classes).amax(dim=2).float() * there[..., None]
    moment = torch.full((rows,), 0.5, dtype=torch.float64)
    return {"boxes": boxes, "is_actor": there.clone(), "box_labels": labels, "moment": moment}
