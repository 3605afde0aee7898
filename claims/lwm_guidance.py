"""Guidance makes pictures that are drawn from a text agree with it more, without dropped conditions in training."""

from __future__ import annotations

from pathlib import Path

import torch

from claims.ledger import Claim, Figure, above
from claims.streams import BEGIN, START, Pictures, new_model
from claims.streams import train as learn
from filmstrip.nn.sampling import Sampling
from filmstrip.protocols import Batch

SIDE, NOISE = 4, 0.5
STEPS, BATCH, DRAWN = 1200, 32, 400
SCALES = (1, 3, 5)

CLAIM = Claim(
    systems=("language.lwm",),
    finding=__doc__.strip(),
    paper="Liu et al. 2024: images are drawn with classifier-free guidance, whose unconditional branch starts with "
    "<bos><vision>; the published samples use a scale of 5. No figure compares scales.",
    here="Pictures of 4 x 4 codes as in lwm_order, but of which each cell is any code in 50%. 2 layers, 64 wide, "
    "1,200 steps of 32 pairs in an order that is drawn. 400 pictures are drawn of captions, at temperature 1; the "
    "colour and form under which a picture is most probable should be those of its caption.",
    baseline="The same model and random numbers without guidance (a scale of 1). Chance is 1.6%.",
    figures={
        "real": Figure(says="real pictures that agree with their captions, %"),
        **{f"s{scale}": Figure(says=f"drawn with a scale of {scale}: pictures that agree, %") for scale in SCALES},
    },
    expected=(
        above("s1", 10.0, "without guidance captions are followed above chance"),
        above("s3", "s1", "a scale of 3 follows captions more", by=5),
        above("s5", "s1", "a scale of 5 follows captions more", by=5),
    ),
    minutes=3,
)


def measure(seed: int, folder: Path) -> dict[str, float]:
    world = Pictures.drawn(SIDE, NOISE, torch.Generator().manual_seed(seed))

    def pairs(g: torch.Generator) -> Batch:
        own = world.named(BATCH, g)
        return world.pairs(own, world.codes(own, g), (torch.rand(BATCH, generator=g) < 0.5).tolist())

    model = new_model(seed, SIDE)
    learn(model, pairs, steps=STEPS, seed=seed)
    generator = torch.Generator().manual_seed(10_000 + seed)
    names = world.named(DRAWN, generator)
    real = world.codes(names, generator)[:, 0]
    found = {"real": 100 * float((world.best(real) == names).all(dim=1).float().mean())}
    prompts = [torch.tensor([START, *world.caption(own), *BEGIN]) for own in names]
    uniform = torch.rand(DRAWN, SIDE * SIDE, generator=generator)
    for scale in SCALES:
        with torch.no_grad():
            codes = next(model._frames(prompts, None, 1, uniform, Sampling(guidance=float(scale))))
        found[f"s{scale}"] = 100 * float((world.best(codes) == names).all(dim=1).float().mean())
    return found
