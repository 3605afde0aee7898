"""How long a generator goes on as the video does: likeness by frame after a context, and FVD of the continuation.

TECO's test of temporal consistency (Yan et al. 2022, section 3.5): given enough frames and the actions, what follows
is all but determined, so that one sample should match the video. DMLab, Minecraft and Habitat: 144 frames of context,
156 to predict; their FVD is of 264 frames after 36, Kinetics-600's of 80 after 20. Where the future is open, take
several ``samples`` and read ``_best``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from filmstrip.bounds import Count, Seed
from filmstrip.data.augment.levels import to_levels
from filmstrip.errors import UserError
from filmstrip.evals import Evaluation, Subject
from filmstrip.evals.clips import of_first_clips
from filmstrip.evals.frame_curves import name_of
from filmstrip.evals.frame_metrics import FrameMetrics, check_frames
from filmstrip.evals.generation import generator_of
from filmstrip.evals.video_features import FeatureNetwork, FeaturePair, VideoDistance
from filmstrip.inference import inference
from filmstrip.nn.sampling import Sampling
from filmstrip.protocols import Batch, Condition, Generator


@dataclass(frozen=True, kw_only=True)
class VideoPrediction(Evaluation):
    """PSNR, SSIM, LPIPS of each predicted frame, and FVD, given the first frames and the actions of test clips."""

    context: Count = 144
    """Frames that are given."""
    horizon: Count = 156
    """Frames that are predicted."""
    samples: Count = 1
    """Predictions of each clip."""
    use_actions: bool = True
    """Give the actions, where the data has them."""
    by_class: bool = False
    """Give the clip's class."""
    num_videos: Count | None = 256
    """The first of the split; none for all."""
    batch_size: Count = 8
    """Clips; each counts ``samples`` times."""
    split: str | None = None
    """By default the data's ``eval_split``."""
    features: FeatureNetwork = field(default_factory=FeatureNetwork)
    """Of the FVD, which is of predicted frames alone."""
    lpips: tuple[Path, ...] = ()
    """LPIPS's published weights (AlexNet, which TECO used, or VGG-16, and the linear layers: one file or two);
    without, a stand-in is used."""
    sampling: Sampling | None = None
    """By default the method's own; on the command line ``sampling:sampling --sampling.top-k 100``."""
    seed: Seed = 0
    """Sample ``s`` of clip ``i`` draws from ``seed + i * samples + s``."""

    def check(self, subject: Subject) -> None:
        """The objective is a generator, two predictions or more are asked for, and the networks are at hand."""
        generator_of(subject)
        self.features.check(self.num_videos, self.horizon)
        check_frames(self.lpips, subject.data.clip.size)
        (split,) = self.splits_of(subject.data)
        if self.by_class and any(sample.label is None for sample in subject.source.split(split)):
            raise UserError("prediction by class needs videos with labels, and some of these have none")

    def __call__(self, subject: Subject) -> Iterator[tuple[str, float]]:
        """Yield each metric's mean and, of several samples, its best; FVD; then the curves, ``NAME/frame_000`` on.

        The best sample of a clip is the one with the best mean over the horizon, for each metric apart.

        Raises:
            UserError: the objective is no generator, its samples have the wrong length, or there are no clips.
        """
        generator = generator_of(subject)
        metrics = FrameMetrics(self.lpips, device=subject.device)
        distance = VideoDistance(self.features.build(subject.device))
        frames: dict[str, list[Tensor]] = {name: [] for name in metrics.names}

        def look(batch: Batch, before: int) -> tuple[dict[str, Tensor], FeaturePair]:
            with inference(subject.objective):
                made = self._predict(generator, batch, before)
            truth = batch["video"][:, self.context :]
            found = metrics(made, truth.repeat_interleave(self.samples, dim=0))
            return found, distance.look(real=truth, made=made)

        count = 0
        for found, seen in of_first_clips(
            subject,
            look,
            self.split,
            most=self.num_videos,
            num_frames=self.context + self.horizon,
            batch_size=self.batch_size,
        ):
            distance.add(seen)
            for name, values in found.items():
                frames[name].append(values.unflatten(0, (-1, self.samples)))
            count += len(frames["psnr"][-1])
        size = subject.data.clip.size
        label = f"{size}x{size}/{self.horizon}f_after_{self.context}/n{count}x{self.samples}"
        curves = {}
        for name, parts in frames.items():
            found = torch.cat(parts)
            curves[f"{name}/{label}"] = found.mean(dim=(0, 1))
            if self.samples > 1:
                curves[f"{name}_best/{label}"] = best_samples(found, metrics.higher_is_better[name]).mean(dim=0)
        for name, curve in curves.items():
            yield name, float(curve.mean())
        yield from distance.values(f"fvd_after_{self.context}")
        for name, curve in curves.items():
            for frame, value in enumerate(curve.tolist()):
                yield name_of(name, frame), value

    def _predict(self, generator: Generator, batch: Batch, seen: int) -> Tensor:
        """The predicted frames of ``B * samples`` clips, samples of a clip side by side, uint8."""
        total = self.context + self.horizon
        if self.by_class and "label" not in batch:
            raise UserError("prediction by class needs videos with labels, and some of these have none")

        def repeated(tensor: Tensor | None) -> Tensor | None:
            return None if tensor is None else tensor.repeat_interleave(self.samples, dim=0)

        condition = Condition(
            batch_size=len(batch["video"]) * self.samples,
            num_frames=total,
            video=repeated(batch["video"][:, : self.context]),
            label=repeated(batch["label"]) if self.by_class else None,
            action=repeated(batch.get("action")) if self.use_actions else None,
        )
        made = generator.sample(condition, seed=self.seed + seen * self.samples, sampling=self.sampling)
        if made.shape[1] != total:
            raise UserError(f"{type(generator).__name__} made {made.shape[1]} frames, and {total} were asked for")
        return to_levels(made[:, self.context :])


def best_samples(values: Tensor, higher_is_better: bool) -> Tensor:
    """Of values ``B S T``, those of each clip's best sample by its mean: ``B T``."""
    means = values.mean(dim=2)
    chosen = means.argmax(dim=1) if higher_is_better else means.argmin(dim=1)
    return values[torch.arange(len(values)), chosen]
