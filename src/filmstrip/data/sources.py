"""Opening collections of videos, or of encoded videos, in any known layout."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from filmstrip.data.config import Data
from filmstrip.data.kinds.encoded import is_encoded, open_encoded
from filmstrip.data.layouts import ARRAYS, LAYOUTS, ucf101
from filmstrip.data.layouts.folder import open_folder
from filmstrip.data.layouts.manifest import MANIFEST_SUFFIXES, manifest_of, open_manifest
from filmstrip.data.layouts.shards import is_shards, open_shards
from filmstrip.data.sample import Sample, Source
from filmstrip.errors import UserError

log = logging.getLogger(__name__)

__all__ = ["Sample", "Source", "open_path", "open_source", "open_videos"]


def open_source(data: Data) -> Source:
    """The collection that ``data`` describes, of the kind ``data.reads``; a synthetic one is generated if necessary.

    Of its training split it has ``data.videos_per_class`` of each class, if that is set.

    Raises:
        UserError: there is nothing to read, or its layout is unknown, the message says what was expected; or videos
            of each class are to be chosen, and some have none.
    """
    source = data.reads.open(data)
    if data.videos_per_class is None:
        return source
    return few_of_each(source, data.train_split, data.videos_per_class, seed=data.subset_seed)


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


def open_videos(path: Path) -> Source:
    """The collection of videos at ``path``, never of their features.

    Raises:
        UserError: see :func:`open_source`; or the path holds encoded videos.
    """
    source = open_path(path)
    if "video" not in source.gives:
        raise UserError(f"{path} holds features of videos: provide the videos themselves")
    return source


def open_path(path: Path, layout: str = "auto", fold: int = 1) -> Source:
    """The collection at ``path``: a folder, a manifest (or the folder that holds ``manifest.csv``), shards, a folder
    that ``filmstrip encode`` wrote, or a public dataset in its own layout; ``fold`` is that of UCF-101.

    Raises:
        UserError: see :func:`open_source`.
    """
    path = Path(path).expanduser()
    if layout != "auto":
        return _open_layout(path, layout, fold)
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
            return open_manifest(manifest)
        for name, known in LAYOUTS.items():
            if known.detect(path):
                log.info("%s has the layout of %s", path, name)
                return _open_layout(path, name, fold)
        for name, arrays in ARRAYS.items():
            if arrays.detect_arrays(path):
                raise UserError(
                    f"{path} holds arrays: `filmstrip data convert {path} --layout {name} --out FOLDER` makes videos"
                )
        return open_folder(path)
    if path.suffix.lower() in MANIFEST_SUFFIXES:
        return open_manifest(path)
    raise UserError(
        f"{path} is a file of no known layout: provide a folder class_name/*.mp4, a manifest "
        f"({', '.join(MANIFEST_SUFFIXES)}) with the columns path and label, or shards (*.tar)"
    )


def _open_layout(path: Path, layout: str, fold: int) -> Source:
    """The collection in a folder, in the configured or detected layout."""
    if not path.is_dir():
        raise UserError(f"{path} is not a folder, and data.reads.layout {layout} is for folders")
    if layout == "ucf101":
        return ucf101.open_ucf101(path, fold)
    if fold != 1:
        raise UserError(f"data.reads.fold is for UCF-101, and data.reads.layout is {layout}")
    return open_folder(path) if layout == "folder" else LAYOUTS[layout].open(path)
