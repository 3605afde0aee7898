"""Sampling token by token with a cache: ours against ``generate`` of ``transformers`` on a Llama of the same size.

    python bench/sampling.py                                # width 512, 8 layers, 256 tokens, batches of 1 and 16
    python bench/sampling.py --width 256 --tokens 1024 --attention sparse

VideoGPT's transformer and our decoder of language models (``decoder``, whose layers are the Llama's) are measured.
All have the same width, depth, heads, vocabulary and (to 1%) parameters, draw the same number of tokens at
temperature one from the whole distribution, without a prompt, and alternate in one process.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import torch

from filmstrip.models.decoder import Decoder, DecoderConfig
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


def decoder(args: argparse.Namespace) -> torch.nn.Module:
    return Decoder(
        DecoderConfig(
            vocab_size=args.codes + 1,
            width=args.width,
            depth=args.depth,
            num_heads=args.heads,
            mlp_dim=hidden(args),
        )
    )


def hidden(args: argparse.Namespace) -> int:
    """Width of the Llama's feed-forward networks: of three matrices, where VideoGPT's have two."""
    return round(8 / 3 * args.width / 8) * 8


def theirs(args: argparse.Namespace) -> torch.nn.Module:
    import transformers

    config = transformers.LlamaConfig(
        vocab_size=args.codes + 1,
        hidden_size=args.width,
        num_hidden_layers=args.depth,
        num_attention_heads=args.heads,
        intermediate_size=hidden(args),
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

    def run_decoder() -> None:
        drawn = uniform(seeds, args.tokens, "bench.sampling")
        with torch.inference_mode():
            ids = torch.stack(list(model.decode(start, drawn, Sampling(), allowed=slice(args.codes))), dim=1)
        assert ids.shape == (batch, args.tokens)

    return {"ours": run_ours, "decoder": run_decoder, "theirs": run_theirs}[which]


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
    models = {"ours": ours(args).eval(), "decoder": decoder(args).eval(), "theirs": theirs(args).eval()}
    sizes = {which: sum(p.numel() for p in model.parameters()) / 1e6 for which, model in models.items()}
    print(
        f"{sizes['ours']:.1f} M parameters, the decoder {sizes['decoder']:.1f} M, the Llama {sizes['theirs']:.1f} M; "
        f"{args.tokens} tokens\n"
    )
    print("| batch | precision | ours, tokens/s | decoder | transformers | speed, transformers = 1: ours, decoder |")
    print("|---:|---|---:|---:|---:|---:|")
    for precision in args.precisions:
        for model in models.values():
            model.to(getattr(torch, precision))
        for batch in args.batches:
            both = {which: sampler(which, model, batch, args) for which, model in models.items()}
            seconds = alternate(both, args.rounds)
            rates = {which: batch * args.tokens / s for which, s in seconds.items()}
            ratios = ", ".join(f"{rates[which] / rates['theirs']:.2f}" for which in ("ours", "decoder"))
            shown = " | ".join(f"{rate:.0f}" for rate in rates.values())
            print(f"| {batch} | {precision} | {shown} | {ratios} |", flush=True)


if __name__ == "__main__":
    main()
