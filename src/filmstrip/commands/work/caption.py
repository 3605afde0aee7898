"""Captions of videos, written by a captioner or by a language model that sees, into a table that training reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch
from rich.console import Console
from rich.text import Text
from torch import Tensor

from filmstrip.commands.caption import Caption
from filmstrip.commands.work.caption_table import (
    Captioned,
    Notes,
    check_out,
    clips_of,
    is_folder_of_files,
    reason_of,
    rows_in_folder,
    rows_of,
    write_table,
)
from filmstrip.commands.work.encode import find_source
from filmstrip.commands.work.hub_blip import load_hub_blip
from filmstrip.commands.work.search import moments_of
from filmstrip.data.config import Clip
from filmstrip.data.kinds.captioned import Captioned as CaptionedKind
from filmstrip.data.kinds.conversations import Conversations, serialiser_of
from filmstrip.errors import UserError
from filmstrip.evals.captions import AnswerWriter, Writer, writer_of
from filmstrip.inference import device_of, inference
from filmstrip.nn.decoding import Writing
from filmstrip.nn.sampling import Sampling
from filmstrip.progress import bars, counted, shown
from filmstrip.protocols import Objective
from filmstrip.runs.answers import compile_decoding
from filmstrip.runs.contents import is_run
from filmstrip.runs.loading import default_device, load_objective
from filmstrip.text.conversation import Serialiser
from filmstrip.text.tokenizers import TextTokenizer, open_tokenizer
from filmstrip.video.decode import open_video
from filmstrip.video.decoder import DecodeError
from filmstrip.weights.fingerprint import fingerprint

QUESTION = "Describe the video."
"""Question to a language model, unless another is given."""


class Describer(NamedTuple):
    """A model that writes captions, how, and of which clips."""

    objective: Objective
    writer: Writer
    clip: Clip


def caption(command: Caption) -> int:
    """Write the table of captions; returns 1 if some files could not be read, else 0.

    Raises:
        UserError: the run writes no captions, there are no videos, or the table was begun with other settings.
    """
    check_out(command.out)
    if command.number > 1 and command.temperature == 0:
        raise UserError(
            f"{command.number} captions of a clip are the same unless they are drawn: give a --temperature"
        )
    describer = load_describer(command)
    rows = find_clips(command.videos)
    about = {
        "weights": fingerprint(describer.objective),
        "writing": repr(describer.writer.writing),
        "prompt": command.prompt,
        "clip": repr(describer.clip),
        "number": command.number,
        "seconds": command.seconds,
        "seed": command.seed,
    }
    notes = Notes(command.out, about)
    console = Console(stderr=True)
    with notes.kept():
        unreadable = describe(describer, rows, notes, command, console)
        found = [written for row in rows for written in written_of(row, notes)]
        if found:
            write_table(found, command.out)
    for path, reason in unreadable:
        console.print(Text(f"not read: {path}: {reason}", "yellow"))
    if not found:
        notes.remove()
        raise UserError(
            f"none of the {len(rows)} files of {command.videos} can be read: `filmstrip data check` says why"
        )
    notes.remove()
    print(f"{command.out}: {sum(len(row.synthetic) for row in found)} captions of {len(found)} clips")
    return int(bool(unreadable))


def find_clips(path: Path) -> list[Captioned]:
    """What is to be described: all videos and images in a folder, or the clips of a manifest, or one file.

    Raises:
        UserError: there is none.
    """
    return rows_in_folder(path) if is_folder_of_files(path) else rows_of(find_source([path]), path)


def load_describer(command: Caption) -> Describer:
    """The model that the command names.

    Raises:
        UserError: it writes no captions, or not in this way.
    """
    sampling = Sampling(temperature=command.temperature, top_p=command.top_p)
    writing = Writing(
        max_tokens=command.max_tokens,
        min_tokens=command.min_tokens,
        sampling=sampling,
        repetition=command.repetition,
    )
    prompt = command.prompt
    if is_run(command.run):
        objective, run = load_objective(command.run)
        reads, clip = run.data.reads, run.data.clip
        tokenizer = open_tokenizer(Path(command.run)) if isinstance(reads, CaptionedKind | Conversations) else None
    else:
        if (loaded := load_hub_blip(command.run, writes=True)) is None:
            raise UserError(f"{command.run} is no BLIP that writes captions: give one, or a run folder")
        objective, data = loaded
        objective, reads, clip = objective.to(default_device()), data.reads, data.clip
        tokenizer = None if not isinstance(reads, CaptionedKind) else reads.tokenizer.fit((), ())
    if tokenizer is None:
        raise UserError(f"{command.run} holds a {type(objective).__name__}, which was trained without captions")
    text: TextTokenizer | Serialiser = tokenizer
    if isinstance(reads, Conversations):
        text, prompt = serialiser_of(reads, tokenizer), prompt or QUESTION
    if command.frames is not None:
        clip = replace(clip, num_frames=command.frames, sampling="uniform")
    writer = writer_of(objective, text, prompt=prompt, writing=writing, beams=command.beams)
    if command.compile:
        if not isinstance(writer, AnswerWriter):
            raise UserError(
                f"--compile is for language models, and {type(objective).__name__} is a captioner: leave it out"
            )
        compile_decoding(objective)
    return Describer(objective, writer, clip)


def describe(
    describer: Describer, rows: Sequence[Captioned], notes: Notes, command: Caption, console: Console
) -> list[tuple[str, str]]:
    """Note the captions of those rows that have none yet; returns the unreadable files, with the reason."""
    unreadable: list[tuple[str, str]] = []
    left = [(place, row) for place, row in enumerate(rows) if row.key not in notes.found]
    waiting: list[tuple[int, Captioned, list[tuple[float | None, float | None]], list[Tensor]]] = []

    def write() -> None:
        clips = [clip for *_, found in waiting for clip in found]
        # What is drawn of a clip depends on its place alone, whatever was described before.
        seeds = [command.seed + (place << 20) + (i << 8) for place, *_, found in waiting for i in range(len(found))]
        said: list[list[str]] = []
        # Frames of their own sizes are seen clip by clip.
        together = command.batch_size if describer.clip.native is None else 1
        for start in range(0, len(clips), together):
            part = slice(start, start + together)
            said += _captions(describer, torch.cat(clips[part]), torch.tensor(seeds[part]), command.number)
        for _, row, parts, found in waiting:
            own, said = said[: len(found)], said[len(found) :]
            notes.add(row.key, [[*part, texts] for part, texts in zip(parts, own)])
        waiting.clear()

    with shown(bars(console)), counted("describing", len(left)) as done:
        for number, (place, row) in enumerate(left, start=1):
            try:
                parts = _parts(row, command.seconds)
                waiting.append((place, row, parts, list(clips_of(row, describer.clip, parts))))
            except (DecodeError, OSError) as error:
                unreadable.append((row.path, reason_of(error)))
            if sum(len(found) for *_, found in waiting) >= command.batch_size or number == len(left):
                write()
            done(number)
    return unreadable


def written_of(row: Captioned, notes: Notes) -> list[Captioned]:
    """A row for each clip that was described, none for a file that cannot be read."""
    return [
        replace(row, start=start, end=end, synthetic=tuple(texts))
        for start, end, texts in notes.found.get(row.key, ())
    ]


def _captions(describer: Describer, video: Tensor, seeds: Tensor, count: int) -> list[list[str]]:
    """``count`` captions of each of the clips ``B T C H W``, which draw from ``seeds`` (``B``), without repetitions.

    Raises:
        UserError: the model sees clips of another length or size.
    """
    said: list[dict[str, None]] = [{} for _ in video]
    with inference(describer.objective):
        try:
            visual = describer.writer.see(video.to(device_of(describer.objective)))
        except ValueError as error:
            raise UserError(f"this model cannot see {video.shape[1]} frames: {error}") from None
        for number in range(count):
            for texts, text in zip(said, describer.writer.write(visual, seeds + number)):
                texts[text] = None
    return [list(texts) for texts in said]


def _parts(row: Captioned, seconds: float | None) -> list[tuple[float | None, float | None]]:
    """First and last second of each clip of a row.

    Raises:
        DecodeError, OSError: the file cannot be opened.
    """
    if seconds is None or row.start is not None or row.end is not None:
        return [(row.start, row.end)]
    with open_video(row.path) as decoder:
        return list(moments_of(decoder.info.duration, seconds))
