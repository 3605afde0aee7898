"""ActivityNet Captions (Krishna et al. 2017): paragraphs about two-minute videos, a moment for each sentence.

``train.json``, ``val_1.json`` and ``val_2.json`` hold {VIDEO: {"duration", "timestamps": [[start, end]],
"sentences"}}. Papers on moment retrieval validate on the first of the latter and test on the second; a file named
``val.json`` or ``test.json`` is read as it says. Copies of Charades-STA in this form (Woo et al. 2022) are read too.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from filmstrip.data.annotations.files import find, maybe, read_json
from filmstrip.data.moments.types import Queries, Query, proper
from filmstrip.errors import UserError

FILES = {"train": ("train.json",), "val": ("val_1.json", "val.json"), "test": ("val_2.json", "test.json")}
"""Names of the files of each split."""


def read_activitynet_captions(root: Path) -> Queries:
    """The queries in a folder.

    Raises:
        UserError: the training file is missing, or a file is invalid.
    """
    queries = _queries(find(root, *FILES["train"]), "train")
    for split in ("val", "test"):
        if path := maybe(root, *FILES[split]):
            queries += _queries(path, split)
    return Queries(root=root, queries=tuple(queries))


def _queries(path: Path, split: str) -> list[Query]:
    found, videos = [], read_json(path)
    try:
        for video, entry in videos.items():
            seconds = float(entry["duration"])
            if len(entry["timestamps"]) != len(entry["sentences"]):
                raise ValueError(f"{video} has as many sentences as moments")
            for i, (moment, sentence) in enumerate(zip(entry["timestamps"], entry["sentences"])):
                if moments := proper([moment], seconds):
                    found.append(_query(f"{video}_{i}", video, sentence, split, moments, seconds))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path} is not of the form of ActivityNet Captions: {error!r}") from None
    return found


def _query(name: str, video: str, sentence: Any, split: str, moments: Any, seconds: float) -> Query:
    text = str(sentence).strip()
    return Query(name=name, video=video, text=text, split=split, moments=moments, seconds=seconds)
