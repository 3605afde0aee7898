"""Samples, and collections of them."""

from __future__ import annotations

import hashlib
import io
import json
import math
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, ClassVar, Self, TypeGuard, TypeVar

import numpy as np

from filmstrip.data.actions import ActionSpace, Sidecar, space_of
from filmstrip.data.config import Data, DataInfo
from filmstrip.data.kinds import clips
from filmstrip.data.kinds.kind import Kind, Row
from filmstrip.data.kinds.specification import Specification
from filmstrip.data.labels import Numbers, SeveralClasses, Target
from filmstrip.data.reading.order import Portion
from filmstrip.data.reading.packing import Packing
from filmstrip.errors import UserError
from filmstrip.protocols import Labels
from filmstrip.video.decoder import FrameFolder
from filmstrip.video.images import is_image
from filmstrip.video.remote import address_of, name_of

AnySample = TypeVar("AnySample", bound="Sample")

HELD_OUT = 0.2
"""Fraction of each class that becomes the test split of a collection without splits."""


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One video, or the part of one between ``start`` and ``end`` (seconds from its first frame).

    Samples of other kinds are subclasses, which override :meth:`cut`.
    """

    kind: ClassVar[type[Kind]] = clips.Clips
    in_turn: ClassVar[bool] = True
    """Whether samples of one file can be read together, by :meth:`cut_in_turn`."""

    path: str
    """Path or address of the file; or of the archive that holds the video as ``size`` bytes starting at
    ``offset``."""
    name: str
    """Name that is short and unique in the collection, for messages and tables."""
    label: int | None = None
    """Index of the class in the collection's classes."""
    target: Target | None = None
    """Its several classes or its numbers, where labels are these instead of one class."""
    split: str = ""
    start: float | None = None
    end: float | None = None
    text: tuple[str, ...] = ()
    """Captions, several of which say the same in other words."""
    group: str | None = None
    """Group of samples that a split must not separate, such as those of one person or recording."""
    fps: float | None = None
    """Frames per second of a film that is a folder of frames, if known; None for files."""
    offset: int | None = None
    size: int | None = None
    actions: Sidecar | None = None
    """Location of the actions of the whole video, a row for each of its frames."""
    origin: int = 0
    """Number of the source that the sample is from, in a mixture of several."""

    @property
    def is_labelled(self) -> bool:
        """Whether it has a label of any kind."""
        return self.label is not None or self.target is not None

    @property
    def specification(self) -> Specification:
        """Specification of the batches of samples such as this one."""
        return self.kind.specification

    @property
    def is_image(self) -> bool:
        """Whether the file is an image, a video of one frame."""
        address = address_of(self.path)
        return self.offset is None and is_image(self.path if address is None else name_of(address))

    def file(self) -> str | BinaryIO | FrameFolder:
        """The input of the decoder: the path, or the bytes of an archive's member in memory.

        Raises:
            OSError: the archive cannot be read.
        """
        if self.fps is not None:
            return FrameFolder(self.path, self.fps)
        if self.offset is None or self.size is None:
            return self.path
        with open(self.path, "rb") as archive:
            archive.seek(self.offset)
            return io.BytesIO(archive.read(self.size))

    def together(self, data: Data) -> int:
        """Number of samples of the same source that training reads into one row."""
        sequence = isinstance(data.reads, clips.Clips) and data.reads.images == "sequence"
        return data.clip.num_frames if sequence and self.is_image else 1

    def cut(
        self,
        data: Data,
        *,
        rng: np.random.Generator | None = None,
        num_clips: int = 1,
        num_crops: int = 1,
        actions: ActionSpace | None = None,
    ) -> list[Row]:
        """``num_clips`` x ``num_crops`` rows of a batch, at random with ``rng``; see :func:`clips.cut`."""
        return clips.cut(self, data, rng=rng, num_clips=num_clips, num_crops=num_crops, actions=actions)

    @classmethod
    def cut_in_turn(
        cls, samples: Sequence[Self], data: Data, num_clips: int = 1, num_crops: int = 1
    ) -> list[list[Row]]:
        """The rows that :meth:`cut` returns for evaluation, of each of several samples of one file."""
        return clips.cut_in_turn(samples, data, num_clips, num_crops)


@dataclass(frozen=True, kw_only=True)
class FeatureSample(Sample):
    """A sample of features in place of frames: it has no crops. Kinds of features define :meth:`select`."""

    in_turn: ClassVar[bool] = False

    def cut(
        self,
        data: Data,
        *,
        rng: np.random.Generator | None = None,
        num_clips: int = 1,
        num_crops: int = 1,
        actions: ActionSpace | None = None,
    ) -> list[Row]:
        """The rows of :meth:`select`.

        Raises:
            OSError: the features cannot be read.
            UserError: crops were requested, or :meth:`select` refuses.
        """
        if num_crops != 1:
            raise UserError(f"{self.path} holds features, which have no crops: set num_crops to 1 or provide videos")
        return self.select(rng, num_clips, actions=actions is not None)

    def select(self, rng: np.random.Generator | None, num_clips: int, *, actions: bool) -> list[Row]:
        """``num_clips`` rows of a batch, at random with ``rng``; with their ``actions`` if requested."""
        raise TypeError(f"{type(self).__name__} does not define select(rng, num_clips, actions)")


@dataclass(frozen=True)
class Ingredient:
    """One source of a mixture."""

    root: Path
    weight: float
    """Share of the samples that training reads, relative to the others' weights."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """A collection: its samples in a fixed order, and the names of their classes.

    It is one of videos; collections of other kinds are subclasses.
    """

    kind: ClassVar[type[Kind]] = clips.Clips

    root: Path
    classes: tuple[str, ...]
    samples: tuple[Sample, ...]
    labels: Labels = "class"
    """Kind of label; of numbers, ``classes`` are their names."""
    directional: bool = False
    """Whether mirroring changes the meaning of a clip."""
    actions: ActionSpace | None = None
    """Action space, if the videos have actions."""
    state_dim: int = 0
    """Dimension of the states that are read beside the actions; zero for none."""
    has_expert: bool = False
    """Whether batches have what an expert would do at each frame."""
    mixture: tuple[Ingredient, ...] = ()
    """Sources of a mixture, by the samples' ``origin``; empty for a single source."""
    marks_images: bool = False
    """Whether batches tell sequences of images from videos."""

    @property
    def gives(self) -> frozenset[str]:
        """Keys that batches have; a ``label`` if the kind has labels, whether or not any sample is labelled."""
        absent = {
            "action": self.actions is None,
            "state": not self.state_dim,
            "expert": not self.has_expert,
            "images": not self.marks_images,
        }
        return frozenset(self.kind.specification.keys) - {key for key, missing in absent.items() if missing}

    @property
    def tokenizer(self) -> str | None:
        """Fingerprint of the tokenizer whose ids batches have; None if they have no ids."""
        return None

    @property
    def splits(self) -> tuple[str, ...]:
        """The names of the splits, sorted."""
        return tuple(sorted({sample.split for sample in self.samples}))

    def split(self, name: str) -> tuple[Sample, ...]:
        """The samples of one split.

        Raises:
            UserError: the split does not exist; the message lists the splits.
        """
        chosen = tuple(sample for sample in self.samples if sample.split == name)
        if not chosen:
            raise UserError(
                f"{self.root} has no split {name!r}; it has {', '.join(map(repr, self.splits)) or 'none'}"
            )
        return chosen

    def portions(self, data: Data) -> tuple[Portion, ...]:
        """The sources of the training split as training is to order them: one, or those of a mixture.

        Raises:
            UserError: there is no training split, or a source of the mixture has none, or it has images and videos
                where images are read in sequences, or classes are to be balanced and samples do not have one each.
        """
        samples = self.split(data.train_split)
        classes = self._balanced_classes(samples) if data.balance else None
        found = []
        for origin, ingredient in enumerate(self.mixture or (Ingredient(self.root, 1.0),)):
            own = [sample for sample in samples if sample.origin == origin]
            if not own:
                raise UserError(f"{ingredient.root}, a source of the mixture, has no split {data.train_split!r}")
            together = {sample.together(data) for sample in own}
            if len(together) > 1:
                raise UserError(
                    f"{ingredient.root} holds images and videos, and images are read in sequences "
                    "(data.reads.images): separate them into two sources (--data VIDEOS IMAGES --data.weights 80 20)"
                )
            found.append(Portion(len(own), ingredient.weight, together.pop(), classes, data.balance))
        return tuple(found)

    def _balanced_classes(self, samples: Sequence[Sample]) -> np.ndarray:
        """The class of each sample, where training is to balance them."""
        if self.mixture:
            raise UserError("data.balance balances the classes of one source: give the sources of a mixture weights")
        if any(sample.label is None for sample in samples):
            which = next(sample.name for sample in samples if sample.label is None)
            raise UserError(f"data.balance is for videos of one class each, and {which} in {self.root} has none")
        return np.array([sample.label for sample in samples])

    def packing(self, data: Data, seed: int) -> Packing | None:
        """Which samples of the training split share a row of a batch; None where each has its own.

        Raises:
            UserError: a sample is longer than a row.
        """
        return None

    def told(self, train_split: str) -> dict[str, Any]:
        """The fields of :class:`DataInfo`, common to all kinds of data."""
        samples = self.split(train_split)
        told: dict[str, Any] = {
            "classes": self.classes,
            "num_train": len(samples),
            "directional": self.directional,
            "labels": self.labels,
        }
        if self.labels == "number":
            values = np.array([s.target.values for s in samples if isinstance(s.target, Numbers)])
            if len(values):
                told["number_means"] = tuple(values.mean(axis=0).tolist())
                told["number_stds"] = tuple(std if std > 0 else 1.0 for std in values.std(axis=0).tolist())
            return told
        counts = np.zeros(len(self.classes), dtype=np.int64)
        for sample in samples:
            if isinstance(sample.target, SeveralClasses):
                counts[list(sample.target.indices)] += 1
            elif sample.label is not None and sample.label < len(counts):
                counts[sample.label] += 1
        return told | {"class_counts": tuple(counts.tolist())}

    def info(self, train_split: str) -> DataInfo:
        """Properties of the collection that an objective needs before it is built."""
        actions = self.actions or ActionSpace()
        return clips.ClipInfo(
            **self.told(train_split),
            num_actions=actions.num_actions,
            action_dim=actions.action_dim,
            action_names=actions.names,
            state_dim=self.state_dim,
        )

    def loader(self, data: Data, *, seed: int, rank: int = 0, world: int = 1, accumulate: int = 1) -> Any:
        """Training's micro-batches of one process: a :class:`~filmstrip.train.loop.BatchStream` with ``close()``.

        Raises:
            UserError: see :class:`~filmstrip.data.reading.loader.TrainLoader`.
        """
        from filmstrip.data.reading.loader import TrainLoader  # which reads samples

        return TrainLoader(self, data, seed=seed, rank=rank, world=world, accumulate=accumulate)

    def record(self, folder: Path) -> None:
        """Record in a run folder what is needed to use the run on new data: by default nothing beyond
        :meth:`info`."""


@dataclass(frozen=True)
class Notes:
    """The content of a collection's ``dataset.json``."""

    directional: bool = False
    classes: tuple[str, ...] | None = None
    actions: ActionSpace | None = None
    fps: float | None = None
    """Frames per second of films that are folders of frames."""


def collect(root: Path, classes: tuple[str, ...], samples: Sequence[Sample], notes: Notes) -> Source:
    """A collection with the content of its notes and its action space.

    Videos with actions are directional: a mirrored video would show other actions.
    """
    sidecars = {sample.actions: None for sample in samples if sample.actions is not None}
    actions = space_of(list(sidecars), notes.actions) if sidecars else None
    return Source(
        root=root,
        classes=classes,
        samples=tuple(samples),
        directional=notes.directional or actions is not None,
        actions=actions,
    )


def read_notes(folder: Path) -> Notes:
    """The notes of a folder; the defaults if it has no ``dataset.json``. Unknown keys are ignored.

    Raises:
        UserError: the file is not JSON, or a known key has an invalid value.
    """
    path = folder / "dataset.json"
    try:
        values: Any = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return Notes()
    except ValueError as error:
        raise UserError(f"{path} is not JSON: {error}") from None
    if not isinstance(values, dict):
        raise UserError(f'{path} should hold an object such as {{"directional": true}}')
    directional, classes = values.get("directional", False), values.get("classes")
    if not isinstance(directional, bool):
        raise UserError(f'{path}: "directional" is true or false, not {directional!r}')
    if classes is not None and not (isinstance(classes, list) and all(isinstance(c, str) for c in classes)):
        raise UserError(f'{path}: "classes" is a list of names, in the order of their labels')
    fps = values.get("fps")
    if fps is not None and (isinstance(fps, bool) or not isinstance(fps, (int, float)) or not 0 < fps < math.inf):
        raise UserError(f'{path}: "fps" is a number of frames per second, above 0, not {fps!r}')
    return Notes(directional, None if classes is None else tuple(classes), _action_space(path, values), fps)


def _action_space(path: Path, values: dict[str, Any]) -> ActionSpace | None:
    """The action space in the notes: ``"actions"``, names or a number, or ``"action_dim"``, a dimension."""
    actions, size = values.get("actions"), values.get("action_dim")
    if actions is None and size is None:
        return None
    if isinstance(actions, list) and actions and all(isinstance(name, str) for name in actions):
        return ActionSpace(num_actions=len(actions), names=tuple(actions))
    if _is_count(actions):
        return ActionSpace(num_actions=actions)
    if _is_count(size):
        return ActionSpace(action_dim=size)
    raise UserError(
        f'{path}: "actions" is a list of the names of discrete actions, or their number; "action_dim" is the '
        "dimension of continuous ones"
    )


def number_names(
    names: Sequence[str | None], known: tuple[str, ...] | None, where: Path
) -> tuple[tuple[str, ...], list[int | None]]:
    """The classes, sorted unless ``known`` gives their order, and each name's position among them.

    Raises:
        UserError: a name is not among the ``known`` classes.
    """
    given = {name for name in names if name is not None}
    if known is not None and (strange := sorted(given - set(known))):
        raise UserError(f"{where}: dataset.json does not list the class {', '.join(map(repr, strange[:5]))}")
    classes = tuple(sorted(given)) if known is None else known
    places = {name: i for i, name in enumerate(classes)}
    return classes, [None if name is None else places[name] for name in names]


def number_labels(
    labels: Sequence[str | None], known: tuple[str, ...] | None, where: Path
) -> tuple[tuple[str, ...], list[int | None]]:
    """Like :func:`number_names`, but labels that are all integers are used as class indices.

    Raises:
        UserError: a label is not among the ``known`` classes.
    """
    given = [label for label in labels if label is not None]
    if not given or not all(label.isdecimal() for label in given) or set(given) <= set(known or ()):
        return number_names(labels, known, where)
    numbers = [None if label is None else int(label) for label in labels]
    highest = max(int(label) for label in given)
    classes = known or tuple(str(i) for i in range(highest + 1))
    if highest >= len(classes):
        raise UserError(
            f"{where}: there is a label {highest}, but dataset.json lists {len(classes)} classes from 0 on"
        )
    return classes, numbers


def hold_out(samples: Iterable[AnySample]) -> list[AnySample]:
    """Divide samples without splits into ``train`` and ``test``, depending on their names only.

    If all samples have a group, a fifth of the groups is held out, so that no group is in both splits. Otherwise a
    fifth of each class is held out, and at least one of two samples.
    """
    samples = list(samples)
    groups = {sample.group for sample in samples if sample.group}
    if len(groups) > 1 and all(sample.group for sample in samples):
        held = _fifth(groups)
        return [replace(sample, split="test" if sample.group in held else "train") for sample in samples]
    by_label: dict[int | None, list[str]] = defaultdict(list)
    for sample in samples:
        by_label[sample.label].append(sample.name)
    held = {name for names in by_label.values() for name in _fifth(names)}
    return [replace(sample, split="test" if sample.name in held else "train") for sample in samples]


def _fifth(names: Collection[str]) -> set[str]:
    """A fifth of the names, at least one of two, chosen by their hashes."""
    count = max(1, round(HELD_OUT * len(names))) if len(names) > 1 else 0
    return set(sorted(names, key=_hash)[:count])


def _hash(name: str) -> bytes:
    return hashlib.blake2b(name.encode("utf-8", "surrogateescape"), digest_size=8).digest()


def _is_count(value: object) -> TypeGuard[int]:
    """Whether a value of a JSON file is a whole number above zero."""
    return isinstance(value, int) and not isinstance(value, bool) and value > 0
