"""Arming an image network for video changes nothing at first, and then lets it see motion.

    python claims/uniformer_v2_arming.py

UniFormerV2 (Li et al. 2023) puts local relations over time into an image ViT's blocks, and a video token beside them
that looks at all frames; what is added starts at zero. The published configurations leave local relations out on
Kinetics, where scenes give actions away, and have them on Something-Something, where motion does. Here an image ViT
learns where a texture is; it is then armed in each way, and learns, all of it, which of four ways the texture moves
(chance 25). A clip backwards moves the opposite way, so that no average over frames can tell more than the axis (50).
The first column is the largest change of a frame's class token by arming, before training; it must be zero.
In the default 200 steps local relations find motion: 99.8 and 100.0 in two runs, on one thread and on two, which add
in another order. What the video token does is not settled by then: 25.9 and 74.5 by itself, 100.0 and 49.4 beside
them.
"""

from __future__ import annotations

import argparse
from dataclasses import replace

import torch
from torch import Tensor, nn

from filmstrip.objectives.classification import Classification
from filmstrip.systems.recognition.uniformer_v2 import UniFormerV2Config

FRAMES, SIZE = 8, 32
WAYS = torch.tensor([[-1, 0], [1, 0], [0, -1], [0, 1]])
"""Of motion, along x and y."""
IMAGE = UniFormerV2Config(
    width=64,
    depth=3,
    num_heads=2,
    patch_size=8,
    size=SIZE,
    global_layers=(),
    reduction=None,
    halve_time=False,
    drop_path=0.0,
    global_drop_path=0.0,
    dropout=0.0,
    num_classes=4,
)
ARMS = {
    "frames averaged": IMAGE,
    "global": replace(IMAGE, global_layers=(1, 2)),
    "local": replace(IMAGE, reduction=1.5),
    "local and global": replace(IMAGE, global_layers=(1, 2), reduction=1.5),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=200, help="on images, and again on video")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--only", nargs="*", choices=ARMS, default=list(ARMS))
    args = parser.parse_args()
    rows: dict[str, list[tuple[float, float]]] = {name: [] for name in args.only}
    for seed in range(args.seeds):
        generator = torch.Generator().manual_seed(seed)
        torch.manual_seed(seed)
        image = IMAGE.build()
        learn(image, 1, args.steps, generator)
        print(f"seed {seed}: the image network names {100 * accuracy(image, 1):.1f} of quarters", flush=True)
        for name in args.only:
            torch.manual_seed(seed)
            armed = ARMS[name].build()
            armed.encoder.load_state_dict(image.encoder.state_dict(), strict=False)
            change = apart(image, armed)
            learn(armed, FRAMES, args.steps, torch.Generator().manual_seed(seed))
            rows[name].append((change, 100 * accuracy(armed, FRAMES)))
            print(f"seed {seed}: {name}, top-1 {rows[name][-1][1]:.1f}", flush=True)
    print("\n| armed with | class tokens' change at first | top-1, motion |\n|---|---:|---:|")
    for name, found in rows.items():
        changes, top1 = zip(*found)
        print(f"| {name} | {max(changes):g} | {sum(top1) / len(top1):.1f} |")


def make(count: int, frames: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """A texture, ``B T 3 H W`` in 0..1, and the class: of one frame, in which quarter it is brightest; else the way
    it moves."""
    way = torch.randint(4, (count,), generator=generator)
    start, speed = torch.rand(2, count, 2, generator=generator)
    shift = start[:, None] + WAYS[way][:, None] * (0.03 + 0.03 * speed[:, None]) * torch.arange(frames)[:, None]
    ticks = (torch.arange(SIZE) + 0.5) / SIZE
    x, y = (torch.cos(2 * torch.pi * (ticks - part[..., None])) for part in shift.unbind(2))
    texture = 0.5 + 0.2 * (y[..., :, None] + x[..., None, :])[:, :, None]
    video = texture + 0.1 * torch.randn(count, frames, 3, SIZE, SIZE, generator=generator)
    place = (2 * (start % 1.0)).long()
    return video.clamp(0, 1), way if frames > 1 else 2 * place[:, 0] + place[:, 1]


def learn(network: Classification, frames: int, steps: int, generator: torch.Generator) -> None:
    """Train on clips that are never the same."""
    optimiser = torch.optim.AdamW(network.parameters(), lr=1e-3, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=1e-3, total_steps=steps, pct_start=0.2)
    network.train()
    for _ in range(steps):
        video, label = make(16, frames, generator)
        optimiser.zero_grad()
        network({"video": video, "label": label}).total.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
        schedule.step()
    network.eval()


@torch.no_grad()
def accuracy(network: Classification, frames: int) -> float:
    """The share of 640 new clips that are named rightly."""
    generator = torch.Generator().manual_seed(1000)
    right = []
    for _ in range(20):
        video, label = make(32, frames, generator)
        right.append(network.classify(video).argmax(dim=1) == label)
    return torch.cat(right).float().mean().item()


@torch.no_grad()
def apart(image: Classification, armed: Classification) -> float:
    """The largest difference of what both say of a clip's frames."""
    seen: list[Tensor] = []
    hooks = [
        network.encoder.blocks[-1].register_forward_hook(lambda block, given, out: seen.append(out[:, 0]))
        for network in (image, armed)
    ]
    video, _ = make(8, FRAMES, torch.Generator().manual_seed(1))
    for network in (image, armed):
        network.eval()
        network.classify(video)
    for hook in hooks:
        hook.remove()
    return (seen[0] - seen[1]).abs().max().item()


if __name__ == "__main__":
    main()
