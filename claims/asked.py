"""Frames of cells that hold coloured squares, questions about them, and how small language models that see learn to
answer these."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange, reduce
from torch import Tensor, nn

from filmstrip.data.kinds.conversations import prompts
from filmstrip.data.synthetic.narration import COLOURS
from filmstrip.evals.answers import answers, normalised
from filmstrip.models.connectors import ConnectorConfig, TokenwiseMlp
from filmstrip.models.decoder import Decoder, DecoderConfig
from filmstrip.nn.initialisation import init_linear
from filmstrip.objectives.language import VideoLanguage, VideoLanguageConfig
from filmstrip.objectives.teachers import ImageTowerConfig
from filmstrip.protocols import Batch, Grid
from filmstrip.text.conversation import Serialiser, Turn
from filmstrip.text.tokenizers import Words

PATCH, SIDE = 8, 3
SIZE = SIDE * PATCH
COLOUR, NONE = tuple(COLOURS), len(COLOURS)
"""Colours by their numbers, and the number of a cell that holds nothing."""
GREY, NOISE = 110, 8
WAYS = {"left": (0, -1), "right": (0, 1), "up": (-1, 0), "down": (1, 0)}
"""Rows and columns that a square moves by."""
WIDTH, BATCH = 64, 32
ENCODER_STEPS, ENCODER_RATE, WORD_STEPS, WORD_RATE, RATE = 100, 3e-3, 100, 3e-3, 1e-3
Model = TypeVar("Model", bound=VideoLanguage)


class Asked(NamedTuple):
    """A question about one of several clips."""

    clip: int
    """Number of the clip."""
    kind: str
    question: str
    """What is asked; the video stands before it, unless it says where (``<video>``)."""
    answer: str


class Told(NamedTuple):
    """Clips ``N T 3 H W`` uint8, and questions about them."""

    clips: Tensor
    asked: list[Asked]


def render(cells: np.ndarray, rng: np.random.Generator, *, still: bool = False) -> Tensor:
    """Clips ``N T 3 H W`` uint8 of cells ``N T h w``: numbers of colours, of which each fills a patch, with noise.

    The noise is another one in each frame unless it stands ``still``.
    """
    table = np.array([*COLOURS.values(), (GREY, GREY, GREY)], dtype=np.float32)
    frames = table[cells].repeat(PATCH, axis=2).repeat(PATCH, axis=3)
    shape = (len(frames), 1, *frames.shape[2:]) if still else frames.shape
    noisy = frames + NOISE * rng.standard_normal(shape, dtype=np.float32)
    return torch.from_numpy(noisy.round().clip(0, 255).astype(np.uint8)).movedim(-1, 2)


class MeanOfFrames(TokenwiseMlp):
    """The mean over the frames of each place's token, through two layers: ``h*w`` tokens."""

    def num_tokens(self, grid: Grid) -> int:
        """Number of tokens of a clip."""
        return grid.h * grid.w

    def forward(self, tokens: Tensor, grid: Grid) -> Tensor:
        """``B t*h*w C`` to ``B h*w D``."""
        return self.layers(reduce(tokens, "b (t n) c -> b n c", "mean", t=grid.t))


class PooledFrames(TokenwiseMlp):
    """The mean of each 2 x 2 tokens of a frame, through two layers: a quarter of the tokens."""

    def num_tokens(self, grid: Grid) -> int:
        """Number of tokens of a clip."""
        return grid.t * (grid.h // 2) * (grid.w // 2)

    def forward(self, tokens: Tensor, grid: Grid) -> Tensor:
        """``B t*h*w C`` to ``B t*h/2*w/2 D``."""
        maps = rearrange(tokens, "b (t h w) c -> b t h w c", t=grid.t, h=grid.h)
        return self.layers(reduce(maps, "b t (h p) (w q) c -> b (t h w) c", "mean", p=2, q=2))


@dataclass(frozen=True, kw_only=True)
class MeanOfFramesConfig(ConnectorConfig):
    """The mean of the frames."""

    def build(self, visual_width: int, width: int) -> MeanOfFrames:
        """Build the connector with fresh weights."""
        return MeanOfFrames(visual_width, width, depth=2)


@dataclass(frozen=True, kw_only=True)
class PooledFramesConfig(ConnectorConfig):
    """Pooling of each frame."""

    def build(self, visual_width: int, width: int) -> PooledFrames:
        """Build the connector with fresh weights."""
        return PooledFrames(visual_width, width, depth=2)


def moves(count: int, frames: int, side: int, seed: int) -> tuple[Told, np.ndarray]:
    """Videos of one square that crosses the frame, evenly from edge to edge, in any row or column.

    And two questions about each, which way it moves and what colour it has; and their cells ``N T side side``.
    """
    rng = np.random.default_rng((seed, frames))
    cells = np.full((count, frames, side, side), NONE)
    asked, steps = [], np.linspace(0, side - 1, frames).round().astype(int)[:, None]
    for i, video in enumerate(cells):
        colour, way = int(rng.integers(len(COLOUR))), list(WAYS)[int(rng.integers(len(WAYS)))]
        start = np.select([np.array(WAYS[way]) > 0, np.array(WAYS[way]) < 0], [0, side - 1], rng.integers(side))
        rows, columns = (start + steps * np.array(WAYS[way])).T
        video[np.arange(frames), rows, columns] = colour
        asked += [
            Asked(i, "way", "where does it move?", way),
            Asked(i, "colour", "what colour is it?", COLOUR[colour]),
        ]
    return Told(render(cells, rng), asked), cells


def encoder_config(num_frames: int, *, size: int = SIZE) -> ImageTowerConfig:
    """A small transformer of each frame alone."""
    return ImageTowerConfig(
        width=WIDTH,
        depth=1,
        num_heads=4,
        num_frames=num_frames,
        size=size,
        patch_size=PATCH,
        pool="none",
        linear_init="glorot",
    )


def decoder_config(serialiser: Serialiser, **settings: object) -> DecoderConfig:
    """A language model of two layers for the words of a serialiser, which begins with weights for its width."""
    sizes = {"width": WIDTH, "depth": 2, "num_heads": 4, "mlp_dim": 2 * WIDTH, "base_width": WIDTH}
    return DecoderConfig(vocab_size=serialiser.tokenizer.size, **{**sizes, **settings})


def serialiser_of(*told: Told) -> Serialiser:
    """What turns the questions and answers of these into ids."""
    texts = [text for each in told for one in each.asked for text in (one.question, one.answer)]
    return Serialiser(Words().fit([*texts, "question: answer:"]), "plain")


def teach(encoder: nn.Module, clips: Tensor, cells: np.ndarray, seed: int, *, places: bool = True) -> None:
    """Teach a new encoder the colour of each patch, grey ones among them, and its place in the frame; freeze it.

    Without ``places`` it is taught colours alone.
    """
    wanted = torch.from_numpy(cells).flatten(1)
    each = cells[0, 0].size
    numbers = torch.arange(each).repeat(BATCH * cells.shape[1])
    rare = torch.ones(NONE + 1)
    rare[NONE] = min(1.0, float((wanted != NONE).sum()) / max(1, int((wanted == NONE).sum())))
    head = nn.Linear(encoder.width, NONE + 1 + each)
    init_linear(encoder, "glorot")
    encoder.requires_grad_(True)
    optimiser = torch.optim.AdamW([*encoder.parameters(), *head.parameters()], lr=ENCODER_RATE)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(ENCODER_STEPS):
        chosen = torch.randint(len(clips), (BATCH,), generator=generator)
        colours, where = head(encoder(clips[chosen]).tokens).flatten(0, 1).split([NONE + 1, each], dim=1)
        loss = F.cross_entropy(colours, wanted[chosen].flatten(), weight=rare)
        optimiser.zero_grad()
        (loss + F.cross_entropy(where, numbers) if places else loss).backward()
        optimiser.step()
    encoder.requires_grad_(False).eval()


def words(config: VideoLanguageConfig, serialiser: Serialiser, told: Sequence[Told], seed: int) -> Decoder:
    """A language model that has learnt what is answered to such questions, blind: where all models begin."""
    torch.manual_seed(seed)
    blind = replace(config, sees=False, trains=("decoder",)).build()
    return learn(blind, serialiser, told, WORD_STEPS, seed, rate=WORD_RATE).decoder


def model_of(config: VideoLanguageConfig, encoder: nn.Module, decoder: Decoder, seed: int) -> VideoLanguage:
    """A model that begins with such an encoder and such a language model.

    Layers of the connector begin as suits its width: those that are published begin for networks of 768 and more.
    """
    torch.manual_seed(seed)
    model = config.build()
    init_linear(model.connector, "glorot")
    model.encoder.load_state_dict(encoder.state_dict())
    model.decoder.load_state_dict(decoder.state_dict())
    return model


def learn(
    model: Model, serialiser: Serialiser, told: Sequence[Told], steps: int, seed: int, *, rate: float = RATE
) -> Model:
    """Train what the model trains on questions, of several sets in turn."""
    optimiser = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=rate, total_steps=steps, pct_start=0.1)
    rng = np.random.default_rng((seed, 1))
    model.train()
    for step in range(steps):
        clips, asked = told[step % len(told)]
        some = [asked[int(i)] for i in rng.integers(len(asked), size=BATCH)]
        optimiser.zero_grad()
        model(marked(serialiser, clips, some)).total.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        schedule.step()
    return model.eval()


def marked(serialiser: Serialiser, clips: Tensor, some: Sequence[Asked]) -> Batch:
    """A batch of conversations."""
    rows = [serialiser.mark([asks(one), Turn("assistant", one.answer)]) for one in some]
    length, pad = max(len(row.ids) for row in rows), serialiser.tokenizer.pad
    return {
        "video": clips[[one.clip for one in some]],
        "text": torch.tensor([row.ids + [pad] * (length - len(row.ids)) for row in rows]),
        "learnt": torch.tensor([row.learnt + [False] * (length - len(row.ids)) for row in rows]),
        "text_length": torch.tensor([len(row.ids) for row in rows]),
    }


def asks(one: Asked) -> Turn:
    """The user's turn."""
    return Turn("user", one.question if "<video>" in one.question else f"<video>\n{one.question}")


@torch.no_grad()
def right(model: VideoLanguage, serialiser: Serialiser, told: Told, *, length: int = 12) -> dict[str, float]:
    """Right answers in percent, word for word: of each kind of question, and of all by an empty name.

    They have at most ``length`` tokens.
    """
    found: dict[str, list[bool]] = {}
    for begin in range(0, len(told.asked), 100):
        some = told.asked[begin : begin + 100]
        visual = model.see(told.clips[[one.clip for one in some]])
        said = answers(model, visual, prompts(serialiser, [[asks(one)] for one in some]), serialiser, count=length)
        for one, own in zip(some, said):
            found.setdefault(one.kind, []).append(normalised(own) == normalised(one.answer))
    every = [value for values in found.values() for value in values]
    return {"": 100 * float(np.mean(every)), **{kind: 100 * float(np.mean(v)) for kind, v in found.items()}}
