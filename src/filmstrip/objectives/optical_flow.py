"""Estimators of optical flow as parts of methods and evaluations: OpenCV's, or RAFT with weights from a file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

import torch
from torch import Tensor, nn

from filmstrip.errors import UserError
from filmstrip.models.raft import RAFT, size_of
from filmstrip.objectives.config import FrozenPart, ObjectiveConfig
from filmstrip.video.flow import Method, estimate_flow
from filmstrip.weights.files import read_weights
from filmstrip.weights.fingerprint import file_fingerprint
from filmstrip.weights.released import copy_published

FlowMethod = Literal[Method, "raft"]
"""``dis`` and ``farneback`` are OpenCV's (the extra ``flow``), ``raft`` is a network (Teed & Deng 2020)."""
EstimateFlow = Callable[[Tensor], Tensor]
"""The flow ``B T-1 2 H W`` in pixels of ``B T 3 H W`` video, uint8 or 0..1."""


@dataclass(frozen=True, kw_only=True)
class FlowConfig(ObjectiveConfig):
    """How a method estimates optical flow, in training and wherever it is used afterwards."""

    flow: FlowMethod = "dis"
    """Algorithm that estimates the flow."""
    flow_weights: str | None = None
    """File with RAFT's weights, large or small, in torchvision's layout. They stay there: this run refers to them by
    their fingerprint."""

    def frozen_parts(self) -> dict[str, FrozenPart]:
        """Also the network that estimates flow, where there is one."""
        return super().frozen_parts() | {"flow_estimator": FrozenPart("objective.flow_weights")}


class FlowEstimator(nn.Module):
    """Estimates optical flow, in full precision and without a gradient; it is never trained."""

    def __init__(self, method: FlowMethod = "dis", weights: str | Path | None = None) -> None:
        """``weights`` is the file that ``raft`` needs.

        Raises:
            UserError: RAFT has no weights, weights are given to another algorithm, or the file cannot be read or is
                of another network.
        """
        super().__init__()
        check_flow(method, weights)
        self.method = method
        self.network: RAFT | None = None
        self.name: str = method
        """A name of what is estimated: other weights have another one."""
        if weights is not None:
            path = Path(weights)
            theirs = read_weights(path)
            self.network = RAFT(size_of(theirs)).requires_grad_(False)
            if torch.get_default_device().type != "meta":  # sizes alone are asked for there
                copy_published(theirs, self.network, path)
            self.name = f"{method}_{file_fingerprint(path)[:12]}"
        self.eval()

    def train(self, mode: bool = True) -> Self:
        """Does nothing: statistics of normalisation stay as they are."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, video: Tensor) -> Tensor:
        """The flow between neighbouring frames of ``B T 3 H W`` video (uint8, or 0..1): ``B T-1 2 H W``, float32
        pixels.

        Raises:
            UserError: OpenCV is needed and not installed.
        """
        if self.network is None:
            assert self.method != "raft", "checked when it was made"
            return estimate_flow(video, self.method)
        with torch.autocast(video.device.type, enabled=False):
            return self.network.flow(video)


def check_flow(method: FlowMethod, weights: str | Path | None) -> None:
    """See that RAFT, and nothing else, has weights.

    Raises:
        UserError: it has none, or another algorithm has.
    """
    if method == "raft" and weights is None:
        raise UserError(
            "RAFT is a network, and needs its weights: give their file, such as torchvision's "
            "raft_large_C_T_SKHT_V2 (flow_weights, --flow-weights FILE), or take dis, which needs none"
        )
    if method != "raft" and weights is not None:
        raise UserError(f"flow_weights names {weights}, and {method} has no weights: take raft, or leave them out")
