"""Blocks of attention need a running maximum and denominator: sums of their softmaxes are wrong."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from claims.ledger import Claim, Figure, above, equal
from filmstrip.nn.blockwise import Part, RunningSoftmax

TOKENS, HEADS, DIM, BLOCK = 1024, 4, 32, 128
SCORES = (1.0, 50.0, 200.0)
"""Largest scores."""
WRONG = {"added": "the blocks' softmaxes added", "averaged": "and divided by the number of blocks"}

CLAIM = Claim(
    systems=("language.lwm_text",),
    finding=__doc__.strip(),
    paper="Milakov and Gimelshein 2018: the online softmax. The lecture (section 24.10.3) adds the blocks' softmaxes "
    "as they come.",
    here="1,024 queries and keys, 4 heads of 32 channels, 8 blocks of keys, largest scores of 1, 50 and 200, float32 "
    "against float64. Errors are relative to the largest output.",
    baseline="The running maximum and denominator that Filmstrip has.",
    figures={
        **{
            f"right {size:.0f}": Figure(says=f"running maximum, scores up to {size:.0f}: error", digits=7)
            for size in SCORES
        },
        **{
            f"{way} {size:.0f}": Figure(says=f"{says}, scores up to {size:.0f}: error", digits=3)
            for way, says in WRONG.items()
            for size in SCORES
        },
        **{
            f"bare {size:.0f}": Figure(
                says=f"denominator without a maximum, scores up to {size:.0f}: % of outputs that are no numbers"
            )
            for size in SCORES
        },
    },
    expected=(
        above("added 50", 1.0, "added softmaxes are wrong by more than the largest output"),
        *(
            above(f"averaged {size:.0f}", 0.1, f"an average is wrong by a tenth, scores up to {size:.0f}")
            for size in SCORES[1:]
        ),
        equal("averaged 1", 0.0, "which scores up to 1 hardly show, within a tenth", within=0.1),
        above("bare 200", 1.0, "without a maximum large scores overflow"),
        equal("bare 50", 0.0, "which scores up to 50 do not show", within=0.0),
        *(
            equal(f"right {size:.0f}", 0.0, f"the running maximum is exact, scores up to {size:.0f}", within=1e-4)
            for size in SCORES
        ),
    ),
    minutes=0.2,
)


def measure(seed: int, folder: Path) -> dict[str, float]:
    generator = torch.Generator().manual_seed(seed)
    q, k, v = (torch.randn(1, HEADS, TOKENS, DIM, generator=generator) for _ in range(3))
    found = {}
    for size in SCORES:
        scaled = q * (size / (q @ k.mT * DIM**-0.5).max())
        exact = (scaled.double() @ k.double().mT * DIM**-0.5).softmax(dim=-1) @ v.double()

        def error(out: Tensor, exact: Tensor = exact) -> float:
            return ((out - exact).abs().max() / exact.abs().max()).item()

        softmax, part = RunningSoftmax(scaled, HEADS, DIM, block=BLOCK), Part(range(TOKENS))
        softmax.add(k, v, part, part, causal=False)
        blocks = [scaled @ keys.mT * DIM**-0.5 for keys in k.split(BLOCK, dim=2)]
        added = sum(scores.softmax(dim=-1) @ own for scores, own in zip(blocks, v.split(BLOCK, dim=2)))
        top = sum(scores.exp() @ own for scores, own in zip(blocks, v.split(BLOCK, dim=2)))
        bare = top / sum(scores.exp().sum(dim=-1, keepdim=True) for scores in blocks)
        found[f"right {size:.0f}"] = error(softmax.result()[0])
        found[f"added {size:.0f}"] = error(added)
        found[f"averaged {size:.0f}"] = error(added / len(blocks))
        found[f"bare {size:.0f}"] = 100 * (~bare.isfinite()).float().mean().item()
    return found
