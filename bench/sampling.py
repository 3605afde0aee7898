"""Sampling token by token with a cache: ours against ``generate`` of ``transformers`` on a Llama of the same size.

    python bench/sampling.py                                # width 512, 8 layers, 256 tokens, batches of 1 and 16
    python bench/sampling.py --width 256 --tokens 1024 --attention sparse

Both have the same width, depth, heads, vocabulary and (to 1%) parameters, draw the same number of tokens at
temperature one from the whole distribution, without a prompt, and alternate in one process.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import torch

from filmstrip.nn.sampling import Sampling
from filmstrip.randomness import uniform
from filmstrip.systems.generation.videogpt.transformer import CodeTransformer
from timing import alternate


def ours(args: argparse.Namespace) -> torch.nn.Module:
    return CodeTransformer(
        codebook_size=args.codes,
        grid=(args.tokens // args.row, 1, args.row),
        width=args.width,
        depth=args.depth,
        num_heads=args.heads,
        attention=args.attention,
    )


def theirs(args: argparse.Namespace) -> torch.nn.Module:
    import transformers

    config = transformers.LlamaConfig(
        vocab_size=args.codes + 1,
        hidden_size=args.width,
        num_hidden_layers=args.depth,
        num_attention_heads=args.heads,
        # three matrices where ours has two
        intermediate_size=round(8 / 3 * args.width / 8) * 8,
        max_position_embeddings=args.tokens + 1,
        bos_token_id=args.codes,
        eos_token_id=None,
        pad_token_id=args.codes,
    )
    return transformers.LlamaForCausalLM(config)


def sampler(which: str, model: torch.nn.Module, batch: int, args: argparse.Namespace) -> Callable[[], None]:
    seeds = torch.arange(batch)
    start = torch.full((batch, 1), args.codes)

    def run_ours() -> None:
        with torch.inference_mode():
            ids = model.generate(uniform(seeds, args.tokens, "bench.sampling"), Sampling())
        assert ids.shape == (batch, args.tokens)

    def run_theirs() -> None:
        ids = model.generate(
            start,
            attention_mask=torch.ones_like(start),
            do_sample=True,
            top_k=0,
            min_new_tokens=args.tokens,
            max_new_tokens=args.tokens,
        )
        assert ids.shape == (batch, args.tokens + 1)

    return run_ours if which == "ours" else run_theirs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--depth", type=int, default=8)
    parser.add_argument("--heads", type=int, default=8)
    parser.add_argument("--codes", type=int, default=1024)
    parser.add_argument("--tokens", type=int, default=256)
    parser.add_argument("--row", type=int, default=16, help="codes in a row of the grid")
    parser.add_argument("--attention", choices=("full", "axial", "sparse"), default="full")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 16])
    parser.add_argument("--precisions", nargs="+", choices=("float32", "bfloat16"), default=["float32", "bfloat16"])
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    models = {"ours": ours(args).eval(), "theirs": theirs(args).eval()}
    sizes = {which: sum(p.numel() for p in model.parameters()) / 1e6 for which, model in models.items()}
    print(f"{sizes['ours']:.1f} M parameters, the Llama {sizes['theirs']:.1f} M; {args.tokens} tokens\n")
    print("| batch | precision | ours, tokens/s | transformers, tokens/s | speed, transformers = 1 |")
    print("|---:|---|---:|---:|---:|")
    for precision in args.precisions:
        for model in models.values():
            model.to(getattr(torch, precision))
        for batch in args.batches:
            both = {which: sampler(which, model, batch, args) for which, model in models.items()}
            seconds = alternate(both, args.rounds)
            rates = {which: batch * args.tokens / s for which, s in seconds.items()}
            ratio = rates["ours"] / rates["theirs"]
            print(
                f"| {batch} | {precision} | {rates['ours']:.0f} | {rates['theirs']:.0f} | {ratio:.2f} |", flush=True
            )


if __name__ == "__main__":
    main()
