"""Collections in WebDataset shards: plain tar files whose members share a key (``0001.mp4``, ``0001.cls``, ...).

The archives are indexed once, and videos are then read from their byte ranges in any order: nothing is unpacked, and
a member's name never becomes a path.
"""

from __future__ import annotations

import json
import re
import tarfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from filmstrip.data.actions import SIDECARS, Sidecar
from filmstrip.data.layouts.folder import SPLITS, VIDEO_SUFFIXES
from filmstrip.data.sample import Sample, Source, collect, hold_out, number_labels, read_notes
from filmstrip.errors import UserError

_RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")
_LABEL_KEYS = ("label", "cls", "class", "action")
_TEXT_KEYS = ("text", "caption", "captions")
_MAX_NOTE = 2**20


@dataclass
class Member:
    """What the archives hold under one key."""

    archive: Path
    key: str
    offset: int | None = None
    size: int | None = None
    label: str | None = None
    text: tuple[str, ...] = ()
    split: str | None = None
    actions: Sidecar | None = None


def is_shards(path: Path) -> bool:
    """Whether a path means shards: ``*.tar``, a range of them, or a folder with nothing but them."""
    if path.is_dir():
        files = [file for file in path.iterdir() if not file.name.startswith(".")]
        tars = [file for file in files if file.suffix == ".tar"]
        return bool(tars) and all(file in tars or file.suffix == ".json" for file in files)
    return path.suffix == ".tar" or path.name.endswith((".tar.gz", ".tgz"))


def expand(path: Path) -> list[Path]:
    """The files that a pattern such as ``name-{000..012}.tar`` stands for; a folder stands for all its shards."""
    if path.is_dir():
        return sorted(path.glob("*.tar"))
    found = _RANGE.search(str(path))
    if found is None:
        return [path]
    first, last = found.groups()
    if int(first) > int(last):
        raise UserError(f"{path}: the range {found[0]} runs backwards")
    numbers = (str(i).zfill(len(first)) for i in range(int(first), int(last) + 1))
    return [file for number in numbers for file in expand(Path(str(path).replace(found[0], number, 1)))]


def open_shards(path: Path) -> Source:
    """Open one shard, a range, or a folder of them.

    A label comes from ``key.cls`` or from ``label`` in ``key.json``, captions from the lines of ``key.txt`` or from
    ``caption`` in ``key.json``, one or a list. Splits come from
    ``split`` in ``key.json``, or from the names of the shards (``train-000.tar``), or else are made.

    Raises:
        UserError: a shard is missing, is not a plain tar file, or there are no videos in any.
    """
    archives = expand(path)
    members = [member for archive in archives for member in _index(archive) if member.offset is not None]
    if not members:
        raise UserError(
            f"{path}: no videos in {len(archives)} shards; expected members such as 0001.mp4 and 0001.cls"
        )
    root = path if path.is_dir() else path.parent
    notes = read_notes(root)
    classes, labels = number_labels([member.label for member in members], notes.classes, path)
    samples = [
        Sample(
            path=str(member.archive),
            name=f"{member.archive.name}/{member.key}",
            label=label,
            split=member.split or _split_of(member.archive),
            text=member.text,
            offset=member.offset,
            size=member.size,
            actions=member.actions,
        )
        for member, label in zip(members, labels)
    ]
    if not all(sample.split for sample in samples):
        samples = hold_out(samples)
    return collect(root, classes, samples, notes)


def _index(archive: Path) -> list[Member]:
    """The members of one archive by key, in its order. Links, folders and devices are ignored."""
    if archive.suffix != ".tar":
        raise UserError(f"{archive} is compressed, so it cannot be read in random order: unpack it to a plain .tar")
    members: dict[str, Member] = {}
    try:
        with tarfile.open(archive, "r:") as tar:
            for info in tar:
                file = PurePosixPath(info.name)
                stem, _, extension = file.name.partition(".")
                if not info.isreg() or info.issparse() or not stem or not extension:
                    continue
                key = (file.parent / stem).as_posix()
                member = members.setdefault(key, Member(archive, key))
                suffix = f".{extension.rpartition('.')[2].lower()}"
                if suffix in VIDEO_SUFFIXES:
                    member.offset, member.size = info.offset_data, info.size
                elif f".{extension.lower()}" in SIDECARS:
                    member.actions = Sidecar(str(archive), info.offset_data, info.size, info.name)
                elif suffix in (".cls", ".txt", ".json") and info.size <= _MAX_NOTE:
                    note = tar.extractfile(info)
                    assert note is not None, "members that are no files are left out"
                    _annotate(member, suffix, note.read())
    except FileNotFoundError:
        raise UserError(f"the shard {archive} does not exist") from None
    except (tarfile.TarError, OSError) as error:
        raise UserError(f"the shard {archive} is not a plain tar file, or is cut short: {error}") from None
    return list(members.values())


def _annotate(member: Member, suffix: str, content: bytes) -> None:
    """Take over what a small member says of its video."""
    text = content.decode("utf-8", "replace").strip()
    if suffix == ".cls":
        member.label = text
    elif suffix == ".txt":
        member.text = tuple(line.strip() for line in text.splitlines() if line.strip())
    else:
        try:
            values = json.loads(text)
        except ValueError as error:
            raise UserError(f"{member.archive}: {member.key}.json is not JSON: {error}") from None
        if isinstance(values, dict):
            label = next((values[key] for key in _LABEL_KEYS if values.get(key) is not None), None)
            captions: Any = next((values[key] for key in _TEXT_KEYS if values.get(key)), [])
            member.label = member.label if label is None else str(label)
            listed = captions if isinstance(captions, list) else [captions]
            member.text = member.text or tuple(text for text in listed if isinstance(text, str) and text)
            member.split = values.get("split") or member.split


def _split_of(archive: Path) -> str:
    """The split that a shard's name begins with, such as ``train-000.tar``; empty if it is none."""
    prefix = re.split(r"[-_.]", archive.name)[0].lower()
    return prefix if prefix in SPLITS else ""
