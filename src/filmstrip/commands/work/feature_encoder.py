"""The frozen encoder of a run's features, for new videos."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from filmstrip.errors import UserError
from filmstrip.runs.encoders import VideoEncoder, load
from filmstrip.weights.fingerprint import fingerprint


def load_feature_encoder(
    folder: Path, source: str | None, weights: str | None, clip_changes: str, given: str | None = None
) -> VideoEncoder:
    """The encoder ``given``, or the one that a run in ``folder`` recorded: its source, weights and changes of clips.

    Raises:
        UserError: no encoder is known, or its weights differ from those in training.
    """
    used = given or source
    if used is None:
        raise UserError(
            f"{folder} does not record the encoder of its features (they were embeddings or arrays): provide a run "
            "folder or hf:OWNER/NAME that computes such features (--encoder)"
        )
    model = load(used)
    if weights is not None and fingerprint(model) != weights:
        raise UserError(
            f"{used} has other weights than the encoder of the features of {folder}: provide that encoder (--encoder)"
        )
    model.clip = replace(model.clip, **json.loads(clip_changes))
    return model
