"""Opening collections of videos, or of encoded videos, in any known layout."""

from __future__ import annotations

import logging
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

    Raises:
        UserError: there is nothing to read, or its layout is unknown; the message says what was expected.
    """
    return data.reads.open(data)


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
