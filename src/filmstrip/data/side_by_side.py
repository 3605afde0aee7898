"""Edited films of one edit beside one another: read in one shape, and written as one film with names above."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from einops import repeat
from torch import Tensor
from torch.nn import functional as F

from filmstrip.data.augment.levels import to_levels
from filmstrip.data.edited_films import SOURCE, TARGET, EditedFilm
from filmstrip.protocols import as_float
from filmstrip.video.decode import open_video, read_video
from filmstrip.video.headings import with_heading
from filmstrip.video.write import write_video

FOLDER = "side_by_side"
"""Folder of the films with all methods beside one another."""
HEADS = {SOURCE: "source", TARGET: "true edit"}
"""Headings of films that no method made."""
NARROWEST = 160
"""Minimum width of one method's film, in pixels: smaller ones are enlarged."""


def by_edit(edited: Sequence[EditedFilm]) -> dict[int, dict[str, EditedFilm]]:
    """The films of each edit by their methods."""
    found: dict[int, dict[str, EditedFilm]] = {}
    for film in edited:
        found.setdefault(film.number, {})[film.method] = film
    return found


def write_side_by_side(folder: Path, of_edit: Mapping[str, EditedFilm], methods: Sequence[str]) -> Path:
    """Write the source, the true edit if it is known, and the edits of one film beside one another, with their names
    and, above them, what was asked.

    Raises:
        DecodeError: a film cannot be read.
    """
    columns = columns_of([of_edit], methods)
    named = [
        with_heading(_enlarged(film), HEADS.get(name, name))
        for name, film in zip(columns, read_films(of_edit, columns))
    ]
    film = next(iter(of_edit.values()))
    whole = with_heading(torch.cat(named, dim=-1), f"{film.type.replace('_', '-')}: {film.edit_prompt}")
    path = folder / FOLDER / f"{film.number:05d}.mp4"
    write_video(path, whole, rate_of(of_edit))
    return path


def columns_of(edits: Sequence[Mapping[str, EditedFilm]], methods: Sequence[str]) -> list[str]:
    """What stands beside one another: the true edit only where one of the edits has it."""
    known = any(film.target is not None for of_edit in edits for film in of_edit.values())
    return [SOURCE, *([TARGET] if known else []), *methods]


def read_films(of_edit: Mapping[str, EditedFilm], columns: Sequence[str]) -> list[Tensor]:
    """The films of one edit, ``T 3 H W`` uint8 of one shape, the largest; one that is not there is black."""
    film = next(iter(of_edit.values()))
    places = {method: of.film for method, of in of_edit.items()} | {SOURCE: film.source}
    if film.target is not None:
        places[TARGET] = film.target
    found = {name: read_video(places[name]).video for name in columns if name in places}
    length = min(len(video) for video in found.values())
    size = max((tuple(video.shape[-2:]) for video in found.values()), key=math.prod)
    black = torch.zeros(length, 3, *size, dtype=torch.uint8)
    return [_resized(found[name][:length], size) if name in found else black for name in columns]


def _resized(video: Tensor, size: tuple[int, ...]) -> Tensor:
    if video.shape[-2:] == size:
        return video
    return to_levels(F.interpolate(as_float(video), size, mode="bilinear", antialias=True))


def _enlarged(video: Tensor) -> Tensor:
    """A small video with each pixel as a square of some, and even sides, as mp4 wants them."""
    times = -(-NARROWEST // video.shape[-1])
    larger = repeat(video, "t c h w -> t c (h a) (w b)", a=times, b=times)
    return F.pad(larger, (0, larger.shape[-1] % 2, 0, larger.shape[-2] % 2))


def rate_of(of_edit: Mapping[str, EditedFilm]) -> float:
    """Frames per second of an edit's source."""
    with open_video(next(iter(of_edit.values())).source) as decoder:
        return decoder.info.fps or 1.0
