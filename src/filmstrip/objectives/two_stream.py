"""Two streams: one network that sees frames and one that sees optical flow, each a classifier of its own."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from filmstrip.bounds import Rate
from filmstrip.objectives.classification import Classification, ClassificationConfig
from filmstrip.objectives.labels import LabelLoss
from filmstrip.objectives.optical_flow import FlowConfig, FlowEstimator
from filmstrip.protocols import Batch, Loss, Objective

Fusion = Literal["average", "svm"]


@dataclass(frozen=True, kw_only=True)
class StreamsConfig(FlowConfig, ClassificationConfig):
    """The part of the configuration that classifiers of RGB and optical flow share."""

    max_flow: Rate = 20.0
    """Displacement in pixels at which flow is clipped, and by which it is divided."""
    fusion: Fusion = "average"
    """Fusion of the two streams: the mean of their probabilities, or a linear SVM on both (one against the rest,
    squared hinge), which trains beside the streams and passes no gradient to them."""


class TwoStream(Objective):
    """Simonyan & Zisserman 2014. The streams share nothing and train side by side; their scores are fused.

    The spatial stream sees the whole clip, or ``single_frames`` of its frames one by one. The temporal one sees the
    flow between the clip's frames, estimated here, clipped and scaled to -1..1, without each frame's mean if
    ``subtract_mean``.
    """

    requires = ("video", "label")

    def __init__(
        self,
        spatial: Classification,
        temporal: Classification,
        config: StreamsConfig,
        *,
        single_frames: int | None = None,
        subtract_mean: bool = False,
    ) -> None:
        super().__init__()
        self.spatial = spatial
        self.temporal = temporal
        self.single_frames = single_frames
        self.flow_estimator = FlowEstimator(config.flow, config.flow_weights)
        self.max_flow = config.max_flow
        self.subtract_mean = subtract_mean
        self.svm = nn.Linear(2 * config.num_classes, config.num_classes) if config.fusion == "svm" else None
        self.criterion = LabelLoss(config)

    def flow(self, video: Tensor) -> Tensor:
        """Flow between the frames of ``B T 3 H W`` video, ``B T-1 2 H W``, pixels."""
        return self.flow_estimator(video)

    def scaled(self, flow: Tensor) -> Tensor:
        """What the temporal stream sees of flow ``B T-1 2 H W``: the same in -1..1."""
        if self.subtract_mean:  # what the camera does to all of a frame
            flow = flow - flow.mean(dim=(3, 4), keepdim=True)
        return flow.clamp(-self.max_flow, self.max_flow) / self.max_flow

    def streams(self, video: Tensor, flow: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Log-probabilities ``B K`` of the spatial and of the temporal stream."""
        flow = self.flow(video) if flow is None else flow
        temporal = self.temporal.classify(self.scaled(flow)).float().log_softmax(dim=1)
        if self.single_frames is None:
            return self.spatial.classify(video).float().log_softmax(dim=1), temporal
        count = self.single_frames
        chosen = video[:, [(2 * i + 1) * video.shape[1] // (2 * count) for i in range(count)]]
        logits = self.spatial.classify(rearrange(chosen, "b t c h w -> (b t) 1 c h w")).float().log_softmax(dim=1)
        return rearrange(logits, "(b t) k -> b t k", t=count).logsumexp(dim=1) - math.log(count), temporal

    def classify(self, video: Tensor, flow: Tensor | None = None) -> Tensor:
        """The logarithm of the streams' mean probabilities, or the SVM's scores, ``B K``.

        ``flow`` is estimated where it is not given.
        """
        return self._fused(*self.streams(video, flow))

    def forward(self, batch: Batch, phase: str = "main") -> Loss:
        """Cross-entropy of each stream, and the SVM's hinge; logs the top-1 accuracy of streams and fusion."""
        label = batch["label"]
        spatial, temporal = self.streams(batch["video"])
        total = self.criterion(spatial, label).total + self.criterion(temporal, label).total
        fused = self._fused(spatial, temporal)
        truth = label if label.ndim == 1 else label.argmax(dim=1)
        if self.svm is not None:
            sides = 2 * F.one_hot(truth, fused.shape[1]) - 1
            total = total + F.relu(1 - sides * fused).square().sum(dim=1).mean()
        with torch.no_grad():
            said = {"top1": fused, "top1_spatial": spatial, "top1_temporal": temporal}
            metrics = {name: (scores.argmax(dim=1) == truth).float().mean() for name, scores in said.items()}
        return Loss(total, metrics)

    def depth_of(self, name: str) -> int:
        """Each stream's own layers; the SVM comes after the last."""
        stream, _, rest = name.partition(".")
        if stream in ("spatial", "temporal"):
            return getattr(self, stream).depth_of(rest)
        return max(stream.depth_of("head.weight") for stream in (self.spatial, self.temporal)) + 1

    def _fused(self, spatial: Tensor, temporal: Tensor) -> Tensor:
        if self.svm is None:
            return torch.logaddexp(spatial, temporal) - math.log(2)
        return self.svm(torch.cat([spatial, temporal], dim=1).detach().exp())
