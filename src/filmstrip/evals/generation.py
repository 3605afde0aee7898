"""How like real video a generator's samples are, as a set: FVD, and the inception score of their classes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

from filmstrip.bounds import Count, Seed
from filmstrip.data.augment.levels import to_levels
from filmstrip.errors import UserError
from filmstrip.evals import Evaluation, Subject
from filmstrip.evals.clips import of_first_clips
from filmstrip.evals.distributed import map_items
from filmstrip.evals.video_features import FeatureNetwork, FeaturePair, VideoDistance, inception_score
from filmstrip.inference import inference
from filmstrip.nn.sampling import Sampling
from filmstrip.protocols import Batch, Condition, Generator


def generator_of(subject: Subject) -> Generator:
    """The generator that a protocol looks at.

    Raises:
        UserError: the objective is none.
    """
    if not isinstance(subject.objective, Generator):
        raise UserError(f"{type(subject.objective).__name__} is no generator: it has no samples to look at")
    return subject.objective


@dataclass(frozen=True, kw_only=True)
class Generation(Evaluation):
    """FVD of samples against real clips, and the inception score where the feature network classifies."""

    num_samples: Count = 2048
    """Samples, and the most real clips they are compared with (the first of the split)."""
    by_class: bool = False
    """Ask for classes, as often as the real clips have them."""
    num_frames: Count | None = None
    """Of samples and real clips; by default the data's."""
    batch_size: Count = 16
    split: str | None = None
    """Of the real clips; by default the data's ``eval_split``. Published FVDs often take the training split."""
    features: FeatureNetwork = field(default_factory=FeatureNetwork)
    sampling: Sampling | None = None
    """By default the method's own; on the command line ``sampling:sampling --sampling.top-k 100``."""
    splits: Count = 10
    """Of the inception score."""
    seed: Seed = 0
    """Sample ``i`` draws from ``seed + i``."""

    def check(self, subject: Subject) -> None:
        """The objective is a generator, two samples or more are asked for, and the feature network is at hand."""
        generator_of(subject)
        self.features.check(self.num_samples, self.num_frames or subject.data.clip.num_frames)
        (split,) = self.splits_of(subject.data)
        if self.by_class and any(sample.label is None for sample in subject.source.split(split)):
            raise UserError("samples by class need videos with labels, and some of these have none")

    def __call__(self, subject: Subject) -> Iterator[tuple[str, float]]:
        """Yield ``fvd``, its bias and what is left, then ``inception_score``; names say how they were measured.

        Raises:
            UserError: the objective is no generator, or real clips or their classes are missing.
        """
        generator = generator_of(subject)
        distance = VideoDistance(self.features.build(subject.device))
        labels: list[Tensor] = []
        num_frames = self.num_frames or subject.data.clip.num_frames

        def look(batch: Batch, before: int) -> tuple[FeaturePair, Tensor]:
            if self.by_class and "label" not in batch:
                raise UserError("samples by class need videos with labels, and some of these have none")
            return distance.look(real=batch["video"]), batch["label"].cpu() if self.by_class else torch.empty(0)

        for seen, label in of_first_clips(
            subject, look, self.split, most=self.num_samples, num_frames=num_frames, batch_size=self.batch_size
        ):
            distance.add(seen)
            labels.append(label)
        classes = torch.cat(labels).to(subject.device)

        def make(first: int) -> FeaturePair:
            count = min(self.batch_size, self.num_samples - first)
            chosen = torch.arange(first, first + count, device=classes.device)
            condition = Condition(
                batch_size=count,
                num_frames=num_frames,
                label=classes[chosen % len(classes)] if self.by_class else None,
            )
            with inference(subject.objective):
                made = generator.sample(condition, seed=self.seed + first, sampling=self.sampling)
            return distance.look(made=to_levels(made))

        for seen in map_items(subject, range(0, self.num_samples, self.batch_size), make):
            distance.add(seen)
        yield from distance.values("fvd")
        if distance.made_logits:
            logits = torch.cat(distance.made_logits)
            splits = min(self.splits, len(logits))
            mean, deviation = inception_score(logits, splits)
            label = f"{distance.label}/n{len(logits)}x{splits}"
            yield f"inception_score/{label}", mean
            yield f"inception_score_deviation/{label}", deviation
