"""What is done with collections of videos: check, prepare, convert, list steps."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import tyro

from filmstrip.bounds import Count
from filmstrip.commands.stopping import NOTHING_KEPT, keeping
from filmstrip.data.tools.reencode import Quality

File = Annotated[Path, tyro.conf.Positional]


def check(path: File, workers: Count = 2, json: bool = False) -> int:
    """Decode every file of a collection; list what is unreadable, damaged or would be refused; print statistics.

    Args:
        path: A folder, a manifest or shards.
        workers: Processes.
        json: Print one JSON object instead of text.
    """
    from filmstrip.data.tools.check import check_collection

    report = check_collection(path, workers=workers)
    print(report.to_json() if json else report.text())
    return 1 if report.bad or report.beyond else 0


def prepare(
    path: File, out: Path, short_side: Count = 256, gop: Count = 8, crf: Quality = 20, workers: Count = 2
) -> int:
    """Re-encode a collection so that training loads it several times faster; resumes where it stopped.

    Args:
        path: A folder, a manifest or shards.
        out: Where the new files and their manifest go.
        short_side: Length of the shorter side, pixels; smaller videos keep their size.
        gop: Frames between two key frames.
        crf: H.264 quality, lower is better.
        workers: Processes.
    """
    from filmstrip.data.tools.prepare import copies_in, prepare_collection

    def kept() -> str:
        count = copies_in(out)
        return f"{out} keeps {count} copies: the same command makes the others" if count else NOTHING_KEPT

    with keeping(kept):
        report = prepare_collection(path, out, short_side=short_side, gop=gop, crf=crf, workers=workers)
    print(report.text())
    return 1 if report.bad else 0


def convert(
    layout: Annotated[str, tyro.conf.Positional], path: File, out: Path, lossless: bool = False, workers: Count = 2
) -> int:
    """Make videos with their actions of a public set that is kept as arrays; resumes where it stopped.

    Args:
        layout: bair (TFRecord files) or teco (DMLab's npz files).
        path: Its folder.
        out: Where the videos go, as split/*.mp4 with *.actions.npy.
        lossless: Keep every pixel; the files are several times larger.
        workers: Processes.
    """
    from filmstrip.data.tools.convert import convert_layout

    with keeping(lambda: f"{out} keeps the videos that are complete: the same command makes the others"):
        report = convert_layout(layout, path, out, lossless=lossless, workers=workers)
    print(report.text())
    return 1 if report.bad else 0


def steps(
    dataset: Annotated[Literal["own", "coin", "crosstask", "niv", "ego4d"], tyro.conf.Positional],
    annotations: File,
    videos: Annotated[Path, tyro.conf.Positional],
    out: Path,
    division: Literal["pdpp", "schema", "release"] = "pdpp",
) -> None:
    """Write a manifest with every step of annotated videos: `filmstrip encode ENCODER FILE` then encodes each.

    Args:
        dataset: Whose annotations they are; own is a procedures.json.
        annotations: Their folder, or the file.
        videos: The folder below which the videos lie, named as in the annotations.
        out: The manifest, a .csv.
        division: Who divided a public set into training and test.
    """
    from filmstrip.data.annotations.steps_manifest import write_manifest
    from filmstrip.data.kinds.procedures import Procedures, read_annotations

    found = read_annotations(Procedures(dataset=dataset, annotations=annotations, division=division))
    print(f"{out}: {write_manifest(found, videos, out)} steps")
