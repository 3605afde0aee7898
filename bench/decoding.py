"""Decoding of a language model: memory that grows, memory of one length, and compiled steps, alternating.

    python bench/decoding.py
    python bench/decoding.py --width 576 --depth 30 --heads 9 --kv-heads 3 --vocab 49152   # the size of SmolLM2-135M

Greedy tokens after a prompt; what the prompt takes is not counted, nor what compiling takes, which is printed apart.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable

import torch
from torch import Tensor

from filmstrip.models.decoder import Decoder, DecoderConfig, Steps
from filmstrip.nn.sampling import Sampling
from timing import alternate


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--width", type=int, default=384)
    parser.add_argument("--depth", type=int, default=4)
    parser.add_argument("--heads", type=int, default=6)
    parser.add_argument("--kv-heads", type=int, default=2)
    parser.add_argument("--vocab", type=int, default=8000)
    parser.add_argument("--prompt", type=int, default=100)
    parser.add_argument("--tokens", type=int, default=60)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    torch.manual_seed(0)
    model = Decoder(
        DecoderConfig(
            vocab_size=args.vocab,
            width=args.width,
            depth=args.depth,
            num_heads=args.heads,
            num_kv_heads=args.kv_heads,
            mlp_dim=8 * args.width // 3,
        )
    ).eval()
    # Of one thread the processor's time is the duration, without what other processes take meanwhile.
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    kinds: tuple[Steps, ...] = ("growing", "static", "compiled")
    print("| batch | steps | ms a token | speed, growing = 1 | compiling, s of processor time |")
    print("|---:|---|---:|---:|---:|")
    for batch in args.batches:
        prompt = torch.randint(0, args.vocab, (batch, args.prompt))
        said: dict[str, Tensor] = {}

        def decode(kind: Steps, count: int, prompt: Tensor = prompt, said: dict[str, Tensor] = said) -> None:
            model.steps = kind
            with torch.inference_mode():
                drawn = torch.zeros(len(prompt), count)
                said[kind] = torch.stack(list(model.decode(prompt, drawn, Sampling(temperature=0.0))), dim=1)

        def all_tokens(kind: Steps, run: Callable[[Steps, int], None] = decode) -> Callable[[], None]:
            return lambda: run(kind, args.tokens)

        began = sum(os.times()[:4])
        decode("compiled", 2)
        compiling = sum(os.times()[:4]) - began
        functions = {kind: all_tokens(kind) for kind in kinds} | {"prompt": lambda run=decode: run("growing", 1)}
        seconds = alternate(functions, args.rounds, clock)
        for kind in kinds:
            decode(kind, args.tokens)
        assert torch.equal(said["static"], said["growing"]) and torch.equal(said["compiled"], said["growing"])
        each = {kind: (seconds[kind] - seconds["prompt"]) / (args.tokens - 1) for kind in kinds}
        for kind in kinds:
            cost = f"{compiling:.0f}" if kind == "compiled" else ""
            print(
                f"| {batch} | {kind} | {1e3 * each[kind]:.2f} | {each['growing'] / each[kind]:.2f} | {cost} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
