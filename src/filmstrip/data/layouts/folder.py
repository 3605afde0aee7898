"""Collections that are folders: ``class/*.mp4``, ``train/class/*.mp4``, or videos alone; and the same of images."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from pathlib import Path

from filmstrip.data.actions import Sidecar, beside
from filmstrip.data.sample import Sample, Source, collect, hold_out, number_names, read_notes
from filmstrip.errors import UserError
from filmstrip.video.images import IMAGE_SUFFIXES

VIDEO_SUFFIXES = frozenset(
    f".{name}"
    for name in (
        *("3gp", "asf", "avi", "divx", "flv", "gif", "m2ts", "m4v", "mkv", "mov", "mp4", "mpeg"),
        *("mpg", "mts", "mxf", "ogg", "ogv", "ts", "vob", "webm", "wmv"),
    )
)
SPLITS = ("train", "val", "valid", "validation", "test")


def open_folder(root: Path) -> Source:
    """Open a folder whose subfolders are classes, or splits that hold classes; videos may lie deeper.

    Videos without a folder of their own are unlabelled. Hidden files and other kinds of files are ignored; images are
    read if there are no videos.

    Raises:
        UserError: there are neither videos nor images, or some lie beside the class folders.
    """
    videos: dict[str, Sidecar | None] = dict(find_videos(root))
    if not videos:
        videos = dict.fromkeys(path for path, _ in _find_files(root, IMAGE_SUFFIXES))
    found = [Path(path).relative_to(root) for path in videos]
    if not found:
        raise UserError(
            f"{root} holds no videos and no images: expected class_name/*.mp4 ({', '.join(sorted(VIDEO_SUFFIXES))}) "
            f"or class_name/*.jpg ({', '.join(sorted(IMAGE_SUFFIXES))})"
        )
    # A locomotive is a class, not a split: folders are splits only where all of them are.
    in_splits = all(path.parts[0] in SPLITS and len(path.parts) > 1 for path in found)
    depth = 1 if in_splits else 0
    names = [path.parts[depth] if len(path.parts) > depth + 1 else None for path in found]
    if any(names) and None in names:
        stray = found[names.index(None)]
        raise UserError(f"{root / stray} lies beside class folders: move it into the folder of its class, or away")
    notes = read_notes(root)
    classes, labels = number_names(names, notes.classes, root)
    samples = [
        Sample(
            path=str(root / path),
            name=path.as_posix(),
            label=label,
            split=path.parts[0] if in_splits else "",
            actions=actions,
        )
        for path, label, actions in zip(found, labels, videos.values())
    ]
    if not in_splits:
        samples = hold_out(samples)
    return collect(root, classes, samples, notes)


def is_video(path: Path) -> bool:
    """Whether a file has the extension of a video and is complete: incomplete ones are hidden files."""
    return path.suffix.lower() in VIDEO_SUFFIXES and not path.name.startswith(".")


def find_videos(root: Path) -> Iterator[tuple[str, Sidecar | None]]:
    """Every visible video file below ``root`` with its actions, in a fixed order.

    Links are followed, but not in circles.
    """
    for path, names in _find_files(root, VIDEO_SUFFIXES):
        yield path, beside(Path(path), names)


def find_media(root: Path) -> Iterator[str]:
    """Every visible video and image below ``root``, in a fixed order."""
    for path, _ in _find_files(root, VIDEO_SUFFIXES | IMAGE_SUFFIXES):
        yield path


def _find_files(root: Path, suffixes: Collection[str]) -> Iterator[tuple[str, set[str]]]:
    """Every visible file with one of the extensions, and the names of all files in its folder."""
    seen: set[str] = set()
    for folder, subfolders, files in os.walk(root, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:
            subfolders.clear()
            continue
        seen.add(real)
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        names = set(files)
        for name in sorted(files):
            if Path(name).suffix.lower() in suffixes and not name.startswith("."):
                yield os.path.join(folder, name), names
