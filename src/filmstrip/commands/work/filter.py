"""CapFilt's filter: captions that do not match their videos are removed from a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, cast

import torch
from rich.console import Console
from rich.text import Text
from torch import Tensor

from filmstrip.commands.filter import Filter
from filmstrip.commands.work.caption_table import (
    Captioned,
    Notes,
    check_out,
    clips_of,
    read_captions,
    reason_of,
    write_table,
)
from filmstrip.commands.work.search import load_searcher
from filmstrip.data.texts import tokenised
from filmstrip.errors import UserError
from filmstrip.inference import device_of, inference
from filmstrip.progress import bars, counted, shown
from filmstrip.protocols import Matcher
from filmstrip.runs.text_video import TextVideoModel
from filmstrip.video.decoder import DecodeError
from filmstrip.weights.fingerprint import fingerprint

MATCHES = 0.5
"""Minimum probability of a match of a caption that is kept, unless another is given."""


def filter_captions(command: Filter) -> int:
    """Write the table of the captions that match; returns 1 if some files could not be read, else 0.

    Raises:
        UserError: the model cannot judge, nothing says what is kept, or there are no captions.
    """
    check_out(command.out)
    if command.threshold is not None and command.share is not None:
        raise UserError("a threshold and a share both say what is kept: give one of them")
    rows = read_captions(command.table)
    searcher = load_searcher(command.run)
    if command.frames is not None:
        searcher = searcher._replace(clip=replace(searcher.clip, num_frames=command.frames, sampling="uniform"))
    by = command.by or ("matching" if isinstance(searcher.objective, Matcher) else "similarity")
    if by == "matching" and not isinstance(searcher.objective, Matcher):
        raise UserError(
            f"{command.run} holds a {type(searcher.objective).__name__}, which has no matching head: judge by "
            "--by similarity"
        )
    if by == "similarity" and command.threshold is None and command.share is None:
        raise UserError("no cosine says by itself that a caption matches: give a --threshold, or a --share to keep")
    about = {"weights": fingerprint(searcher.objective), "clip": repr(searcher.clip), "by": by}
    notes = Notes(command.out, about)
    console = Console(stderr=True)
    with notes.kept():
        unreadable = judge(searcher, rows, notes, by, command.batch_size, console)
        scores = {row.key: notes.found[row.key] for row in rows if row.key in notes.found}
        kept = kept_of(rows, scores, _threshold(command, scores))
        if kept:
            write_table(
                kept, command.out, {row.key: found for row, found in zip(kept, _scores_of(kept, rows, scores))}
            )
    notes.remove()
    for path, reason in unreadable:
        console.print(Text(f"not read: {path}: {reason}", "yellow"))
    said = []
    for name in ("web", "synthetic"):
        before, after = (sum(len(getattr(row, name)) for row in each) for each in (rows, kept))
        if before:
            said.append(f"{after} of {before} captions {'from the web' if name == 'web' else 'that were written'}")
    summary = f"{' and '.join(said)} are kept, of {len(kept)} of {len(rows)} clips"
    if not kept:
        raise UserError(f"{summary}: no table is written")
    print(f"{command.out}: {summary}")
    return int(bool(unreadable))


def judge(
    searcher: TextVideoModel, rows: Sequence[Captioned], notes: Notes, by: str, batch_size: int, console: Console
) -> list[tuple[str, str]]:
    """Note the score of every caption of those rows that have none yet; returns the unreadable files."""
    unreadable: list[tuple[str, str]] = []
    left = [row for row in rows if row.key not in notes.found]
    waiting: list[tuple[Captioned, Tensor]] = []

    def score() -> None:
        if waiting:
            texts = [list(dict.fromkeys(row.texts)) for row, _ in waiting]
            found = scored(searcher, torch.cat([clip for _, clip in waiting]), texts, by, batch_size)
            for (row, _), own, values in zip(waiting, texts, found):
                notes.add(row.key, dict(zip(own, values)))
        waiting.clear()

    with shown(bars(console)), counted("judging", len(left)) as done:
        for number, row in enumerate(left, start=1):
            try:
                (clip,) = clips_of(row, searcher.clip, [(row.start, row.end)])
                waiting.append((row, clip))
            except (DecodeError, OSError) as error:
                unreadable.append((row.path, reason_of(error)))
            if len(waiting) >= batch_size or number == len(left):
                score()
            done(number)
    return unreadable


def scored(
    searcher: TextVideoModel, video: Tensor, texts: Sequence[Sequence[str]], by: str, batch_size: int
) -> list[list[float]]:
    """The scores of each clip's texts (``B T C H W``): probabilities of a match, or cosines."""
    objective, device = searcher.objective, device_of(searcher.objective)
    flat = [text for each in texts for text in each]
    own = torch.tensor([i for i, each in enumerate(texts) for _ in each], device=device)
    values: list[float] = []
    with inference(objective):
        seen = cast(Any, objective).see(video.to(device)) if by == "matching" else None
        vectors = None if by == "matching" else searcher.model.encode_video(video.to(device))
        for start in range(0, len(flat), batch_size):
            rows = own[start : start + batch_size]
            ids, lengths = tokenised(
                searcher.tokenizer,
                flat[start : start + batch_size],
                searcher.reads.max_length,
                start=searcher.reads.start,
            )
            if seen is not None:
                found = cast(Matcher, objective).match(seen[rows], ids.to(device), lengths.to(device)).sigmoid()
            else:
                assert vectors is not None
                told = searcher.model.encode_text(ids.to(device), lengths.to(device))
                chosen = vectors[rows]
                # Of several vectors of a video the most similar one counts.
                cosines = (chosen if chosen.ndim == 3 else chosen[:, None]) @ told[:, :, None]
                found = cosines.amax(dim=(1, 2))
            values += found.float().cpu().tolist()
    grouped, left = [], iter(values)
    for each in texts:
        grouped.append([next(left) for _ in each])
    return grouped


def kept_of(rows: Sequence[Captioned], scores: dict[str, dict[str, float]], threshold: float) -> list[Captioned]:
    """The rows with those of their captions whose score reaches the threshold; those with none are dropped."""
    kept = []
    for row in rows:
        found = scores.get(row.key, {})
        web, synthetic = (
            tuple(text for text in texts if found.get(text, -torch.inf) >= threshold)
            for texts in (row.web, row.synthetic)
        )
        if web or synthetic:
            kept.append(replace(row, web=web, synthetic=synthetic))
    return kept


def _scores_of(
    kept: Sequence[Captioned], rows: Sequence[Captioned], scores: dict[str, dict[str, float]]
) -> list[dict[str, float]]:
    """The scores of each row that is kept."""
    clips = {(row.path, row.start, row.end, text): scores.get(row.key, {}) for row in rows for text in row.texts}
    return [clips[row.path, row.start, row.end, row.texts[0]] for row in kept]


def _threshold(command: Filter, scores: dict[str, dict[str, float]]) -> float:
    """The minimum score of what is kept."""
    if command.share is None:
        return MATCHES if command.threshold is None else command.threshold
    every = sorted((value for found in scores.values() for value in found.values()), reverse=True)
    return every[max(1, round(command.share * len(every))) - 1] if every else 0.0
