"""Finding and reading files of annotations."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from filmstrip.errors import UserError


def find(root: Path, *names: str) -> Path:
    """The first of ``names`` that exists below ``root``, compressed (``.gz``) or not.

    Raises:
        UserError: none exists; the message lists the names.
    """
    found = maybe(root, *names)
    if found is None:
        raise UserError(f"{root} holds no {' or '.join(names)}: provide the folder of the dataset's annotations")
    return found


def maybe(root: Path, *names: str) -> Path | None:
    """Like :func:`find`, but None if none exists.

    Raises:
        UserError: the folder does not exist.
    """
    if not root.is_dir():
        raise UserError(f"{root} is not a folder of annotations")
    for name in names:
        for wanted in (name, f"{name}.gz"):
            found = sorted(root.rglob(wanted))
            if found:
                return found[0]
    return None


def read_json(path: Path) -> Any:
    """The contents of a JSON file, compressed or not.

    Raises:
        UserError: it cannot be read.
    """
    try:
        data = path.read_bytes()
        return json.loads(gzip.decompress(data) if path.suffix == ".gz" else data)
    except (OSError, EOFError, ValueError) as error:
        raise UserError(f"{path} is not JSON: {error}") from None


def tables(root: Path, folder: str) -> Iterator[tuple[str, list[list[str]]]]:
    """Every ``folder/*.csv`` below ``root``, or in ``folder.tar.gz`` there: its name without ending, and its cells.

    Raises:
        UserError: there is neither, or a table cannot be read.
    """
    places = sorted(path for path in root.rglob(folder) if path.is_dir())
    try:
        if places:
            for path in sorted(places[0].glob("*.csv")):
                yield path.stem, _cells(path.read_text(encoding="utf-8"))
            return
        with tarfile.open(find(root, f"{folder}.tar.gz")) as archive:
            members = [member for member in archive.getmembers() if member.isfile() and member.name.endswith(".csv")]
            for member in sorted(members, key=lambda member: member.name):
                file = archive.extractfile(member)
                assert file is not None, "members that are no files are left out"
                yield Path(member.name).stem, _cells(io.TextIOWrapper(file, encoding="utf-8").read())
    except (OSError, tarfile.TarError, UnicodeDecodeError) as error:
        raise UserError(f"the tables {folder} below {root} cannot be read: {error}") from None


def _cells(text: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.split(",")] for line in text.splitlines() if line.strip()]
