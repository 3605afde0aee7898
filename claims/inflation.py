"""A video network that starts from an inflated picture network beats one that starts from nothing.

    python claims/inflation.py

I3D on Kinetics-400 (top-1; Carreira & Zisserman 2017): 68.4 from scratch, 71.1 inflated from ImageNet. Here a class
is what a texture is (stripes leaning to either side or upright, or checks) and which way it goes (left or right), in
noise. The picture network, the same Inception with kernels of one frame, learns to name the texture of single frames;
each of its kernels, repeated along time and divided by its length there, is where the inflated network starts. Both
video networks then see the same few videos, in the same order, for as many steps. Top-1 on unseen videos; chance is
12.5, and a network that knows textures alone is right half of the time.
"""

from __future__ import annotations

import argparse
from dataclasses import replace

import torch
from torch import Tensor, nn

from filmstrip.objectives.classification import Classification
from filmstrip.systems.recognition import i3d
from filmstrip.weights.inflate import inflate_weights

FRAMES, SIZE, KINDS, NOISE = 8, 32, 4, 0.2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--picture-steps", type=int, default=300)
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--videos", type=int, default=128)
    parser.add_argument("--seeds", type=int, default=3)
    args = parser.parse_args()
    print("| seed | picture network | video network from scratch | inflated |\n|---:|---:|---:|---:|")
    for seed in range(args.seeds):
        generator = torch.Generator().manual_seed(seed)
        train, test = make(args.videos, generator), make(320, generator)
        frames, labels = make(2048, generator)
        chosen = torch.randint(FRAMES, (len(frames),), generator=generator)
        pictures = frames[torch.arange(len(frames)), chosen][:, None], labels // 2
        flat = flattened(build(KINDS, seed))
        learn(flat, pictures, args.picture_steps, seed)
        networks = flat, build(2 * KINDS, seed), inflated(flat, build(2 * KINDS, seed))
        for network in networks[1:]:
            learn(network, train, args.steps, seed)
        tests = (test[0][:, :1], test[1] // 2), test, test
        told = (f"{100 * top1(network, *data):.1f}" for network, data in zip(networks, tests))
        print(f"| {seed} | {' | '.join(told)} |", flush=True)
    print("\npaper (Kinetics-400, pictures of ImageNet): 68.4 from scratch, 71.1 inflated")


def make(count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Clips ``B T 3 H W`` in 0..1, and labels: twice the kind of texture, plus one if it goes right."""

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(count, *shape, generator=generator)

    label = torch.randint(2 * KINDS, (count,), generator=generator)
    ticks = torch.arange(SIZE) / SIZE
    way = 2 * (label % 2)[:, None, None, None] - 1
    shift = way * uniform(0.015, 0.035, 1, 1, 1) * torch.arange(FRAMES)[:, None, None] + uniform(0, 1, 1, 1, 1)
    turns = 2 * torch.pi * uniform(2, 3, 1, 1, 1)
    x, y = (ticks - shift) * turns, (ticks[:, None] + uniform(0, 1, 1, 1, 1)) * turns
    kinds = torch.stack([torch.sin(x + y), torch.sin(x - y), torch.sin(x + 0 * y), torch.sin(x) * torch.sin(y)])
    texture = kinds[label // 2, torch.arange(count)][:, :, None]
    video = 0.5 + texture * uniform(-0.3, 0.3, 1, 3, 1, 1)
    return video.add_(torch.randn(video.shape, generator=generator), alpha=NOISE).clamp_(0, 1), label


def build(classes: int, seed: int) -> Classification:
    """The tiny I3D; its normalisations average over tens of steps, not hundreds, as there are so few."""
    torch.manual_seed(seed)
    network = replace(i3d.tiny().objective, num_classes=classes).build()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm3d):
            module.momentum = 0.1
    return network


def flattened(network: Classification) -> Classification:
    """The network with kernels of a single frame."""
    for module in network.modules():
        if isinstance(conv := getattr(module, "conv", None), nn.Conv3d):
            sizes = {"kernel_size": (1, *conv.kernel_size[1:]), "stride": (1, *conv.stride[1:])}
            module.conv = nn.Conv3d(conv.in_channels, conv.out_channels, **sizes, bias=False)
            nn.init.kaiming_normal_(module.conv.weight, mode="fan_out", nonlinearity="relu")
    return network


def inflated(flat: Classification, network: Classification) -> Classification:
    """The network with the picture network's weights below its head."""
    pictures = {n: t.squeeze(2) if t.ndim == 5 else t for n, t in flat.encoder.state_dict().items()}
    network.encoder.load_state_dict(inflate_weights(pictures, network.encoder.state_dict()))
    return network


def learn(network: Classification, data: tuple[Tensor, Tensor], steps: int, seed: int) -> None:
    """Train for so many steps, on batches in an order that the seed sets."""
    run = i3d.tiny()
    generator = torch.Generator().manual_seed(seed)
    optimiser = torch.optim.AdamW(network.parameters(), lr=run.optim.lr, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=run.optim.lr, total_steps=steps)
    for _ in range(steps):
        chosen = torch.randint(len(data[0]), (run.data.batch_size,), generator=generator)
        optimiser.zero_grad()
        network({"video": data[0][chosen], "label": data[1][chosen]}).total.backward()
        optimiser.step()
        schedule.step()


@torch.no_grad()
def top1(network: Classification, video: Tensor, label: Tensor) -> float:
    """Accuracy on clips that were not trained on."""
    network.eval()
    said = torch.cat([network.classify(part).argmax(dim=1) for part in video.split(32)])
    return (said == label).float().mean().item()


if __name__ == "__main__":
    main()
