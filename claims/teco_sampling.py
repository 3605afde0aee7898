"""TECO samples video 20 times faster than an autoregressive transformer over space and time."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from claims.ledger import Claim, Figure, above
from filmstrip.evals.throughput import wait_for
from filmstrip.nn.sampling import Sampling, draw
from filmstrip.objectives.codebook import Codebook
from filmstrip.protocols import Condition
from filmstrip.randomness import uniform
from filmstrip.systems.generation import teco
from filmstrip.systems.generation.videogpt import transformer
from filmstrip.systems.generation.videogpt.transformer import CodeTransformer
from filmstrip.systems.tokenizers.vqgan import VQGANConfig

PLACES, DRAWN = 256, 32
FRAMES, WIDTH, DEPTH = (2, 150, 300), 256, 8
TOKENIZER = VQGANConfig.small(codebook=Codebook(size=1024, dim=16))
"""Of 64 x 64 pixels it makes 16 x 16 codes, as the paper's does; encoding and rendering are not timed."""

CLAIM = Claim(
    systems=("generation.teco",),
    finding=__doc__.strip(),
    paper="Yan et al. 2023, B.5, Minecraft, 300 frames: 186 ms a frame against 8,443 of Perceiver AR, 45 times.",
    here="Both make one frame of 16 x 16 codes at several places of a 300-frame clip, with transformers of the same "
    "width (256) and depth (8) and fresh weights: TECO from 12 passes of its prior over 64 codes and one step of "
    "its temporal transformer; the other code by code, each reading the cached keys and values of all before (timed "
    "over 32 of the 256 codes). Rendering is left out on both sides. Times are of processor time, which other work "
    "on the machine hardly changes.",
    baseline="The autoregressive transformer.",
    figures={
        **{
            f"{name}, frame {frame}": Figure(says=f"{name}: ms for frame {frame}", digits=0)
            for name in ("TECO", "autoregressive")
            for frame in FRAMES
        },
        "TECO": Figure(says="TECO: ms a frame, mean", paper="186", digits=0),
        "autoregressive": Figure(says="autoregressive: ms a frame, mean", paper="8443", digits=0),
        "times": Figure(says="times faster, on average over the clip", paper="45"),
        "TECO, M": Figure(says="TECO: M parameters"),
        "autoregressive, M": Figure(says="autoregressive: M parameters"),
    },
    expected=(
        above("times", 20.0, "TECO is at least 20 times faster"),
        above("autoregressive, frame 300", "autoregressive, frame 2", "the other's cost grows with the clip"),
    ),
    minutes=1.5,
)


def measure(seed: int, folder: Path) -> dict[str, float]:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(seed)
    ours, plain = (model.to(device) for model in build())
    numbers = uniform(torch.tensor([seed], device=device), plain.places, "claims.teco_sampling")
    found = {}
    with torch.inference_mode():
        by_teco(ours, 2, device)
        by_code(plain, 2, numbers, device)  # warm
        for frame in FRAMES:
            found[f"TECO, frame {frame}"] = 1000 * by_teco(ours, frame, device)
            found[f"autoregressive, frame {frame}"] = 1000 * by_code(plain, frame, numbers, device)
    for name, model in (("TECO", ours), ("autoregressive", plain)):
        found[name] = sum(found[f"{name}, frame {frame}"] for frame in FRAMES) / len(FRAMES)
        found[f"{name}, M"] = size(model) / 1e6
    return found | {"times": found["autoregressive"] / found["TECO"]}


def build() -> tuple[teco.TECO, CodeTransformer]:
    """Both models with fresh weights: time does not depend on them."""
    shared = {"width": WIDTH, "depth": DEPTH, "num_heads": WIDTH // 64}
    frames = max(FRAMES)
    config = replace(
        teco.dmlab().objective,
        tokenizer=TOKENIZER,
        num_frames=frames + 2,
        prior_width=WIDTH,
        prior_depth=DEPTH,
        prior_num_heads=WIDTH // 64,
        encoder_widths=(WIDTH // 4, WIDTH // 2),
        decoder_widths=(WIDTH // 4, WIDTH // 2),
        **shared,
    )
    plain = CodeTransformer(codebook_size=1024, grid=(frames, 16, 16), attention="full", **shared)
    return config.build().eval(), plain.eval()


def seconds(function: Callable[[], object], device: torch.device) -> float:
    """How long a call takes: of processor time on a CPU, which other work hardly changes."""
    clock = time.process_time if device.type == "cpu" else time.perf_counter
    wait_for(device)
    start = clock()
    function()
    wait_for(device)
    return clock() - start


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
