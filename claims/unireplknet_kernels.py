"""A large kernel that is trained with dilated ones beside it is one convolution afterwards, and faster by far."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from claims.ledger import Claim, Figure, above, below
from claims.textures import KINDS, SIZE, make, top1, top1_figures, trained
from claims.training import cost
from filmstrip.systems.recognition import unireplknet

FRAMES, STEPS, TESTS, ROUNDS = 16, 120, 400, 9
LARGE = replace(unireplknet.tiny().objective, num_frames=FRAMES, size=SIZE, kernel=13, num_classes=2 * KINDS)
NETWORKS = {"large": LARGE, "small": replace(LARGE, large_every=(0, 0, 0))}
SAYS = {"large": "kernels of 13 x 13", "small": "kernels of 3 x 3"}

CLAIM = Claim(
    systems=("recognition.unireplknet",),
    finding=__doc__.strip(),
    paper="Ding et al. 2024, dilated reparam block: parallel dilated convolutions help a large kernel to learn and "
    "are merged into it afterwards, so that inference costs one convolution; large kernels see wide without going "
    "deep. The abstract gives no figure of video.",
    here="A layer of 64 channels with a kernel of 13 x 13 and its five companions, on 56 x 56, as branches and "
    "merged, in turns, the median of nine ratios. A small network with such kernels in all stages but the first, and "
    "one with 3 x 3 everywhere, are trained for 120 steps on moving textures of 16 frames of 32 x 32, as one picture "
    "of 128 x 128; 400 unseen clips.",
    baseline="The branches; small kernels.",
    figures={
        "merged": Figure(says="a large kernel as one convolution: times faster than its branches", digits=2),
        "apart": Figure(says="largest difference of the two's outputs, of the largest output, parts in a million"),
        **{f"{name}, M": Figure(says=f"{SAYS[name]}: M multiply-adds") for name in NETWORKS},
        **{key: figure for name in NETWORKS for key, figure in top1_figures(name, SAYS[name]).items()},
    },
    expected=(
        above("merged", 1.5, "merged, a large kernel is half as fast again at least"),
        below("apart", 10.0, "and gives the same outputs, within 10 parts in a million"),
        below("large, M", "small, M", "large kernels cost little more work, within 6 M", by=-6.0),
        above("large texture", "small texture", "they learn textures as well, within 5 points", by=-5.0),
    ),
    analysis="Merged, a kernel is four to nine times faster; ratios on a busy machine scatter, so that three seeds "
    "give a wide interval. In so few steps neither network tells ways from one another, which are in rows of "
    "the picture that lie far apart; so nothing is claimed of what large kernels see of motion.",
    minutes=3,
)


def measure(seed: int, folder: Path) -> dict[str, float]:
    found = merged(seed)
    test = make(TESTS, FRAMES, torch.Generator().manual_seed(1000 + seed))
    for name, config in NETWORKS.items():
        found[f"{name}, M"] = 1000 * cost(config, FRAMES, SIZE)[1]
        found |= top1(trained(config, FRAMES, steps=STEPS, lr=2e-3, seed=seed), test, name)
    return found


@torch.no_grad()
def merged(seed: int) -> dict[str, float]:
    """How many times faster one convolution is than the branches that it is made of, and how far apart they are."""
    torch.manual_seed(seed)
    layer = unireplknet.LargeKernel(64, 13)
    x = torch.randn(2, 64, 56, 56).contiguous(memory_format=torch.channels_last)
    layer.train()(x)  # statistics of its norms
    layer.eval()
    branches = [layer.large, *layer.dilated.values()]

    def apart() -> Tensor:
        return torch.stack([branch(x) for branch in branches]).sum(dim=0)

    def seconds(call: Callable[[], object]) -> float:
        start = time.perf_counter()
        call()
        return time.perf_counter() - start

    ratios = [seconds(apart) / seconds(lambda: layer(x)) for _ in range(ROUNDS + 1)]
    expected = apart()
    difference = ((layer(x) - expected).abs().max() / expected.abs().max()).item()
    return {"merged": statistics.median(ratios[1:]), "apart": 1e6 * difference}
