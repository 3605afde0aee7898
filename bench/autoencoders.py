"""Encoding and decoding video: our tokenizers against ``diffusers``' autoencoders of the same shape.

    python bench/autoencoders.py                            # 8 frames of 64 x 64, two precisions
    python bench/autoencoders.py --frames 4 --size 128 --widths 128 256 256 256

``vae_kl`` and ``vqgan`` are ``AutoencoderKL`` and ``VQModel`` layer by layer, and get the same weights. ``diffusers``
has no network of ``vqvae3d``'s shape: its peer is CogVideoX's causal VAE (``AutoencoderKLCogVideoX``) of the same
compression, 4 x 4 x 4, with as many parameters to 2%. The two alternate in one process; bfloat16 is autocast on both
sides. Memory is the peak resident set while encoding and decoding, in a process of its own, less what it had when the
model was built.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch
from einops import rearrange
from torch import Tensor, nn

from filmstrip.objectives.codebook import Codebook
from filmstrip.protocols import as_float
from filmstrip.systems.tokenizers import vqvae3d
from filmstrip.systems.tokenizers.vae_kl import VAEKLConfig
from filmstrip.systems.tokenizers.vqgan import VQGANConfig
from filmstrip.weights.diffusers import from_diffusers
from timing import alternate, peak_of

PEERS = {"vae_kl": "AutoencoderKL", "vqgan": "VQModel", "vqvae3d": "AutoencoderKLCogVideoX"}
CODES, CHANNELS, DEPTH = 1024, 64, 2


def theirs(name: str, args: argparse.Namespace) -> nn.Module:
    """The peer, with fresh weights."""
    import diffusers

    levels = len(args.widths)
    shared = {
        "block_out_channels": tuple(args.widths),
        "layers_per_block": DEPTH,
        "down_block_types": ("DownEncoderBlock2D",) * levels,
        "up_block_types": ("UpDecoderBlock2D",) * levels,
    }
    if name == "vae_kl":
        return diffusers.AutoencoderKL(latent_channels=4, sample_size=args.size, **shared)
    if name == "vqgan":
        return diffusers.VQModel(
            latent_channels=CHANNELS, num_vq_embeddings=CODES, lookup_from_codebook=True, **shared
        )
    return diffusers.AutoencoderKLCogVideoX(
        block_out_channels=(64, 128, 200),
        down_block_types=("CogVideoXDownBlock3D",) * 3,
        up_block_types=("CogVideoXUpBlock3D",) * 3,
        layers_per_block=1,
        norm_num_groups=8,
        latent_channels=16,
        temporal_compression_ratio=4,
        sample_height=args.size,
        sample_width=args.size,
    )


def ours(name: str, args: argparse.Namespace) -> nn.Module:
    """The tokenizer, with fresh weights."""
    if name == "vae_kl":
        return VAEKLConfig(latent_dim=4, widths=tuple(args.widths), depth=DEPTH).build()
    if name == "vqgan":
        codebook = Codebook(kind="learnt", size=CODES, dim=CHANNELS)
        return VQGANConfig(codebook=codebook, widths=tuple(args.widths), depth=DEPTH).build()
    config = vqvae3d.ucf101().objective
    return replace(config, patch_size=(4, 4, 4), num_frames=args.frames, size=args.size).build()


def load(name: str, which: str, args: argparse.Namespace) -> nn.Module:
    """One of the two; layer by layer the same networks have the same weights."""
    torch.manual_seed(0)
    peer = theirs(name, args)
    if which == "theirs":
        return peer.eval()
    model = ours(name, args)
    if name != "vqvae3d":
        missing, unknown = model.load_state_dict(from_diffusers(peer.state_dict(), model.state_dict()), strict=False)
        assert not unknown and not any(key.startswith(("autoencoder.", "bottleneck.")) for key in missing)
    for part in getattr(model, "training_only", ()):
        delattr(model, part)
    return model.eval()


def clips(args: argparse.Namespace) -> Tensor:
    shape = (args.batch, args.frames, 3, args.size, args.size)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def steps(name: str, which: str, model: nn.Module, args: argparse.Namespace) -> dict[str, Callable[[], object]]:
    """``encode`` uint8 clips, and ``decode`` what that gives to pixels in 0..1."""
    video = clips(args)

    def encode() -> object:
        if which == "ours":
            return model.encode(video)
        pixels = as_float(video) * 2 - 1
        if name == "vqvae3d":
            return model.encode(rearrange(pixels, "b t c h w -> b c t h w")).latent_dist.mode()
        coded = model.encode(rearrange(pixels, "b t c h w -> (b t) c h w"))
        return coded.latent_dist.mode() if name == "vae_kl" else model.quantize(coded.latents)[2][2]

    def decode() -> Tensor:
        if which == "ours":
            return model.decode(tokens)
        if name == "vqgan":
            side = args.size >> len(args.widths) - 1
            shape = (args.batch * args.frames, side, side, CHANNELS)
            rebuilt = model.decode(tokens, force_not_quantize=True, shape=shape).sample  # looks the codes up
        else:
            rebuilt = model.decode(tokens).sample
        return (rebuilt / 2 + 0.5).clamp(0, 1)

    def run(step: Callable[[], object]) -> object:
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=args.precision == "bfloat16"):
            return step()

    tokens = run(encode)
    return {"encode": partial(run, encode), "decode": partial(run, decode)}


def memory(name: str, which: str, args: argparse.Namespace) -> float:
    """Peak gigabytes of a process that encodes and decodes."""
    command = [sys.executable, __file__, "--memory-of", name, which, *_flags(args)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1])


def _flags(args: argparse.Namespace) -> list[str]:
    sizes = {"frames": args.frames, "size": args.size, "batch": args.batch}
    plain = [text for name, value in sizes.items() for text in (f"--{name}", str(value))]
    return [*plain, "--precisions", args.precision, "--widths", *map(str, args.widths)]


def print_memory(name: str, which: str, args: argparse.Namespace) -> None:
    model = load(name, which, args)
    print(peak_of(lambda: steps(name, which, model, args)["decode"]()) / 1e9)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tokenizers", nargs="+", choices=PEERS, default=list(PEERS))
    parser.add_argument(
        "--widths", type=int, nargs="+", default=[64, 128, 256], help="channels of the per-frame ones"
    )
    parser.add_argument("--frames", type=int, default=8)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--precisions", nargs="+", choices=("float32", "bfloat16"), default=["float32", "bfloat16"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--memory-of", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    args.precision = args.precisions[0]
    if args.memory_of:
        return print_memory(*args.memory_of, args)
    print(
        "| tokenizer, peer | M parameters | precision | | ours, frames/s | speed, diffusers = 1 | GB, ours / theirs |"
    )
    print("|---|---:|---|---|---:|---:|---:|")
    for name in args.tokenizers:
        both = {which: load(name, which, args) for which in ("ours", "theirs")}
        sizes = " / ".join(f"{sum(p.numel() for p in model.parameters()) / 1e6:.1f}" for model in both.values())
        for precision in args.precisions:
            args.precision = precision
            peaks = " / ".join(f"{memory(name, which, args):.2f}" for which in both)
            todo = {which: steps(name, which, model, args) for which, model in both.items()}
            for step in ("encode", "decode"):
                seconds = alternate({which: parts[step] for which, parts in todo.items()}, args.rounds)
                rate, ratio = args.batch * args.frames / seconds["ours"], seconds["theirs"] / seconds["ours"]
                what = f"{name}, {PEERS[name]} | {sizes} | {precision} | {step}"
                print(f"| {what} | {rate:.1f} | {ratio:.2f} | {peaks} |", flush=True)


if __name__ == "__main__":
    main()
