"""Atomic writing of files; all files of Filmstrip that replace others are written here.

A file is written under a temporary name in its folder, synced to disk, and renamed: after a crash or on a full disk
there is the old file or the new one, never a partial one. Permissions are those of any new file, and symbolic links
are followed.
"""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import re
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filmstrip.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

PART = ".part"
"""Suffix of incomplete files."""


def cache_folder() -> Path:
    """``$FILMSTRIP_CACHE``, or ``~/.cache/filmstrip``."""
    return Path(os.environ.get("FILMSTRIP_CACHE") or Path.home() / ".cache" / "filmstrip")


@contextlib.contextmanager
def replacing(path: Path, *, durable: bool = True) -> Iterator[Path]:
    """A temporary name for writing, renamed to ``path`` when the body ends, and removed if it fails.

    Parent folders are created. ``durable`` syncs to disk, so that a power failure leaves no empty file.

    Raises:
        OSError: the file, which it names, cannot be written.
    """
    with naming(path):
        target = Path(os.path.realpath(path))
        target.parent.mkdir(parents=True, exist_ok=True)
        # The extension stays last: some writers depend on it.
        part = target.with_name(f".{target.stem}.{os.getpid()}{PART}{target.suffix}")
        try:
            with part.open("wb"):
                mode = part.stat().st_mode  # by the umask; some writers create a private file instead
            yield part
            os.chmod(part, mode & 0o777)
            if durable:
                _sync(part)
            os.replace(part, target)
        except BaseException as error:
            part.unlink(missing_ok=True)
            if isinstance(error, OSError) and error.filename is not None and os.fspath(error.filename) == str(part):
                raise OSError(
                    error.errno, error.strerror, str(path)
                ) from None  # the temporary name means nothing to the caller
            raise
        if durable:
            _sync(target.parent)


def write_bytes(content: bytes, path: Path) -> None:
    """Write a file, atomically."""
    with replacing(path) as part:
        part.write_bytes(content)


def write_text(text: str, path: Path) -> None:
    """Write a UTF-8 text file, atomically."""
    write_bytes(text.encode("utf-8"), path)


def write_json(value: Any, path: Path) -> None:
    """Write a JSON file, atomically."""
    write_text(json.dumps(value, indent=2) + "\n", path)


def write_csv(rows: Sequence[Mapping[str, Any]], path: Path, columns: Sequence[str] | None = None) -> None:
    """Write rows as CSV, atomically; ``columns`` defaults to the first row's keys."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, fieldnames=list(columns or rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    write_text(text.getvalue(), path)


TABLES = (".csv", ".parquet", ".json")
"""Extensions of the tables that :func:`write_rows` writes."""


def check_table_name(path: Path) -> None:
    """See that a table can be written under this name.

    Raises:
        UserError: its extension is none of :data:`TABLES`.
    """
    if path.suffix.lower() not in TABLES:
        raise UserError(f"cannot write the table {path}: give it a name that ends with {', '.join(TABLES)}")


def write_rows(rows: Sequence[Mapping[str, Any]], path: Path, columns: Sequence[str] | None = None) -> None:
    """Write rows as CSV, Parquet or a JSON list, by the extension, atomically; ``columns`` are as in
    :func:`write_csv`.

    Raises:
        UserError: the extension is none of these.
    """
    check_table_name(path)
    if path.suffix.lower() == ".csv":
        write_csv(rows, path, columns)
    elif path.suffix.lower() == ".json":
        write_json([dict(row) for row in rows], path)
    else:
        import pyarrow as pa
        import pyarrow.parquet as pq

        names = list(columns or rows[0])
        table = pa.table({name: [row.get(name) for row in rows] for name in names})
        with replacing(path) as part:
            pq.write_table(table, part)


class GrowingTable:
    """A table as of :func:`write_rows` whose rows are on disk when they are added; it replaces another at once.

    Parquet cannot grow: it is rewritten when a row comes ``SECONDS_AT_RISK`` after the last writing, and at the end
    of the context, however that ends.
    """

    SECONDS_AT_RISK = 60.0

    def __init__(self, path: Path, columns: Sequence[str]) -> None:
        check_table_name(path)
        self.path, self.columns = path, list(columns)
        self.kind = path.suffix.lower()
        self.count = 0
        """Number of rows so far."""
        self._rows: list[Mapping[str, Any]] = []
        self._written = time.monotonic()
        write_rows([], path, self.columns)

    def __enter__(self) -> GrowingTable:
        return self

    def __exit__(self, *stopped: object) -> None:
        if self._rows:
            write_rows(self._rows, self.path, self.columns)

    def add(self, row: Mapping[str, Any]) -> None:
        """Add a row."""
        self.count += 1
        if self.kind == ".csv":
            text = io.StringIO(newline="")
            csv.DictWriter(text, self.columns, lineterminator="").writerow(row)
            append_line(text.getvalue(), self.path)
        elif self.kind == ".json":
            self._add_to_list(json.dumps(dict(row)))
        else:
            self._rows.append(row)
            if time.monotonic() - self._written > self.SECONDS_AT_RISK:
                write_rows(self._rows, self.path, self.columns)
                self._written = time.monotonic()

    def _add_to_list(self, row: str) -> None:
        """Put a row in place of the bracket that closes a JSON list, and the bracket after it."""
        with naming(self.path), self.path.open("r+b") as file:
            end, before = ("\n]\n", ",\n") if self.count > 1 else ("]\n", "\n")
            file.seek(-len(end), os.SEEK_END)
            file.write(f"{before}{row}\n]\n".encode())


def write_tensors(
    tensors: Mapping[str, Tensor], path: Path, *, metadata: dict[str, str] | None = None, durable: bool = True
) -> None:
    """Write a safetensors file, atomically.

    Raises:
        OSError: the file, which it names, cannot be written.
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
    """Append a line to a text file, which does not change if that fails; one that a crash left torn stays a line."""
    with naming(path), path.open("a+b", buffering=0) as file:
        end = file.seek(0, os.SEEK_END)
        file.seek(max(0, end - 1))
        content = f"{line}\n".encode() if file.read(1) in (b"", b"\n") else f"\n{line}\n".encode()
        try:
            while content:
                content = content[file.write(content) :]
        except OSError:
            file.truncate(end)
            raise


def remove_parts(folder: Path) -> None:
    """Remove incomplete files of killed processes from a folder that no other process writes to."""
    for pattern in (f".*{PART}*", ".tmp??????"):  # the second are safetensors' own
        for part in folder.glob(pattern):
            part.unlink(missing_ok=True)


@contextlib.contextmanager
def no_parts_left(folders: Collection[Path]) -> Iterator[None]:
    """If the body, or a process that it started, is stopped, incomplete files in these folders are removed."""
    try:
        yield
    except BaseException:
        for folder in folders:
            remove_parts(folder)
        raise


def sync_folder(folder: Path) -> None:
    """Sync a folder's entries to disk."""
    with naming(folder):
        _sync(folder)


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """Inside the context, an OSError without a file name gets this one."""
    try:
        yield
    except OSError as error:
        if error.filename is None and error.errno is not None:
            raise OSError(error.errno, error.strerror, str(path)) from None
        raise


def _sync(path: Path) -> None:
    if path.is_dir() and os.name == "nt":
        return  # Windows cannot open folders
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
