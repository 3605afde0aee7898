"""Pretraining by masked cubes beats training from scratch, and tubes are better masks than single cubes or frames."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from claims.ledger import Claim, Figure, above
from claims.training import Batch, answers, learn, percent, picked
from filmstrip.objectives.config import ObjectiveConfig
from filmstrip.protocols import Objective
from filmstrip.systems.pretraining import videomae
from filmstrip.systems.recognition import vit

PRETRAIN_STEPS, FINETUNE_STEPS, LABELLED, TESTS, BATCH = 300, 100, 48, 400, 16
FRAMES, SIZE, PERIOD, KINDS, NOISE = 8, 32, 8, 4, 0.2
SIZES = {
    "num_frames": FRAMES,
    "size": SIZE,
    "patch_size": (2, PERIOD, PERIOD),
    "width": 64,
    "depth": 3,
    "num_heads": 2,
}
MASKINGS = {"tube": 0.9, "random": 0.9, "frame": 0.75}
"""The masking ratio of each kind as in the paper's comparison; of 4 time steps "frame" can hide 3."""

CLAIM = Claim(
    systems=("pretraining.videomae", "recognition.vit"),
    finding=__doc__.strip(),
    paper="Tong et al. 2022, table 1, ViT-B on Something-Something V2 (top-1 after fine-tuning): from scratch 32.6; "
    "pretrained with tube masks 69.6, random 68.3, frame 61.5.",
    here="Moving textures of four kinds in much noise (8 frames of 32 x 32), which repeat every 8 pixels, as often "
    "as cubes do: what a masked cube shows, visible ones of its time tell. Pretraining sees 300 batches of 16 clips "
    "that are never the same; fine-tuning and training from scratch see the same 48 clips, labelled with their kind, "
    "for 100 steps. 400 unseen clips, chance 25.",
    baseline="Training from scratch for as many labelled steps; the other masks.",
    figures={
        "scratch": Figure(says="from scratch: top-1, %", paper="32.6 (SSV2)"),
        "tube": Figure(says="pretrained, tube masking: top-1, %", paper="69.6 (SSV2)"),
        "random": Figure(says="pretrained, random masking: top-1, %", paper="68.3 (SSV2)"),
        "frame": Figure(says="pretrained, frame masking: top-1, %", paper="61.5 (SSV2)"),
    },
    expected=(
        above("tube", "scratch", "pretraining beats training from scratch"),
        above("tube", "random", "tube masks beat random ones"),
        above("tube", "frame", "tube masks beat whole frames"),
    ),
    analysis="Pretraining gains in each seed. Tubes are ahead of single cubes by 1.5 points on average, where the "
    "paper has 1.3: too little for an interval from six seeds (three were planned, and the differences of four were "
    "still too noisy to say anything of). An earlier form of this claim learnt nothing: on motions of shapes "
    "VideoMAE's loss stays where predicting nothing gets it for hundreds of steps ([the log](log.md)), and 150 "
    "labelled steps left the ViT at chance. So the clips were changed: what is masked can be told from what is "
    "visible, and noise makes labels alone hard to learn from.",
    minutes=5,
    seeds=6,
)


def measure(seed: int, folder: Path) -> dict[str, float]:
    few, test = (drawn(count, start + seed) for count, start in ((LABELLED, 500), (TESTS, 1000)))
    found = {"scratch": finetuned(None, few, test, seed)}
    for masking, ratio in MASKINGS.items():
        config = replace(videomae.tiny().objective, **SIZES, masking=masking, mask_ratio=ratio)
        found[masking] = finetuned(pretrained(config, seed), few, test, seed)
    return found


def drawn(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Clips and their kinds."""
    return noisy(count, torch.Generator().manual_seed(seed))


def noisy(count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Clips ``B T 3 H W`` in 0..1 of textures that drift, in noise, and their kinds: stripes that lean to either side
    or are upright, or checks. All repeat as often as cubes do.
    """
    drawn = torch.rand(count, 6, generator=generator)[:, :, None, None, None]
    kind = torch.randint(KINDS, (count,), generator=generator)
    ticks, waves = torch.arange(SIZE), 2 * torch.pi / PERIOD
    x = (ticks + (2 * drawn[:, 0] - 1) * torch.arange(FRAMES)[:, None, None]) * waves + 2 * torch.pi * drawn[:, 1]
    y = ticks[:, None] * waves + 2 * torch.pi * drawn[:, 2]
    textures = torch.stack([torch.sin(x + y), torch.sin(x - y), torch.sin(x + 0 * y), torch.sin(x) * torch.sin(y)])
    video = 0.5 + textures[kind, torch.arange(count)][:, :, None] * (0.6 * drawn[:, 3:].transpose(1, 2) - 0.3)
    return video.add_(torch.randn(video.shape, generator=generator), alpha=NOISE).clamp_(0, 1), kind


def pretrained(config: ObjectiveConfig, seed: int, lr: float = 2e-3) -> Objective:
    """A network after training without labels on clips that are never the same."""
    torch.manual_seed(seed)
    network, generator = config.build(), torch.Generator().manual_seed(seed)
    steps = itertools.count()

    def draw() -> Batch:
        if step := next(steps):
            network.after_step(step)  # moves a teacher, where there is one
        masks = torch.randint(1 << 40, (BATCH,), generator=generator)  # by which each clip is masked
        return {"video": noisy(BATCH, generator)[0], "seed": masks}

    return learn(network, draw, steps=PRETRAIN_STEPS, lr=lr, warmup=0.2, clip_grad=1.0)


def finetuned(network: Objective | None, few: tuple[Tensor, Tensor], test: tuple[Tensor, Tensor], seed: int) -> float:
    """Top-1 of a ViT that starts from a pretrained network's encoder, or from its own weights."""
    torch.manual_seed(seed)
    classifier = replace(vit.tiny().objective, **SIZES, num_classes=KINDS).build()
    if network is not None:
        classifier.encoder.load_state_dict(network.encoder.state_dict(), strict=False)
    learn(classifier, picked(*few, BATCH, seed), steps=FINETUNE_STEPS, lr=1e-3)
    return percent(answers(classifier, test[0]), test[1])
