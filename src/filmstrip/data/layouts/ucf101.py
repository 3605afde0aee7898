"""UCF-101 (Soomro et al. 2012): a folder for each class, and ``ucfTrainTestlist`` with three divisions.

    UCF-101/ApplyEyeMakeup/v_ApplyEyeMakeup_g01_c01.avi
    ucfTrainTestlist/{classInd.txt, trainlist01.txt, testlist01.txt, ...}

Lists name videos as ``class/file``, training lists with the class's number behind. Lists and files differ in capitals
here and there (``HandStandPushups``), which is ignored.
"""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath

from filmstrip.data.layouts.named import by_stem, leave_out_missing
from filmstrip.data.sample import Sample, Source, collect, number_names, read_notes
from filmstrip.errors import UserError

LISTS = ("ucfTrainTestlist", "annotations", "splits", ".", "../ucfTrainTestlist")
"""Possible folders of the lists, relative to the root."""
FOLDS = (1, 2, 3)
_GROUP = re.compile(r"_(g\d+)_c\d+$")


def detect(root: Path) -> bool:
    """Whether the lists are there."""
    return _lists(root) is not None


def open_ucf101(root: Path, fold: int = 1) -> Source:
    """The splits ``train`` and ``test`` of one division; videos that it does not name are left out.

    Raises:
        UserError: there are no lists, no such division, or none of the videos.
    """
    lists = _lists(root)
    if lists is None:
        raise UserError(
            f"{root} is not laid out as UCF-101: expected class_name/v_*.avi, and beside them "
            "ucfTrainTestlist/trainlist01.txt"
        )
    if not (lists / f"trainlist{fold:02}.txt").is_file():
        raise UserError(
            f"{lists} has no trainlist{fold:02}.txt: UCF-101 is divided in the ways {FOLDS} (data.reads.fold)"
        )
    videos = by_stem(root)
    listed = [
        (split, PurePosixPath(line.split()[0]))
        for split in ("train", "test")
        for line in _lines(lists / f"{split}list{fold:02}.txt")
    ]
    found, missing = leave_out_missing(listed, lambda item: videos.get(item[1].stem.lower()))
    if not found:
        raise UserError(f"{root} holds none of the {missing} videos that {lists}/trainlist{fold:02}.txt names")
    notes = read_notes(root)
    index = lists / "classInd.txt"
    known = tuple(line.split()[-1] for line in _lines(index)) if index.is_file() else notes.classes
    names = [_class(path, known) for (_, path), _ in found]
    classes, labels = number_names(names, known, root)
    samples = [
        Sample(
            path=str(file),
            name=path.as_posix(),
            label=label,
            split=split,
            group=f"{named}/{number[1]}" if (number := _GROUP.search(path.stem)) else None,
        )
        for ((split, path), file), named, label in zip(found, names, labels)
    ]
    return collect(root, classes, samples, notes)


def _lists(root: Path) -> Path | None:
    return next((root / name for name in LISTS if (root / name / "trainlist01.txt").is_file()), None)


def _lines(path: Path) -> list[str]:
    try:
        return [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except FileNotFoundError:
        raise UserError(f"{path} is missing, and belongs to the layout of UCF-101") from None


def _class(path: PurePosixPath, known: tuple[str, ...] | None) -> str:
    """The class of a listed video, in the spelling of the list of classes."""
    name = path.parts[0] if len(path.parts) > 1 else path.stem.split("_")[1]
    return next((k for k in known or () if k.lower() == name.lower()), name)
