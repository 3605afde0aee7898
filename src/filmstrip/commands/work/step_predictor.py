"""A trained forecaster or planner with the frozen encoder of its features, applied to new videos."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from filmstrip.commands.work.encode import reader_of
from filmstrip.commands.work.feature_encoder import load_feature_encoder
from filmstrip.data.kinds.procedures import ProcedureInfo, Procedures, StepRecord, recorded_features
from filmstrip.data.reading.views import Views, read_views
from filmstrip.errors import UserError
from filmstrip.inference import device_of, inference, on_device
from filmstrip.protocols import Batch, Forecaster, Objective
from filmstrip.runs.config import Run
from filmstrip.runs.encoders import VideoEncoder
from filmstrip.runs.loading import load_data_info, load_objective


@dataclass(frozen=True)
class StepPredictor:
    """A trained forecaster or planner of procedures, with the encoder of its features."""

    objective: Objective
    run: Run
    info: ProcedureInfo
    record: StepRecord
    encoder: VideoEncoder

    @property
    def config(self) -> Procedures:
        """The configuration of the task that it was trained on."""
        reads = self.run.data.reads
        assert isinstance(reads, Procedures), "the run is of a task on procedures"
        return reads

    def read(self, path: Path) -> tuple[Views, Tensor]:
        """One clip of a video, and its features ``N D``.

        Raises:
            UserError: the video cannot be read, or the encoder differs from the one in training.
        """
        views = read_views(path, self.encoder.clip, backend=self.encoder.backend)
        return views, self.features(views)

    def features(self, views: Views) -> Tensor:
        """The features of a clip, ``N D``.

        Raises:
            UserError: their shape differs from that of the features in training.
        """
        with inference(self.encoder):
            features = reader_of(self.encoder, self.record.level)(views.video).tokens[0].float().cpu()
        tokens = self.info.grid[0] * self.info.grid[1] * self.info.grid[2]
        if tuple(features.shape) != (tokens, self.info.width):
            raise UserError(
                f"the encoder returns {features.shape[0]} tokens of width {features.shape[1]} per clip, and this run "
                f"was trained on {tokens} of width {self.info.width}: provide the encoder of its features (--encoder)"
            )
        return features

    def probabilities(
        self, windows: Sequence[Sequence[Tensor | None]], targets: Sequence[int], *, samples: int = 1, seed: int = 0
    ) -> Tensor:
        """Probabilities of the steps at the positions ``targets``, ``B T steps``, averaged over ``samples`` draws.

        Each window holds the features at its positions, None where they are unknown.
        """
        assert isinstance(self.objective, Forecaster), "refused by load_step_predictor"
        batch = _batch(windows, targets, self.info)
        batch = on_device(batch, device_of(self.objective))
        with inference(self.objective):
            logits = self.objective.forecast(batch, samples=samples, seed=seed)
        return logits.float().softmax(dim=-1).mean(dim=1)[:, list(targets)].cpu()


def _batch(windows: Sequence[Sequence[Tensor | None]], targets: Sequence[int], info: ProcedureInfo) -> Batch:
    """Windows as a batch of the loader; positions that are neither provided nor targets are padding."""
    tokens = info.grid[0] * info.grid[1] * info.grid[2]
    sizes = {"B": len(windows), "S": len(windows[0]), "N": tokens, "D": info.width}
    batch = Procedures.specification.blank(sizes)
    for b, window in enumerate(windows):
        for s, features in enumerate(window):
            if features is not None:
                batch["features"][b, s], batch["seen"][b, s] = features, True
    batch["target"][:, list(targets)] = True
    return batch | {key: torch.arange(len(windows)) for key in ("seed", "index")}


def load_step_predictor(folder: Path, tasks: Sequence[str], encoder: str | None = None) -> StepPredictor:
    """A run trained on one of ``tasks``, with the encoder of its features or the one provided.

    Raises:
        UserError: the run has another task, its encoder is unknown, or the encoder's weights differ from those in
            training.
    """
    objective, run = load_objective(folder)
    record, info = recorded_features(folder), load_data_info(folder)
    reads = run.data.reads
    assert isinstance(reads, Procedures) and isinstance(info, ProcedureInfo), "the run has a record of features"
    task = reads.task
    if task not in tasks:
        raise UserError(f"{folder} was trained for {task}, but this command needs a run for {' or '.join(tasks)}")
    if not isinstance(objective, Forecaster):
        raise UserError(
            f"{folder} holds a {type(objective).__name__}, which does not forecast steps: use a run of procedures.*"
        )
    model = load_feature_encoder(folder, record, encoder)
    return StepPredictor(objective, run, info, record, model)
