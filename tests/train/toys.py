"""Small objectives and streams for the loop's tests: random clips, linear layers, all hooks in use."""

import json
from itertools import count
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import nn
from torch.distributed.nn.functional import all_reduce
from torch.nn.functional import softplus

from filmstrip.distributed.mesh import Mesh
from filmstrip.protocols import Loss, Objective, Phase
from filmstrip.runs.run_folder import RunFolder
from filmstrip.train.config import Loop
from filmstrip.train.lengths import Steps
from filmstrip.train.loop import fit
from filmstrip.train.optim import AdamW

SIZE = 2 * 3 * 4 * 4
"""Numbers in a toy clip: two frames of 4 x 4 pixels."""
STEP_BATCH = 8
"""Clips of one optimiser step, over all processes and micro-batches."""


class Stream:
    """Endless random clips with targets; what a step sees depends on its number alone, as with real data."""

    steps_per_epoch = 2.5

    def __init__(self, *, rank=0, world=1, accumulate=1, before=None):
        self.rank, self.world, self.accumulate = rank, world, accumulate
        self.before = before or (lambda step: None)
        self.started = []

    def stream(self, start):
        self.started.append(start)
        for step in count(start):
            self.before(step)
            generator = torch.Generator().manual_seed(step)
            video = torch.randint(0, 256, (STEP_BATCH, 2, 3, 4, 4), dtype=torch.uint8, generator=generator)
            share = STEP_BATCH // (self.world * self.accumulate)
            for micro in range(self.accumulate):
                first = (micro * self.world + self.rank) * share
                rows = slice(first, first + share)
                yield {
                    "video": video[rows],
                    "label": video[rows].float().mean(dim=(1, 2, 3, 4)) / 255,
                    "name": [f"clip {step}-{i}" for i in range(first, first + share)],
                }


def flat(batch):
    return batch["video"].flatten(1).float() / 255 - 0.5


class Block(nn.Module):
    def __init__(self, dropout=0.0):
        super().__init__()
        self.norm = nn.LayerNorm(SIZE)
        self.mlp = nn.Sequential(nn.Linear(SIZE, SIZE), nn.GELU(), nn.Dropout(dropout), nn.Linear(SIZE, SIZE))

    def forward(self, x):
        return x + self.mlp(self.norm(x))


class Network(nn.Module):
    def __init__(self, depth=2, dropout=0.0):
        super().__init__()
        self.blocks = nn.ModuleList(Block(dropout) for _ in range(depth))
        self.head = nn.Linear(SIZE, 1)

    def forward(self, x):
        for block in self.blocks:
            x = block(x)
        return self.head(x).squeeze(1)


class Regression(Objective):
    """The mean of a clip, learnt: one phase, blocks, dropout on demand."""

    requires = ("video", "label")

    def __init__(self, dropout=0.0):
        super().__init__()
        self.network = Network(dropout=dropout)
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))

    def forward(self, batch, phase="main"):
        error = self.network(flat(batch)) - batch["label"]
        self.seen += 1
        return Loss(error.square().mean(), {"absolute": error.detach().abs().mean()})

    def depth_of(self, name):
        return int(name.split(".")[2]) if ".blocks." in name else 2


class Adversarial(Objective):
    """Two phases, as a GAN has: each trains one network through the other's."""

    requires = ("video",)

    def __init__(self):
        super().__init__()
        self.generator = nn.Linear(SIZE, SIZE)
        self.discriminator = nn.Sequential(nn.Linear(SIZE, 8), nn.GELU(), nn.Linear(8, 1))
        self.calls = []

    def phases(self):
        return (Phase("generator", (self.generator,)), Phase("discriminator", (self.discriminator,)))

    def forward(self, batch, phase="main"):
        self.calls.append(phase)
        real = flat(batch)
        made = self.generator(real.flip(1))
        if phase == "generator":
            return Loss(-self.discriminator(made).mean() + (made - real).square().mean(), {})
        score, fake = self.discriminator(real), self.discriminator(made.detach())
        return Loss((softplus(-score) + softplus(fake)).mean(), {"score": score.detach().mean()})


class Momentum(Objective):
    """A student that follows a slowly moving copy of itself."""

    def __init__(self):
        super().__init__()
        self.student, self.teacher = nn.Linear(SIZE, 4), nn.Linear(SIZE, 4)
        self.teacher.load_state_dict(self.student.state_dict())
        self.teacher.requires_grad_(False)
        self.steps = []

    def forward(self, batch, phase="main"):
        x = flat(batch)
        return Loss((self.student(x) - self.teacher(x.flip(1))).square().mean(), {})

    @torch.no_grad()
    def after_step(self, step):
        self.steps.append(step)
        for slow, fast in zip(self.teacher.parameters(), self.student.parameters()):
            slow.lerp_(fast, 0.1)


class Probe(Objective):
    """A head on a frozen network that holds dropout and stays in evaluation mode."""

    requires = ("video", "label")

    def __init__(self):
        super().__init__()
        self.frozen = nn.Sequential(nn.Linear(SIZE, 16), nn.Dropout(0.5)).eval().requires_grad_(False)
        self.head = nn.Linear(16, 1)

    def forward(self, batch, phase="main"):
        return Loss((self.head(self.frozen(flat(batch))).squeeze(1) - batch["label"]).square().mean(), {})


class Shared(Objective):
    """A linear layer that each process of a ring applies to its part of a clip's numbers."""

    requires = ("video", "label")

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(SIZE, 1, bias=False)
        self.part, self.group = slice(None), None
        self.names = []

    def use_ring(self, ring):
        numbers = SIZE // ring.size
        self.part = slice(ring.rank * numbers, (ring.rank + 1) * numbers)
        self.group = ring.group

    def forward(self, batch, phase="main"):
        self.names.append(batch["name"])
        said = flat(batch)[:, self.part] @ self.layer.weight[0, self.part]
        if self.group is not None:
            said = all_reduce(said, group=self.group)
        error = said - batch["label"]
        return Loss(error.square().mean(), {"absolute": error.detach().abs().mean()})


class Referring(Probe):
    """The same, where the frozen network is kept elsewhere: nothing of it is saved or synchronised."""

    kept_elsewhere = ("frozen",)


OBJECTIVES = {cls.__name__: cls for cls in (Regression, Adversarial, Momentum, Probe, Referring, Shared)}


def train(folder, objective="Regression", *, before=None, evaluate=None, augment=None, optim=None, steps=6, **loop):
    """Train a toy in ``folder`` with fresh weights of seed 0; returns it. ``objective`` may be a ready one."""
    if isinstance(objective, str):
        torch.manual_seed(0)
        objective = OBJECTIVES[objective]()
    loop = Loop(length=Steps(steps), **{"log_every": 1, **loop})
    share = Mesh.of_processes(loop.context).data
    fit(
        objective,
        Stream(rank=share.rank, world=share.size, accumulate=loop.accumulate, before=before),
        optim=optim or AdamW(lr=1e-2),
        loop=loop,
        folder=RunFolder(folder),
        evaluate=evaluate,
        **({"augment": augment} if augment else {}),
    )
    return objective


def rows(folder):
    """The lines of ``metrics.jsonl``."""
    return [json.loads(line) for line in (Path(folder) / "metrics.jsonl").read_text().splitlines()]


def losses(folder):
    return [row["loss"] for row in rows(folder) if "loss" in row]


def weights(folder):
    return load_file(Path(folder) / "weights.safetensors")


def differing(left, right):
    """Names of tensors that are not equal bit by bit."""
    return sorted({name for name in left if not torch.equal(left[name], right[name])} | (left.keys() ^ right.keys()))
