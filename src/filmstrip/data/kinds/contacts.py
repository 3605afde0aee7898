"""Clips that end at an annotated frame, with the objects that are touched next."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from filmstrip.bounds import Count
from filmstrip.data.actions import ActionSpace
from filmstrip.data.annotations.ego4d_contacts import ContactAnnotations, ContactFrame, read_contacts
from filmstrip.data.boxes import mirrored
from filmstrip.data.config import Clip, Data, DataInfo
from filmstrip.data.kinds.actors import draw_actors, video_files
from filmstrip.data.kinds.clips import VIDEO, Clips, draw_clips
from filmstrip.data.kinds.kind import Kind, Row
from filmstrip.data.kinds.specification import COMMON, Specification, of
from filmstrip.data.sample import Sample, Source, read_notes
from filmstrip.errors import UserError
from filmstrip.protocols import Batch
from filmstrip.video.decode import open_video
from filmstrip.video.decoder import DecodeError, Request, VideoInfo
from filmstrip.video.sampling import dense_until

log = logging.getLogger(__name__)

SPECIFICATION = Specification(
    {
        "video": VIDEO,
        "boxes": of(
            "B M 4",
            torch.float32,
            "boxes of objects: left, top, right, bottom, as fractions of the frame",
            padding=0,
            mirrored=mirrored,
            unmixed="boxes",
        ),
        "is_object": of("B M", torch.bool, "whether there is an object, false in padding", padding=0),
        "noun": of("B M", torch.int64, "class of the object", padding=0),
        "verb": of("B M", torch.int64, "class of the action by which it is touched", padding=0),
        "contact": of("B M", torch.float32, "time from the last frame to the contact, in seconds", padding=0),
        "frame_size": of("B 2", torch.int64, "height and width of the video, in pixels"),
        **COMMON,
    }
)


@dataclass(frozen=True, kw_only=True)
class ContactClips(Kind):
    """Clips that end at an annotated frame, and the objects that are touched next, in Ego4D's files.

    ``data.path`` is the folder of the videos, named by their ids. Whole frames are resized to a square, in training
    too: no object is cropped off, and boxes are fractions.
    """

    specification: ClassVar[Specification] = SPECIFICATION

    annotations: Path | None = None
    """Folder of ``fho_sta_train.json`` and ``fho_sta_val.json``; none for that of the videos."""
    max_objects: Count = 8
    """Maximum number of objects of a training sample; of more, the first ones are used."""

    def open(self, data: Data) -> ContactSource:
        """The annotated frames of the videos in ``data.path``.

        Missing videos are skipped with a warning, since copies of public datasets are rarely complete.

        Raises:
            UserError: annotations or videos are missing, or a setting is invalid.
        """
        return _open(self, data)

    def sizes(self, data: Data, network: Any) -> dict[str, int]:
        """Sizes of a clip with ``max_objects`` objects."""
        more = {"M": self.max_objects, "K": network.num_nouns, "V": network.num_verbs}
        return {**Clips().sizes(data, None), **more}

    def told_sizes(self, data: Data, info: ContactInfo) -> dict[str, int]:
        """The same, with the numbers of nouns and verbs of the annotations."""
        return {
            **Clips().sizes(data, None),
            "M": self.max_objects,
            "K": len(info.classes),
            "V": len(info.verbs),
        }

    def shown(self, data: Data) -> str:
        """Length and size."""
        return Clips().shown(data)

    @staticmethod
    def example_info(sizes: Mapping[str, int], **told: Any) -> ContactInfo:
        """See :meth:`Kind.example_info`."""
        names = tuple(str(i) for i in range(sizes.get("V") or sizes["K"]))
        return ContactInfo(
            **told, verbs=names, noun_numbers=tuple(range(sizes["K"])), verb_numbers=tuple(range(len(names)))
        )

    @staticmethod
    def example(sizes: Mapping[str, int], generator: torch.Generator) -> Batch:
        """Clips with the boxes of :func:`~filmstrip.data.kinds.actors.draw_actors`; see :meth:`Kind.example`."""
        clips, rows = draw_clips(sizes, generator), sizes["B"]
        del clips["label"]
        drawn = draw_actors(sizes, generator)
        there = drawn["is_actor"]
        verbs = torch.randint(0, sizes.get("V") or sizes["K"], there.shape, generator=generator)
        return clips | {
            "boxes": drawn["boxes"],
            "is_object": there,
            "noun": torch.randint(0, sizes["K"], there.shape, generator=generator) * there,
            "verb": verbs * there,
            "contact": (0.3 + torch.rand(there.shape, generator=generator)) * there,
            "frame_size": torch.tensor([[sizes["H"], sizes["W"]]]).repeat(rows, 1),
        }


@dataclass(frozen=True, kw_only=True)
class ContactInfo(DataInfo):
    """Properties of annotated contacts that objectives need; ``classes`` are the nouns."""

    verbs: tuple[str, ...]
    """Names of the actions."""
    noun_numbers: tuple[int, ...]
    """Numbers of the nouns in the annotations' files."""
    verb_numbers: tuple[int, ...]
    """Numbers of the verbs in the annotations' files."""


@dataclass(frozen=True, kw_only=True)
class ContactSample(Sample):
    """One annotated frame."""

    kind: ClassVar[type[Kind]] = ContactClips
    in_turn: ClassVar[bool] = False

    frame: ContactFrame = field(repr=False)
    nouns: tuple[int, ...]
    """Class of each object."""
    verbs: tuple[int, ...]
    """Class of each action."""
    config: ContactClips = field(repr=False)

    def cut(
        self,
        data: Data,
        *,
        rng: np.random.Generator | None = None,
        num_clips: int = 1,
        num_crops: int = 1,
        actions: ActionSpace | None = None,
    ) -> list[Row]:
        """The clip that ends at the frame, with its objects; in training padded to ``max_objects``.

        Raises:
            DecodeError, OSError: the video cannot be read, or ends before the frame.
            UserError: several crops, or several clips in evaluation, were requested.
        """
        if num_crops != 1 or (rng is None and num_clips != 1):
            raise UserError("an annotated frame is evaluated on one clip: set num_clips and num_crops to 1")
        clip = data.clip
        with open_video(self.file(), backend=data.backend) as decoder:
            info = decoder.info
            times = clip_until(info, self.frame.frame / info.fps, clip)
            (frames,) = decoder.read([Request(times, None, (clip.size, clip.size))])
        height, width = self.frame.height or info.height, self.frame.width or info.width
        room = len(self.nouns) if rng is None else self.config.max_objects
        row = Row(
            content={
                "video": frames.video,
                "frame_size": torch.tensor([height, width]),
                **self._objects(height, width, room),
            },
            times=(float(frames.times[0]), float(frames.times[-1])),
            damaged=frames.damaged,
            truncated=frames.truncated,
        )
        return [row] * num_clips

    def _objects(self, height: int, width: int, room: int) -> dict[str, Tensor]:
        """A batch's keys for the objects, padded to a number of ``room``."""
        contacts = self.frame.contacts[:room]
        boxes = torch.zeros(room, 4)
        known = torch.tensor([contact.box for contact in contacts], dtype=torch.float64)
        known /= torch.tensor([width, height, width, height])
        boxes[: len(contacts)] = known.clamp(0, 1).float()
        columns = {
            "is_object": [True] * len(contacts),
            "noun": self.nouns[:room],
            "verb": self.verbs[:room],
            "contact": [contact.seconds for contact in contacts],
        }
        types = {"is_object": torch.bool, "contact": torch.float32}
        found = {"boxes": boxes}
        for name, values in columns.items():
            found[name] = torch.zeros(room, dtype=types.get(name, torch.int64))
            found[name][: len(contacts)] = torch.tensor(values, dtype=found[name].dtype)
        return found


def clip_until(info: VideoInfo, moment: float, clip: Clip) -> np.ndarray:
    """The times of the frames of the clip that ends at a moment of a video.

    Raises:
        DecodeError: the moment is outside the video.
    """
    if not 0 <= moment < info.duration:
        raise DecodeError(info.path, info.stream, f"it lasts {info.duration:g} s; the frame is at {moment:g} s")
    return dense_until(moment, clip.num_frames, clip.stride, info.fps, info.duration)


@dataclass(frozen=True, kw_only=True)
class ContactSource(Source):
    """Annotated frames; classes are those of objects."""

    kind: ClassVar[type[Kind]] = ContactClips

    verbs: tuple[str, ...]
    noun_numbers: tuple[int, ...]
    verb_numbers: tuple[int, ...]

    def info(self, train_split: str) -> ContactInfo:
        """The common properties, the verbs and the numbers of classes."""
        return ContactInfo(
            **self.told(train_split),
            verbs=self.verbs,
            noun_numbers=self.noun_numbers,
            verb_numbers=self.verb_numbers,
        )


def _open(config: ContactClips, data: Data) -> ContactSource:
    if data.clip.sampling != "dense":
        raise UserError("contacts: clips that end at a frame need clip.sampling dense")
    root = data.path and Path(data.path).expanduser()
    if root is None:
        if data.synthetic is None:
            raise UserError("contacts need videos (--data FOLDER)")
        root = data.synthetic.generate()
    annotations = read_contacts(root if config.annotations is None else Path(config.annotations).expanduser())
    nouns, verbs = _numbers(annotations, "noun"), _numbers(annotations, "verb")
    files = video_files(root)
    samples = [
        ContactSample(
            path=str(files[frame.video]),
            name=frame.uid,
            split=split,
            frame=frame,
            nouns=tuple(nouns[contact.noun] for contact in frame.contacts),
            verbs=tuple(verbs[contact.verb] for contact in frame.contacts),
            config=config,
        )
        for split, frames in annotations.frames.items()
        for frame in frames
        if frame.video in files
    ]
    videos = {frame.video for frames in annotations.frames.values() for frame in frames}
    if not samples:
        raise UserError(
            f"{root} holds none of the {len(videos)} annotated videos, such as {min(videos, default='?')}.mp4: files "
            "must be named as in the annotations"
        )
    if missing := len(videos - files.keys()):
        log.warning("%d of %d annotated videos are not in %s and are skipped", missing, len(videos), root)
    return ContactSource(
        root=root,
        classes=tuple(annotations.nouns.get(number, str(number)) for number in nouns),
        verbs=tuple(annotations.verbs.get(number, str(number)) for number in verbs),
        noun_numbers=tuple(nouns),
        verb_numbers=tuple(verbs),
        samples=tuple(samples),
        directional=read_notes(root).directional,
    )


def _numbers(annotations: ContactAnnotations, which: str) -> dict[int, int]:
    """The class of each number, in order: all that are named, or occur."""
    named = annotations.nouns if which == "noun" else annotations.verbs
    seen = {
        getattr(contact, which)
        for frames in annotations.frames.values()
        for frame in frames
        for contact in frame.contacts
    }
    return {number: i for i, number in enumerate(sorted({*named, *seen}))}
