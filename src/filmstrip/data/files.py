"""The files of a collection, each once, however many samples are cut from it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from filmstrip.data.sample import Sample, Source


@dataclass(frozen=True)
class VideoFile:
    """A file, or a member of an archive."""

    name: str
    """Unique: the path below the collection's folder (or below the root of the disk), or the archive and the key."""
    path: str
    offset: int | None = None
    size: int | None = None

    def open(self) -> str | BinaryIO:
        """What to hand to the decoder."""
        return Sample(path=self.path, name=self.name, offset=self.offset, size=self.size).file()


def files_of(source: Source) -> list[VideoFile]:
    """The files of a collection, in the order of its samples."""
    return list({file_of(source, sample): None for sample in source.samples})


def file_of(source: Source, sample: Sample) -> VideoFile:
    """The file that a sample is cut from."""
    if sample.offset is not None:
        return VideoFile(sample.name, sample.path, sample.offset, sample.size)
    path, root = Path(os.path.abspath(sample.path)), Path(os.path.abspath(source.root))
    name = path.relative_to(root if path.is_relative_to(root) else path.anchor)
    return VideoFile(name.as_posix(), sample.path)
