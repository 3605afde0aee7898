"""Files that are written whole or not at all; every file of Filmstrip's that replaces another is written here.

A file is written under another name beside its own, reaches the disk, and is then renamed: a reader, a crash or a
full disk meets the old file or the new one, never half of one. It has the permissions that any new file has, and a
link goes on leading to where it led.
"""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

PART = ".part"
"""In the names of files that are not complete yet."""


@contextlib.contextmanager
def replacing(path: Path, *, durable: bool = True) -> Iterator[Path]:
    """The name under which to write what becomes ``path`` when the body ends, and nothing if it fails.

    Folders above are made. ``durable`` waits until the bytes are on the disk: a power cut then leaves no empty file
    under a good name.

    Raises:
        OSError: it cannot be written; names the file.
    """
    with naming(path):
        target = Path(os.path.realpath(path))
        target.parent.mkdir(parents=True, exist_ok=True)
        # The ending stays last: some writers go by it.
        part = target.with_name(f".{target.stem}.{os.getpid()}{PART}{target.suffix}")
        try:
            with part.open("wb"):
                mode = part.stat().st_mode  # as the umask has it; some writers make a private file instead
            yield part
            os.chmod(part, mode & 0o777)
            if durable:
                _sync(part)
            os.replace(part, target)
        except BaseException as error:
            part.unlink(missing_ok=True)
            if isinstance(error, OSError) and error.filename is not None and os.fspath(error.filename) == str(part):
                raise OSError(error.errno, error.strerror, str(path)) from None  # nobody knows the other name
            raise
        if durable:
            _sync(target.parent)


def write_bytes(content: bytes, path: Path) -> None:
    """Write a file; one that is there is replaced at once."""
    with replacing(path) as part:
        part.write_bytes(content)


def write_text(text: str, path: Path) -> None:
    """Write a text file, UTF-8; one that is there is replaced at once."""
    write_bytes(text.encode("utf-8"), path)


def write_json(value: Any, path: Path) -> None:
    """Write a JSON file; one that is there is replaced at once."""
    write_text(json.dumps(value, indent=2) + "\n", path)


def write_csv(rows: Sequence[Mapping[str, Any]], path: Path, columns: Sequence[str] | None = None) -> None:
    """Write rows as CSV; the columns are the first row's keys unless they are given."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, fieldnames=list(columns or rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    write_text(text.getvalue(), path)


def write_tensors(
    tensors: Mapping[str, Tensor], path: Path, *, metadata: dict[str, str] | None = None, durable: bool = True
) -> None:
    """Write a safetensors file; one that is there is replaced at once.

    Raises:
        OSError: it cannot be written; names the file.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    with replacing(path, durable=durable) as part:
        try:
            save_file(dict(tensors), part, metadata=metadata)
        except SafetensorError as error:
            number = re.search(r"os error (\d+)", str(error))
            if number is None:
                raise
            raise OSError(int(number[1]), os.strerror(int(number[1])), str(path)) from None


def append_line(line: str, path: Path) -> None:
    """Add a line to a text file; where that fails, the file stays as it was."""
    with naming(path), path.open("ab", buffering=0) as file:
        end = file.seek(0, os.SEEK_END)
        content = f"{line}\n".encode()
        try:
            while content:
                content = content[file.write(content) :]
        except OSError:
            file.truncate(end)
            raise


def remove_parts(folder: Path) -> None:
    """Remove what killed processes left unfinished in a folder that nobody else writes to now."""
    for pattern in (f".*{PART}*", ".tmp??????"):  # the second are safetensors' own
        for part in folder.glob(pattern):
            part.unlink(missing_ok=True)


@contextlib.contextmanager
def no_parts_left(folders: Collection[Path]) -> Iterator[None]:
    """Whatever stops the body, also processes that it started, leaves no unfinished file in these folders."""
    try:
        yield
    except BaseException:
        for folder in folders:
            remove_parts(folder)
        raise


def sync_folder(folder: Path) -> None:
    """Return when the names of a folder's files are on the disk."""
    with naming(folder):
        _sync(folder)


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """Inside, an error of the system that does not say which file it is about names this one."""
    try:
        yield
    except OSError as error:
        if error.filename is None and error.errno is not None:
            raise OSError(error.errno, error.strerror, str(path)) from None
        raise


def _sync(path: Path) -> None:
    if path.is_dir() and os.name == "nt":
        return  # Windows opens no folders
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
