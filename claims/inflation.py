"""What a video network gains, and what not, by starting from an inflated picture network.

    python claims/inflation.py

I3D on Kinetics-400 (top-1; Carreira & Zisserman 2017, as the lecture quotes it): 68.4 from scratch, 71.1 inflated
from ImageNet. Here a class is what a texture is (stripes leaning to either side or upright, or checks) and which way
it goes (left or right). The picture network, C3D's layers with kernels of one frame, learns to name the texture of
single frames; each of its kernels, repeated along time and divided by its length there, is where the inflated network
starts. Both video networks then see the same few videos, in the same order, for as many steps. Top-1 on unseen videos
is of the class (chance 12.5), of the texture alone (25) and of the way alone (50).

On these classes the paper's gain does not show. What pictures teach is there at once (textures 99 against 72 to 88),
but slices that are all the same do not tell one order of frames from the other, and in so few steps they hardly learn
to (ways 45 to 57, against 79 to 87 from scratch). The paper's classes
are those of Kinetics, which frames tell more of.
"""

from __future__ import annotations

import argparse
from dataclasses import replace

import torch
from torch import Tensor

from filmstrip.objectives.classification import Classification
from filmstrip.systems.recognition import c3d
from filmstrip.weights.inflate import inflate_weights

FRAMES, SIZE, KINDS, NOISE = 8, 32, 4, 0.1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--picture-steps", type=int, default=300)
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--videos", type=int, default=128)
    parser.add_argument("--seeds", type=int, default=5)
    args = parser.parse_args()
    print("| seed | picture network | from scratch: class / texture / way | inflated |\n|---:|---:|---:|---:|")
    for seed in range(args.seeds):
        generator = torch.Generator().manual_seed(seed)
        train, test = make(args.videos, generator), make(320, generator)
        frames, labels = make(2048, generator)
        chosen = torch.randint(FRAMES, (len(frames),), generator=generator)
        pictures = frames[torch.arange(len(frames)), chosen][:, None], labels // 2
        flat = build(KINDS, seed, frames=1)
        learn(flat, pictures, args.picture_steps, seed)
        networks = build(2 * KINDS, seed), inflated(flat, build(2 * KINDS, seed))
        for network in networks:
            learn(network, train, args.steps, seed)
        told = [top1(said(flat, test[0][:, :1]), test[1] // 2)]
        for network in networks:
            names = said(network, test[0])
            told.append(
                " / ".join((top1(names, test[1]), top1(names // 2, test[1] // 2), top1(names % 2, test[1] % 2)))
            )
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


def build(classes: int, seed: int, frames: int = 3) -> Classification:
    """The layers of the tiny C3D over so many frames at a time, their mean over space and time, and a head."""
    torch.manual_seed(seed)
    config = c3d.tiny().objective
    layers = [
        replace(layer, kernel=(frames, 3, 3), pool=layer.pool and (1, *layer.pool[1:])) for layer in config.layers
    ]
    return replace(config, layers=tuple(layers), hidden=(), num_classes=classes).build()


def inflated(flat: Classification, network: Classification) -> Classification:
    """The network with the picture network's weights below its head."""
    encoder = network.encoder
    encoder.load_state_dict(inflate_weights(flat.encoder.state_dict(), encoder.state_dict()))
    return network


def learn(network: Classification, data: tuple[Tensor, Tensor], steps: int, seed: int) -> None:
    """Train for so many steps, on batches in an order that the seed sets."""
    run = c3d.tiny()
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
def said(network: Classification, video: Tensor) -> Tensor:
    """The classes that a network names."""
    network.eval()
    return torch.cat([network.classify(part).argmax(dim=1) for part in video.split(32)])


def top1(names: Tensor, label: Tensor) -> str:
    """The percentage that is right."""
    return f"{100 * (names == label).float().mean().item():.1f}"


if __name__ == "__main__":
    main()
