"""Memory lets a clip know what clips before it showed, for a few percent more work.

    python claims/memvit_memory.py

MeMViT (Wu et al. 2022, Table 3): on AVA, 27.0 mAP without memory and 29.3 with, for 57.4 and 58.7 G multiply-adds a
clip (+2.3%). Here four clips make a video: the first shows, in noise, one of eight things (a quarter of the frame,
one of two colours), the others noise alone, and every clip is asked what the video showed. Chance is 12.5. One
network reads the clips with two in memory, the same network each clip for itself; the last column counts what reading
all frames so far at once would cost. The fourth clip no longer remembers the first: it must learn of it from those
between. In the default 200 steps neither network has learnt the first clip well (about 23 each); what tells is that
with memory the clips after it are as good (25, 25, 28), for 2 to 4% more work, and without it stay at chance (12).
"""

from __future__ import annotations

import argparse

import torch
from einops import rearrange
from torch import Tensor

from filmstrip import systems
from filmstrip.measure.complexity import flop_counter
from filmstrip.systems.recognition.memvit import ClipByClip, MeMViTConfig
from filmstrip.systems.recognition.mvit import MViTConfig

CLIPS, FRAMES, SIZE, CLASSES = 4, 8, 16, 8
NETWORK = {
    "width": 32,
    "depth": 2,
    "stages": (1,),
    "kv_stride": (1, 2, 2),
    "num_frames": FRAMES,
    "size": SIZE,
    "summary": "mean",
    "drop_path": 0.0,
    "dropout": 0.0,
    "label_smoothing": 0.0,
    "num_classes": CLASSES,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    with_memory, without = (trained(remembers, args) for remembers in (True, False))
    print("| clip | top-1 with memory | top-1 without | cost with memory | all frames at once |")
    print("|---|---:|---:|---:|---:|")
    alone, *_ = costs = clip_costs(MeMViTConfig(**NETWORK, memory_every=1), CLIPS)
    for i in range(CLIPS):
        whole = whole_cost((i + 1) * FRAMES)
        row = (f"{100 * top1[i]:.1f}" for top1 in (with_memory, without))
        print(f"| {i + 1} | {' | '.join(row)} | {costs[i] / alone - 1:+.1%} | {whole / alone - 1:+.1%} |")
    paper = clip_costs(systems.find("recognition.memvit:base_16x4_k400").objective, 3)
    print(
        f"\nMeMViT-16, a clip without and with full memory: paper 57.4 and 58.7 G (+2.3%), counted here "
        f"{paper[0] / 1e9:.1f} and {paper[2] / 1e9:.1f} G ({paper[2] / paper[0] - 1:+.1%})"
    )


def trained(remembers: bool, args: argparse.Namespace) -> list[float]:
    """Accuracy of each clip on unseen videos, after training on videos that are never the same."""
    torch.manual_seed(args.seed)
    objective = MeMViTConfig(**NETWORK, memory_every=1).build()
    optimiser = torch.optim.AdamW(objective.parameters(), lr=3e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=3e-3, total_steps=args.steps, pct_start=0.2)
    generator = torch.Generator().manual_seed(args.seed)
    for step in range(1, args.steps + 1):
        video, label = make(args.batch, generator)
        logits = answers(objective, video, remembers)
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), label.repeat_interleave(CLIPS))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        if step % 50 == 0:
            print(f"{'with' if remembers else 'without'} memory, step {step}: loss {loss.item():.3f}", flush=True)
    right = []
    objective.eval()
    with torch.no_grad():
        for _ in range(10):
            video, label = make(32, generator)
            right.append(answers(objective, video, remembers).argmax(-1) == label[:, None])
    top1 = torch.cat(right).float().mean(dim=0).tolist()
    print(
        f"{'with' if remembers else 'without'} memory, top-1 of each clip: {', '.join(f'{t:.1%}' for t in top1)}",
        flush=True,
    )
    return top1


def make(count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Videos ``B T 3 H W`` in 0..1 of ``CLIPS`` clips, and what the first clip of each shows."""
    video = 0.5 + 0.1 * torch.randn(count, CLIPS * FRAMES, 3, SIZE, SIZE, generator=generator)
    label = torch.randint(CLASSES, (count,), generator=generator)
    half = SIZE // 2
    for clip, shown in zip(video, label.tolist()):
        place, colour = divmod(shown, 2)
        y, x = half * (place // 2), half * (place % 2)
        clip[:FRAMES, 2 * colour, y : y + half, x : x + half] += 0.4
    return video.clamp_(0, 1), label


def answers(objective: ClipByClip, video: Tensor, remembers: bool) -> Tensor:
    """Logits of each clip, ``B clips K``: read in order, or each for itself."""
    if remembers:
        return objective.logits(video)
    alone = objective.logits(rearrange(video, "b (n t) c h w -> (b n) t c h w", n=CLIPS))
    return rearrange(alone, "(b n) 1 k -> b n k", n=CLIPS)


def clip_costs(config: MeMViTConfig, clips: int) -> list[int]:
    """Multiply-adds of each of so many clips, read one after the other."""
    costs = []
    with torch.device("meta"), torch.no_grad():
        encoder = config.build().encoder.eval()
        memory, clip = encoder.new_memory(), torch.empty(1, config.num_frames, 3, config.size, config.size)
        for _ in range(clips):
            with flop_counter() as counter:
                encoder.read(clip, memory)
            costs.append(counter.get_total_flops() // 2)
    return costs


def whole_cost(frames: int) -> int:
    """Multiply-adds of the plain network on so many frames at once."""
    with torch.device("meta"), torch.no_grad():
        encoder = MViTConfig(**NETWORK | {"num_frames": frames}).build().encoder.eval()
        with flop_counter() as counter:
            encoder(torch.empty(1, frames, 3, SIZE, SIZE))
    return counter.get_total_flops() // 2


if __name__ == "__main__":
    main()
