"""TECO samples video 20 times faster than an autoregressive transformer over space and time.

    python claims/teco_sampling.py

Both make one frame of 16 x 16 codes at several places of a 300-frame clip, with transformers of the same width and
depth: TECO from 12 passes of its prior over 64 codes and one step of its temporal transformer; the other code by
code, each reading the cached keys and values of all before (timed over 32 of the 256 codes). TECO's cost stays, the
other's grows with the clip. Rendering is left out on both sides. Paper, Minecraft, 300 frames: 186 ms a frame
against 8,443 of Perceiver AR, 45 times (Yan et al. 2023, B.5).
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor, nn

from filmstrip.evals.throughput import wait_for
from filmstrip.nn.sampling import Sampling, draw
from filmstrip.protocols import Condition
from filmstrip.randomness import uniform
from filmstrip.systems.generation import teco
from filmstrip.systems.generation.videogpt import transformer
from filmstrip.systems.generation.videogpt.transformer import CodeTransformer

PAPER = {"TECO": 186, "autoregressive": 8443}
PLACES, DRAWN = 256, 32


def build(args: argparse.Namespace) -> tuple[teco.TECO, CodeTransformer]:
    """Both models with fresh weights: time does not depend on them."""
    shared = {"width": args.width, "depth": args.depth, "num_heads": args.width // 64}
    frames = max(args.frames)
    config = replace(
        teco.dmlab().objective,
        num_frames=frames + 2,
        prior_width=args.width,
        prior_depth=args.depth,
        prior_num_heads=args.width // 64,
        encoder_widths=(args.width // 4, args.width // 2),
        decoder_widths=(args.width // 4, args.width // 2),
        **shared,
    )
    plain = CodeTransformer(codebook_size=1024, grid=(frames, 16, 16), attention="full", **shared)
    return config.build().eval(), plain.eval()


def seconds(function: Callable[[], object], device: torch.device) -> float:
    """How long a call takes."""
    wait_for(device)
    start = time.perf_counter()
    function()
    wait_for(device)
    return time.perf_counter() - start


def by_teco(model: teco.TECO, frames: int, device: torch.device) -> float:
    """Seconds for frame number ``frames``, the mean of two: the first new frame also reads those that are given."""
    video = torch.rand(1, frames - 1, 3, 64, 64, device=device)
    action = torch.zeros(1, frames + 2, dtype=torch.int64, device=device)
    condition = Condition(batch_size=1, num_frames=frames + 2, video=video, action=action)
    stream = model.continuation(condition, seed=0)
    next(stream)
    return seconds(lambda: (next(stream), next(stream)), device) / 2


def by_code(model: CodeTransformer, frames: int, numbers: Tensor, device: torch.device) -> float:
    """Seconds for frame number ``frames``, by the steps that ``generate`` takes.

    The cache is empty: what it holds does not change the time, and computing it would take minutes.
    """
    caches = [block.attention.new_cache(1, model.places) for block in model.blocks]
    given = [block.given(None, None) for block in model.blocks]
    table, last = model._position_table(), transformer._affine(model.norm, None)
    row, sampling = torch.zeros(1, dtype=torch.int64, device=device), Sampling()

    def draw_codes() -> None:
        first = (frames - 1) * PLACES
        for n in range(first, first + DRAWN):
            draw(model._step(row, n, table, caches, given, last), numbers[:, n], sampling)

    return seconds(draw_codes, device) / DRAWN * PLACES


def size(model: nn.Module) -> int:
    """Parameters that are trained."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--frames", type=int, nargs="+", default=[2, 75, 150, 225, 300])
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--depth", type=int, default=8)
    args = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(0)
    ours, plain = (model.to(device) for model in build(args))
    numbers = uniform(torch.zeros(1, dtype=torch.int64, device=device), plain.places, 0)
    rows = []
    with torch.inference_mode():
        by_teco(ours, 2, device)
        by_code(plain, 2, numbers, device)  # warm
        for frames in args.frames:
            rows.append((by_teco(ours, frames, device), by_code(plain, frames, numbers, device)))
    print(f"\n| ms for a frame on {device} | TECO, {size(ours):,} | autoregressive, {size(plain):,} | times faster |")
    print("|---|---:|---:|---:|")
    print(f"| paper, Minecraft | {PAPER['TECO']} | {PAPER['autoregressive']} | {8443 / 186:.0f} |")
    for frames, (fast, slow) in zip(args.frames, rows):
        print(f"| frame {frames} | {1000 * fast:.0f} | {1000 * slow:.0f} | {slow / fast:.0f} |")
    fast, slow = (sum(column) / len(rows) for column in zip(*rows))
    print(f"\non average over the clip {slow / fast:.0f} times faster; 20 or more: {slow >= 20 * fast} (paper: True)")


if __name__ == "__main__":
    main()
