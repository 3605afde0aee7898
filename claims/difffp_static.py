"""Of videos that mostly stand still, the tokens that changed answer as much as all, and as few others do not."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from claims.asked import (
    COLOUR,
    NONE,
    SIDE,
    WIDTH,
    WORD_STEPS,
    Asked,
    Told,
    decoder_config,
    learn,
    model_of,
    render,
    right,
    serialiser_of,
    teach,
    words,
)
from claims.ledger import Claim, Figure, Figures, above, below
from filmstrip.protocols import as_float
from filmstrip.systems.language.video_llama3 import (
    PUBLISHED,
    NativeSiglipConfig,
    VideoLlama3,
    VideoLlama3Config,
    changed,
)
from filmstrip.text.conversation import Turn, timed

TRAIN, TESTS, STEPS, FRAMES = 1500, 200, 350, 6
STAND, APPEAR = (0, 1, 2), (3, 4, 5)
"""Colours of squares that stand still, and of those that appear."""
How = Literal["all", "changed", "random", "frames"]
SAYS: dict[How, str] = {
    "all": "all tokens",
    "changed": "the tokens that changed",
    "random": "as many by chance",
    "frames": "at least as many, of frames evenly spaced",
}
KINDS = ("event", "still")
SHOWN = timed([Turn("user", "<video>")], [range(FRAMES)])[0].text
"""The places of the frames after their times."""

CLAIM = Claim(
    systems=("language.video_llama3",),
    finding=__doc__.strip(),
    paper="Zhang et al. 2025 leave out tokens whose pixels hardly changed since the frame before, and find a "
    "substantial reduction at a negligible loss, by a curve without numbers.",
    here=f"Videos of {FRAMES} frames of 3 x 3 cells of 8 pixels, with noise that stands still. A square of one "
    "of three colours stands still, too, and one of three others shows in a single frame after the first. "
    "What appears, and what stands still (a third by chance)? A frozen encoder knows the colours of patches; "
    f"a language model of two layers of {WIDTH}, which has learnt the answers blind ({WORD_STEPS} steps), and "
    f"two layers in front of it learn for {STEPS} steps of 32 questions about {TRAIN} videos, with the frames' "
    f"times as text. Right answers about {TESTS} others, word for word; each model learns from what it is "
    "tested on.",
    baseline="All tokens; as many as changed by chance, a first one of each frame among them; the frames "
    "evenly spaced whose tokens are at least as many, whole; and zeros for what is seen.",
    figures={
        **{name: Figure(says=f"{says}: right answers, %") for name, says in SAYS.items()},
        **{f"{name}, {kind}": Figure(says=f"{says}: {kind}") for name, says in SAYS.items() for kind in KINDS},
        "blind": Figure(says="the tokens that changed, blind: right answers, %"),
        "kept": Figure(says="tokens that changed, % of all"),
        "kept, flicker": Figure(says="tokens that changed where noise flickers, % of all"),
    },
    expected=(
        above("changed", "all", "the tokens that changed answer at most 5 points less than all", by=-5.0),
        below("kept", 50.0, "and are less than half of them"),
        above("changed", "random", "as many by chance answer less, by 20 points", by=20.0),
        above("changed", "frames", "and so do whole frames, by 20", by=20.0),
        above("kept, flicker", 90.0, "at the published threshold noise that flickers takes the saving away"),
        above("changed", "blind", "they look: by 20 points over the blind model", by=20.0),
    ),
    analysis="The tokens that changed answer every question in every seed; with all tokens one model of three "
    "learned more slowly, which makes the interval of that difference wide. Tokens by chance and whole frames "
    "lose the short event, whose answers fall to chance or little above. Noise that flickers on every patch is "
    "above the published threshold everywhere, and nothing is left out then. Two more seeds would not decide: one "
    "in three is 17 points in favour, and with it and zeros the interval of five still begins at -6.",
    minutes=7,
)


@dataclass(frozen=True, kw_only=True)
class KeepingConfig(VideoLlama3Config):
    """The system, or one that keeps other tokens."""

    keeps: How = "changed"
    """Which tokens are kept."""

    def build(self) -> Keeping:
        """Build the model with fresh weights."""
        return Keeping(self)


class Keeping(VideoLlama3):
    """Keeps as many tokens as changed, or all, but maybe others."""

    config: KeepingConfig

    def __init__(self, config: KeepingConfig) -> None:
        super().__init__(config)
        self.chance = torch.Generator().manual_seed(0)

    def kept(self, video: Tensor) -> Tensor:
        """Which tokens are kept, ``B T h w`` bool."""
        own = super().kept(video)
        if self.config.keeps == "changed":
            return own
        every = torch.ones_like(own)
        if self.config.keeps == "all":
            return every
        count, frames = own.flatten(1).sum(dim=1), own.shape[1]
        each = own[0, 0].numel()
        if self.config.keeps == "frames":
            spaced = [torch.linspace(0, frames - 1, int(n)).round().long() for n in -(-count // each)]
            whole = torch.stack([torch.zeros(frames, dtype=torch.bool).index_fill(0, at, True) for at in spaced])
            return whole[:, :, None, None].expand_as(own)
        order = torch.rand(own.flatten(1).shape, generator=self.chance)
        order.unflatten(1, (frames, each))[:, :, 0] = 2.0  # a token of each frame, as the method keeps
        least = order.sort(dim=1, descending=True).values.gather(1, count[:, None] - 1)
        return (order >= least).view_as(own)


def measure(seed: int, folder: Path) -> Figures:
    train, cells = draw(TRAIN, seed)
    test, _ = draw(TESTS, seed + 10_000)
    serialiser = serialiser_of(train)
    config = KeepingConfig(
        encoder=NativeSiglipConfig(width=WIDTH, depth=1, num_heads=4, mlp_dim=2 * WIDTH, patch_size=(1, 8, 8)),
        decoder=decoder_config(serialiser),
        placeholders=tuple(serialiser.places.values()),
        trains=("connector", "decoder"),
        side=1,
        image_pixels=(24 * 24, 24 * 24),
    )
    encoder = config.build().encoder
    teach(encoder, train.clips, cells, seed, places=False)
    decoder = words(config, serialiser, [train], seed)
    found = {}
    for how in SAYS:
        model = model_of(replace(config, keeps=how), encoder, decoder, seed)
        said = right(learn(model, serialiser, [train], STEPS, seed), serialiser, test)
        found |= {how: said[""], **{f"{how}, {kind}": said[kind] for kind in KINDS}}
    blind = learn(model_of(replace(config, sees=False), encoder, decoder, seed), serialiser, [train], STEPS, seed)
    found["blind"] = right(blind, serialiser, test)[""]
    flicker, _ = draw(TESTS, seed + 10_000, flickers=True)
    for name, clips in (("kept", test.clips), ("kept, flicker", flicker.clips)):
        found[name] = 100 * changed(as_float(clips), 8, PUBLISHED).float().mean().item()
    return found


def draw(count: int, seed: int, *, flickers: bool = False) -> tuple[Told, np.ndarray]:
    """Videos, a question of each kind about each, and their cells; noise stands still unless it ``flickers``."""
    rng = np.random.default_rng((seed, 0))
    cells = np.full((count, FRAMES, SIDE**2), NONE)
    asked = []
    for i, video in enumerate(cells):
        stands, appears = int(rng.choice(STAND)), int(rng.choice(APPEAR))
        where = rng.permutation(SIDE**2)[:2]
        video[:, where[0]] = stands
        video[rng.integers(1, FRAMES), where[1]] = appears
        told = (("event", "what appears?", appears), ("still", "what stands still?", stands))
        asked += [Asked(i, kind, f"{SHOWN}\n{question}", COLOUR[colour]) for kind, question, colour in told]
    cells = cells.reshape(count, FRAMES, SIDE, SIDE)
    return Told(render(cells, rng, still=not flickers), asked), cells
