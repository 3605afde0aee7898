"""Tokens of a language model as the context grows: cached decoding, and the same attention in one call and in blocks.

    python bench/context.py
    python bench/context.py --lengths 1024 4096 --rounds 3

A step of cached decoding reads all weights and all keys and values so far: what is flat is all but attention. A table
apart has causal attention of one row, forward and backward, by one fused call and in blocks, with the peak of memory
of a process of its own beyond what its inputs take.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F

from filmstrip.models.decoder import Decoder, DecoderConfig
from filmstrip.nn.blockwise import attend_in_blocks
from timing import alternate, peak_of

HEADS, DIM = 4, 64


def decoder(depth: int, width: int) -> Decoder:
    heads = width // DIM
    config = DecoderConfig(vocab_size=8000, width=width, depth=depth, num_heads=heads, mlp_dim=8 * width // 3)
    return Decoder(config).eval()


def decoding(model: Decoder, length: int, tokens: int) -> dict[str, Callable[[], None]]:
    """Steps on a memory of so many tokens: whole, and of its attention alone."""
    caches = model.new_caches(1, length + tokens)
    for cache in caches:
        cache.keys.normal_()
        cache.values.normal_()
    token = torch.zeros(1, 1, dtype=torch.long)
    q = torch.randn(1, model.config.num_heads, 1, DIM)

    @torch.inference_mode()
    def whole() -> None:
        for cache in caches:
            cache.length = length
        for _ in range(tokens):
            model.next_logits(token, caches)

    @torch.inference_mode()
    def attention() -> None:
        for step in range(1, tokens + 1):
            for cache in caches:
                F.scaled_dot_product_attention(
                    q, cache.keys[:, :, : length + step], cache.values[:, :, : length + step]
                )

    return {"whole": whole, "attention": attention}


WAYS = {
    "one call": lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=True),
    "blocks": attend_in_blocks,
}


def step(way: str, length: int) -> Callable[[], None]:
    torch.manual_seed(0)
    q, k, v = (torch.randn(1, HEADS, length, DIM, requires_grad=True) for _ in range(3))
    return lambda: WAYS[way](q, k, v).sum().backward()


def peak(way: str, length: int) -> float:
    """Peak megabytes of a step in another process."""
    command = [sys.executable, __file__, "--memory-of", way, str(length)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--lengths", nargs="+", type=int, default=[1024, 2048, 4096, 8192, 16384, 32768])
    parser.add_argument("--tokens", type=int, default=8)
    parser.add_argument("--depth", type=int, default=4)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--memory-of", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.memory_of:
        way, length = args.memory_of
        step(way, 64)()  # what torch itself takes on the first call
        run = step(way, int(length))
        print(peak_of(run) / 1e6)
        return
    torch.manual_seed(0)
    # Of one thread the processor's time is the duration, without what other processes take meanwhile.
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    model = decoder(args.depth, args.width)
    print("| context | ms a token | of which attention | the rest |\n|---:|---:|---:|---:|")
    for length in args.lengths:
        seconds = alternate(decoding(model, length, args.tokens), args.rounds, clock)
        whole, attention = (1e3 * seconds[name] / args.tokens for name in ("whole", "attention"))
        print(f"| {length} | {whole:.2f} | {attention:.2f} | {whole - attention:.2f} |", flush=True)
    print(
        "\n| tokens | one call, ms | speed of blocks, one call = 1 | MB, one call / blocks |\n|---:|---:|---:|---:|"
    )
    for length in args.lengths:
        seconds = alternate({way: step(way, length) for way in WAYS}, args.rounds, clock)
        memory = " / ".join(f"{peak(way, length):.0f}" for way in WAYS)
        ratio = seconds["one call"] / seconds["blocks"]
        print(f"| {length} | {1e3 * seconds['one call']:.0f} | {ratio:.2f} | {memory} |", flush=True)


if __name__ == "__main__":
    main()
