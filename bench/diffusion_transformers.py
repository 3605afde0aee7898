"""A training step of the video diffusion transformer against ``diffusers``' modules with the same weights.

    python bench/diffusion_transformers.py                      # Latte's and Wan's networks, small, float32
    python bench/diffusion_transformers.py --width 512 --depth 4 --precision bfloat16

Both are given the same noised latents, times and texts; a step is the squared error, its gradient and AdamW's update.
The two alternate in one process, on its own processor time. Memory is the peak resident set during two steps, in a
process of its own, less what it had when the network was built.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from filmstrip.models.video_dit import VideoDiT, VideoDiTArchitecture
from filmstrip.models.video_dit_layouts import config_of, to_diffusers_dit
from filmstrip.protocols import Grid
from timing import alternate, peak_of

KINDS = ("latte", "wan")
CHANNELS, TEXT, LENGTH = 4, 256, 32


def architecture(kind: str, args: argparse.Namespace) -> VideoDiTArchitecture:
    """The settings of a network of this kind."""
    shared = {"width": args.width, "num_heads": args.width // args.head_dim, "mlp_width": 4 * args.width}
    shared |= {"modulation": "shared", "context_width": TEXT}
    if kind == "latte":
        return VideoDiTArchitecture(depth=2 * args.depth, attention="alternating", variances=True, **shared)
    joint = {"attention": "joint", "positions": "rotary", "qk_norm": True, "context_norm": True}
    return VideoDiTArchitecture(depth=args.depth, **joint, **shared)


def networks(kind: str, args: argparse.Namespace) -> dict[str, nn.Module]:
    """Ours, and theirs with the same weights."""
    import diffusers

    torch.manual_seed(0)
    size = Grid(args.frames, args.size, args.size)
    config = architecture(kind, args)
    ours = VideoDiT(config, channels=CHANNELS, size=size)
    about = config_of(config, channels=CHANNELS, size=size)
    theirs = getattr(diffusers, about["_class_name"]).from_config(about)
    theirs.load_state_dict(to_diffusers_dit(ours.state_dict(), config))
    return {"ours": ours.train(), "theirs": theirs.train()}


def step(name: str, network: nn.Module, args: argparse.Namespace) -> Callable[[], None]:
    """A training step of one of the two."""
    generator = torch.Generator().manual_seed(1)
    shape = (args.batch, args.frames, CHANNELS, args.size, args.size)
    noisy, target = (torch.randn(shape, generator=generator) for _ in range(2))
    time_of, text = torch.full((args.batch,), 500), torch.randn(args.batch, LENGTH, TEXT, generator=generator)
    optimiser = torch.optim.AdamW(network.parameters(), lr=1e-4)

    def output() -> Tensor:
        if name == "ours":
            return network(noisy, time_of, network.read(text))
        said = network(noisy.transpose(1, 2), timestep=time_of, encoder_hidden_states=text, return_dict=False)
        return said[0].transpose(1, 2)

    def run() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=args.precision == "bfloat16"):
            found = output()
        (found[:, :, :CHANNELS].float() - target).square().mean().backward()
        optimiser.step()
        optimiser.zero_grad()

    return run


def memory(kind: str, name: str, args: argparse.Namespace) -> float:
    """Peak gigabytes of two steps, in a process of its own."""
    words = [sys.executable, __file__, "--only", kind, name]
    for option in ("width", "depth", "head_dim", "frames", "size", "batch", "precision"):
        words += [f"--{option.replace('_', '-')}", str(getattr(args, option))]
    return float(subprocess.run(words, check=True, capture_output=True, text=True).stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--width", type=int, default=384)
    parser.add_argument("--depth", type=int, default=2, help="blocks, of Latte pairs of them")
    parser.add_argument("--head-dim", type=int, default=48)
    parser.add_argument("--frames", type=int, default=8)
    parser.add_argument("--size", type=int, default=16, help="height and width of the latents")
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--only", nargs=2, metavar=("KIND", "NAME"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.only:
        kind, name = args.only
        run = step(name, networks(kind, args)[name], args)
        print(peak_of(lambda: (run(), run())) / 1e9)
        return
    print("| network | step, diffusers = 1 | GB, ours / theirs |\n|---|---:|---:|")
    for kind in args.kinds:
        both = networks(kind, args)
        steps = {name: step(name, network, args) for name, network in both.items()}
        found = alternate(steps, args.rounds, clock=time.process_time)
        gigabytes = [memory(kind, name, args) for name in both]
        print(f"| {kind} | {found['theirs'] / found['ours']:.2f} | {gigabytes[0]:.2f} / {gigabytes[1]:.2f} |")


if __name__ == "__main__":
    main()
