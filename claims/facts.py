"""Texts with facts that a small language model can only know from the text itself, at any length.

A fact is one word that gives a number to a name, drawn anew for each text and said once; later the text asks for it,
from any distance. Between facts stand words of which each follows from the two before it, up to two choices: what is
near has to be told apart by its exact place.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from filmstrip.models.decoder import DecoderConfig
from filmstrip.objectives.text import TextModel, TextModelConfig

NAMES, NUMBERS, WORDS = 32, 8, 12
ASK, END = 2, 1
"""The first id of questions, one for each name, and that of an end; 0 is padding."""
NUMBER = ASK + NAMES
WORD = NUMBER + NUMBERS
FACT = WORD + WORDS
"""The first ids of numbers, of words, and of facts, one for each name and number."""
VOCAB = FACT + NAMES * NUMBERS
APART, ASKED = 12, 0.15
"""Places of a text for each of its facts, and the share of places at which it asks for one."""
BASE, TOKENS, RATE = 10_000.0, 2048, 3e-3
"""Rotary base, tokens of a step, and learning rate, if nothing else is said."""


@dataclass(frozen=True)
class Language:
    """The two words that may follow each pair of words, ``WORDS WORDS 2``."""

    follows: np.ndarray

    @classmethod
    def drawn(cls, seed: int) -> Language:
        """A random one."""
        return cls(np.random.default_rng(seed).integers(WORDS, size=(WORDS, WORDS, 2)))

    def text(self, rng: np.random.Generator, length: int, asked: float = ASKED) -> tuple[list[int], list[int]]:
        """A text of so many tokens, and for each that answers a question how far back the fact is; 0 for others."""
        count = min(NAMES, max(1, length // APART))
        names, numbers = rng.permutation(NAMES)[:count].tolist(), rng.integers(NUMBERS, size=count).tolist()
        places = [*sorted(rng.choice(length, count, replace=False).tolist()), length]
        chances, picks = rng.random((length, 2)), rng.integers((WORDS, 2), size=(length, 2))
        ids: list[int] = []
        back: list[int] = []
        said: list[int] = []
        before, last = -1, -1
        while (at := len(ids)) < length:
            if at >= places[len(said)]:
                ids.append(FACT + names[len(said)] * NUMBERS + numbers[len(said)])
                back.append(0)
                said.append(at)
                last = -1
            elif said and chances[at, 0] < asked:
                one = int(chances[at, 1] * len(said))
                ids += [ASK + names[one], NUMBER + numbers[one]]
                back += [0, at - said[one]]
                last = -1
            else:
                known = before >= 0 and last >= 0
                before, last = last, int(self.follows[before, last, picks[at, 1]] if known else picks[at, 0])
                ids.append(WORD + last)
                back.append(0)
                continue
            before = -1
        return ids[:length], back[:length]

    def texts(self, rng: np.random.Generator, count: int, length: int) -> tuple[Tensor, Tensor]:
        """Several texts, and how far back the fact is that each token is about, both ``count length``."""
        ids, back = zip(*(self.text(rng, length) for _ in range(count)))
        return torch.tensor(ids), torch.tensor(back)


def learner(seed: int, **decoder: object) -> TextModel:
    """A new small model, whose matrices begin with the deviation that suits its width: 0.02 is that of thousands."""
    torch.manual_seed(seed)
    sizes = {"vocab_size": VOCAB, "width": 64, "depth": 2, "num_heads": 4, "mlp_dim": 128, "rope_base": BASE}
    model = TextModelConfig(decoder=DecoderConfig(**{**sizes, **decoder})).build()  # type: ignore[arg-type]
    for weight in model.parameters():
        if weight.ndim == 2:
            nn.init.normal_(weight, std=weight.shape[1] ** -0.5)
    return model


def changed(model: TextModel, **decoder: object) -> TextModel:
    """A copy of a model with other positions."""
    copy = replace(model.config, decoder=replace(model.config.decoder, **decoder)).build()  # type: ignore[arg-type]
    copy.load_state_dict(model.state_dict())
    return copy.eval()


def rows(language: Language, seed: int, length: int) -> Callable[[], dict[str, Tensor]]:
    """Draws texts of one length, as many as a step has tokens for."""
    rng = np.random.default_rng(seed)

    def draw() -> dict[str, Tensor]:
        text, _ = language.texts(rng, TOKENS // length, length)
        return {"text": text, "learnt": torch.ones_like(text, dtype=torch.bool)}

    return draw


def learn(model: TextModel, draw: Callable[[], dict[str, Tensor]], steps: int, rate: float = RATE) -> TextModel:
    """Train a model in place on what is drawn for each step, at a constant rate, as the paper's stages do."""
    optimiser = torch.optim.AdamW(model.parameters(), lr=rate, betas=(0.9, 0.95), weight_decay=0.1)
    model.train()
    for step in range(steps):
        optimiser.param_groups[0]["lr"] = rate * min(1, (step + 1) / 20)
        optimiser.zero_grad()
        model(draw()).total.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
    return model.eval()


def losses(model: TextModel, text: Tensor) -> Tensor:
    """Nats of every token of texts ``B L`` but the first: ``B L-1``."""
    parts = text.split(max(1, 8 * TOKENS // text.shape[1]))
    told = [{"text": part, "learnt": torch.ones_like(part, dtype=torch.bool)} for part in parts]
    return torch.cat([model.text_losses(batch)[0] for batch in told])
