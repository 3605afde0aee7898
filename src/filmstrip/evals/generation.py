"""Similarity of a generator's samples to real video as distributions: FVD and inception score."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

from filmstrip.bounds import Count, Seed
from filmstrip.data.augment.levels import to_levels
from filmstrip.errors import UserError
from filmstrip.evals.clips import map_clips
from filmstrip.evals.distributed import map_items
from filmstrip.evals.video_features import FeatureNetwork, FeaturePair, VideoDistance, inception_score
from filmstrip.inference import inference
from filmstrip.nn.sampling import Sampling
from filmstrip.protocols import Batch, Condition, Generator
from filmstrip.runs.evaluation import Evaluation, Subject


def generator_of(subject: Subject) -> Generator:
    """The subject's generator.

    Raises:
        UserError: the objective is not a generator.
    """
    if not isinstance(subject.objective, Generator):
        raise UserError(f"{type(subject.objective).__name__} is not a generator: it cannot be sampled")
    return subject.objective


@dataclass(frozen=True, kw_only=True)
class Generation(Evaluation):
    """FVD of samples against real clips, and the inception score where the feature network classifies."""

    num_samples: Count = 2048
    """Number of samples, and maximum number of real clips (the first of the split)."""
    class_conditional: bool = False
    """Whether samples are conditioned on classes, distributed as in the real clips."""
    num_frames: Count | None = None
    """Number of frames of samples and real clips; by default the data's."""
    batch_size: Count = 16
    split: str | None = None
    """Split of the real clips; by default the data's ``eval_split``. Published FVDs often use the training split."""
    features: FeatureNetwork = field(default_factory=FeatureNetwork)
    sampling: Sampling | None = None
    """Sampling settings; by default the method's own. Command line: ``sampling:sampling --sampling.top-k 100``."""
    splits: Count = 10
    """Number of splits of the inception score."""
    seed: Seed = 0
    """Base seed; sample ``i`` uses ``seed + i``."""

    def check(self, subject: Subject) -> None:
        """The objective is a generator, there are at least two samples, and the feature network is available."""
        generator_of(subject)
        self.features.check(self.num_samples, self.num_frames or subject.data.clip.num_frames)
        (split,) = self.splits_of(subject.data)
        if self.class_conditional and any(sample.label is None for sample in subject.source.split(split)):
            raise UserError("class-conditional samples need labelled videos, and some of these have no label")

    def __call__(self, subject: Subject) -> Iterator[tuple[str, float]]:
        """Yield ``fvd``, its bias and corrected value, then ``inception_score``; names state how they were measured.

        Raises:
            UserError: the objective is not a generator, or real clips or their classes are missing.
        """
        generator = generator_of(subject)
        distance = VideoDistance(self.features.build(subject.device))
        labels: list[Tensor] = []
        num_frames = self.num_frames or subject.data.clip.num_frames

        def real_features(batch: Batch, before: int) -> tuple[FeaturePair, Tensor]:
            if self.class_conditional and "label" not in batch:
                raise UserError("class-conditional samples need labelled videos, and some of these have no label")
            label = batch["label"].cpu() if self.class_conditional else torch.empty(0)
            return distance.features(real=batch["video"]), label

        for features, label in map_clips(
            subject,
            real_features,
            self.split,
            max_clips=self.num_samples,
            num_frames=num_frames,
            batch_size=self.batch_size,
        ):
            distance.add(features)
            labels.append(label)
        classes = torch.cat(labels).to(subject.device)

        def generated_features(first: int) -> FeaturePair:
            count = min(self.batch_size, self.num_samples - first)
            chosen = torch.arange(first, first + count, device=classes.device)
            condition = Condition(
                batch_size=count,
                num_frames=num_frames,
                label=classes[chosen % len(classes)] if self.class_conditional else None,
            )
            with inference(subject.objective):
                generated = generator.sample(condition, seed=self.seed + first, sampling=self.sampling)
            return distance.features(generated=to_levels(generated))

        for features in map_items(subject, range(0, self.num_samples, self.batch_size), generated_features):
            distance.add(features)
        yield from distance.values("fvd")
        if distance.generated_logits:
            logits = torch.cat(distance.generated_logits)
            splits = min(self.splits, len(logits))
            mean, std = inception_score(logits, splits)
            measured = f"{distance.label}/n{len(logits)}x{splits}"
            yield f"inception_score/{measured}", mean
            yield f"inception_score_std/{measured}", std
