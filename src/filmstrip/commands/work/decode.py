"""Video decoded from tokens that ``filmstrip encode`` wrote."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path, PurePath

from torch import Tensor

from filmstrip.commands.stopping import keeping
from filmstrip.data.features import FeatureRow, FeatureSource
from filmstrip.data.kinds.encoded import IDS, TOKENIZER_LEVELS
from filmstrip.errors import UserError
from filmstrip.inference import device_of, inference
from filmstrip.progress import tracked
from filmstrip.protocols import Grid, Tokens
from filmstrip.runs.tokenizers import VideoTokenizer, load_tokenizer
from filmstrip.video import write_video

FPS = 8.0
"""Frames per second of clips without recorded times."""


def decode_files(tokenizer: str | Path | VideoTokenizer, folder: Path, out: Path, *, batch_size: int = 8) -> int:
    """Write every clip of a folder of tokens as mp4 below ``out``; clips that exist already are skipped.

    A clip plays at its original speed. Returns the number of clips written.

    Raises:
        UserError: the folder holds no tokens, another tokenizer encoded them, or they cannot be decoded.
    """
    source = FeatureSource(folder)
    level = source.about.get("level")
    if level not in TOKENIZER_LEVELS:
        raise UserError(f"{folder} holds features ({level}), which cannot be decoded: write tokens with --level ids")
    model = tokenizer if isinstance(tokenizer, VideoTokenizer) else load_tokenizer(tokenizer)
    if source.about.get("weights", model.fingerprint) != model.fingerprint:
        raise UserError(f"the tokens in {folder} were encoded by another tokenizer: give the run that encoded them")
    paths = _paths(source, out)
    left = [i for i, path in enumerate(paths) if not path.exists()]
    kept = f"{out} keeps the clips that are complete: the same command writes the others"
    with keeping(lambda: kept):
        for batch in tracked(list(_batches(source, left, batch_size)), "decoding"):
            for i, clip in zip(batch, decode_clips(model, source, batch)):
                write_video(paths[i], clip, frames_per_second(source.rows[i], len(clip)) or FPS)
    return len(left)


def decode_clips(model: VideoTokenizer, source: FeatureSource, batch: list[int]) -> Tensor:
    """The clips at the given rows of the index, which share one grid: ``B T C H W`` in 0..1, on the CPU.

    Raises:
        UserError: this tokenizer cannot decode the tokens.
    """
    device = device_of(model)
    grid, stored, lengths = source.rows[batch[0]].grid, source.read(batch).to(device), source.lengths(batch)
    tokens = Tokens(grid, lengths=None if lengths is None else lengths.to(device))
    if source.about.get("level") == IDS:
        tokens.ids = stored.flatten(1).long()
    else:
        tokens.latents = stored
    try:
        with inference(model):
            return model.decode(tokens).cpu()
    except ValueError as error:
        raise UserError(f"{source.folder}: {source.rows[batch[0]].name} cannot be decoded: {error}") from None


def _batches(source: FeatureSource, places: list[int], batch_size: int) -> Iterator[list[int]]:
    """Batches of successive clips with the same grid."""

    def grid_of(i: int) -> Grid:
        return source.rows[i].grid

    for _, group in groupby(places, key=grid_of):
        members = list(group)
        yield from (members[i : i + batch_size] for i in range(0, len(members), batch_size))


def _paths(source: FeatureSource, out: Path) -> list[Path]:
    """Output path of each clip: its video's name below ``out``, numbered if the video has several clips."""
    clips = Counter(row.name for row in source.rows)
    numbers: Counter[str] = Counter()
    paths = []
    for row in source.rows:
        name = PurePath(row.name)
        number = f"-{numbers[row.name]:03d}" if clips[row.name] > 1 else ""
        numbers[row.name] += 1
        folders = [part for part in name.parent.parts if part not in (name.anchor, "..")]
        paths.append(Path(out, *folders, f"{name.stem}{number}.mp4"))
    if len(set(paths)) < len(paths):
        twice = next(path for path, count in Counter(paths).items() if count > 1)
        raise UserError(f"two videos of {source.folder} would be written as {twice}")
    return paths


def frames_per_second(row: FeatureRow, frames: int) -> float | None:
    """The frame rate from the times of the first and the last frame; None if they are unknown."""
    if row.start is None or row.end is None or row.end <= row.start:
        return None
    return (frames - 1) / (row.end - row.start)
