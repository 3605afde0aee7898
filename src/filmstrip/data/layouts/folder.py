"""Collections that are folders: ``class/*.mp4``, ``train/class/*.mp4``, or videos alone; and the same of images, and
of films that are folders of frames (``class/film/img_00001.jpg``)."""

from __future__ import annotations

import logging
import os
from collections.abc import Collection, Iterator, Sequence
from functools import cache
from pathlib import Path

from filmstrip.data.actions import Sidecar, beside
from filmstrip.data.sample import Sample, Source, collect, hold_out, number_names, read_notes
from filmstrip.errors import UserError
from filmstrip.video.frame_folders import numbers_frames, say_rate
from filmstrip.video.images import FPS, IMAGE_SUFFIXES, is_image

log = logging.getLogger(__name__)

VIDEO_SUFFIXES = frozenset(
    f".{name}"
    for name in (
        *("3gp", "asf", "avi", "divx", "flv", "gif", "m2ts", "m4v", "mkv", "mov", "mp4", "mpeg"),
        *("mpg", "mts", "mxf", "ogg", "ogv", "ts", "vob", "webm", "wmv"),
    )
)
SPLITS = ("train", "val", "valid", "validation", "test")


def open_folder(root: Path, fps: float | None = None) -> Source:
    """Open a folder whose subfolders are classes, or splits that hold classes; videos may lie deeper.

    Videos without a folder of their own are unlabelled. Hidden files and other kinds of files are ignored. Without
    videos, folders of numbered images within the classes are films, and otherwise images are read; with ``fps`` every
    folder of images is a film of so many frames per second.

    Raises:
        UserError: there are neither videos nor images, or some lie beside the class folders.
    """
    notes = read_notes(root)
    found: dict[str, Sidecar | None] = dict(find_videos(root))
    films: dict[str, Sidecar | None] = {}
    if fps is not None or not found:
        films = dict.fromkeys(find_films(root, every=fps is not None))
    if not found and not (films and (fps is not None or _within_classes(root, films))):
        images = [path for path, _ in _find_files(root, IMAGE_SUFFIXES)]
        if films and len(images) > 1:
            _say_images(next(iter(films)))
        found, films = dict.fromkeys(images), {}
    found |= films
    if not found:
        raise UserError(
            f"{root} holds no videos and no images: expected class_name/*.mp4 ({', '.join(sorted(VIDEO_SUFFIXES))}), "
            f"class_name/*.jpg ({', '.join(sorted(IMAGE_SUFFIXES))}) or class_name/film/*.jpg"
        )
    paths = [Path(path).relative_to(root) for path in found]
    in_splits = _in_splits(paths)
    depth = 1 if in_splits else 0
    names = [path.parts[depth] if len(path.parts) > depth + 1 else None for path in paths]
    if any(names) and None in names:
        stray = paths[names.index(None)]
        raise UserError(f"{root / stray} lies beside class folders: move it into the folder of its class, or away")
    classes, labels = number_names(names, notes.classes, root)
    samples = [
        Sample(
            path=str(root / path),
            name=path.as_posix() if path.parts else root.name,
            label=label,
            split=path.parts[0] if in_splits else "",
            fps=(fps or notes.fps or FPS) if name in films else None,
            actions=actions,
        )
        for (name, actions), path, label in zip(found.items(), paths, labels)
    ]
    if films and not (fps or notes.fps):
        say_rate(root)
    if not in_splits:
        samples = hold_out(samples)
    return collect(root, classes, samples, notes)


def _in_splits(paths: Sequence[Path]) -> bool:
    """Whether all files lie in folders of splits: a locomotive is a class, not a split."""
    return all(len(path.parts) > 1 and path.parts[0] in SPLITS for path in paths)


def _within_classes(root: Path, films: Collection[str]) -> bool:
    """Whether all images below a folder are frames of these films, each in the folder of its class."""
    paths = [Path(film).relative_to(root) for film in films]
    least = 3 if _in_splits(paths) else 2
    folders = {os.path.dirname(path) for path, _ in _find_files(root, IMAGE_SUFFIXES)}
    return folders == set(films) and all(len(path.parts) >= least for path in paths)


@cache
def _say_images(folder: str) -> None:
    log.warning(
        "images are read one by one, and those in %s are numbered like a film's frames: if they are, say how many "
        "there are a second (the option fps, or --data.reads.fps)",
        folder,
    )


def is_video(path: Path) -> bool:
    """Whether a file has the extension of a video and is complete: incomplete ones are hidden files."""
    return path.suffix.lower() in VIDEO_SUFFIXES and not path.name.startswith(".")


def find_videos(root: Path) -> Iterator[tuple[str, Sidecar | None]]:
    """Every visible video file below ``root`` with its actions, in a fixed order.

    Links are followed, but not in circles.
    """
    for path, names in _find_files(root, VIDEO_SUFFIXES):
        yield path, beside(Path(path), names)


def is_film(path: Path, fps: float | None = None) -> bool:
    """Whether a path is a folder of the frames of one film: images numbered without gaps, or with ``fps`` any
    images."""
    if not path.is_dir():
        return False
    names = next(_walk(path), ("", []))[1]
    return any(map(is_image, names)) if fps is not None else numbers_frames(names)


def videos_by_name(root: Path) -> dict[str, Path]:
    """The videos below a folder by their names without extension; without videos, folders of frames by theirs."""
    found = {Path(path).stem: Path(path) for path, _ in find_videos(root)}
    return found or {Path(path).name: Path(path) for path in find_films(root)}


def find_films(root: Path, *, every: bool = False) -> Iterator[str]:
    """Every visible folder from ``root`` down that holds the frames of a film, in a fixed order: images that are
    numbered without gaps, or with ``every`` any images."""
    for folder, names in _walk(root):
        if (every and any(is_image(name) for name in names)) or numbers_frames(names):
            yield folder


def find_media(root: Path, *, films: bool = False, every: bool = False) -> Iterator[str]:
    """Every visible video and image below ``root``, in a fixed order; of :func:`find_films`, where ``films`` are
    asked for, the folder in place of its images."""
    found = set(find_films(root, every=every)) if films else set()
    for folder, names in _walk(root):
        if folder in found:
            yield folder
        wanted = VIDEO_SUFFIXES if folder in found else VIDEO_SUFFIXES | IMAGE_SUFFIXES
        yield from (os.path.join(folder, name) for name in names if Path(name).suffix.lower() in wanted)


def _find_files(root: Path, suffixes: Collection[str]) -> Iterator[tuple[str, set[str]]]:
    """Every visible file with one of the extensions, and the names of all visible files in its folder."""
    for folder, names in _walk(root):
        beside = set(names)
        for name in names:
            if Path(name).suffix.lower() in suffixes:
                yield os.path.join(folder, name), beside


def _walk(root: Path) -> Iterator[tuple[str, list[str]]]:
    """Every visible folder from ``root`` down with its visible files, sorted. Links are followed, but not in
    circles."""
    seen: set[str] = set()
    for folder, subfolders, files in os.walk(root, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:
            subfolders.clear()
            continue
        seen.add(real)
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        yield folder, sorted(name for name in files if not name.startswith("."))
