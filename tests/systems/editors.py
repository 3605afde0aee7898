"""Editors with random weights that are no identity, and what is asked of them, for the tests of several."""

from dataclasses import replace

import torch
from drawn import draw_batch, info_for

from filmstrip import systems
from filmstrip.objectives.diffusion_sampling import DiffusionSampling
from filmstrip.protocols import VideoEdit

FEW = DiffusionSampling(steps=3)


def built(address, **changes):
    run = systems.find(address)
    run = run.bound(info_for(run.data.reads))
    torch.manual_seed(0)
    objective = replace(run.objective, **changes).build().eval()
    for parameter in objective.unet.parameters():  # temporal layers start at zero
        torch.nn.init.normal_(parameter, std=0.1)
    return objective, draw_batch(run.data, size=2, seed=0)


def request(batch, **options):
    return VideoEdit(
        video=batch["video"],
        source_text=batch["text"],
        source_length=batch["text_length"],
        text=options.pop("text", batch["text"].flip(0)),
        text_length=options.pop("text_length", batch["text_length"].flip(0)),
        seeds=torch.tensor([5, 6]),
        sampling=FEW,
        **options,
    )
