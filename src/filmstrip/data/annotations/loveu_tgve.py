"""The edits of LOVEU-TGVE 2023, a challenge of editing videos by text: 76 videos, with four edits of each.

    folder/LOVEU-TGVE-2023_Dataset.csv       Video name, Our GT caption, Style Change Caption, Object Change Caption,
                                             Background Change Caption, Multiple Changes Caption, Source
    folder/DAVIS_480p/480p_videos/NAME.mp4   and youtube_480p, videvo_480p

Rows of the table are in three parts, each below a row that names it ("DAVIS Videos:"). Edits with multiple changes
change several of style, object and background, so they are of type ``multi_spatial``.
"""

from __future__ import annotations

import csv
from pathlib import Path

from filmstrip.data.edits import Edit
from filmstrip.errors import UserError

LAYOUT = "loveu_tgve"
TABLE = "LOVEU-TGVE-2023_Dataset.csv"
PARTS = {"davis": "DAVIS_480p", "youtube": "youtube_480p", "videvo": "videvo_480p"}
"""Folders of the parts by the first word of the row above them."""
TYPES = {
    "Style Change Caption": "style",
    "Object Change Caption": "object",
    "Background Change Caption": "background",
    "Multiple Changes Caption": "multi_spatial",
}
"""Types of edits by the columns of their prompts."""
_NAME, _CAPTION = "Video name", "Our GT caption"


def read_loveu_tgve(path: Path) -> list[Edit]:
    """The edits of the table in a folder, or of the table itself; videos are not looked for.

    Raises:
        UserError: there is no such table, it lacks a column, or a video stands below no part; names the row.
    """
    path = Path(path).expanduser()
    table = path / TABLE if path.is_dir() else path
    if not table.is_file():
        raise UserError(f"{path} is not in the layout of LOVEU-TGVE: expected a folder with {TABLE}, or such a table")
    with table.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        names = [" ".join(name.split()) for name in reader.fieldnames or ()]
        if missing := [name for name in (_NAME, _CAPTION, *TYPES) if name not in names]:
            raise UserError(f"{table} lacks the columns {', '.join(missing)}; it has {', '.join(names)}")
        reader.fieldnames = names
        rows = list(enumerate(reader, 2))
    found, part = [], None
    for number, row in rows:
        cells = {name: " ".join((row[name] or "").split()) for name in (_NAME, _CAPTION, *TYPES)}
        name = cells[_NAME]
        if not name:
            continue
        if name.endswith(":"):
            if (part := PARTS.get(name.split()[0].lower())) is None:
                raise UserError(f"{table}, row {number}: there is no part {name!r}; expected {', '.join(PARTS)}")
            continue
        if part is None:
            raise UserError(f'{table}, row {number}: {name} stands below no part, such as "DAVIS Videos:"')
        if not cells[_CAPTION]:
            raise UserError(f"{table}, row {number}: {_CAPTION} of {name} is empty")
        video = table.parent / part / "480p_videos" / f"{name}.mp4"
        found += [
            Edit(video=video, source_prompt=cells[_CAPTION], edit_prompt=cells[column], type=kind)
            for column, kind in TYPES.items()
            if cells[column]
        ]
    if not found:
        raise UserError(f"{table} has no edits")
    return found
