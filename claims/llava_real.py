"""A connector alone aligns a frozen image network with a frozen language model, both real."""

from __future__ import annotations

import json
from collections import Counter
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

SIZE, STEPS, TESTS = 96, 100, 40
KINDS = ("colour", "place")

CLAIM = Claim(
    systems=("language.llava",),
    finding=__doc__.strip(),
    paper="Liu et al. 2023: the first stage trains one layer between CLIP's ViT-L/14 and Vicuna on 595K captions; no "
    "figure is given for it alone.",
    here="MobileNetV2 of ImageNet (9 tokens of 1280 a picture of 96 x 96), SmolLM2-135M-Instruct, both frozen. Two "
    f"layers between them learn for {STEPS} steps of 8 from questions about the colour and the place of one shape in "
    f"drawn pictures. {TESTS} unseen pictures, two questions each; an answer counts if it is right word for word.",
    baseline="The most common answer to each kind of question, the best that can be said without looking.",
    figures={
        "sees": Figure(says="right answers, %"),
        "blind": Figure(says="the most common answers, right, %"),
        **{f"sees, {kind}": Figure(says=f"right answers, {kind}, %") for kind in KINDS},
        **{f"blind, {kind}": Figure(says=f"the most common answer, {kind}, %") for kind in KINDS},
    },
    expected=(above("sees", "blind", "it answers better than one could blind, by 10 points", by=10.0),),
    minutes=10,
    needs=(MOBILENET, SMOLLM2),
)


def measure(seed: int, folder: Path) -> dict[str, float]:
    shapes = NarratedShapes(num_train=400, num_test=TESTS, num_frames=1, size=SIZE, seed=seed)
    path = shapes.generate(folder / "shapes")
    found = blind(path / "dialogues.jsonl")
    tiny = systems.find("language.llava:tiny")
    reads = Conversations(tokenizer=Pretrained(folder=str(SMOLLM2)))
    clip = Clip(num_frames=1, sampling="uniform", size=SIZE, short_side=(SIZE, SIZE))
    run = replace(
        tiny,
        data=replace(tiny.data, path=path, synthetic=None, clip=clip, reads=reads, batch_size=8, num_workers=0),
        objective=replace(
            tiny.objective, encoder_run=str(MOBILENET), decoder_run=str(SMOLLM2), trains=("connector",)
        ),
        optim=replace(tiny.optim, lr=1e-3),
        train=replace(tiny.train, length=Steps(STEPS)),
        evals=(AnswerAccuracy(max_tokens=8, blind=False, batch_size=20),),
        seed=seed,
    )
    metrics = train(run, folder / "run").metrics
    found |= {f"sees, {kind}": 100 * metrics[f"accuracy/{kind}"] for kind in KINDS}
    return found | {"sees": 100 * metrics["accuracy"]}


def blind(path: Path) -> dict[str, float]:
    """Percentages of test questions that the most common answers of training get right, in all and by kind.

    Conversations of other kinds leave the file.
    """
    records = [record for line in path.read_text().splitlines() if (record := json.loads(line))["kind"] in KINDS]
    path.write_text("".join(f"{json.dumps(record)}\n" for record in records))
    found = {}
    for kind in KINDS:
        answers = {
            split: [r["conversations"][1]["value"] for r in records if (r["kind"], r["split"]) == (kind, split)]
            for split in ("train", "test")
        }
        ((best, _),) = Counter(answers["train"]).most_common(1)
        found[f"blind, {kind}"] = 100 * answers["test"].count(best) / len(answers["test"])
    return found | {"blind": sum(found.values()) / len(found)}
