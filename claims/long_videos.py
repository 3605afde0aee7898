"""Long videos of plain scenes, one or two of which have an odd square, and small language models that read few tokens
of them.

A scene is ground in two tones. The encoder of frames is taught what each cell shows and which tone a frame shows
most, and is frozen; a language model learns to answer from all tokens of two frames, as LLaVA from images, and is
frozen, too. Each way to reduce a long video's tokens then has its linear layer trained alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from claims.asked import BATCH, Asked, Told, learn, model_of, serialiser_of, words
from filmstrip.data.synthetic.narration import COLOURS
from filmstrip.models.decoder import DecoderConfig
from filmstrip.nn.initialisation import init_linear
from filmstrip.objectives.language import Part
from filmstrip.objectives.teachers import ImageTowerConfig
from filmstrip.protocols import Features
from filmstrip.systems.language.longvlm import LongVLM, LongVLMConfig, SegmentsConfig
from filmstrip.text.conversation import Serialiser

FRAMES, SCENE, SIDE, PATCH = 64, 8, 6, 4
"""Frames of a video and of a scene, cells of a side, pixels of a cell."""
SIZE, AREA = SIDE * PATCH, SIDE * SIDE
SHOWN = 2
"""Frames for which an odd square shows."""
SEGMENTS, LEFT, CLASS_LAYERS, WIDTH, HEADS = 8, 8, 2, 64, 4
"""Segments of a video, tokens that are left of one, and layers of the encoder whose class tokens are read."""
NAMES, TONES = (
    tuple(COLOURS),
    {"brown": (70, 45, 20), "navy": (15, 25, 75), "plum": (70, 20, 60), "olive": (55, 65, 20)},
)
CELLS = len(NAMES) + len(TONES)
"""Number of a cell's colours: of odd squares, then of ground."""
NOISE, RATE = 8, 2e-3
TRAIN, TEST, SHORT = 480, 240, 1500
ENCODER_STEPS, START_STEPS, STEPS = 200, 400, 250
ASKS = {"odd": "what colour is the square?", "first": "which square comes first?", "most": "which ground is longest?"}
Kinds = tuple[str, ...]


class Drawn(NamedTuple):
    """Videos and what is asked about them."""

    cells: np.ndarray
    """Colours of cells, ``N T side side``."""
    asked: list[Asked]


def draw(count: int, frames: int, kinds: Kinds, seed: int, *, width: int = 1) -> Drawn:
    """Videos of so many frames with a question of each kind; odd squares are ``width`` cells wide.

    Two squares of different colours show in different frames if it is asked which comes first, otherwise one.
    """
    rng = np.random.default_rng((seed, frames, *map(ord, "".join(kinds))))
    squares, asked, videos = 1 + ("first" in kinds), [], []
    for i in range(count):
        scenes = -(-frames // SCENE) + 1
        tones = rng.integers(len(TONES), size=(scenes, 2))
        tones[rng.random(scenes) < 0.5, 0] = most = int(rng.integers(len(TONES)))
        ground = len(NAMES) + tones
        splits, offset = rng.integers(1, SIDE // 2, size=scenes), int(rng.integers(SCENE))
        of_frame = (np.arange(frames) + offset) // SCENE
        columns = np.arange(SIDE) < splits[of_frame, None]
        rows = np.where(columns, ground[of_frame, 1:], ground[of_frame, :1])
        cells = np.repeat(rows[:, None], SIDE, axis=1)
        most = int(np.bincount(cells.ravel() - len(NAMES)).argmax())
        shown = min(SHOWN, frames // squares)
        starts = np.sort(rng.choice(frames // shown, squares, replace=False)) * shown
        colours = rng.permutation(len(NAMES))[:squares]
        for start, colour in zip(starts, colours):
            y, x = int(rng.integers(SIDE)), int(rng.integers(SIDE - width + 1))
            cells[start : start + shown, y, x : x + width] = colour
        videos.append(cells)
        said = {"odd": NAMES[colours[0]], "first": NAMES[colours[0]], "most": tuple(TONES)[most]}
        asked += [Asked(i, kind, ASKS[kind], said[kind]) for kind in kinds]
    return Drawn(np.stack(videos), asked)


def render(cells: np.ndarray, rng: np.random.Generator) -> Tensor:
    """Clips ``N T 3 H W`` uint8 of cells, with noise."""
    table = np.array([*COLOURS.values(), *TONES.values()], dtype=np.float32)
    frames = table[cells].repeat(PATCH, axis=2).repeat(PATCH, axis=3)
    noisy = frames + NOISE * rng.standard_normal(frames.shape, dtype=np.float32)
    return torch.from_numpy(noisy.round().clip(0, 255).astype(np.uint8)).movedim(-1, 2)


ENCODER = ImageTowerConfig(
    width=WIDTH,
    depth=2,
    num_heads=HEADS,
    num_frames=FRAMES,
    size=SIZE,
    patch_size=PATCH,
    pool="class",
    linear_init="glorot",
)


def taught(seed: int, *, width: int = 1) -> nn.Module:
    """An encoder that knows the colour of each cell, its place, and the tone that a frame shows most; frozen."""
    torch.manual_seed(seed)
    encoder, heads = (
        ENCODER.build().encoder,
        nn.ModuleList([nn.Linear(WIDTH, CELLS + AREA), nn.Linear(WIDTH, len(TONES))]),
    )
    init_linear(encoder, "glorot")
    drawn = draw(800, 2, ("first",), seed, width=width).cells
    clips, wanted = render(drawn, np.random.default_rng((seed, 2))), torch.from_numpy(drawn).flatten(2)
    tones = F.one_hot(wanted.clamp(min=len(NAMES)) - len(NAMES), len(TONES)).sum(dim=2).argmax(dim=2)
    rare = torch.tensor([1.0] * len(NAMES) + [0.05] * len(TONES))
    optimiser = torch.optim.AdamW([*encoder.parameters(), *heads.parameters()], lr=3e-3)
    generator, places = torch.Generator().manual_seed(seed), torch.arange(AREA).repeat(2 * BATCH)
    for _ in range(ENCODER_STEPS):
        chosen = torch.randint(len(clips), (BATCH,), generator=generator)
        seen = encoder(clips[chosen])
        colours, where = heads[0](seen.tokens).flatten(0, 1).split([CELLS, AREA], dim=1)
        loss = F.cross_entropy(colours, wanted[chosen].flatten(), weight=rare) + F.cross_entropy(where, places)
        loss = loss + F.cross_entropy(heads[1](seen.summary).flatten(0, 1), tones[chosen].flatten())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return encoder.requires_grad_(False).eval()


@dataclass(frozen=True, kw_only=True)
class OfTokensConfig(LongVLMConfig):
    """LongVLM that is shown what is left of an encoder's tokens: they are reduced once for all steps."""

    def build(self) -> OfTokens:
        """Build the model with fresh weights."""
        return OfTokens(self)


class OfTokens(LongVLM):
    """Sees what stands before the linear layer, ``B N C``."""

    def see(self, video: Tensor) -> Tensor:
        """Tokens of the language model."""
        return self.connector.layers(video) * float(self.sees)


def config(serialiser: Serialiser, trains: tuple[Part, ...]) -> OfTokensConfig:
    """A small model."""
    return OfTokensConfig(
        encoder=ENCODER,
        connector=SegmentsConfig(class_layers=0),
        decoder=DecoderConfig(
            vocab_size=serialiser.tokenizer.size,
            width=WIDTH,
            depth=2,
            num_heads=4,
            mlp_dim=2 * WIDTH,
            base_width=WIDTH,
        ),
        trains=trains,
        placeholders=tuple(serialiser.places.values()),
    )


Reduce = Callable[[Features], Tensor]
"""What is left ``B N C`` of an encoder's features."""


def segments(*, count: int = SEGMENTS, to: int = LEFT, class_layers: int = 0, last: bool = False) -> Reduce:
    """LongVLM's merging of so many segments, with class tokens in front or behind."""
    connector = SegmentsConfig(
        segments=count, to=to, class_layers=class_layers, classes="last" if last else "first", num_heads=HEADS
    ).build(WIDTH, WIDTH)
    connector.layers = nn.Identity()

    def reduce(seen: Features) -> Tensor:
        classes = [each.mean(dim=1, keepdim=True) for each in seen.summaries[len(seen.summaries) - class_layers :]]
        return connector(torch.cat([*classes, seen.tokens], dim=1), seen.grid)

    return reduce


def everything(seen: Features) -> Tensor:
    """All tokens."""
    return seen.tokens


@torch.no_grad()
def reduced(encoder: nn.Module, drawn: Drawn, ways: Mapping[str, Reduce], seed: int) -> dict[str, Told]:
    """Videos as each way leaves them."""
    rng, found = np.random.default_rng((seed, 3)), {name: [] for name in ways}
    for part in np.array_split(drawn.cells, max(1, len(drawn.cells) // 40)):
        seen = encoder(render(part, rng), layers=True)
        for name, reduce in ways.items():
            found[name].append(reduce(seen))
    return {name: Told(torch.cat(parts), drawn.asked) for name, parts in found.items()}


class Start(NamedTuple):
    """Where all ways begin."""

    encoder: nn.Module
    serialiser: Serialiser
    model: OfTokens


def start(kinds: Kinds, seed: int, *, width: int = 1) -> Start:
    """A language model that answers such questions from all tokens of two frames, and its parts."""
    encoder = taught(seed, width=width)
    short = draw(SHORT, 2, kinds, seed + 1, width=width)
    told = reduced(encoder, short, {"all": everything}, seed + 1)["all"]
    serialiser = serialiser_of(told)
    both = config(serialiser, ("connector", "decoder"))
    decoder = words(both, serialiser, [told], seed)
    model = learn(model_of(both, encoder, decoder, seed), serialiser, [told], START_STEPS, seed, rate=RATE)
    return Start(encoder, serialiser, model)


def answering(begun: Start, told: Told, seed: int, *, trains: tuple[Part, ...] = ("connector",)) -> OfTokens:
    """A model of one way, which begins where all do: its linear layer is trained, or more."""
    model = config(begun.serialiser, trains).build()
    model.load_state_dict(begun.model.state_dict())
    return learn(model, begun.serialiser, [told], STEPS, seed, rate=RATE)
