"""A video to learn from, and a collection of them."""

from __future__ import annotations

import hashlib
import io
import json
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, ClassVar, Self

import numpy as np

from filmstrip.data.actions import ActionSpace, Sidecar, space_of
from filmstrip.data.config import Data, DataInfo
from filmstrip.data.kinds import clips
from filmstrip.data.kinds.kind import Kind, Row
from filmstrip.errors import UserError

HELD_OUT = 0.2
"""Share of each class that becomes the test split of a collection without splits."""


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One video, or the part of one between ``start`` and ``end`` (seconds from its first frame).

    Samples of other kinds extend it: they say how they are :meth:`cut`.
    """

    kind: ClassVar[type[Kind]] = clips.Clips
    in_turn: ClassVar[bool] = True
    """Whether samples of one file can be read together, by :meth:`cut_in_turn`."""

    path: str
    """The file; or the archive that holds the video from byte ``offset`` on, ``size`` bytes long."""
    name: str
    """Short and unique in the collection, for messages and tables."""
    label: int | None = None
    """Position in the collection's classes."""
    split: str = ""
    start: float | None = None
    end: float | None = None
    text: str | None = None
    group: str | None = None
    """What belongs together when splitting, such as the person or the recording."""
    offset: int | None = None
    size: int | None = None
    actions: Sidecar | None = None
    """Where the actions of the whole video lie, a row for each of its frames."""

    def file(self) -> str | BinaryIO:
        """What to hand to the decoder: the path, or the bytes of an archive's member in memory.

        Raises:
            OSError: the archive cannot be read.
        """
        if self.offset is None or self.size is None:
            return self.path
        with open(self.path, "rb") as archive:
            archive.seek(self.offset)
            return io.BytesIO(archive.read(self.size))

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


@dataclass(frozen=True, kw_only=True)
class Source:
    """A collection: its samples in a fixed order, and what their labels mean.

    It is one of videos; collections of other kinds extend it.
    """

    kind: ClassVar[type[Kind]] = clips.Clips

    root: Path
    classes: tuple[str, ...]
    samples: tuple[Sample, ...]
    directional: bool = False
    """Whether mirroring changes what a clip means."""
    actions: ActionSpace | None = None
    """What the actions are, where videos come with them."""

    @property
    def gives(self) -> frozenset[str]:
        """What batches hold; a ``label`` where samples are labelled, whether or not any is."""
        return frozenset(self.kind.specification.keys) - ({"action"} if self.actions is None else set())

    @property
    def tokenizer(self) -> str | None:
        """The fingerprint of the tokenizer whose ids batches hold; none where they hold none."""
        return None

    @property
    def splits(self) -> tuple[str, ...]:
        """The names of the splits, sorted."""
        return tuple(sorted({sample.split for sample in self.samples}))

    def split(self, name: str) -> tuple[Sample, ...]:
        """The samples of one split.

        Raises:
            UserError: there is no such split; names those there are.
        """
        chosen = tuple(sample for sample in self.samples if sample.split == name)
        if not chosen:
            raise UserError(
                f"{self.root} has no split {name!r}; it has {', '.join(map(repr, self.splits)) or 'none'}"
            )
        return chosen

    def told(self, train_split: str) -> dict[str, Any]:
        """What objectives are told of every kind of data: the fields of :class:`DataInfo`."""
        samples = self.split(train_split)
        return {"classes": self.classes, "num_train": len(samples), "directional": self.directional}

    def info(self, train_split: str) -> DataInfo:
        """What an objective may want to know of the collection before it is built."""
        actions = self.actions or ActionSpace()
        about = {"num_actions": actions.num_actions, "action_dim": actions.action_dim, "action_names": actions.names}
        return clips.ClipInfo(**self.told(train_split), **about)

    def record(self, folder: Path) -> None:
        """Keep in a run folder what must be known of the data to use the run: by default nothing but the above."""


@dataclass(frozen=True)
class Notes:
    """What ``dataset.json`` beside a collection says of it."""

    directional: bool = False
    classes: tuple[str, ...] | None = None
    actions: ActionSpace | None = None


def collect(root: Path, classes: tuple[str, ...], samples: Sequence[Sample], notes: Notes) -> Source:
    """A collection, with what its notes say and what its actions are.

    Videos with actions are directional: a mirrored one shows others than were done.
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
    """The notes of a folder; the defaults when it has no ``dataset.json``. Keys it does not know are left alone.

    Raises:
        UserError: the file is not JSON, or a key it knows has a value of the wrong kind.
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
    return Notes(directional, None if classes is None else tuple(classes), _action_space(path, values))


def _action_space(path: Path, values: dict[str, Any]) -> ActionSpace | None:
    """What the notes say of actions: ``"actions"``, their names or their number, or ``"action_dim"``, a length."""
    actions, size = values.get("actions"), values.get("action_dim")
    if actions is None and size is None:
        return None
    if isinstance(actions, list) and actions and all(isinstance(name, str) for name in actions):
        return ActionSpace(num_actions=len(actions), names=tuple(actions))
    for key, value in (("num_actions", actions), ("action_dim", size)):
        if isinstance(value, int) and not isinstance(value, bool) and value > 0:
            return ActionSpace(**{key: value})
    raise UserError(
        f'{path}: "actions" is a list of the names of discrete actions, or their number; "action_dim" is the length '
        "of continuous ones"
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
    """Like :func:`number_names`, but where all labels are whole numbers they are positions already.

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


def hold_out(samples: Iterable[Sample]) -> list[Sample]:
    """Divide samples without splits into ``train`` and ``test``; which is which depends on names alone.

    Where all samples have a group, a fifth of the groups is held out, so that none is on both sides. Otherwise it is
    a fifth of each class, at least one of two.
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
    """A fifth of the names, at least one of two, as their hashes fall."""
    count = max(1, round(HELD_OUT * len(names))) if len(names) > 1 else 0
    return set(sorted(names, key=_hash)[:count])


def _hash(name: str) -> bytes:
    return hashlib.blake2b(name.encode("utf-8", "surrogateescape"), digest_size=8).digest()
