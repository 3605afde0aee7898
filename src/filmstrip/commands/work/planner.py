"""What a run of procedures needs of new videos: the frozen encoder of its features, and windows of their clips."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from filmstrip.commands.work.encode import reader_of
from filmstrip.data.kinds.procedures import FeatureRecord, ProcedureInfo, Procedures, recorded_features
from filmstrip.data.reading.views import Views, read_views
from filmstrip.errors import UserError
from filmstrip.inference import device_of, inference
from filmstrip.protocols import Batch, Forecaster, Objective
from filmstrip.runs.config import Run
from filmstrip.runs.encoders import VideoEncoder, load
from filmstrip.runs.loading import load_data_info, load_objective
from filmstrip.weights.fingerprint import fingerprint


@dataclass(frozen=True)
class Planner:
    """A trained forecaster with its encoder: everything that new videos need."""

    objective: Objective
    run: Run
    info: ProcedureInfo
    record: FeatureRecord
    encoder: VideoEncoder

    @property
    def config(self) -> Procedures:
        """What it was trained to predict, from what."""
        return self.run.data.reads

    def read(self, path: Path) -> tuple[Views, Tensor]:
        """One clip of a video, and its features ``N D``.

        Raises:
            UserError: it cannot be read, or the encoder is another one than that of the features.
        """
        views = read_views(path, self.encoder.clip, backend=self.encoder.backend)
        return views, self.features(views)

    def features(self, views: Views) -> Tensor:
        """The features of a clip, ``N D``.

        Raises:
            UserError: they are not like those that the run was trained on.
        """
        with inference(self.encoder):
            features = reader_of(self.encoder, self.record.level)(views.video).tokens[0].float().cpu()
        tokens = self.info.grid[0] * self.info.grid[1] * self.info.grid[2]
        if tuple(features.shape) != (tokens, self.info.width):
            raise UserError(
                f"the encoder makes {features.shape[0]} tokens of width {features.shape[1]} of a clip, and this run "
                f"was trained on {tokens} of width {self.info.width}: name the encoder of its features (--encoder)"
            )
        return features

    def probabilities(
        self, windows: Sequence[Sequence[Tensor | None]], targets: Sequence[int], *, samples: int = 1, seed: int = 0
    ) -> Tensor:
        """Of each window (features of its places, or none), the steps at the places ``targets``: ``B T steps``.

        Their mean over ``samples`` draws.
        """
        batch = _batch(windows, targets, self.info)
        device = device_of(self.objective)
        batch = {key: value.to(device) if isinstance(value, Tensor) else value for key, value in batch.items()}
        with inference(self.objective):
            logits = self.objective.predict(batch, samples=samples, seed=seed)
        return logits.float().softmax(dim=-1).mean(dim=1)[:, list(targets)].cpu()


def _batch(windows: Sequence[Sequence[Tensor | None]], targets: Sequence[int], info: ProcedureInfo) -> Batch:
    """Windows as the loader would give them; what is neither given nor asked for is padding."""
    tokens = info.grid[0] * info.grid[1] * info.grid[2]
    sizes = {"B": len(windows), "S": len(windows[0]), "N": tokens, "D": info.width}
    batch = Procedures.specification.blank(sizes)
    for b, window in enumerate(windows):
        for s, given in enumerate(window):
            if given is not None:
                batch["features"][b, s], batch["seen"][b, s] = given, True
    batch["target"][:, list(targets)] = True
    return batch | {key: torch.arange(len(windows)) for key in ("seed", "index")}


def load_planner(folder: Path, tasks: Sequence[str], encoder: str | None = None) -> Planner:
    """A run that was trained on one of ``tasks``, with its encoder, or with another one that is named.

    Raises:
        UserError: it is no such run, nobody knows its encoder, or the encoder has other weights than it had.
    """
    objective, run = load_objective(folder)
    record, info = recorded_features(folder), load_data_info(folder)
    task = run.data.reads.task
    if task not in tasks:
        raise UserError(f"{folder} was trained for {task}, and this needs a run for {' or '.join(tasks)}")
    if not isinstance(objective, Forecaster):
        raise UserError(
            f"{folder} holds a {type(objective).__name__}, which forecasts no steps: give one of procedures.*"
        )
    source = encoder or record.encoder
    if source is None:
        raise UserError(
            f"{folder} does not say what encoded its features (they were embeddings or arrays): name a run folder or "
            "hf:OWNER/NAME that makes such features (--encoder)"
        )
    model = load(source)
    if record.weights is not None and fingerprint(model) != record.weights:
        raise UserError(
            f"{source} has other weights than the encoder that made the features of {folder}: name that one "
            "(--encoder)"
        )
    model.clip = replace(model.clip, **json.loads(record.clip_changes))
    return Planner(objective, run, info, record, model)
