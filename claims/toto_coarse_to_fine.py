"""Next-token learning on few codes a frame, then on more, beats more codes from the start; a larger base helps it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from claims.ledger import Claim, Figure, below
from claims.moving import clips
from claims.next_codes import BATCH, DRAWN, FRAMES, HELD_OUT, LEVELS, SIZE, Codes, ids_of
from filmstrip.systems import find
from filmstrip.systems.pretraining.toto import Toto
from filmstrip.train.optim import AdamW, set_rates
from filmstrip.train.schedules import Constant

SIZES = {"width": 48, "depth": 3, "num_heads": 2, "mlp_dim": 144}
COARSE, FINE = 4, 8
"""Codes along each side of a frame, first and later."""
COARSE_STEPS, FINE_STEPS, RATE = 200, 30, 2e-3
CLIPS_FINE = 8
"""Clips of a batch of fine codes."""


def cost(side: int, clips: int) -> float:
    """Multiply-adds of a step, forward, without embedding and output layer, in millions."""
    tokens, width = FRAMES * side**2, SIZES["width"]
    matrices = 4 * width**2 + 3 * width * SIZES["mlp_dim"]
    return clips * tokens * SIZES["depth"] * (matrices + 2 * tokens * width) / 1e6


SCRATCH_STEPS = FINE_STEPS + round(COARSE_STEPS * cost(COARSE, BATCH) / cost(FINE, CLIPS_FINE))
"""Steps on fine codes alone that cost as much."""

CLAIM = Claim(
    systems=("pretraining.toto",),
    finding=__doc__.strip(),
    paper="Rajasegaran et al. 2025, ImageNet, large: 16 x 16 codes, then 32 x 32 for a ninth of the epochs, 63.2 "
    "with the rotary base kept and 64.4 with 50,000, where 32 x 32 alone had 61.2 for more compute.",
    here=f"A Toto (48 wide, 3 deep) of plain motions learns {COARSE} x {COARSE} codes of 8 frames for {COARSE_STEPS} "
    f"steps, then {FINE} x {FINE} for {FINE_STEPS}, with a rotary base of 10,000 as before, or 50,000; another one "
    f"has {FINE} x {FINE} codes from the start, for {SCRATCH_STEPS} steps, which cost as many multiply-adds. Codes "
    "are mean colours in 64 levels. Loss on held-out clips of fine codes.",
    baseline="Fine codes from the start at equal cost; the base kept.",
    figures={
        "kept": Figure(says="coarse, then fine, base 10,000: nats a code", digits=4),
        "raised": Figure(says="coarse, then fine, base 50,000: nats a code", digits=4),
        "scratch": Figure(says="fine from the start, at equal cost: nats a code", digits=4),
        "short": Figure(says=f"fine from the start, {FINE_STEPS} steps: nats a code", digits=4),
    },
    expected=(
        below("raised", "scratch", "coarse to fine predicts better at equal cost"),
        below("raised", "kept", "the larger base predicts better than the one kept", by=-0.002),
        below("raised", "short", "coarse codes teach something of fine ones"),
    ),
    analysis="Against the finding, in each seed: who learns many codes a frame from the start predicts them better "
    "at equal cost. Coarse codes do teach something of fine ones: after as many fine steps the network that "
    "began with coarse ones is well ahead. A larger rotary base is a change that it must first get used to, "
    "and a few hundred steps on frames of 8 x 8 codes are no long context, for which the base is raised. The "
    "paper's saving is one of weeks of training; here the coarse phase costs as much as it is worth.",
    minutes=3,
)


def measure(seed: int, folder: Path) -> dict[str, float]:
    codes = Codes(seed)
    found = {}
    scratch = built(seed, FINE)
    found["scratch"] = learn(scratch, codes, FINE, SCRATCH_STEPS, found_at=FINE_STEPS, into=found)
    coarse = built(seed, COARSE)
    learn(coarse, codes, COARSE, COARSE_STEPS)
    for name, base in (("kept", 10_000.0), ("raised", 50_000.0)):
        network = built(seed, FINE, rope_base=base)
        network.load_state_dict(coarse.state_dict())
        found[name] = learn(network, codes, FINE, FINE_STEPS)
    return found


def built(seed: int, side: int, **more: object) -> Toto:
    """A Toto of so many codes a side; its tokenizer, of patches of four pixels, is never asked."""
    torch.manual_seed(seed)
    tiny = find("pretraining.toto:tiny").objective
    return replace(tiny, num_frames=FRAMES, size=4 * side, **SIZES, **more).build()


def fine(videos: Tensor) -> Tensor:
    """Mean colours of squares of four pixels in the same levels: ``N T 3 H W`` uint8 to ``N T*64``."""
    levels = (F.avg_pool2d(videos.flatten(0, 1).float(), SIZE // FINE) * LEVELS / 256).long()
    return ((levels[:, 0] * LEVELS + levels[:, 1]) * LEVELS + levels[:, 2]).view(len(videos), -1)


def learn(
    network: Toto,
    codes: Codes,
    side: int,
    steps: int,
    *,
    found_at: int | None = None,
    into: dict[str, float] | None = None,
) -> float:
    """Train, and return the held-out loss of a code; that after ``found_at`` steps is put down as ``short``."""
    optim = AdamW(lr=RATE, betas=(0.9, 0.95), weight_decay=0.0, schedule=Constant(warmup=0.1))
    optimiser = optim.build(network, network.phases()[0])
    order = torch.Generator().manual_seed(codes.seed)
    size, coded = (BATCH, ids_of) if side == COARSE else (CLIPS_FINE, fine)
    for step in range(steps):
        set_rates([optimiser], optim, step, steps)
        chosen = torch.randint(len(codes.videos), (size,), generator=order)
        shifts = torch.randint(SIZE, (size, 2), generator=order).tolist()
        video = torch.stack([codes.videos[i].roll(by, dims=(2, 3)) for i, by in zip(chosen.tolist(), shifts)])
        optimiser.zero_grad()
        network({"tokens": coded(video)}).total.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
        if into is not None and step + 1 == found_at:
            into["short"] = held_out(network, codes, coded)
    return held_out(network, codes, coded)


@torch.no_grad()
def held_out(network: Toto, codes: Codes, coded: Callable[[Tensor], Tensor]) -> float:
    """Nats a code of clips that were not learnt."""
    ids = coded(clips(HELD_OUT, (codes.seed, 1), DRAWN, 2)[0])
    return -torch.cat([network.log_prob({"tokens": part}) for part in ids.split(16)]).mean().item() / ids.shape[1]
