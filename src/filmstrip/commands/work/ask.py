"""Questions about a video: one, or a conversation on the terminal; words appear while they are drawn."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Console

from filmstrip.commands.ask import Ask
from filmstrip.data.kinds.conversations import turns_of
from filmstrip.errors import UserError
from filmstrip.files import write_json
from filmstrip.nn.sampling import Sampling
from filmstrip.runs.answers import Answerer, Film, load_answerer
from filmstrip.text.conversation import Turn


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
    answerer = load_answerer(command.run)
    notes = Console(stderr=True, soft_wrap=True)
    began = time.perf_counter()
    film = answerer.see(command.video, command.frames)
    seeing = time.perf_counter() - began
    if film.damaged:
        notes.print(f"{film.path} is damaged: the answer is from what could be read of it", highlight=False)
    if command.question is not None:
        answers = [_answer(answerer, film, command.question, [], command, shown=not command.json)]
    else:
        answers = _converse(answerer, film, command)
    told = {"run": str(command.run), **_about(film), "seconds_of_seeing": seeing, "answers": [*map(asdict, answers)]}
    if command.json:
        json.dump(told, sys.stdout, indent=2)
        print()
    if command.out is not None:
        write_json(told, command.out)


def _about(film: Film) -> dict[str, Any]:
    return {
        "video": film.path,
        "span": list(film.span),
        "frames": film.num_frames,
        "visual_tokens": film.visual.shape[1],
        "damaged": film.damaged,
    }


def _converse(answerer: Answerer, film: Film, command: Ask) -> list[Answer]:
    """Ask until a line is empty or input ends."""
    answers: list[Answer] = []
    history: list[Turn] = []
    first, last = film.span
    tokens = film.visual.shape[1]
    print(f"{film.path}: {film.num_frames} frames, {first:.1f} to {last:.1f} s, {tokens} tokens")
    while True:
        try:
            question = input("> ").strip()
        except EOFError:
            print()
            return answers
        if not question:
            return answers
        try:
            answers.append(_answer(answerer, film, question, history, command, shown=True))
        except UserError as error:
            print(error)
            continue
        history = [*turns_of(question, history), Turn("assistant", answers[-1].answer)]


def _answer(
    answerer: Answerer, film: Film, question: str, history: list[Turn], command: Ask, *, shown: bool
) -> Answer:
    began, said = time.perf_counter(), ""
    for piece in answerer.say(
        film,
        question,
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
