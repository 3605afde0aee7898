"""A trained language model that answers questions about video files, or about text."""

from __future__ import annotations

import logging
import math
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from filmstrip.data.config import Clip
from filmstrip.data.kinds.conversations import Conversations, prompts, serialiser_of, turns_of, with_answers
from filmstrip.data.kinds.documents import Documents
from filmstrip.data.reading.views import read_views
from filmstrip.errors import UserError
from filmstrip.inference import device_of, inference, on_device, stepwise
from filmstrip.models.decoder import Decoder, LanguageModel
from filmstrip.models.video_language import Seen, Visuals
from filmstrip.protocols import Answers, Objective, RingOfProcesses, TextWriter
from filmstrip.runs.loading import load_objective
from filmstrip.text.conversation import Serialiser, Turn, timed
from filmstrip.text.tokenizers import open_tokenizer
from filmstrip.video.decode import Backend
from filmstrip.video.images import is_image

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Film:
    """What a model has seen of a video file: it is encoded once, whatever is asked."""

    path: str
    visual: Seen
    """Tokens of the language model, ``1 N D``."""
    span: tuple[float, float]
    """Times of the first and last frame, in seconds."""
    num_frames: int
    damaged: bool
    """Whether some frames were damaged, or the file ends prematurely."""

    @property
    def times(self) -> list[float]:
        """Times of its frames in seconds; none of an image."""
        return [] if is_image(self.path) else np.linspace(*self.span, self.num_frames).tolist()

    @property
    def num_tokens(self) -> int:
        """Number of tokens that were made of it."""
        return math.prod(self.visual.shape[1:-1])


class Answerer:
    """A model of a run folder, with the tokenizer, the format and the clips that it was trained with."""

    def __init__(
        self,
        objective: Objective,
        serialiser: Serialiser,
        clip: Clip,
        backend: Backend = "auto",
        *,
        images_stand_still: bool = True,
        timestamps: bool = False,
        learnt_length: int | None = None,
    ) -> None:
        """Wrap a model; images may stand still for as many frames as a video has, or be one frame, and videos' frames
        may have their times as text. Of texts longer than the ``learnt_length`` tokens of its conversations a message
        says so.

        Raises:
            UserError: it does not answer questions.
        """
        if not isinstance(objective, (Answers, TextWriter)):
            raise UserError(f"{type(objective).__name__} does not answer questions: give a run of language.*")
        self.objective = objective
        self.serialiser = serialiser
        self.clip = clip
        self.backend: Backend = backend
        self.images_stand_still, self.timestamps = images_stand_still, timestamps
        self.learnt_length = learnt_length

    @property
    def reads_text(self) -> bool:
        """Whether it reads text alone, and sees nothing."""
        return isinstance(self.objective, TextWriter)

    def turns(self, question: str, history: Sequence[Turn] = (), *, visuals: int = 1) -> list[Turn]:
        """The turns of a question after those that were said before; see
        :func:`~filmstrip.data.kinds.conversations.turns_of`."""
        return turns_of(question, history, visuals=visuals, question_first=self.serialiser.question_first)

    def see(self, path: Path | str, num_frames: int | None = None, *, alone: bool = True) -> Film:
        """Look at a file: its frames as in evaluation, or as many as are asked for, evenly over the file.

        It may be one of several that are asked about (not ``alone``).

        Raises:
            UserError: it cannot be read at all, the encoder takes another number of frames, or the model sees no
                several.
        """
        clip = self.clip
        if not isinstance(self.objective, Answers):
            raise UserError(f"{type(self.objective).__name__} reads text alone, and sees nothing")
        if not alone and not self.objective.sees_several:
            raise UserError(f"{type(self.objective).__name__} sees one image or video: give one file")
        if is_image(path) and not self.images_stand_still:
            clip = replace(clip, num_frames=1)
        elif num_frames is not None:
            clip = replace(clip, num_frames=num_frames, sampling="uniform")
        views = read_views(path, clip, backend=self.backend)
        with inference(self.objective):
            try:
                look = self.objective.see if alone else self.objective.see_among
                visual = look(views.video.to(device_of(self.objective)))
            except ValueError as error:
                raise UserError(f"this model cannot see {clip.num_frames} frames of {path}: {error}") from None
        return Film(str(path), visual, views.spans[0], clip.num_frames, views.damaged)

    def say(
        self,
        films: Film | Sequence[Film],
        question: str,
        history: Sequence[Turn] = (),
        *,
        max_tokens: int = 128,
        seed: int = 0,
        sampling: Any = None,
    ) -> Iterator[str]:
        """The answer to a question after what was said before, in pieces that end with whole words.

        It is about a film, or about several, which stand in front of it unless it says where each stands; a language
        model of text is given none.

        Without ``sampling`` the most probable words are taken.

        Raises:
            UserError: the question has a placeholder that is not known.
        """
        films = films if isinstance(films, Sequence) else [films]
        turns = self.turns(question, history, visuals=len(films))
        if isinstance(self.objective, TextWriter):
            asked = on_device(prompts(self.serialiser, [turns]), device_of(self.objective))
            if self.learnt_length is not None and (length := asked["text"].shape[1]) > self.learnt_length:
                log.warning("this takes %d tokens, and the model learnt from up to %d", length, self.learnt_length)
            written = self.objective.write_on(asked, count=max_tokens, seed=seed, sampling=sampling)
            yield from self._words(written)
            return
        prompt = prompts(
            self.serialiser, [timed(turns, [film.times for film in films]) if self.timestamps else turns]
        )
        visual = films[0].visual
        if len(films) > 1:
            visual = Visuals.joined([film.visual for film in films], apart=self.timestamps)
        asked = on_device(prompt, visual.device)
        yield from self._words(self.objective.answer(visual, asked, count=max_tokens, seed=seed, sampling=sampling))

    def _words(self, drawn: Iterator[Tensor]) -> Iterator[str]:
        """The text of ids that are drawn one by one, in pieces that end with whole words, up to the stop."""
        ids: list[int] = []
        told, stop = 0, self.serialiser.stop
        for token in stepwise(self.objective, iter(drawn)):
            ids.append(int(token))
            if tuple(ids[-len(stop) :]) == stop:
                break
            text = self.serialiser.decode(_without_begun(ids, stop))
            whole = max((match.end() for match in re.finditer(r"\S+(?=\s)", text)), default=0)
            if whole > told:
                yield text[told:whole]
                told = whole
        if rest := self.serialiser.decode(ids)[told:]:
            yield rest

    def likelihood(self, film: Film, question: str, answers: Sequence[str]) -> Tensor:
        """The mean log-likelihood of a token of each answer to a question."""
        assert isinstance(self.objective, Answers), "a film has been seen"
        turns = self.turns(question)
        batch = on_device(with_answers(self.serialiser, [turns] * len(answers), answers), film.visual.device)
        with inference(self.objective):
            seen = film.visual.expand(len(answers), *film.visual.shape[1:])
            total, count = self.objective.score(seen, batch)
        return total / count


def _without_begun(ids: list[int], stop: tuple[int, ...]) -> list[int]:
    """Ids without an end that may turn out to be the beginning of the stop."""
    for n in range(min(len(stop) - 1, len(ids)), 0, -1):
        if tuple(ids[-n:]) == stop[:n]:
            return ids[:-n]
    return ids


def load_answerer(folder: Path, device: torch.device | str | None = None) -> Answerer:
    """The model of a run folder.

    Raises:
        UserError: this is no run folder of a model that answers questions.
    """
    objective, run = load_objective(folder, device)
    reads = run.data.reads
    if isinstance(reads, Documents):
        raise UserError(
            f"{folder} was trained on documents, in which nobody asks: `filmstrip generate {folder} --text ...` goes "
            "on with a text, and training on conversations makes it answer (--data.reads conversations, --init)"
        )
    if not isinstance(objective, (Answers, TextWriter)) or not isinstance(reads, Conversations):
        raise UserError(f"{folder} holds a {type(objective).__name__}, which does not answer questions")
    tokenizer = open_tokenizer(folder)
    if isinstance(objective, TextWriter):  # nothing of a text that is asked about is cut
        serialiser = Serialiser(tokenizer, reads.format)
        return Answerer(objective, serialiser, run.data.clip, learnt_length=reads.max_length)
    return Answerer(
        objective,
        serialiser_of(reads, tokenizer),
        run.data.clip,
        run.data.backend,
        images_stand_still=reads.visuals == 1,
        timestamps=reads.timestamps,
    )


def share_decoding(model: nn.Module, ring: RingOfProcesses) -> None:
    """Let the language models within ``model`` share what they read, and remember, among the processes of a ring.

    Raises:
        UserError: there is none that can.
    """
    decoders = [part for part in model.modules() if isinstance(part, LanguageModel)]
    if not decoders or any(type(part) is not Decoder for part in decoders):
        raise UserError(
            f"the language model of {type(model).__name__} remembers what it has read in a way of its own, which "
            "processes cannot share: leave out --context"
        )
    for decoder in decoders:
        decoder.ring = ring


def compile_decoding(model: nn.Module) -> None:
    """Let the language models within ``model`` decode by compiled steps from now on.

    Raises:
        UserError: there is none whose steps can be compiled, or no compiler.
    """
    decoders = [part for part in model.modules() if isinstance(part, Decoder)]
    if not decoders:
        raise UserError(
            f"{type(model).__name__} has no language model whose steps can be compiled: leave out --compile"
        )
    compilers = [name for name in (os.environ.get("CXX"), "g++", "clang++") if name]
    if decoders[0].embed.weight.device.type == "cpu" and not any(map(shutil.which, compilers)):
        raise UserError(
            f"compiling needs a compiler of C++ ({' or '.join(compilers)}): install one, or leave out --compile"
        )
    for decoder in decoders:
        decoder.steps = "compiled"
