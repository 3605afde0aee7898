"""Fine-tuned with its own loss kept beside the task's, a next-token learner names more than with the task's alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from claims.digits import LABELLED, MNIST, PATCH, SIDE, STEPS, TESTS, Digits
from claims.ledger import Claim, Figure, above
from claims.training import Batch, learn, percent
from filmstrip.inference import inference
from filmstrip.systems import find
from filmstrip.systems.recognition.finetuned import Finetuned

SIZES = {"width": 48, "depth": 4, "num_heads": 2, "mlp_dim": 144}
TUNED, BATCH, RATE = 400, 64, 3e-3
NONE = 1e-6
"""A weight that is as good as none; without any, an encoder is asked for video and not for codes."""
ARMS = {
    "kept": ("pretrained, its own loss kept", True, 1.0),
    "dropped": ("pretrained, the task's loss alone", True, NONE),
    "scratch": ("from scratch, the task's loss alone", False, NONE),
}
"""What it is, whether it is pretrained, and the weight of its own loss."""

CLAIM = Claim(
    systems=("recognition.finetuned", "pretraining.toto"),
    finding=__doc__.strip(),
    paper="Rajasegaran et al. 2025 keep the next-token loss as an auxiliary one where Toto learns to anticipate, and "
    "say that it helps; no figure is given.",
    here="Next-token learners of 8 x 8 codes of MNIST's digits (0.1 M parameters) are fine-tuned with a classifier "
    f"on {LABELLED} labelled digits, {TUNED} steps of {BATCH}, after {STEPS} steps of pretraining on the others, or "
    "none; what is kept predicts the labelled digits' own codes. "
    f"Top-1 on {TESTS} unseen digits, chance 10.",
    baseline="The same, with the loss of the names alone.",
    figures={name: Figure(says=f"{says}: top-1, %") for name, (says, _, _) in ARMS.items()},
    expected=(
        above("kept", "dropped", "it names more with its own loss kept"),
        above("dropped", "scratch", "pretraining is worth something without it, too"),
    ),
    analysis="Level, on average: 8.5 points more in one seed, 0.7 more and 1.3 fewer in the others. With 300 labels "
    "seeds differ by as much. What pretraining is worth is clearer, 8 to 18 points in each seed, though three "
    "seeds leave its interval wide.",
    minutes=10,
    needs=(MNIST,),
)


def measure(seed: int, folder: Path) -> dict[str, float]:
    digits = Digits(seed)
    pretrained, found = digits.learner(**SIZES), {}
    for name, (_, starts, weight) in ARMS.items():
        network = built(weight, seed)
        if starts:
            network.learner.load_state_dict(pretrained.state_dict())
        learn(network, labelled(digits), steps=TUNED, lr=RATE, warmup=0.1, clip_grad=1.0)
        found[name] = percent(named(network, digits.tests), digits.expected)
    return found


def built(weight: float, seed: int) -> Finetuned:
    """A classifier of ten digits on a fresh learner, whose own loss has a weight."""
    torch.manual_seed(seed)
    tiny = find("recognition.finetuned:tiny_toto").objective
    learner = replace(tiny.learner, num_frames=1, size=PATCH * SIDE, **SIZES)
    return replace(tiny, learner=learner, num_classes=10, learner_weight=weight).build()


def labelled(digits: Digits) -> Callable[[], Batch]:
    """Draws batches of labelled digits, in an order that the seed sets."""
    generator = torch.Generator().manual_seed(digits.seed)

    def draw() -> Batch:
        chosen = torch.randint(LABELLED, (BATCH,), generator=generator)
        return {"tokens": digits.labelled[chosen], "label": digits.labels[chosen]}

    return draw


def named(network: Finetuned, ids: Tensor) -> Tensor:
    """The digit that is named for each row of codes ``N 64``: ``N``."""
    with inference(network):
        _, features = network.features({"tokens": ids})
        return network.head(features.tokens).argmax(dim=1)
