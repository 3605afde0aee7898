"""Clips around key frames as a collection: read by the same loader, in the same order, as clips of videos."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from filmstrip.data.annotations.ava import read_ava, read_boxes
from filmstrip.data.boxes import area, intersection
from filmstrip.data.cached import CachedClip
from filmstrip.data.config import Clip, Data, DataInfo, Detection
from filmstrip.data.detection.types import Actor, ActorAnnotations, Boxes, Moment
from filmstrip.data.layouts.folder import is_video
from filmstrip.data.sample import Sample, Source, read_notes
from filmstrip.errors import UserError
from filmstrip.video.decode import open_video
from filmstrip.video.decoder import Crop, DecodeError, Frames, Request, VideoInfo
from filmstrip.video.geometry import random_short_side
from filmstrip.video.sampling import dense_around

log = logging.getLogger(__name__)

KEYS = frozenset({"video", "boxes", "is_actor", "box_labels", "moment"})
PER_ACTOR = ("boxes", "is_actor", "box_labels")
"""Keys of which a clip has a row for each actor; zeros in rows where nobody is."""
TRIALS = 20
"""Draws of a crop until somebody is in it."""
MULTIPLE = 32
"""What the long side of whole frames is brought to a multiple of, pixels: networks halve it up to five times."""


class ActorView(NamedTuple):
    """What is read around a key frame."""

    request: Request
    boxes: Tensor
    """Where the actors are in it, ``M 4``."""
    chosen: Tensor
    """Which of them are looked at."""


@dataclass(frozen=True, kw_only=True)
class ActorSample(Sample):
    """One key frame."""

    moment: float
    """Its second in the file."""
    key: Moment
    """Its video and second as annotated."""
    actors: tuple[Actor, ...] = field(repr=False)
    """Whose boxes are looked at."""
    num_classes: int
    config: Detection = field(repr=False)

    def cut(
        self, data: Data, *, rng: np.random.Generator | None = None, num_clips: int = 1, num_crops: int = 1
    ) -> list[CachedClip]:
        """The clip around it: whole frames; or with ``rng`` ``num_clips`` random crops, padded to ``max_actors``.

        Raises:
            DecodeError, OSError: the video cannot be read, or ends before the key frame.
            UserError: several clips or crops were asked for.
        """
        with open_video(self.file(), backend=data.backend) as decoder:
            views = self.views(decoder.info, data.clip, rng=rng, num_clips=num_clips, num_crops=num_crops)
            clips = decoder.read([view.request for view in views])
        return self.clips(views, clips, None if rng is None else self.config.max_actors)

    def views(
        self,
        info: VideoInfo,
        clip: Clip,
        *,
        rng: np.random.Generator | None = None,
        num_clips: int = 1,
        num_crops: int = 1,
    ) -> list[ActorView]:
        """What :meth:`cut` reads of an open video, for :meth:`clips` to go on with.

        Raises:
            DecodeError: the video ends before the key frame.
            UserError: several clips or crops were asked for.
        """
        if num_crops != 1 or (rng is None and num_clips != 1):
            raise UserError("a key frame is looked at as one clip of whole frames: set num_clips and num_crops to 1")
        boxes = torch.tensor([actor.box for actor in self.actors], dtype=torch.float64).view(-1, 4)
        shown = [self._view(info, boxes, clip, rng) for _ in range(num_clips)]
        times = clip_times(info, self.moment, clip)
        return [ActorView(Request(times, box, size), placed, chosen) for box, size, placed, chosen in shown]

    def clips(self, views: Sequence[ActorView], clips: Sequence[Frames], room: int | None = None) -> list[CachedClip]:
        """What was read of each view, with its boxes and, if it is said, room for so many actors."""
        return [
            CachedClip(
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
        """What is shown, in which size, where the boxes (``M 4``) then lie, and which of them are looked at."""
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
        """What a batch holds of the ``chosen`` boxes, with room for as many as that."""
        labels = torch.zeros(len(self.actors), self.num_classes)
        for row, actor in zip(labels, self.actors):
            row[list(actor.classes)] = 1.0
        room = len(chosen) if room is None else room
        return {
            "boxes": _extended(boxes[chosen].float(), room),
            "is_actor": _extended(torch.ones(len(chosen), dtype=torch.bool), room),
            "box_labels": _extended(labels[chosen], room),
        }


def with_equal_room(clips: Sequence[dict[str, Tensor]]) -> Sequence[dict[str, Tensor]]:
    """What a batch takes from its clips, those of key frames with room for as many actors as any of them has."""
    if "is_actor" not in clips[0]:
        return clips
    room = max(len(clip["is_actor"]) for clip in clips)
    return [clip | {key: _extended(clip[key], room) for key in PER_ACTOR} for clip in clips]


def _extended(rows: Tensor, room: int) -> Tensor:
    """Rows, and as many of zeros after them as there is room for."""
    return torch.cat([rows, rows.new_zeros(room - len(rows), *rows.shape[1:])])


def clip_times(info: VideoInfo, moment: float, clip: Clip) -> np.ndarray:
    """When the frames of the clip around a second of a video are on screen.

    Raises:
        DecodeError: the video has no such second.
    """
    if not 0 <= moment < info.duration:
        raise DecodeError(
            info.path, info.stream, f"it lasts {info.duration:g} s; the key frame at {moment:g} s was asked for"
        )
    return dense_around(moment, clip.num_frames, clip.stride, info.fps, info.duration)


def whole_size(info: VideoInfo, clip: Clip) -> tuple[int, int]:
    """Height and width of whole frames: the short one is ``clip.size``, the long one nearly in proportion."""
    short, long = sorted((info.height, info.width))
    other = clip.size if short == long else max(MULTIPLE, round(clip.size * long / short / MULTIPLE) * MULTIPLE)
    return (clip.size, other) if info.height <= info.width else (other, clip.size)


def within(boxes: Tensor, crop: Crop, info: VideoInfo) -> tuple[Tensor, Tensor]:
    """Boxes (``M 4``, shares of the frame) as shares of a crop, cut off at its ends, and how much of each is left."""
    side = torch.tensor([info.width, info.height, info.width, info.height], dtype=boxes.dtype)
    corner = torch.tensor([crop.left, crop.top, crop.left, crop.top], dtype=boxes.dtype)
    cut = torch.tensor([crop.width, crop.height, crop.width, crop.height], dtype=boxes.dtype)
    placed = (boxes * side - corner) / cut
    shown = intersection(placed, torch.tensor([0.0, 0.0, 1.0, 1.0], dtype=boxes.dtype).expand_as(placed))
    return shown, area(shown) / area(placed)


@dataclass(frozen=True, kw_only=True)
class ActorSource(Source):
    """Key frames with boxes; classes are those of what is done."""

    truth: Mapping[str, Boxes]
    """What is annotated in each split, of the videos that are there, without excluded key frames."""
    evaluated: frozenset[int]
    """Places of the classes that are evaluated."""
    numbers: tuple[int, ...]
    """Of the classes, in the annotations' files."""

    @property
    def gives(self) -> frozenset[str]:
        """What batches hold of a key frame."""
        return KEYS

    def info(self, train_split: str) -> DataInfo:
        """The numbers of classes too."""
        return replace(super().info(train_split), class_numbers=self.numbers)


def open_detection(data: Data) -> ActorSource:
    """The key frames that ``data.detection`` describes, of the videos in ``data.path``.

    Videos that are not there are left out, with a warning; public sets are rarely complete.

    Raises:
        UserError: annotations or videos are missing, a row of them is wrong, or a number.
    """
    config = data.detection
    if config.max_actors < 1 or not (0 < config.kept <= 1 and 0 <= config.min_score <= 1):
        raise UserError("detection: max_actors is one or more, kept more than 0 and up to 1, min_score from 0 to 1")
    if data.clip.crop != "short_side" or data.clip.sampling != "dense":
        raise UserError("detection: clips lie around key frames, dense, and are cut by clip.short_side: set no other")
    root = data.path and Path(data.path).expanduser()
    annotated = config.annotations and Path(config.annotations).expanduser()
    if root is None:
        if data.synthetic is None:
            raise UserError("detection needs videos (--data FOLDER)")
        root = data.synthetic.generate()
        annotated = annotated or root
    if annotated is None:
        raise UserError(
            "detection needs annotations (--data.detection.annotations FOLDER): that of AVA "
            "(--data.detection.dataset ava_v2.2), or files of the same form"
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
            "somebody in it: files are called as the videos are"
        )
    if missing := len(videos - files.keys()):
        log.warning("%d of %d annotated videos are not in %s and are left out", missing, len(videos), root)
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
    """The videos below a folder by their names without ending.

    Raises:
        UserError: there is no such folder.
    """
    if not root.is_dir():
        raise UserError(f"{root} is no folder of videos")
    return {file.stem: file for file in sorted(root.rglob("*")) if is_video(file)}


def sure(boxes: Boxes, min_score: float) -> Boxes:
    """Boxes whose scores are that or higher; key frames stay, even without any."""
    return {key: tuple(actor for actor in actors if actor.score >= min_score) for key, actors in boxes.items()}


def _looked_at(split: str, boxes: Boxes, annotations: ActorAnnotations, config: Detection, *, trained: bool) -> Boxes:
    """Whose boxes samples of a split hold: annotated ones, and in training more; in evaluation a detector's."""
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
    config: Detection,
    files: Mapping[str, Path],
) -> Iterator[ActorSample]:
    """A sample of each key frame with somebody in it, of the videos that are there."""
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
