"""Small LWMs that learn streams of words and of codes, drawn in memory: for claims about text with videos.

A picture is a grid of codes: a form's cells have the code of a colour, all others one code, and each cell is any code
by chance. Its caption is the two words for colour and form.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from filmstrip.models.decoder import DecoderConfig
from filmstrip.objectives.codebook import Codebook
from filmstrip.protocols import Batch
from filmstrip.systems.language.lwm import LWM, LWMConfig
from filmstrip.systems.tokenizers.vqgan import VQGANConfig
from filmstrip.train.schedules import half_cosine

START, END = 1, 2
BEGIN, CLOSE = (3, 4), (4, 3)
QUESTION, ANSWER, PLACE = 5, 6, 7
KINDS = 8
"""Number of colours, and of forms."""
COLOUR, FORM, WORD = 8, 16, 24
"""First words for colours, for forms, and of plain text."""
WORDS = 32
VOCAB = WORD + WORDS
CODES, BACKGROUND = 16, 8
"""Number of codes, of which the first are colours, and the code of a picture's background."""
WARMUP = 20


def new_model(seed: int, side: int, *, width: int = 64, depth: int = 2) -> LWM:
    """A model with fresh weights, of pictures of ``side`` by ``side`` codes, which batches bring."""
    torch.manual_seed(seed)
    tokenizer = VQGANConfig.small(codebook=Codebook(kind="learnt", size=CODES, dim=8))
    decoder = DecoderConfig(vocab_size=VOCAB, width=width, depth=depth, num_heads=4, mlp_dim=2 * width)
    return LWMConfig(
        tokenizer=tokenizer,
        num_frames=1,
        size=4 * side,
        decoder=decoder,
        placeholders=(PLACE,),
        begin=BEGIN,
        end=CLOSE,
        start=START,
    ).build()


def video() -> list[int]:
    """Where a video stands among text."""
    return [*BEGIN, PLACE, *CLOSE]


def batch_of(rows: Sequence[tuple[Sequence[int], int]], codes: Sequence[Tensor], per_frame: int) -> Batch:
    """A batch of texts, of each of which all tokens from a number on are learnt, and of the codes ``T n`` of their
    videos, with no frames for none."""
    text = torch.nn.utils.rnn.pad_sequence([torch.tensor(list(ids)) for ids, _ in rows], batch_first=True)
    length = torch.tensor([len(ids) for ids, _ in rows])
    at, given = torch.arange(text.shape[1]), torch.tensor([first for _, first in rows])
    longest = max(1, *(len(each) for each in codes))
    tokens = torch.zeros(len(rows), longest, per_frame, dtype=torch.int64)
    for row, own in zip(tokens, codes):
        row[: len(own)] = own
    return {
        "text": text,
        "text_length": length,
        "learnt": (at >= given[:, None]) & (at < length[:, None]),
        "tokens": tokens.flatten(1),
        "frames": torch.tensor([[len(each)] for each in codes]),
    }


def train(
    model: LWM, batch: Callable[[torch.Generator], Batch], *, steps: int, seed: int, rate: float = 3e-3
) -> None:
    """Steps on batches that depend on the seed alone, with a warm-up and half a cosine after it."""
    generator = torch.Generator().manual_seed(seed)
    optimiser = torch.optim.AdamW(model.decoder.parameters(), lr=rate, betas=(0.9, 0.95), weight_decay=0.1)
    model.train()
    for step in range(steps):
        loss = model(batch(generator)).total
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.decoder.parameters(), 1.0)
        for group in optimiser.param_groups:
            group["lr"] = rate * min((step + 1) / WARMUP, half_cosine(1.0, 0.0, step / steps))
        optimiser.step()
    model.eval()


@dataclass(frozen=True)
class Pictures:
    """Pictures of ``side`` by ``side`` codes, and their captions."""

    forms: Tensor
    """Whether each cell is part of each form, ``KINDS n``."""
    noise: float
    """Probability that a cell is any code."""

    @classmethod
    def drawn(cls, side: int, noise: float, generator: torch.Generator) -> Pictures:
        """Forms of half of the cells each."""
        cells = side * side
        forms = torch.stack([torch.randperm(cells, generator=generator) < cells // 2 for _ in range(KINDS)])
        return cls(forms, noise)

    def named(self, count: int, generator: torch.Generator) -> Tensor:
        """Colours and forms of pictures, ``count 2``."""
        return torch.randint(KINDS, (count, 2), generator=generator)

    def codes(self, names: Tensor, generator: torch.Generator) -> Tensor:
        """Pictures ``B 1 n`` of colours and forms ``B 2``."""
        plain = torch.where(self.forms[names[:, 1]], names[:, :1], BACKGROUND)
        any_code = torch.randint(CODES, plain.shape, generator=generator)
        is_noise = torch.rand(plain.shape, generator=generator) < self.noise
        return torch.where(is_noise, any_code, plain)[:, None]

    def caption(self, names: Tensor) -> list[int]:
        """The two words for a colour and a form, ``2``."""
        return [COLOUR + int(names[0]), FORM + int(names[1])]

    def best(self, codes: Tensor) -> Tensor:
        """The colour and the form, ``B 2``, under which pictures ``B n`` are most probable."""
        names = torch.cartesian_prod(torch.arange(KINDS), torch.arange(KINDS))
        plain = torch.where(self.forms[names[:, 1]], names[:, :1], BACKGROUND)
        return names[(codes[:, None] == plain).sum(dim=2).argmax(dim=1)]

    def pairs(self, names: Tensor, codes: Tensor, vision_first: Sequence[bool]) -> Batch:
        """A batch of pairs, with the picture or the caption first."""
        rows = []
        for own, first in zip(names, vision_first):
            words = self.caption(own)
            middle = [*video(), *words] if first else [*words, *video()]
            rows.append(([START, *middle, END], 1))
        return batch_of(rows, list(codes), codes.shape[2])


def nats_of_codes(model: LWM, batch: Batch) -> float:
    """Mean nats of a code of a batch's pictures, without the ends of frames."""
    with torch.no_grad():
        stream = model._stream_of(batch)
        target = stream.tokens[:, 1:]
        losses, _ = model.decoder.losses(model.decoder(stream.tokens[:, :-1]).hidden, target)
        is_code = (target >= model.alphabet.text) & (target < model.alphabet.eof)
        return float(losses[is_code].mean())


@dataclass(frozen=True)
class Chain:
    """Plain text in which two words may follow each: 0.693 nats a word."""

    follows: Tensor
    """The two words that may follow each, ``WORDS 2``."""

    @classmethod
    def drawn(cls, generator: torch.Generator) -> Chain:
        """A random one."""
        return cls(torch.stack([torch.randperm(WORDS, generator=generator)[:2] for _ in range(WORDS)]))

    def text(self, length: int, generator: torch.Generator) -> list[int]:
        """A text of so many words."""
        word, found = int(torch.randint(WORDS, (1,), generator=generator)), []
        for choice in torch.randint(2, (length,), generator=generator).tolist():
            found.append(WORD + word)
            word = int(self.follows[word, choice])
        return [START, *found, END]
