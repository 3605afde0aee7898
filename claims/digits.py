"""Handwritten digits as codes, and small next-token learners of them: for claims about sizes and kinds of networks.

What such a network knows is asked by logistic regression from few labels: which digit an unseen picture shows.
"""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from claims.ledger import FOLDER
from claims.training import learn
from filmstrip.data.synthetic.moving_mnist import read_digits
from filmstrip.evals.attentive_probe import AttentiveProbe
from filmstrip.evals.linear_probe import LinearProbe
from filmstrip.inference import inference
from filmstrip.systems import find
from filmstrip.systems.pretraining.toto import Toto

MNIST = FOLDER.parents[1] / "shared/data/mnist"
PATCH, LEVELS, SIDE = 4, 4, 8
"""Pixels of a square, grey levels of its mean, and squares along a side of a digit (28 pixels, framed by black)."""
LABELLED, TESTS = 300, 1000
"""Digits for probes, which are not learnt from, and unseen ones to test these."""
STEPS, BATCH, RATE = 300, 64, 3e-3


class Digits:
    """Digits as ids, ``N 64``; a seed decides which of them have labels, and the order of batches."""

    def __init__(self, seed: int) -> None:
        (images, labels), (tests, expected) = (_read(split) for split in ("train", "test"))
        order = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))
        chosen, rest = order[:LABELLED], order[LABELLED:]
        self.seed = seed
        self.ids = ids_of(images[rest])
        self.labelled, self.labels = ids_of(images[chosen]), labels[chosen]
        self.tests, self.expected = ids_of(tests[:TESTS]), expected[:TESTS]

    def learner(self, **sizes: object) -> Toto:
        """A Toto of such sizes that has learnt the next id; its tokenizer is never asked."""
        torch.manual_seed(self.seed)
        # The tiny tokenizer's squares are of 4 pixels too.
        network = replace(find("pretraining.toto:tiny").objective, num_frames=1, size=PATCH * SIDE, **sizes).build()
        generator = torch.Generator().manual_seed(self.seed)

        def draw() -> dict[str, Tensor]:
            return {"tokens": self.ids[torch.randint(len(self.ids), (BATCH,), generator=generator)]}

        return learn(network, draw, steps=STEPS, lr=RATE, weight_decay=0.0, warmup=0.1, clip_grad=1.0)

    def nats(self, network: Toto) -> float:
        """Nats for an id of the unseen digits."""
        with inference(network):
            return -network.log_prob({"tokens": self.tests}).mean().item() / SIDE**2

    def probes(self, network: Toto) -> tuple[float, float]:
        """Top-1, %, of the best layer: by logistic regression on the mean, by one attention with a linear layer."""
        with inference(network):
            layers, of_tests = (network.loss_and_layers({"tokens": x})[1] for x in (self.labelled, self.tests))
        linear, attentive = LinearProbe(), AttentiveProbe(pooling="plain", epochs=20, lr=3e-3, seed=self.seed)
        found = [
            (
                linear.top1(x.mean(dim=1), self.labels, y.mean(dim=1), self.expected, 10),
                attentive.top1(x, self.labels, y, self.expected, 10, torch.device("cpu")),
            )
            for x, y in zip(layers, of_tests, strict=True)
        ]
        mean, attention = (100 * max(values) for values in zip(*found))
        return mean, attention


def ids_of(images: Tensor) -> Tensor:
    """The mean of each square in four grey levels, ``N 28 28`` uint8 to ``N 64``."""
    means = F.avg_pool2d(F.pad(images.float(), (2, 2, 2, 2)).unsqueeze(1), PATCH)
    return (means * LEVELS / 256).long().flatten(1)


def _read(split: str) -> tuple[Tensor, Tensor]:
    images, labels = read_digits(MNIST, split)
    return torch.tensor(images), torch.tensor(labels).long()
