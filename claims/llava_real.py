"""A connector alone aligns a frozen image network with a frozen language model, both real."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from claims.ledger import Claim, Figure, above
from claims.real_weights import MOBILENET, SMOLLM2
from filmstrip import systems
from filmstrip.data.config import Clip
from filmstrip.data.kinds.conversations import Conversations
from filmstrip.data.synthetic.narrated import NarratedShapes
from filmstrip.evals.answers import AnswerAccuracy
from filmstrip.runs.experiment import train
from filmstrip.text.tokenizers import Pretrained
from filmstrip.train.lengths import Steps

SIZE, STEPS, TESTS = 96, 60, 40
KINDS = ("colour", "size", "place")

CLAIM = Claim(
    systems=("language.llava",),
    finding=__doc__.strip(),
    paper="Liu et al. 2023: the first stage trains one layer between CLIP's ViT-L/14 and Vicuna on 595K captions; no "
    "figure is given for it alone.",
    here="MobileNetV2 of ImageNet (9 tokens of 1280 a picture of 96 x 96), SmolLM2-135M-Instruct, both frozen. Two "
    f"layers between them learn for {STEPS} steps of 8 from questions about drawn pictures of one shape; {TESTS} "
    "unseen pictures, an answer counts if it is the right one, word for word.",
    baseline="The same training with zeros in place of the visual tokens.",
    figures={
        "sees": Figure(says="right answers, %"),
        "blind": Figure(says="blind, right answers, %"),
        **{f"sees, {kind}": Figure(says=f"right answers, {kind}, %") for kind in KINDS},
        **{f"blind, {kind}": Figure(says=f"blind, {kind}, %") for kind in KINDS},
    },
    expected=(above("sees", "blind", "it answers better than blind, by 10 points", by=10.0),),
    minutes=10,
    needs=(MOBILENET, SMOLLM2),
)


def measure(seed: int, folder: Path) -> dict[str, float]:
    shapes = NarratedShapes(num_train=400, num_test=TESTS, num_frames=1, size=SIZE, seed=seed)
    path = shapes.generate(folder / "shapes")
    tiny = systems.find("language.llava:tiny")
    reads = Conversations(tokenizer=Pretrained(folder=str(SMOLLM2)))
    clip = Clip(num_frames=1, sampling="uniform", size=SIZE, short_side=(SIZE, SIZE))
    data = replace(tiny.data, path=path, synthetic=None, clip=clip, reads=reads, batch_size=8, num_workers=0)
    found = {}
    for name, sees in (("sees", True), ("blind", False)):
        own = replace(
            tiny.objective,
            encoder_run=str(MOBILENET),
            decoder_run=str(SMOLLM2),
            trains=("connector",),
            sees=sees,
        )
        run = replace(
            tiny,
            data=data,
            objective=own,
            optim=replace(tiny.optim, lr=1e-3),
            train=replace(tiny.train, length=Steps(STEPS)),
            evals=(AnswerAccuracy(max_tokens=12, blind=False, batch_size=20),),
            seed=seed,
        )
        metrics = train(run, folder / name).metrics
        found[name] = 100 * metrics["accuracy"]
        found |= {f"{name}, {kind}": 100 * metrics[f"accuracy/{kind}"] for kind in KINDS}
    return found
