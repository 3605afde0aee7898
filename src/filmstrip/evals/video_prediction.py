"""Video prediction: per-frame similarity of a generator's continuation after a context, and its FVD.

TECO's test of temporal consistency (Yan et al. 2022, section 3.5): with enough context frames and the actions, the
future is nearly determined, so that one sample should match the video. DMLab, Minecraft and Habitat: 144 context
frames, 156 predicted; their FVD uses 264 frames after 36, Kinetics-600's 80 after 20. For uncertain futures, use
several ``samples`` and the ``_best`` metrics.
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
from filmstrip.evals.clips import map_clips
from filmstrip.evals.frame_curves import name_of
from filmstrip.evals.frame_metrics import FrameMetrics, check_frames
from filmstrip.evals.generation import generator_of
from filmstrip.evals.video_features import FeatureNetwork, FeaturePair, VideoDistance
from filmstrip.inference import inference
from filmstrip.nn.sampling import Sampling
from filmstrip.protocols import Batch, Condition, Generator
from filmstrip.runs.evaluation import Evaluation, Subject


@dataclass(frozen=True, kw_only=True)
class VideoPrediction(Evaluation):
    """PSNR, SSIM and LPIPS of each predicted frame, and FVD, given the first frames and the actions of test clips."""

    context: Count = 144
    """Number of context frames."""
    horizon: Count = 156
    """Number of predicted frames."""
    samples: Count = 1
    """Number of predictions per clip."""
    use_actions: bool = True
    """Whether to condition on the actions, if the data has them."""
    class_conditional: bool = False
    """Whether to condition on the clip's class."""
    num_videos: Count | None = 256
    """Number of videos, the first of the split; none for all."""
    batch_size: Count = 8
    """Number of clips per batch, each with ``samples`` predictions."""
    split: str | None = None
    """Evaluated split; by default the data's ``eval_split``."""
    features: FeatureNetwork = field(default_factory=FeatureNetwork)
    """Feature network of the FVD, which covers predicted frames only."""
    lpips: tuple[Path, ...] = ()
    """Published LPIPS weights (AlexNet, as in TECO, or VGG-16, and the linear layers: one file or two); by default
    random features stand in."""
    sampling: Sampling | None = None
    """Sampling settings; by default the method's own. Command line: ``sampling:sampling --sampling.top-k 100``."""
    seed: Seed = 0
    """Base seed; sample ``s`` of clip ``i`` uses ``seed + i * samples + s``."""

    def check(self, subject: Subject) -> None:
        """The objective is a generator, there are at least two predictions, and the networks are available."""
        generator_of(subject)
        self.features.check(self.num_videos, self.horizon)
        check_frames(self.lpips, subject.data.clip.size)
        (split,) = self.splits_of(subject.data)
        if self.class_conditional and any(sample.label is None for sample in subject.source.split(split)):
            raise UserError("class-conditional prediction needs labelled videos, and some of these have no label")

    def __call__(self, subject: Subject) -> Iterator[tuple[str, float]]:
        """Yield each metric's mean and, for several samples, its best; FVD; then the curves, ``NAME/frame_000`` and
        so on.

        The best sample of a clip is that with the best mean over the horizon, for each metric separately.

        Raises:
            UserError: the objective is not a generator, its samples have the wrong length, or there are no clips.
        """
        generator = generator_of(subject)
        metrics = FrameMetrics(self.lpips, device=subject.device)
        distance = VideoDistance(self.features.build(subject.device))
        frames: dict[str, list[Tensor]] = {name: [] for name in metrics.names}

        def predict(batch: Batch, before: int) -> tuple[dict[str, Tensor], FeaturePair]:
            with inference(subject.objective):
                generated = self._predict(generator, batch, before)
            truth = batch["video"][:, self.context :]
            found = metrics(generated, truth.repeat_interleave(self.samples, dim=0))
            return found, distance.features(real=truth, generated=generated)

        count = 0
        for found, features in map_clips(
            subject,
            predict,
            self.split,
            max_clips=self.num_videos,
            num_frames=self.context + self.horizon,
            batch_size=self.batch_size,
        ):
            distance.add(features)
            for name, values in found.items():
                frames[name].append(values.unflatten(0, (-1, self.samples)))
            count += len(frames["psnr"][-1])
        size = subject.data.clip.size
        label = f"{size}x{size}/{self.horizon}f_after_{self.context}/n{count}x{self.samples}"
        curves = {}
        for name, parts in frames.items():
            values = torch.cat(parts)
            curves[f"{name}/{label}"] = values.mean(dim=(0, 1))
            if self.samples > 1:
                curves[f"{name}_best/{label}"] = best_samples(values, metrics.higher_is_better[name]).mean(dim=0)
        for name, curve in curves.items():
            yield name, float(curve.mean())
        yield from distance.values(f"fvd_after_{self.context}")
        for name, curve in curves.items():
            for frame, value in enumerate(curve.tolist()):
                yield name_of(name, frame), value

    def _predict(self, generator: Generator, batch: Batch, before: int) -> Tensor:
        """The predicted frames of ``B * samples`` clips, samples of a clip adjacent, uint8."""
        total = self.context + self.horizon
        if self.class_conditional and "label" not in batch:
            raise UserError("class-conditional prediction needs labelled videos, and some of these have no label")

        def repeated(tensor: Tensor | None) -> Tensor | None:
            return None if tensor is None else tensor.repeat_interleave(self.samples, dim=0)

        condition = Condition(
            batch_size=len(batch["video"]) * self.samples,
            num_frames=total,
            video=repeated(batch["video"][:, : self.context]),
            label=repeated(batch["label"]) if self.class_conditional else None,
            action=repeated(batch.get("action")) if self.use_actions else None,
        )
        generated = generator.sample(condition, seed=self.seed + before * self.samples, sampling=self.sampling)
        if generated.shape[1] != total:
            raise UserError(f"{type(generator).__name__} generated {generated.shape[1]} frames, expected {total}")
        return to_levels(generated[:, self.context :])


def best_samples(values: Tensor, higher_is_better: bool) -> Tensor:
    """Values of each clip's best sample by its mean, ``B T`` of ``B S T``."""
    means = values.mean(dim=2)
    chosen = means.argmax(dim=1) if higher_is_better else means.argmin(dim=1)
    return values[torch.arange(len(values)), chosen]
