"""Tables of captions, each from the web or written by a model, and the notes from which making one resumes."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from torch import Tensor

from filmstrip.commands.stopping import NOTHING_KEPT, keeping
from filmstrip.data.config import Clip
from filmstrip.data.layouts.folder import find_media
from filmstrip.data.layouts.manifest import captions_in, cell_of, manifest_of
from filmstrip.data.layouts.shards import is_shards
from filmstrip.data.reading.views import views_of_parts
from filmstrip.data.sample import Source
from filmstrip.data.sources import open_videos
from filmstrip.errors import UserError
from filmstrip.files import append_line, replacing, write_csv, write_text
from filmstrip.video.decode import open_video
from filmstrip.video.decoder import DecodeError

SUFFIXES = (".parquet", ".csv", ".jsonl")
_TEXTS = ("caption", "web", "synthetic")


@dataclass(frozen=True)
class Captioned:
    """A clip and its captions."""

    path: str
    split: str = ""
    label: str | None = None
    start: float | None = None
    end: float | None = None
    web: tuple[str, ...] = ()
    """Captions that it had before."""
    synthetic: tuple[str, ...] = ()
    """Captions that a model wrote."""

    @property
    def texts(self) -> tuple[str, ...]:
        """All captions, those from the web first."""
        return (*self.web, *self.synthetic)

    @property
    def key(self) -> str:
        """A name that changes when the file, the clip or its captions do."""
        try:
            about = os.stat(self.path)
            stamp = f"{about.st_size} bytes, {about.st_mtime_ns}"
        except OSError:
            stamp = "missing"
        span = "" if self.start is None and self.end is None else f" [{self.start}-{self.end}]"
        return json.dumps([f"{self.path}{span} ({stamp})", *self.texts])


def check_out(out: Path) -> None:
    """See that a table can be written under this name.

    Raises:
        UserError: its extension is none of those that are known.
    """
    if out.suffix.lower() not in SUFFIXES:
        raise UserError(f"{out} has no known format: give --out a name that ends with {', '.join(SUFFIXES)}")


def rows_of(source: Source, path: Path) -> list[Captioned]:
    """The clips of a collection, with their captions.

    Raises:
        UserError: they lie in archives, whose members no table can name.
    """
    if any(sample.offset is not None for sample in source.samples):
        raise UserError(f"{path} holds shards, and tables of captions name files: unpack them first")
    return [
        Captioned(
            path=os.path.abspath(sample.path),
            split=sample.split,
            label=None if sample.label is None else source.classes[sample.label],
            start=sample.start,
            end=sample.end,
            web=sample.text,
        )
        for sample in source.samples
    ]


def is_folder_of_files(path: Path) -> bool:
    """Whether a path is a folder of videos and images, and no collection with a manifest or of shards."""
    return path.is_dir() and not manifest_of(path) and not is_shards(path)


def rows_in_folder(path: Path) -> list[Captioned]:
    """All videos and images in a folder.

    Raises:
        UserError: there is none.
    """
    rows = [Captioned(os.path.abspath(file)) for file in find_media(path)]
    if not rows:
        raise UserError(f"{path} holds no videos and no images")
    return rows


def read_captions(path: Path) -> list[Captioned]:
    """The rows of a table of captions; the captions of a plain manifest are all from the web.

    Raises:
        UserError: there is no such table, it is damaged, or it has no captions.
    """
    if not path.exists():
        raise UserError(f"there is no table {path}: give one that `filmstrip caption` wrote, or a manifest")
    told = _told(path) if path.is_file() else None
    rows = (
        rows_of(open_videos(path), path) if told is None else [_read(row, path, i) for i, row in enumerate(told, 1)]
    )
    if not any(row.texts for row in rows):
        raise UserError(f"{path} has no captions: write some first (filmstrip caption)")
    return rows


def _told(path: Path) -> list[dict[str, Any]] | None:
    """The rows of a table that tells captions from the web and of a model apart; none if it does not."""
    suffix, told = path.suffix.lower(), []
    try:
        if suffix == ".parquet":
            told = pq.read_table(path).to_pylist()
        elif suffix == ".csv":
            with path.open(newline="", encoding="utf-8-sig") as file:
                told = list(csv.DictReader(file))
        elif suffix == ".jsonl":
            told = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    except (ValueError, pa.ArrowException, csv.Error) as error:
        raise UserError(f"{path} is damaged: {error}") from None
    if suffix == ".jsonl" and not told:
        raise UserError(f"{path} lists no videos")
    return told if told and {"path", "web", "synthetic"} <= set(told[0]) else None


def _read(told: dict[str, Any], path: Path, number: int) -> Captioned:
    """A row of such a table, whose cells may be text."""
    texts = [told[name] for name in ("web", "synthetic")]
    web, synthetic = (captions_in(text) if isinstance(text, str) else tuple(text or ()) for text in texts)
    try:
        start, end = (None if told.get(n) in (None, "") else float(told[n]) for n in ("start", "end"))
        file = os.path.abspath(path.parent / told["path"])
    except (TypeError, ValueError) as error:
        raise UserError(f"{path}, row {number}: {error}") from None
    return Captioned(file, told.get("split") or "", told.get("label") or None, start, end, web, synthetic)


def write_table(
    rows: Iterable[Captioned], out: Path, scores: Mapping[str, Mapping[str, float]] | None = None
) -> None:
    """Write a table, atomically; ``scores`` are those of captions, by a row's key and the caption."""
    folder = out.absolute().parent
    table = []
    for row in rows:
        inside = os.path.relpath(row.path, folder)
        told: dict[str, Any] = {
            "path": row.path if inside.startswith("..") else inside,
            "split": row.split or None,
            "label": row.label,
            "start": row.start,
            "end": row.end,
            "caption": list(dict.fromkeys(row.texts)),
            "web": list(row.web),
            "synthetic": list(row.synthetic),
        }
        if scores is not None:
            told["score"] = [scores[row.key][text] for text in told["caption"]]
        table.append(told)
    for name in ("split", "label", "start", "end"):
        if all(told[name] is None for told in table):
            for told in table:
                del told[name]
    if out.suffix.lower() == ".jsonl":
        write_text("".join(json.dumps(told, ensure_ascii=False) + "\n" for told in table), out)
    elif out.suffix.lower() == ".csv":
        cells = [
            told
            | {name: cell_of(told[name]) or "" for name in _TEXTS}
            | ({"score": json.dumps(told["score"])} if "score" in told else {})
            for told in table
        ]
        write_csv(cells, out)
    else:
        with replacing(out) as part:
            pq.write_table(pa.Table.from_pylist(table), part)


class Notes:
    """What was found of each clip so far, or of ``what`` else, a line for each in a hidden file beside the table.

    Raises:
        UserError: another model, or the same with other settings, began the table.
    """

    def __init__(self, out: Path, about: Mapping[str, Any], *, what: str = "clips") -> None:
        self.what = what
        self.path = out.with_name(f".{out.name}.notes.jsonl")
        self.found: dict[str, Any] = {}
        first = json.dumps(dict(about))
        lines = self.path.read_text(encoding="utf-8").splitlines() if self.path.exists() else []
        if len(lines) > 1 and lines[0] != first:
            raise UserError(
                f"{self.path} is from an interrupted command with another model or other settings: finish that one, "
                "remove the file, or give another --out"
            )
        if lines[:1] != [first]:  # new, or of a command that was refused before it found anything
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path.unlink(missing_ok=True)
            append_line(first, self.path)
        for line in lines[1:]:
            key, value = json.loads(line)
            self.found[key] = value

    def add(self, key: str, value: Any) -> None:
        """Note what was found of one of them, on disk."""
        append_line(json.dumps([key, value]), self.path)
        self.found[key] = value

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Say what is kept if the body is stopped."""

        def said() -> str:
            count = len(self.found)
            return f"{self.path} keeps {count} {self.what}: the same command resumes" if count else NOTHING_KEPT

        with keeping(said):
            yield

    def remove(self) -> None:
        """Remove the file: the table is complete."""
        self.path.unlink(missing_ok=True)


def clips_of(row: Captioned, clip: Clip, parts: Sequence[tuple[float | None, float | None]]) -> Iterator[Tensor]:
    """The frames ``1 T C H W`` of each part of a row's file.

    Raises:
        DecodeError, OSError: the file cannot be read.
    """
    with open_video(row.path) as decoder:
        for views in views_of_parts(decoder, clip, parts):
            yield views.video


def reason_of(error: DecodeError | OSError) -> str:
    """Why a file cannot be read."""
    return error.reason if isinstance(error, DecodeError) else str(error.strerror or error)
