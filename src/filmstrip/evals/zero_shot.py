"""Classification by text alone: the class whose description is most similar (Radford et al. 2021, section 3.1)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from filmstrip.bounds import Count, NotEmpty
from filmstrip.data.texts import prompts_of
from filmstrip.errors import UserError
from filmstrip.evals.clips import map_clips
from filmstrip.evals.compared import dual_encoder, encode_texts, video_vectors
from filmstrip.inference import inference
from filmstrip.protocols import Batch
from filmstrip.runs.evaluation import Evaluation, Subject
from filmstrip.runs.predictions import Predictions


@dataclass(frozen=True, kw_only=True)
class ZeroShot(Evaluation):
    """Top-1 and top-5 accuracy of classes as prompts; a class's vector is the mean over the templates."""

    compares_classes: ClassVar[bool] = True
    classifies: ClassVar[bool] = True
    takes_native: ClassVar[bool] = True

    templates: Annotated[tuple[str, ...], NotEmpty] = ("a {}", "a photo of a {}", "a video of a {}")
    """Sentences in which ``{}`` stands for the name of a class; underscores in names are read as spaces."""
    batch_size: Count = 32

    def check(self, subject: Subject) -> None:
        """The objective encodes video and text, and every template has a place for the name."""
        dual_encoder(subject)
        prompts_of("", self.templates)

    def __call__(self, subject: Subject) -> Iterator[tuple[str, float]]:
        """Yield ``zero_shot/top1`` and, of more than five classes, ``zero_shot/top5``."""
        objective, source = dual_encoder(subject)
        classes = self.vectors(subject, source.classes)

        def predict(batch: Batch, before: int) -> tuple[Tensor, Tensor]:
            with inference(subject.objective):
                vectors = video_vectors(objective, batch)
                return objective.similarity(vectors, classes.to(vectors.device)).cpu(), batch["index"].cpu()

        parts = list(map_clips(subject, predict, batch_size=self.batch_size))
        scores, index = (torch.cat(values) for values in zip(*parts))
        samples = source.split(subject.data.eval_split)
        kept = [row for row, i in enumerate(index.tolist()) if samples[i].label is not None]
        if not kept:
            raise UserError(f"no readable video of the split {subject.data.eval_split!r} has a label")
        labelled = [samples[i] for i in index[kept].tolist()]
        predictions = Predictions(
            names=tuple(sample.name for sample in labelled),
            labels=torch.tensor([sample.label for sample in labelled]),
            probabilities=scores[kept].float().softmax(dim=1),
            classes=source.classes,
            unreadable=len(samples) - len(index),
        )
        subject.keep(predictions)
        yield "zero_shot/top1", predictions.accuracy()
        if len(source.classes) > 5:
            yield "zero_shot/top5", predictions.accuracy(top_k=5)

    def vectors(self, subject: Subject, classes: tuple[str, ...]) -> Tensor:
        """A vector of length one for each class, ``K D``."""
        prompts = [prompt for name in classes for prompt in prompts_of(name, self.templates)]
        encoded = encode_texts(subject, prompts, batch_size=self.batch_size)
        return F.normalize(encoded.unflatten(0, (len(classes), -1)).mean(dim=1), dim=1)
