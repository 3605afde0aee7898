"""The files of a collection, each once, however many samples are cut from it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from filmstrip.data.sample import Sample, Source
from filmstrip.video.decoder import FrameFolder
from filmstrip.video.images import is_image
from filmstrip.video.remote import address_of, name_of, stamp_of


@dataclass(frozen=True)
class VideoFile:
    """A file, or a member of an archive."""

    name: str
    """Unique: the path below the collection's folder (or below the root of the disk), the host and the path of an
    address, or the archive and the key."""
    path: str
    offset: int | None = None
    size: int | None = None
    fps: float | None = None
    """Frames per second of a folder of frames, if known."""

    def open(self) -> str | BinaryIO | FrameFolder:
        """What to hand to the decoder."""
        return Sample(path=self.path, name=self.name, offset=self.offset, size=self.size, fps=self.fps).file()

    def stamp(self) -> tuple[int, int]:
        """The number of bytes, and when the file (or an image in the folder) was last changed, in nanoseconds; of a
        file at an address a number that tells its versions apart.

        Raises:
            OSError: it does not exist.
            DecodeError: the address cannot be read.
        """
        if (address := address_of(self.path)) is not None:
            return stamp_of(address)
        if self.offset is None and os.path.isdir(self.path):
            with os.scandir(self.path) as entries:
                found = [entry.stat() for entry in entries if is_image(entry.name)]
            return sum(one.st_size for one in found), max((one.st_mtime_ns for one in found), default=0)
        status = os.stat(self.path)
        return (status.st_size if self.size is None else self.size), status.st_mtime_ns


def files_of(source: Source) -> list[VideoFile]:
    """The files of a collection, in the order of its samples."""
    return list({file_of(source, sample): None for sample in source.samples})


def file_of(source: Source, sample: Sample) -> VideoFile:
    """The file that a sample is cut from."""
    if sample.offset is not None:
        return VideoFile(sample.name, sample.path, sample.offset, sample.size)
    if (address := address_of(sample.path)) is not None:
        return VideoFile(name_of(address), address)
    path, root = Path(os.path.abspath(sample.path)), Path(os.path.abspath(source.root))
    name = path.relative_to(root if path.is_relative_to(root) else path.anchor)
    return VideoFile(name.as_posix(), sample.path, fps=sample.fps)
