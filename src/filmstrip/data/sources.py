"""Opening collections of videos, or of encoded videos, in any known layout."""

from __future__ import annotations

import hashlib
import logging
import math
import os
from collections.abc import Iterable, Sequence
from dataclasses import fields, replace
from pathlib import Path

from filmstrip.data.config import Data
from filmstrip.data.kinds.encoded import is_encoded, open_encoded
from filmstrip.data.labels import MEANINGS, SeveralClasses, Target
from filmstrip.data.layouts import ARRAYS, LAYOUTS, ucf101
from filmstrip.data.layouts.folder import open_folder
from filmstrip.data.layouts.manifest import MANIFEST_SUFFIXES, manifest_of, open_manifest
from filmstrip.data.layouts.shards import is_shards, open_shards
from filmstrip.data.sample import Ingredient, Sample, Source
from filmstrip.errors import UserError
from filmstrip.protocols import Labels
from filmstrip.video.remote import address_of, name_of

log = logging.getLogger(__name__)

__all__ = ["Sample", "Source", "mixed", "open_path", "open_source", "open_videos"]


def open_source(data: Data) -> Source:
    """The collection that ``data`` describes, of the kind ``data.reads``; a synthetic one is generated if necessary.

    Of its training split it has ``data.videos_per_class`` of each class, if that is set.

    Raises:
        UserError: there is nothing to read, or its layout is unknown, the message says what was expected; the sources
            of a mixture do not go together, or their weights are not one each; or videos of each class are to be
            chosen, and some have none.
    """
    source = _open_mixture(data) if data.mixture else data.reads.open(data)
    if data.clip.native is not None and "is_patch" not in source.kind.specification.keys:
        raise UserError(
            f"{source.kind.__name__} come as square crops of one size: leave out data.clip.native, or read captioned "
            "clips, regions or conversations (--data.reads)"
        )
    if data.videos_per_class is None:
        return source
    return few_of_each(source, data.train_split, data.videos_per_class, seed=data.subset_seed)


def _open_mixture(data: Data) -> Source:
    if data.path is not None:
        raise UserError("data.path and data.mixture both name data: give one of them")
    if len(data.weights) != len(data.mixture):
        given = (
            f"{len(data.weights)} weights ({' '.join(f'{w:g}' for w in data.weights)})" if data.weights else "none"
        )
        raise UserError(
            f"a mixture needs a weight for each of its {len(data.mixture)} sources, and there are {given}: give them "
            "in the order of the sources, such as --data.weights 20 80"
        )
    sources = [data.reads.open(data.at(path)) for path in data.mixture]
    if len({source.root for source in sources}) < len(sources):  # files of one folder are told apart by their names
        sources = [replace(source, root=Path(path).expanduser()) for source, path in zip(sources, data.mixture)]
    return mixed(sources, data.weights)


def mixed(sources: Sequence[Source], weights: Sequence[float]) -> Source:
    """One collection of several, which training reads in the ratio of ``weights``.

    Classes are those of all sources, by name; samples are named after their source. Actions are kept if all sources
    have the same action space.

    Raises:
        UserError: a weight is not above zero, the sources are not of one kind that mixes, or were encoded in
            different ways, or one of them is given twice.
    """
    roots = [source.root for source in sources]
    for root, weight in zip(roots, weights, strict=True):
        if not 0 < weight < math.inf:
            raise UserError(f"the weight of {root} is {weight:g}: expected a number above 0, or leave the source out")
    if len(set(roots)) < len(roots):
        raise UserError(f"{next(root for root in roots if roots.count(root) > 1)} is in the mixture twice")
    first = sources[0]
    if not first.kind.mixes:
        raise UserError(
            f"{first.root} holds {first.kind.__name__}, of which there are no mixtures: give one --data PATH"
        )
    for source in sources:
        if (differs := _difference(first, source)) is not None:
            raise UserError(
                f"a mixture is of one kind of data, and {first.root} and {source.root} differ in {differs}"
            )
    classes = tuple(dict.fromkeys(name for source in sources for name in source.classes))
    samples = tuple(
        replace(
            sample,
            name=f"{source.root}/{sample.name}",
            label=None if sample.label is None else classes.index(source.classes[sample.label]),
            target=_target_among(classes, source.classes, sample.target),
            origin=origin,
        )
        for origin, source in enumerate(sources)
        for sample in source.samples
    )
    spaces = {source.actions for source in sources}
    return replace(
        first,
        root=Path(os.path.commonpath([os.path.abspath(root) for root in roots])),
        classes=classes,
        samples=samples,
        directional=any(source.directional for source in sources),
        actions=first.actions if len(spaces) == 1 else None,
        state_dim=first.state_dim if len(spaces) == 1 else 0,
        mixture=tuple(Ingredient(root, weight) for root, weight in zip(roots, weights)),
    )


def _target_among(classes: Sequence[str], own: Sequence[str], target: Target | None) -> Target | None:
    """A sample's target among the classes of a mixture."""
    if not isinstance(target, SeveralClasses):
        return target
    return SeveralClasses(tuple(sorted(classes.index(own[i]) for i in target.indices)), len(classes))


def _difference(one: Source, other: Source) -> str | None:
    """The property in which two sources of a mixture differ, if any."""
    if type(one) is not type(other):
        return f"kind ({type(one).__name__}, {type(other).__name__})"
    own = {"root", "classes", "samples", "directional", "actions", "mixture"}
    for field in fields(one):
        values = [getattr(source, field.name) for source in (one, other)]
        if field.name not in own and values[0] != values[1]:
            return f"{field.name} ({values[0]}, {values[1]})"
    return None


def few_of_each(source: Source, split: str, count: int, *, seed: int) -> Source:
    """The collection with ``count`` samples of each class in one split, or all of a class that has no more.

    The order of names that are hashed with the seed decides, so that fewer are some of more.

    Raises:
        UserError: a sample of the split has no class.
    """
    by_class: dict[int, list[str]] = {}
    for sample in source.split(split):
        if sample.label is None:
            raise UserError(
                f"data.videos_per_class chooses videos of each class, and {sample.name} in {source.root} has none: "
                "leave it out to read all videos"
            )
        by_class.setdefault(sample.label, []).append(sample.name)
    kept = {name for names in by_class.values() for name in _in_drawn_order(names, seed)[:count]}
    chosen = tuple(sample for sample in source.samples if sample.split != split or sample.name in kept)
    return replace(source, samples=chosen)


def _in_drawn_order(names: Iterable[str], seed: int) -> list[str]:
    def key(name: str) -> bytes:
        return hashlib.blake2b(f"{seed} {name}".encode("utf-8", "surrogateescape"), digest_size=8).digest()

    return sorted(names, key=key)


def open_videos(path: Path, fps: float | None = None) -> Source:
    """The collection of videos at ``path``, never of their features; ``fps`` is as in :func:`open_path`.

    Raises:
        UserError: see :func:`open_source`; or the path holds encoded videos.
    """
    source = open_path(path, fps=fps)
    if "video" not in source.gives:
        raise UserError(f"{path} holds features of videos: provide the videos themselves")
    return source


def open_path(
    path: Path,
    layout: str = "auto",
    fold: int = 1,
    camera: str = "",
    fps: float | None = None,
    labels: Labels = "class",
) -> Source:
    """The collection at ``path``: a folder, a manifest (or the folder that holds ``manifest.csv``), shards, a folder
    that ``filmstrip encode`` wrote, or a public dataset in its own layout; ``fold`` is that of UCF-101, ``camera``
    one of a robot's, ``fps`` says that folders of images are films of so many frames per second, and ``labels`` what
    those of a manifest are.

    Raises:
        UserError: see :func:`open_source`.
    """
    if (address := address_of(path)) is not None:
        if Path(name_of(address)).suffix.lower() in MANIFEST_SUFFIXES:
            return open_manifest(Path(path), fps, labels)
        raise UserError(
            f"{address} is no manifest ({', '.join(MANIFEST_SUFFIXES)}): list the addresses of videos in one, in a "
            "column path"
        )
    path = Path(path).expanduser()
    if labels != "class" and path.exists() and (layout != "auto" or manifest_of(path) is None):
        raise UserError(
            f"{path} is no manifest, and labels that are {MEANINGS[labels]} (data.reads.labels {labels}) are read of "
            "a manifest: a table with the columns path and label"
        )
    if layout != "auto":
        return _open_layout(path, layout, fold, camera, fps)
    if camera and not (path.is_dir() and any(known.detect(path) for known in LAYOUTS.values() if known.cameras)):
        raise UserError(
            f"data.reads.camera is for robots' data (droid, lerobot), and {path} does not have their layout"
        )
    if fold != 1 and not (path.is_dir() and ucf101.detect(path)):
        raise UserError(f"data.reads.fold is for UCF-101, and {path} does not have its layout")
    if is_shards(path):
        return open_shards(path)
    if not path.exists():
        raise UserError(f"{path} does not exist: provide a folder class_name/*.mp4, a manifest, or shards (*.tar)")
    if is_encoded(path):
        return open_encoded(path)
    if path.is_dir():
        if manifest := manifest_of(path):
            return open_manifest(manifest, fps, labels)
        for name, known in LAYOUTS.items():
            if known.detect(path):
                log.info("%s has the layout of %s", path, name)
                return _open_layout(path, name, fold, camera, fps)
        for name, arrays in ARRAYS.items():
            if arrays.detect_arrays(path):
                raise UserError(
                    f"{path} holds arrays: `filmstrip data convert {path} --layout {name} --out FOLDER` makes videos"
                )
        return open_folder(path, fps)
    if path.suffix.lower() in MANIFEST_SUFFIXES:
        return open_manifest(path, fps, labels)
    raise UserError(
        f"{path} is a file of no known layout: provide a folder class_name/*.mp4, a manifest "
        f"({', '.join(MANIFEST_SUFFIXES)}) with the columns path and label, or shards (*.tar)"
    )


def _open_layout(path: Path, layout: str, fold: int, camera: str, fps: float | None) -> Source:
    """The collection in a folder, in the configured or detected layout."""
    if not path.is_dir():
        raise UserError(f"{path} is not a folder, and data.reads.layout {layout} is for folders")
    if camera and (layout == "folder" or not LAYOUTS[layout].cameras):
        raise UserError(f"data.reads.camera is for robots' data (droid, lerobot), and data.reads.layout is {layout}")
    if layout == "ucf101":
        return ucf101.open_ucf101(path, fold)
    if fold != 1:
        raise UserError(f"data.reads.fold is for UCF-101, and data.reads.layout is {layout}")
    if layout == "folder":
        return open_folder(path, fps)
    known = LAYOUTS[layout]
    return known.open(path, camera) if known.cameras else known.open(path)
