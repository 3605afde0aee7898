"""Merging similar tokens keeps a short event of a long video in a fraction of the tokens, where pooling and sampling
lose it."""

from __future__ import annotations

import statistics
import time
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from claims.ledger import Claim, Figure, above, below
from filmstrip.data.synthetic.narration import COLOURS
from filmstrip.models.decoder import DecoderConfig
from filmstrip.objectives.teachers import ImageTowerConfig
from filmstrip.protocols import Batch, Grid
from filmstrip.systems.language.internvideo2_5 import CompressionConfig, InternVideo25, InternVideo25Config
from filmstrip.systems.language.internvideo2_5.dropping import Dropping

SIZE, PATCH, FRAMES, STEPS_OF_EVENT = 16, 4, 16, 2
TRAIN, TEST, BATCH, WIDTH = 1000, 300, 16, 32
STEPS = {"encoder": 80, "answers": 800}
GRID = Grid(FRAMES, SIZE // PATCH, SIZE // PATCH)
COLOUR = list(COLOURS)
PLACES = 4
"""Quarters of the video, in which the event is."""
VISUAL, ASK, FIRST = 0, (1, 2), 3
"""Ids: the video's place; what colour, and when; then answers."""
ARMS = {
    "all": {"per_step": 16, "how": "merged"},
    "merged": {"per_step": 1, "how": "merged"},
    "pooled": {"per_step": 1, "how": "pooled"},
    "strided": {"per_step": 1, "how": "strided"},
}
SAYS = {"all": "all 256 tokens", "merged": "16 merged", "pooled": "16 pooled", "strided": "16 evenly spaced"}

CLAIM = Claim(
    systems=("language.internvideo2_5",),
    finding=" ".join(__doc__.split()),
    paper="Wang et al. 2025 read a frame in 16 tokens of 1024 and drop seven in eight of these within the language "
    "model; of HiCo alone the text states that contexts are six times as long.",
    here=f"In {FRAMES} frames of {SIZE} x {SIZE} pixels of noise over grey a square of {PATCH} pixels shows for "
    f"{STEPS_OF_EVENT} frames. What colour ({len(COLOUR)}), and in which quarter of the video ({PLACES})? An encoder "
    f"of one block learns the colours of patches and is frozen; each of four frames' 64 tokens are compressed to 4. "
    f"A language model of three blocks of width {WIDTH} learns from {TRAIN} videos for {STEPS['answers']} steps of "
    f"{BATCH}. Right answers of {TEST} other videos; time of reading the tokens and answering once.",
    baseline="All tokens; as few, pooled or evenly spaced; dropping evenly.",
    figures={name: Figure(says=f"{said}: right answers, %") for name, said in SAYS.items()}
    | {
        "attended": Figure(says="16 merged, all but an eighth dropped by attention: right answers, %"),
        "even": Figure(says="16 merged, all but an eighth dropped evenly: right answers, %"),
        "seconds": Figure(says="time of the language model with merged tokens, % of that with all"),
    },
    expected=(
        above("merged", "pooled", "merged tokens keep more of the event than pooled ones"),
        above("merged", "strided", "and more than evenly spaced ones"),
        above("merged", "all", "and at most 10 points less than all tokens", by=-10.0),
        below("seconds", 50.0, "at less than half the time"),
        above("attended", "even", "tokens that the question attends to are the ones to keep"),
    ),
    analysis="A sixteenth of the tokens, merged by similarity, answers better in every seed than as many averaged "
    "over squares (by 21, 58 and 61 points: in one of three seeds the model learns something from averages, and that "
    "alone makes the interval wide) and than as many evenly spaced ones. But it is not for nothing: with all tokens "
    "21 points more are right. Dropping by attention is worse than dropping evenly, by 5 points: a model of three "
    "blocks hardly attends to the event before its last block.",
    minutes=8,
)


def measure(seed: int, folder: Path) -> dict[str, float]:
    train, test = draw(TRAIN, seed), draw(TEST, seed + 10_000)
    encoder = taught(train, seed)
    seen = [tokens(encoder, one.videos) for one in (train, test)]
    found, models = {}, {}
    for name, how in ARMS.items():
        models[name] = learnt(config(how), seen[0], train, seed)
        found[name] = right(models[name], seen[1], test)
    for name, by in (("attended", "attention"), ("even", "even")):
        dropping = Dropping(after=(1, 2), keep=(0.25, 0.125), by=by)
        model = learnt(replace(config(ARMS["merged"]), dropping=dropping), seen[0], train, seed)
        found[name] = right(model, seen[1], test)
    found["seconds"] = 100 * cost(models["merged"], models["all"], seen[1][:8], test)
    return found


class Drawn(NamedTuple):
    """Videos in which a square shows up."""

    videos: Tensor
    """``N T 3 H W`` uint8."""
    colours: Tensor
    quarters: Tensor
    """The quarter of the video in which it does, ``N``."""
    patches: Tensor
    """The colour of each patch, or one more for grey, ``N T*P``."""


def draw(count: int, seed: int) -> Drawn:
    """So many videos."""
    generator = torch.Generator().manual_seed(seed)

    def drawn(high: int) -> Tensor:
        return torch.randint(high, (count,), generator=generator)

    videos = 110 + 8 * torch.randn(count, FRAMES, 3, SIZE, SIZE, generator=generator)
    colours, quarters, side = drawn(len(COLOUR)), drawn(PLACES), SIZE // PATCH
    starts = quarters * FRAMES // PLACES + drawn(FRAMES // PLACES - STEPS_OF_EVENT + 1)
    rows, columns = drawn(side), drawn(side)
    patches = torch.full((count, FRAMES, side, side), len(COLOUR))
    table = torch.tensor(list(COLOURS.values())).float()[:, :, None, None]
    for i in range(count):
        frames = slice(int(starts[i]), int(starts[i]) + STEPS_OF_EVENT)
        y, x = int(rows[i]), int(columns[i])
        patches[i, frames, y, x] = colours[i]
        videos[i, frames, :, y * PATCH : (y + 1) * PATCH, x * PATCH : (x + 1) * PATCH] = table[colours[i]]
    return Drawn(videos.round().clamp(0, 255).to(torch.uint8), colours, quarters, patches.flatten(1))


def taught(train: Drawn, seed: int) -> nn.Module:
    """An encoder that knows the colours of patches, grey ones among them."""
    torch.manual_seed(seed)
    encoder, head = config(ARMS["all"]).build().encoder, nn.Linear(WIDTH, len(COLOUR) + 1)
    optimiser = torch.optim.AdamW([*encoder.parameters(), *head.parameters()], lr=3e-3)
    generator = torch.Generator().manual_seed(seed)
    rare = torch.tensor([1.0] * len(COLOUR) + [0.02])
    for _ in range(STEPS["encoder"]):
        chosen = torch.randint(TRAIN, (BATCH,), generator=generator)
        said = head(encoder(train.videos[chosen]).tokens)
        optimiser.zero_grad()
        F.cross_entropy(said.flatten(0, 1), train.patches[chosen].flatten(), weight=rare).backward()
        optimiser.step()
    return encoder.eval()


@torch.no_grad()
def tokens(encoder: nn.Module, videos: Tensor) -> Tensor:
    """An encoder's tokens of videos, ``N M D``."""
    return torch.cat([encoder(part).tokens for part in videos.split(50)])


def config(how: dict[str, object]) -> InternVideo25Config:
    """A small model whose tokens are compressed in one way, and which drops none."""
    return InternVideo25Config(
        encoder=ImageTowerConfig(
            width=WIDTH,
            depth=1,
            num_heads=4,
            num_frames=FRAMES,
            size=SIZE,
            patch_size=PATCH,
            pool="none",
            linear_init="glorot",
        ),
        connector=CompressionConfig(steps=4, num_heads=4, **how),
        decoder=DecoderConfig(
            vocab_size=FIRST + len(COLOUR) + PLACES, width=WIDTH, depth=3, num_heads=4, mlp_dim=2 * WIDTH
        ),
        dropping=None,
        placeholders=(VISUAL,),
    )


def asked(drawn: Drawn, chosen: Tensor, kind: int) -> Batch:
    """A question about each chosen video, of one kind, with its answer."""
    answers = FIRST + (drawn.colours[chosen] if kind == 0 else len(COLOUR) + drawn.quarters[chosen])
    count = len(chosen)
    text = torch.stack([torch.full((count,), VISUAL), torch.full((count,), ASK[kind]), answers], dim=1)
    learnt = torch.tensor([False, False, True]).expand(count, -1)
    return {"text": text, "learnt": learnt, "text_length": torch.full((count,), 3)}


def said(model: InternVideo25, seen: Tensor, batch: Batch) -> Tensor:
    """Logits of the answers ``B vocab_size``, from an encoder's tokens."""
    visual = model.connector(seen, GRID)
    return model.logits(visual, batch["text"], batch["text_length"], batch["learnt"])[:, 1]


def learnt(how: InternVideo25Config, seen: Tensor, train: Drawn, seed: int) -> InternVideo25:
    """A model after its steps, of both questions in turn."""
    torch.manual_seed(seed)
    model = how.build().train()
    parameters = [*model.connector.parameters(), *model.decoder.parameters()]
    optimiser = torch.optim.AdamW(parameters, lr=3e-3)
    steps = STEPS["answers"]
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=3e-3, total_steps=steps, pct_start=0.1)
    generator = torch.Generator().manual_seed(seed)
    for step in range(steps):
        chosen = torch.randint(TRAIN, (BATCH,), generator=generator)
        batch = asked(train, chosen, step % 2)
        optimiser.zero_grad()
        F.cross_entropy(said(model, seen[chosen], batch), batch["text"][:, 2]).backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        schedule.step()
    return model.eval()


@torch.no_grad()
def right(model: InternVideo25, seen: Tensor, test: Drawn) -> float:
    """Right answers of both questions, in percent."""
    found = []
    for chosen in torch.arange(len(seen)).split(50):
        for kind in (0, 1):
            batch = asked(test, chosen, kind)
            found.append(said(model, seen[chosen], batch).argmax(dim=1) == batch["text"][:, 2])
    return 100 * torch.cat(found).double().mean().item()


@torch.no_grad()
def cost(few: InternVideo25, whole: InternVideo25, seen: Tensor, test: Drawn) -> float:
    """The time that a language model takes for a question with few tokens, relative to all: medians, in turn."""
    batch = asked(test, torch.arange(len(seen)), 0)
    arguments = [batch[key] for key in ("text", "text_length", "learnt")]
    visual = [(model, model.connector(seen, GRID)) for model in (few, whole)]
    seconds: list[list[float]] = [[], []]
    for _ in range(9):
        for (model, given), times in zip(visual, seconds):
            begin = time.perf_counter()
            model.logits(given, *arguments)
            times.append(time.perf_counter() - begin)
    return statistics.median(seconds[0]) / statistics.median(seconds[1])
