"""Naming masked patches by a tokenizer's codes teaches more about videos than telling their pixels does."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from claims.ledger import Claim, Figure, Figures, above
from claims.training import Batch, learn
from claims.videomae_pretraining import KINDS, NOISE, drawn, noisy
from claims.visual_targets import CODES, SIZE, ByPixels, PatchCodes, give, network, seeded, tokenizer
from filmstrip.evals.linear_probe import LinearProbe
from filmstrip.objectives.targets import resized
from filmstrip.systems.pretraining.violet import Violet, VioletConfig

STEPS, LR, BATCH, LABELLED, TESTS = 150, 2e-3, 16, 200, 400
CONFIG = VioletConfig(**network(patch=8))
ARMS = {
    "codes": "codes",
    "pixels": "pixels",
    "start": "random weights",
}

CLAIM = Claim(
    systems=("pretraining.violet",),
    finding=__doc__.strip(),
    paper="Fu et al. 2021: masked patches are named by the codes of DALL-E's dVAE, because earlier tasks on masked "
    "frames, regression among them, had brought little; measured with text, in retrieval and answers, and not of "
    "the visual half alone.",
    here=f"Moving textures of four kinds in noise (standard deviation {NOISE}; 4 frames of 32 x 32). VIOLET's visual "
    f"half (a Swin of two stages, a transformer of two layers of 48) learns for {STEPS} steps of {BATCH} clips that "
    "are never the same, masked in blocks or where it attends, as published. Codes are the nearest of "
    f"{CODES} means of patches that are alike. A linear classifier of the mean token, fitted to {LABELLED} clips, "
    f"then names the kinds of {TESTS} others (chance 25).",
    baseline="The same with the pixels of a patch, normalised, and a squared error; and its first weights.",
    figures={
        **{arm: Figure(says=f"{says}: kinds, top-1, %") for arm, says in ARMS.items()},
        "used": Figure(says=f"codes that occur, of {CODES}"),
        "error": Figure(says="error of codes over the variance of pixels", digits=3),
    },
    expected=(
        above("codes", "pixels", "codes teach more than pixels"),
        above("codes", "start", "they teach: more is known than by random weights"),
    ),
    minutes=1.5,
    analysis="",
)


class VioletByPixels(ByPixels, Violet):
    """VIOLET's visual half with pixels in place of codes."""


def measure(seed: int, folder: Path) -> Figures:
    few, test = (drawn(count, start + seed) for count, start in ((LABELLED, 500), (TESTS, 1000)))
    codes = tokenizer(clips, SIZE // 2, seed)
    found = rebuilt(codes, resized(test[0][:100, ::2], (SIZE // 2, SIZE // 2)))
    for arm in ARMS:
        torch.manual_seed(seed)
        model = VioletByPixels(CONFIG) if arm == "pixels" else Violet(CONFIG)
        if arm == "codes":
            give(model, codes)
        if arm != "start":
            learn(model, seeded(batch, 200 + seed), steps=STEPS, lr=LR, clip_grad=1.0)
        found[arm] = probed(model, few, test)
    return found


def clips(count: int, generator: torch.Generator) -> Tensor:
    """Clips of every second of eight frames."""
    return noisy(count, generator)[0][:, ::2]


def batch(generator: torch.Generator) -> Batch:
    return {"video": clips(BATCH, generator)}


@torch.no_grad()
def probed(model: Violet, few: tuple[Tensor, Tensor], test: tuple[Tensor, Tensor]) -> float:
    """Top-1 of a linear classifier of the mean token, %."""
    model.eval()
    x, y = (
        torch.cat([model.encoder(part[:, ::2]).tokens.mean(dim=1) for part in videos.split(50)])
        for videos, _ in (few, test)
    )
    return 100 * LinearProbe().top1(x, few[1], y, test[1], KINDS)


@torch.no_grad()
def rebuilt(network: PatchCodes, video: Tensor) -> Figures:
    """How many codes a tokenizer uses on frames, and how well it rebuilds them."""
    tokens = network.encode(video)
    error = (network.decode(tokens) - video).square().mean() / video.var()
    return {"used": float(tokens.ids.unique().numel()), "error": error.item()}
