"""A window that slides along a video's frames tells in which order things were, as well as attention to all frames.

    python claims/vtn_order.py

VTN (Neimark et al. 2021) lets each frame's class token see the frames around it, and one token see them all: the
paper reads a whole video of 250 frames at once, for 4218 G multiply-adds. Here, in noise, a patch lights up red and
another blue, anywhere among 16 frames: in which order, no set of frames tells (50). Networks differ in what follows
the frames alone: VTN's window, the same seeing everything, or an average. Positions start as sines: learning them
from random ones, as published, takes longer than a claim may. Then costs are counted as videos grow: of the paper's
network, and of one of the same size whose tokens of all frames attend to each other (ViViT's first model); and, over
time alone, how many pairs of frames see each other.
"""

from __future__ import annotations

import argparse
from dataclasses import replace

import torch
from torch import Tensor, nn

from filmstrip.measure.complexity import flop_counter
from filmstrip.models.video_transformer import JOINT, FrameTransformer, SpaceTimeTransformer
from filmstrip.nn.masks import sliding_window
from filmstrip.nn.positions import sincos_table
from filmstrip.objectives.classification import Classification
from filmstrip.systems.recognition import vtn
from filmstrip.systems.recognition.vtn import VTNConfig

FRAMES, SIZE, PATCH = 16, 16, 8
COLOURS = torch.tensor([[1.0, 0.2, 0.2], [0.2, 0.2, 1.0]])
SIZES = {"width": 48, "depth": 1, "num_heads": 2, "num_frames": FRAMES, "size": SIZE}
WINDOW = 4
NETWORK = VTNConfig(
    **SIZES, patch_size=PATCH, temporal_depth=2, hidden=96, window=WINDOW, places=1 + FRAMES, num_classes=2
)
NETWORKS = {f"a window of {WINDOW} frames": WINDOW, "all frames": 2 * FRAMES, "their average": None}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--only", choices=("order", "cost"))
    args = parser.parse_args()
    if args.only != "cost":
        print("| what follows the frames | top-1 | of each seed | says the opposite backwards |\n|---|---:|---|---:|")
        for name, window in NETWORKS.items():
            said = [asked(trained(window, args, seed)) for seed in range(args.seeds)]
            top1, opposite = (torch.tensor(values) * 100 for values in zip(*said))
            seeds = ", ".join(f"{t:.1f}" for t in top1.tolist())
            print(f"| {name} | {top1.mean():.1f} | {seeds} | {opposite.mean():.1f} |", flush=True)
    if args.only != "order":
        print("\n| frames | VTN, G | joint attention, G | pairs, window of 18 | pairs, all frames |")
        print("|---:|---:|---:|---:|---:|")
        for frames in (16, 64, 250):
            reach = vtn.base_k400().objective.window // 2
            pairs = int(sliding_window(reach).dense(frames + 1, frames + 1, torch.device("cpu")).sum())
            work = (giga(encoder, frames) for encoder in encoders(frames))
            print("| {} | {:.0f} | {:.0f} | {} | {} |".format(frames, *work, pairs, (frames + 1) ** 2), flush=True)


def trained(window: int | None, args: argparse.Namespace, seed: int) -> Classification:
    """A network after training on videos that are never the same."""
    torch.manual_seed(seed)
    if window is None:
        frames = FrameTransformer(**SIZES, patch_size=(1, PATCH, PATCH))
        network = Classification(frames, 2, norm=True)
    else:
        network = replace(NETWORK, window=window).build()
        positions = network.encoder.temporal.pos_embed.data
        positions.copy_(sincos_table(*positions.shape))
    optimiser = torch.optim.AdamW(network.parameters(), lr=3e-4, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=3e-4, total_steps=args.steps, pct_start=0.2)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(args.steps):
        video, label = make(args.batch, generator)
        optimiser.zero_grad()
        network({"video": video, "label": label}).total.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
        schedule.step()
    return network.eval()


@torch.no_grad()
def asked(network: Classification) -> tuple[float, float]:
    """The share of 640 new videos that are named rightly, and that have another name played backwards."""
    generator = torch.Generator().manual_seed(1000)
    right, turned = [], []
    for _ in range(20):
        video, label = make(32, generator)
        said, backwards = (network.classify(clips).argmax(dim=1) for clips in (video, video.flip(1)))
        right.append(said == label)
        turned.append(said != backwards)
    return torch.cat(right).float().mean().item(), torch.cat(turned).float().mean().item()


def make(count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Videos ``B T 3 H W`` in 0..1 in which both colours light up, somewhere and some time, and which does first."""
    video = 0.4 + 0.1 * torch.randn(count, FRAMES, 3, SIZE, SIZE, generator=generator)
    label = torch.randint(2, (count,), generator=generator)
    for clip, first in zip(video, label.tolist()):
        times = torch.randperm(FRAMES, generator=generator)[:2].sort().values.tolist()
        for t, colour in zip(times, (first, 1 - first)):
            y, x = torch.randint(SIZE - PATCH + 1, (2,), generator=generator).tolist()
            clip[t, :, y : y + PATCH, x : x + PATCH] = COLOURS[colour][:, None, None]
    return video.clamp_(0, 1), label


def encoders(frames: int) -> tuple[nn.Module, nn.Module]:
    """VTN of the paper's size, and joint attention of all tokens, for so many frames."""
    config = vtn.base_k400().objective
    with torch.device("meta"):
        joint = SpaceTimeTransformer(
            JOINT, width=config.width, depth=config.depth, num_heads=config.num_heads, num_frames=frames
        )
        return replace(config, num_frames=frames).build().encoder.eval(), joint.eval()


def giga(encoder: nn.Module, frames: int) -> float:
    """G multiply-adds of encoding a video of so many frames."""
    with torch.device("meta"), torch.no_grad(), flop_counter() as counter:
        encoder(torch.empty(1, frames, 3, 224, 224))
    return counter.get_total_flops() / 2e9


if __name__ == "__main__":
    main()
