"""Anticipation in a video: what will be touched after each of several moments, listed and drawn."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from rich.console import Console
from rich.table import Table
from torch import Tensor

from filmstrip.commands.anticipate import Anticipate
from filmstrip.commands.work.detect import SHORT_SIDE
from filmstrip.data.kinds.contacts import ContactInfo, clip_until
from filmstrip.data.reading.views import opened
from filmstrip.errors import UserError
from filmstrip.inference import device_of, inference
from filmstrip.progress import counted, tracked
from filmstrip.protocols import ContactForecaster, Objective
from filmstrip.runs.config import Run
from filmstrip.runs.loading import load_data_info, load_objective
from filmstrip.video.decode import Backend, open_video
from filmstrip.video.decoder import Request
from filmstrip.video.write import Mp4File, write_video

COLOURS = ((200, 60, 40), (40, 100, 190), (30, 130, 70), (150, 80, 170), (170, 110, 20))
"""Colours of a moment's contacts, the best one first."""


@dataclass(frozen=True)
class Expected:
    """One contact that is expected."""

    box: tuple[float, ...]
    """Left, top, right, bottom, as fractions of the frame."""
    noun: str
    verb: str
    seconds: float
    """Time from the moment to the contact, in seconds."""
    score: float


def anticipate(command: Anticipate) -> None:
    """Print the contacts that are expected after each moment, as text or JSON, and draw them into ``out``.

    Raises:
        UserError: the run anticipates no contacts, the file cannot be read or ends before a moment, or ``out`` cannot
            be written.
    """
    objective, run = load_objective(command.run)
    info = load_data_info(command.run)
    if not isinstance(objective, ContactForecaster) or not isinstance(info, ContactInfo):
        raise UserError(
            f"{command.run} holds a {type(objective).__name__}, which anticipates no contacts: give a run of "
            "detection.next_contact"
        )
    found = expected(objective, run, info, command.video, at=command.at, every=command.every, top_k=command.top_k)
    found = {
        moment: [contact for contact in contacts if contact.score >= command.min_score]
        for moment, contacts in found.items()
    }
    if command.out is not None:
        with counted("drawing"):
            draw(command.video, found, command.out, backend=run.data.backend)
    if command.json:
        moments = [_as_json(moment, contacts) for moment, contacts in found.items()]
        json.dump({"run": str(command.run), "path": str(command.video), "moments": moments}, sys.stdout, indent=2)
        print()
        return
    Console().print(_table(found))
    if command.out is not None:
        print(command.out)


def expected(
    objective: Objective,
    run: Run,
    info: ContactInfo,
    file: Path,
    *,
    at: Sequence[float] = (),
    every: float = 1.0,
    top_k: int = 5,
) -> dict[float, list[Expected]]:
    """The contacts that are expected after each moment of a file, the best ones first.

    Raises:
        UserError: the file cannot be read, or ends before a moment.
    """
    assert isinstance(objective, ContactForecaster), "checked by the caller"
    clip, device, result = run.data.clip, device_of(objective), {}
    with opened(file, run.data.backend) as decoder:
        video = decoder.info
        last = max(0.0, video.duration - 1 / video.fps)
        moments = sorted(at) or [*np.arange(every, last, every).tolist(), last]
        if moments[-1] >= video.duration:
            raise UserError(f"{file} lasts {video.duration:g} s, and --at asks for {moments[-1]:g} s")
        for moment in tracked(moments, "looking", total=len(moments)):
            times = clip_until(video, moment, clip)
            (frames,) = decoder.read([Request(times, None, (clip.size, clip.size))])
            with inference(objective):
                contacts = objective.next_contacts(frames.video[None].to(device))
            rows = zip(*(part[0, :top_k].tolist() for part in contacts))
            result[round(moment, 6)] = [
                Expected(tuple(box), info.classes[noun], info.verbs[verb], seconds, score)
                for box, noun, verb, seconds, score in rows
                if score > 0
            ]
    return result


def draw(file: Path, found: dict[float, list[Expected]], out: Path, *, backend: Backend = "auto") -> None:
    """Write a file with the contacts of each moment drawn in, from that moment to the next one.

    Raises:
        UserError: the file cannot be read, or the output format is unknown.
    """
    with open_video(file, backend=backend) as decoder:
        info = decoder.info
        larger = max(1, round(SHORT_SIDE / min(info.height, info.width)))
        size = (larger * info.height, larger * info.width)
        pieces = (
            torch.stack([_drawn(frame, float(t), found) for frame, t in zip(part.video, part.times)])
            for part in decoder.frames(0.0, info.duration, size=size)
        )
        if out.suffix.lower() == ".mp4":
            with Mp4File(out, info.fps) as mp4:
                for piece in pieces:
                    mp4.add(piece)
        else:
            write_video(out, torch.cat(list(pieces)), info.fps)


def _drawn(frame: Tensor, second: float, found: dict[float, list[Expected]]) -> Tensor:
    """A frame (``C H W`` uint8) with what was expected at the last moment before it."""
    moment = max((moment for moment in found if moment <= second + 1e-3), default=None)
    if moment is None:
        return frame
    image = Image.fromarray(frame.permute(1, 2, 0).contiguous().numpy())
    pen, (height, width) = ImageDraw.Draw(image), frame.shape[1:]
    text = max(10, height // 28)
    font = ImageFont.load_default(text)
    for contact, colour in zip(reversed(found[moment]), reversed(COLOURS[: len(found[moment])])):
        left, top, right, bottom = (side * n for side, n in zip(contact.box, (width, height) * 2))
        pen.rectangle(
            (left, top, max(left, right - 1), max(top, bottom - 1)), outline=colour, width=max(2, text // 6)
        )
        left_over = contact.seconds - (second - moment)
        line = f"{contact.verb} {contact.noun} {left_over:.1f} s"
        y = top - text - 2 if top >= text + 2 else min(bottom, height - text - 2)
        x = min(left, max(0.0, width - pen.textlength(line, font=font) - 4))
        pen.rectangle((x, y, x + pen.textlength(line, font=font) + 3, y + text + 1), fill=colour)
        pen.text((x + 2, y), line, fill="white", font=font)
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


def _as_json(moment: float, contacts: Sequence[Expected]) -> dict[str, Any]:
    rows = [
        {
            "box": [round(side, 4) for side in contact.box],
            "noun": contact.noun,
            "verb": contact.verb,
            "seconds": round(contact.seconds, 3),
            "score": round(contact.score, 4),
        }
        for contact in contacts
    ]
    return {"second": moment, "contacts": rows}


def _table(found: dict[float, list[Expected]]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0))
    for head in ("at", "will be touched", "by", "in", "box", "score"):
        table.add_column(head)
    for moment, contacts in found.items():
        if not contacts:
            table.add_row(f"{moment:.2f} s", "nothing")
        for contact in contacts:
            box = " ".join(f"{side:.2f}" for side in contact.box)
            seconds, score = f"{contact.seconds:.2f} s", f"{contact.score:.0%}"
            table.add_row(f"{moment:.2f} s", contact.noun, contact.verb, seconds, box, score)
    return table
