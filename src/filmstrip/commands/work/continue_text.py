"""Text that a trained language model continues."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch

from filmstrip.bounds import Count, Seed, check_numbers
from filmstrip.distributed import process
from filmstrip.distributed.ring import ring_of_all
from filmstrip.errors import UserError
from filmstrip.files import write_text
from filmstrip.inference import device_of, on_device, stepwise
from filmstrip.nn.sampling import Sampling
from filmstrip.progress import said_by_one
from filmstrip.protocols import RingOfProcesses, TextWriter
from filmstrip.runs.answers import share_decoding
from filmstrip.runs.loading import load_objective
from filmstrip.text.tokenizers import TextTokenizer, open_tokenizer


@dataclass(frozen=True, kw_only=True)
class TextRequest:
    """The options of ``filmstrip generate`` for a language model of text."""

    text: str = ""
    """Text to continue; without it a document begins."""
    tokens: Count = 128
    """Maximum number of tokens that are added."""
    num_samples: Count = 1
    """Number of texts."""
    seed: Seed = 0
    """Base seed; text i depends on seed + i only."""
    sampling: Sampling = field(default_factory=Sampling)
    """Drawing of tokens; temperature 0 takes the most probable ones."""
    context: Count = 1
    """Number of processes that share the tokens of what is read, and the memory for them; torchrun starts as many."""
    out: Path | None = None
    """File to write the texts to, too, a line between them."""

    def __post_init__(self) -> None:
        check_numbers(self)


def continue_text(folder: Path, request: TextRequest) -> int:
    """Print texts, words as soon as they are drawn; returns 0.

    Raises:
        UserError: there is nothing to begin with: no text, and a tokenizer without a start; or other processes than
            the ``context`` has.
    """
    with ring_of_all(request.context, "--context") as ring, said_by_one():
        return _continue(folder, request, ring)


def _continue(folder: Path, request: TextRequest, ring: RingOfProcesses | None) -> int:
    objective, _ = load_objective(folder)
    assert isinstance(objective, TextWriter), "seen to by continues_text"
    if ring is not None:
        share_decoding(objective, ring)
    tokenizer = open_tokenizer(folder)
    begun = [] if tokenizer.start is None else [tokenizer.start]
    begun += tokenizer.encode(request.text) if request.text else []
    if not begun:
        raise UserError("this model's texts have no start: give a text to continue (--text)")
    prompt = {"text": torch.tensor([begun]), "text_length": torch.tensor([len(begun)])}
    prompt = on_device(prompt, device_of(objective))
    whole = []
    for number in range(request.num_samples):
        drawn = objective.write_on(
            prompt, count=request.tokens, seed=request.seed + number, sampling=request.sampling
        )
        said = request.text
        print("\n" * bool(number) + said, end="", flush=True)
        for piece in _pieces(stepwise(objective, drawn), tokenizer, begun):
            print(piece, end="", flush=True)
            said += piece
        print()
        whole.append(said)
    if request.out is not None and process.rank() == 0:
        write_text("\n\n".join(whole) + "\n", request.out)
    return 0


def _pieces(drawn: Iterator[torch.Tensor], tokenizer: TextTokenizer, begun: list[int]) -> Iterator[str]:
    """What is added to a text, in pieces that end with whole characters."""
    ids = list(begun)
    told = len(tokenizer.decode(ids))
    for token in drawn:
        if int(token) == tokenizer.end:
            return
        ids.append(int(token))
        now = tokenizer.decode(ids)
        if len(now) > told and not now.endswith("\ufffd"):  # the beginning of a character
            yield now[told:]
            told = len(now)
