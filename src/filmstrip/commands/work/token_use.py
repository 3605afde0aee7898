"""Number of tokens that a tokenizer of variable length used along encoded videos, as JSON and as a page."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

import torch

from filmstrip.commands.work.decode import FPS, decode_clips, frames_per_second
from filmstrip.data.augment.levels import to_levels
from filmstrip.data.config import Data
from filmstrip.data.features import FeatureRow, FeatureSource
from filmstrip.data.sources import Source
from filmstrip.files import write_json
from filmstrip.report.page import Report
from filmstrip.report.token_use import TokenUse
from filmstrip.runs.tokenizers import VideoTokenizer
from filmstrip.video.decoder import DecodeError

COUNTS, PAGE = "token_use.json", "token_use.html"
SHOWN = 8
"""Number of clips on the page: the first of the index, not selected."""


def write_token_use(folder: Path, model: VideoTokenizer, source: Source, data: Data, num_clips: int) -> Path | None:
    """Write both into a folder of tokens; returns the page's path, or None if every block uses all its tokens.

    The JSON has ``tokens_per_block``, ``mean`` (tokens used per block), and for each of ``videos`` its clips with
    ``start`` and ``end`` (seconds) and ``lengths``, the number of tokens of each block.
    """
    tokens = FeatureSource(folder)
    if not tokens.rows or tokens.rows[0].lengths is None:
        return None
    first = tokens.rows[0]
    per_block = first.places // len(_lengths(first))
    spent = torch.tensor([length for row in tokens.rows for length in _lengths(row)], dtype=torch.float64)
    videos: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in tokens.rows:
        videos[row.name].append({"start": row.start, "end": row.end, "lengths": list(_lengths(row))})
    counts = {"tokens_per_block": per_block, "mean": float(spent.mean()), "videos": videos}
    write_json(counts, folder / COUNTS)
    lead = (
        f"{len(spent)} blocks of {len(videos)} videos use {spent.mean():.1f} of {per_block} tokens on average "
        f"({spent.min():.0f} to {spent.max():.0f}); {COUNTS} has all counts. Below are the first clips of the index."
    )
    return Report("Token use", lead, _shown(tokens, model, source, data, num_clips)).write(folder / PAGE)


def _lengths(row: FeatureRow) -> tuple[int, ...]:
    assert row.lengths is not None, "one tokenizer encoded all rows, with lengths or without"
    return row.lengths


def _shown(
    tokens: FeatureSource, model: VideoTokenizer, source: Source, data: Data, num_clips: int
) -> list[TokenUse]:
    """The first clips that can still be read, beside their reconstructions."""
    samples = {sample.name: sample for sample in source.samples}
    places: dict[str, list[int]] = defaultdict(list)
    for i, row in enumerate(tokens.rows[:SHOWN]):
        places[row.name].append(i)
    shown = []
    for name, rows in places.items():
        try:
            clips = samples[name].cut(data, num_clips=num_clips)
        except (KeyError, DecodeError, OSError):  # encoded earlier, from files that are not provided now
            continue
        for number, (i, rebuilt) in enumerate(zip(rows, decode_clips(model, tokens, rows))):
            row = tokens.rows[i]
            shown.append(
                TokenUse(
                    title=name if len(rows) == 1 else f"{name}, clip {number + 1}",
                    video=torch.as_tensor(clips[number].content["video"]),
                    rebuilt=to_levels(rebuilt),
                    lengths=_lengths(row),
                    tokens_per_block=row.places // len(_lengths(row)),
                    fps=frames_per_second(row, len(rebuilt)) or FPS,
                )
            )
    return shown
