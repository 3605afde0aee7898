"""Needles in long videos: colours of odd things that a language model that sees finds, by length and depth."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple, cast

import numpy as np
import torch
from torch import Tensor

from filmstrip.data.kinds.conversations import ConversationSample, ConversationSource, prompts
from filmstrip.data.reading.order import derive_seed
from filmstrip.data.synthetic.haystack_videos import COLOURS, HaystackVideos, OddThing, answer, found, question
from filmstrip.errors import UserError
from filmstrip.evals.answers import answers, asked_of, model_of
from filmstrip.evals.needle_grid import Cell
from filmstrip.inference import on_device
from filmstrip.protocols import Batch
from filmstrip.runs.evaluation import Subject
from filmstrip.text.conversation import Serialiser, Turn

CHANCE = 1 / len(COLOURS)
"""Share of the colours that a guess finds."""
_SPLIT = "needles"


class Found(NamedTuple):
    """What a model finds at each place of the grid, with the videos and without, and the right answers would."""

    shares: dict[str, float]
    blind: float
    oracle: float


def haystack(cell: Cell, *, needles: int, asked: int, size: int = 64) -> HaystackVideos:
    """The videos of a place of the grid.

    Raises:
        UserError: they are too short for as many things.
    """
    scenes = cell.length // HaystackVideos.scene_frames
    if scenes < needles:
        raise UserError(
            f"{needles} odd things take {HaystackVideos.scene_frames} frames each, and a video is to have "
            f"{cell.length}: give longer videos (--lengths), or fewer things (--needles)"
        )
    return HaystackVideos(scenes=scenes, needles=needles, asked=asked, depth=cell.depth, size=size)


def find(
    subject: Subject, cells: Sequence[Cell], *, rounds: int, needles: int, asked: int, seed: int, batch_size: int
) -> Found:
    """Ask a model about videos that are drawn anew, so many at each place of the grid, as real files.

    Raises:
        UserError: it does not answer, or a video is too short for as many things.
    """
    model = model_of(subject)
    source = cast(ConversationSource, subject.source)
    example = source.samples[0]
    assert isinstance(example, ConversationSample), "of which the source was made"
    size = max(32, subject.data.clip.size // 2 * 2)
    things: dict[str, list[OddThing]] = {}
    with tempfile.TemporaryDirectory() as folder:
        samples: list[ConversationSample] = []
        for cell in cells:
            videos = haystack(cell, needles=needles, asked=asked, size=size)
            for number in range(rounds):
                rng = np.random.default_rng(derive_seed("video needles", seed, cell.name, number))
                path = Path(folder) / f"{len(samples)}.mp4"
                hidden = videos.hide(rng)
                videos.write(path, hidden, rng)
                things[str(path)] = hidden[:asked]
                samples.append(_sample(example, path, hidden[:asked], cell))
        drawn = replace(source, root=Path(folder), samples=tuple(samples))

        def judged(batch: Batch, rows: Sequence[ConversationSample], serialiser: Serialiser) -> list[Tensor]:
            shown = on_device(prompts(serialiser, [row.dialogue.turns[:-1] for row in rows]), subject.device)
            truth = [things[row.path] for row in rows]
            most = max(len(serialiser.answer(answer(each))) for each in truth) + 8
            visual = model.watch(batch)
            return [
                torch.tensor([np.mean(found(own, each)) for own, each in zip(said, truth)], dtype=torch.float64)
                for seen in (visual, visual * 0)
                for said in [answers(model, seen, shown, serialiser, count=most)]
            ]

        names, values = asked_of(replace(subject, source=drawn), judged, _SPLIT, batch_size, None)
    of_cell = {name: torch.tensor([one == name for one in names]) for name in dict.fromkeys(names)}
    shares = {name: float(values[""][own].mean()) for name, own in of_cell.items()}
    read = [source.serialiser.decode(source.serialiser.answer(answer(each))) for each in things.values()]
    oracle = [np.mean(found(said, each)) for said, each in zip(read, things.values())]
    return Found(shares, float(values["blind/"].mean()), float(np.mean(oracle)))


def _sample(example: ConversationSample, path: Path, asked: Sequence[OddThing], cell: Cell) -> ConversationSample:
    """A question about a video, of which a model is told as of its own data."""
    turns = (Turn("user", f"<video>\n{question(asked)}"), Turn("assistant", answer(asked)))
    told = replace(
        example.dialogue,
        name=path.name,
        visuals=(str(path),),
        turns=turns,
        split=_SPLIT,
        kind=cell.name,
        options=(),
        start=None,
        end=None,
    )
    return replace(
        example,
        path=str(path),
        name=path.name,
        group=path.name,
        split=_SPLIT,
        start=None,
        end=None,
        dialogue=told,
        files=(str(path),) if example.several else (),
        sizes=(example.serialiser.visual_tokens,) if example.sizes else (),
    )
