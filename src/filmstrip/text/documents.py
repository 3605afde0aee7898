"""Files of plain text: text and Markdown, and JSON Lines and Parquet with a column of texts."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from filmstrip.errors import UserError

PLAIN = (".txt", ".md")
"""Files that are one document each."""
RECORDS = (".jsonl", ".parquet")
"""Files with a document in each record."""
SPLITS = ("train", "validation", "val", "test")
"""Names of files and folders that are names of splits."""


@dataclass(frozen=True)
class Document:
    """One text."""

    name: str
    """Path of its file below the folder that was read, and the number of its record, if there are several."""
    text: str
    split: str = ""


def read_documents(path: Path, column: str = "text") -> list[Document]:
    """The documents of a file, or of all files of a folder and those below it, in the order of their names.

    Records may have a ``split``. Otherwise a file or a folder that has the name of a split is of that.

    Raises:
        UserError: there are none, or a file cannot be read or is damaged; says where.
    """
    files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.suffix.lower() in (*PLAIN, *RECORDS))
    root = path.parent if path.is_file() else path
    found = [
        document
        for file in files
        if file.suffix.lower() in (*PLAIN, *RECORDS)
        for document in _read(file, root, column)
    ]
    if not found:
        raise UserError(
            f"{path} holds no documents: give a file or a folder of text ({', '.join(PLAIN)}), or of records with a "
            f"{column!r} ({', '.join(RECORDS)})"
        )
    return found


def _read(file: Path, root: Path, column: str) -> Iterator[Document]:
    name = file.relative_to(root)
    places = (*name.parts[:-1], file.stem) if root != file else (file.stem,)
    split = next((part for part in places if part in SPLITS), "")
    try:
        if file.suffix.lower() in PLAIN:
            yield Document(str(name), file.read_text(encoding="utf-8"), split)
        elif file.suffix.lower() == ".parquet":
            yield from _of_parquet(file, str(name), column, split)
        else:
            yield from _of_lines(file, str(name), column, split)
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{file} cannot be read as text: {error}") from None


def _of_lines(file: Path, name: str, column: str, split: str) -> Iterator[Document]:
    with file.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                record = json.loads(line)
            except ValueError as error:
                raise UserError(f"{file}, line {number}, is not JSON: {error}") from None
            if not isinstance(record, dict) or not isinstance(record.get(column), str):
                raise UserError(f"{file}, line {number}, has no text in {column!r} (--data.reads.column)")
            yield Document(f"{name}, line {number}", record[column], str(record.get("split") or split))


def _of_parquet(file: Path, name: str, column: str, split: str) -> Iterator[Document]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.ParquetFile(file)
        if column not in table.schema_arrow.names:
            has = ", ".join(table.schema_arrow.names)
            raise UserError(f"{file} has the columns {has}, and none called {column!r} (--data.reads.column)")
        wanted = [column, *(["split"] if "split" in table.schema_arrow.names else [])]
        number = 0
        for part in table.iter_batches(columns=wanted):
            for record in part.to_pylist():
                number += 1
                if not isinstance(record[column], str):
                    raise UserError(f"{file}, row {number}, has no text in {column!r}")
                yield Document(f"{name}, row {number}", record[column], str(record.get("split") or split))
    except pa.ArrowException as error:
        raise UserError(f"{file} is no Parquet file that can be read: {error}") from None
