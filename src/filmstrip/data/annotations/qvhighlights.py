"""QVHighlights (Lei et al. 2021): queries about videos of two and a half minutes, rated clips; and one's own queries.

A line of JSON for each query, in files whose names say the split (``highlight_train_release.jsonl``, ``test.jsonl``):

{"qid": 7803, "query": "A man walks inside.", "vid": "NAME", "duration": 150, "relevant_windows": [[26, 36]],
 "relevant_clip_ids": [13, 14, ...], "saliency_scores": [[4, 4, 2], ...], "clip_seconds": 2}

Scores are three raters' from 0 to 4. ``duration``, the clips with their scores, and ``clip_seconds`` may be absent.
Queries without windows, as of the hidden test set, are left out.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from filmstrip.data.moments.types import Queries, Query, Rated, proper
from filmstrip.errors import UserError
from filmstrip.files import write_text

CLIP_SECONDS = 2.0
SPLITS = ("train", "val", "test")
"""Splits, and the parts of file names that say them."""


def read_qvhighlights(path: Path) -> Queries:
    """The queries in a folder of such files, or in one file.

    Raises:
        UserError: there is none, or one is invalid.
    """
    files = [path] if path.is_file() else sorted(path.rglob("*.jsonl")) if path.is_dir() else []
    found = {split: file for file in files if (split := _split_of(file))}
    if not found:
        raise UserError(
            f"{path} holds no queries: they are lines of JSON in files named after their splits, such as train.jsonl "
            "and test.jsonl (docs/data.md shows one)"
        )
    queries: dict[str, Query] = {}
    lengths: set[float] = set()
    for file in files:
        if split := _split_of(file):
            for number, values in _lines(file):
                try:
                    if values.get("relevant_windows"):
                        query, seconds = _query(values, split)
                        if query.moments:
                            queries.setdefault(query.name, query)
                            lengths.add(seconds)
                except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
                    raise UserError(f"{file}, line {number}, is not of the form of QVHighlights: {error!r}") from None
    if len(lengths) > 1:
        raise UserError(f"{path} has rated clips of {sorted(lengths)} seconds: all have one length")
    if not queries:
        raise UserError(f"{path} has no query with relevant_windows")
    return Queries(root=path, queries=tuple(queries.values()), clip_seconds=lengths.pop())


def write_qvhighlights(queries: Queries, folder: Path) -> None:
    """Write queries as one file for each split."""
    clip = queries.clip_seconds or CLIP_SECONDS
    lines: dict[str, list[str]] = {}
    for query in queries.queries:
        values: dict[str, Any] = {"qid": query.name, "query": query.text, "vid": query.video}
        values |= {} if query.seconds is None else {"duration": query.seconds}
        values["relevant_windows"] = [list(moment) for moment in query.moments]
        if query.rated:
            values["relevant_clip_ids"] = [round(rated.start / clip) for rated in query.rated]
            values["saliency_scores"] = [list(rated.scores) for rated in query.rated]
        values |= {"clip_seconds": clip} | ({"subject": query.subject} if query.subject else {})
        lines.setdefault(query.split, []).append(json.dumps(values))
    for split, written in lines.items():
        write_text("\n".join(written) + "\n", folder / f"{split}.jsonl")


def _split_of(file: Path) -> str | None:
    return next((split for split in SPLITS if split in file.stem), None)


def _lines(file: Path) -> list[tuple[int, dict[str, Any]]]:
    try:
        text = file.read_text(encoding="utf-8")
        return [(i, json.loads(line)) for i, line in enumerate(text.splitlines(), 1) if line.strip()]
    except (OSError, ValueError) as error:
        raise UserError(f"{file} is not lines of JSON: {error}") from None


def _query(values: dict[str, Any], split: str) -> tuple[Query, float]:
    """A query, and the duration of its rated clips."""
    clip = float(values.get("clip_seconds", CLIP_SECONDS))
    seconds = float(values["duration"]) if "duration" in values else None
    clips = zip(values.get("relevant_clip_ids", ()), values.get("saliency_scores", ()))
    query = Query(
        name=str(values["qid"]),
        video=values["vid"],
        text=values["query"],
        split=split,
        moments=proper(values["relevant_windows"], seconds),
        rated=tuple(Rated(i * clip, (i + 1) * clip, tuple(map(float, scores))) for i, scores in clips),
        seconds=seconds,
        subject=values.get("subject", ""),
    )
    return query, clip
