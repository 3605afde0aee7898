"""Questions about a video: one, or a conversation on the terminal; words appear while they are drawn."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from filmstrip.commands.ask import Ask
from filmstrip.distributed import process
from filmstrip.distributed.ring import ring_of_all
from filmstrip.errors import UserError
from filmstrip.files import write_json
from filmstrip.nn.sampling import Sampling
from filmstrip.progress import said_by_one
from filmstrip.protocols import RingOfProcesses
from filmstrip.runs.answers import Answerer, Film, compile_decoding, load_answerer, share_decoding
from filmstrip.text.conversation import Turn
from filmstrip.text.documents import read_documents


@dataclass(frozen=True)
class Answer:
    """One question and its answer."""

    question: str
    answer: str
    seconds: float
    """Duration of answering, in seconds."""


def ask(command: Ask) -> None:
    """Answer one question about a video, or as many as are typed.

    Raises:
        UserError: the run does not answer questions, the video cannot be read, or JSON is asked for without a
            question.
    """
    if command.json and command.question is None:
        raise UserError("--json prints the answer to one question: give the question after the video")
    if command.context > 1 and command.question is None:
        raise UserError("a conversation is for one process: with --context give the question after the video")
    if command.context > 1 and command.compile:
        raise UserError("--compile is for one process: leave it out, or --context")
    with ring_of_all(command.context, "--context") as ring, said_by_one():
        _ask(command, ring)


def _ask(command: Ask, ring: RingOfProcesses | None) -> None:
    answerer = load_answerer(command.run)
    if ring is not None:
        share_decoding(answerer.objective, ring)
    if command.compile:
        compile_decoding(answerer.objective)
    if answerer.reads_text:
        _ask_of_text(answerer, command)
        return
    if not command.files:
        raise UserError("give at least one video or image, before the question")
    notes = Console(stderr=True, soft_wrap=True)
    began = time.perf_counter()
    alone = len(command.files) == 1
    films = [answerer.see(path, command.frames, alone=alone) for path in command.files]
    seeing = time.perf_counter() - began
    for film in films:
        if film.damaged:
            notes.print(f"{film.path} is damaged: the answer is from what could be read of it", highlight=False)
    if command.question is not None:
        answers = [_answer(answerer, films, command.question, [], command, shown=not command.json)]
    else:
        for film in films:
            first, last = film.span
            print(f"{film.path}: {film.num_frames} frames, {first:.1f} to {last:.1f} s, {film.num_tokens} tokens")
        answers = _converse(answerer, films, command)
    about = _about(films[0]) if alone else {"videos": [*map(_about, films)]}
    _tell(
        {"run": str(command.run), **about, "seconds_of_seeing": seeing, "answers": [*map(asdict, answers)]}, command
    )


def _ask_of_text(answerer: Answerer, command: Ask) -> None:
    """Answer one question about texts, or as many as are typed; the texts stand before the first.

    Raises:
        UserError: a file is no text.
    """
    texts = [document.text for file in command.files for document in read_documents(Path(file))]
    if command.question is not None:
        answers = [_answer(answerer, [], command.question, [], command, texts, shown=not command.json)]
    else:
        answers = _converse(answerer, [], command, texts)
    _tell({"run": str(command.run), "texts": list(command.files), "answers": [*map(asdict, answers)]}, command)


def _tell(told: dict[str, Any], command: Ask) -> None:
    """Print and write what was said, as JSON, where that is asked for."""
    if command.json:
        json.dump(told, sys.stdout, indent=2)
        print()
    if command.out is not None and process.rank() == 0:
        write_json(told, command.out)


def _about(film: Film) -> dict[str, Any]:
    return {
        "video": film.path,
        "span": list(film.span),
        "frames": film.num_frames,
        "visual_tokens": film.num_tokens,
        "damaged": film.damaged,
    }


def _converse(answerer: Answerer, films: Sequence[Film], command: Ask, texts: Sequence[str] = ()) -> list[Answer]:
    """Ask until a line is empty or input ends."""
    answers: list[Answer] = []
    history: list[Turn] = []
    while True:
        try:
            question = input("> ").strip()
        except EOFError:
            print()
            return answers
        if not question:
            return answers
        try:
            answers.append(_answer(answerer, films, question, history, command, texts, shown=True))
        except UserError as error:
            print(error)
            continue
        said = Turn("assistant", answers[-1].answer)
        history = [*answerer.turns(_asked(question, history, texts), history, visuals=len(films)), said]


def _asked(question: str, history: Sequence[Turn], texts: Sequence[str]) -> str:
    """A question as the user says it: the first one after the texts that it is about."""
    return question if history else "\n".join([*texts, question])


def _answer(
    answerer: Answerer,
    films: Sequence[Film],
    question: str,
    history: list[Turn],
    command: Ask,
    texts: Sequence[str] = (),
    *,
    shown: bool,
) -> Answer:
    began, said = time.perf_counter(), ""
    for piece in answerer.say(
        films,
        _asked(question, history, texts),
        history,
        max_tokens=command.max_tokens,
        seed=command.seed,
        sampling=Sampling(temperature=command.temperature),
    ):
        said += piece
        if shown:
            print(piece, end="", flush=True)
    if shown:
        print()
    return Answer(question, said, time.perf_counter() - began)
