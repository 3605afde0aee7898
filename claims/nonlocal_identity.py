"""A nonlocal block changes nothing when it is put into a trained network, and does no harm once it has learnt.

    python claims/nonlocal_identity.py

Wang et al. 2018 start the scale of the block's last normalisation at zero, so that it fits into any trained network
(the lecture, section 24.4.2). Here a small network of that kind learns eight motions; two blocks are put into a copy
of it; then both go on, with the same clips. Top-1 on unseen videos, chance is 12.5; the largest change of a logit
that inserting made must be zero.
"""

from __future__ import annotations

import argparse
import copy
import math
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from filmstrip.data.synthetic.motions import MOTIONS, Motions
from filmstrip.models.resnet3d import width_of
from filmstrip.objectives.classification import Classification
from filmstrip.systems.recognition import nonlocal_net
from filmstrip.systems.recognition.nonlocal_net import NonLocal, insert_nonlocal

AFTER = ((1, 0), (2, 0))
"""The stages and blocks that a nonlocal block is put behind."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=200, help="before and after the blocks are put in")
    parser.add_argument("--videos", type=int, default=80, help="training videos of each of the eight classes")
    parser.add_argument("--tests", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    train, test = clips(args.videos, (args.seed, 0)), clips(args.tests, (args.seed, 1))
    config = nonlocal_net.tiny().objective
    torch.manual_seed(args.seed)
    plain = replace(config, nonlocal_after=((),) * len(config.depths)).build()
    learn(plain, train, args.steps, args.seed)
    before = logits(plain, test)
    blocks = copy.deepcopy(plain)
    for stage, block in AFTER:
        width = width_of(blocks.encoder.stages[stage])
        insert_nonlocal(blocks.encoder, f"stages.{stage}.{block}", NonLocal(width))
    inserted = logits(blocks, test)
    print(f"largest change of a logit by inserting: {(inserted - before).abs().max().item():g}", flush=True)
    rows = {"before": before, "inserted": inserted}
    for name, network in (("as long again, without", plain), ("as long again, with two blocks", blocks)):
        learn(network, train, args.steps, args.seed + 1)
        rows[name] = logits(network, test)
    print("\n| network | top-1 | cross-entropy |\n|---|---:|---:|")
    for name, said in rows.items():
        top1 = (said.argmax(dim=1) == test[1]).float().mean().item()
        print(f"| {name} | {100 * top1:.1f} | {torch.nn.functional.cross_entropy(said, test[1]).item():.3f} |")
    spread = 1.96 * math.sqrt(2 * top1 * (1 - top1) / len(test[1]))
    print(f"\ndifferences within {100 * spread:.1f} are chance, once in twenty times excepted")


def clips(count: int, seed: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """``count`` clips ``T 3 H W`` uint8 of each motion, every other frame, and their labels."""
    clip = nonlocal_net.tiny().data.clip
    drawn = Motions(num_frames=clip.num_frames * clip.stride, size=32)
    videos = [
        drawn.render(motion, np.random.default_rng((*seed, i, k)))[:: clip.stride]
        for i, motion in enumerate(MOTIONS)
        for k in range(count)
    ]
    return torch.stack(videos), torch.arange(len(MOTIONS)).repeat_interleave(count)


def learn(network: Classification, data: tuple[Tensor, Tensor], steps: int, seed: int) -> None:
    """Train a network for so many steps, on batches in an order that the seed sets."""
    run = nonlocal_net.tiny()
    generator = torch.Generator().manual_seed(seed)
    optimiser = torch.optim.AdamW(network.parameters(), lr=run.optim.lr, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=run.optim.lr, total_steps=steps)
    network.train()
    for _ in range(steps):
        chosen = torch.randint(len(data[0]), (run.data.batch_size,), generator=generator)
        optimiser.zero_grad()
        network({"video": data[0][chosen].float() / 255, "label": data[1][chosen]}).total.backward()
        optimiser.step()
        schedule.step()


@torch.no_grad()
def logits(network: Classification, data: tuple[Tensor, Tensor]) -> Tensor:
    """What a network says of all clips, ``N K``."""
    network.eval()
    return torch.cat([network.classify(part.float() / 255) for part in data[0].split(32)])


if __name__ == "__main__":
    main()
