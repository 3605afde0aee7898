"""The frozen encoder of a run's features, and the features that it makes along new videos."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from filmstrip.commands.work.encode import reader_of
from filmstrip.data.feature_records import FeatureRecord, SequenceRecord
from filmstrip.data.localisation.sequences import FeatureSequence
from filmstrip.data.reading.views import frames_in, opened, views_of_parts
from filmstrip.errors import UserError
from filmstrip.inference import inference
from filmstrip.progress import tracked
from filmstrip.runs.encoders import VideoEncoder, load
from filmstrip.weights.fingerprint import fingerprint

SHOWN = 8
"""Number of frames of a video that are kept to be shown, evenly spaced."""


def load_feature_encoder(folder: Path, record: FeatureRecord, given: str | None = None) -> VideoEncoder:
    """The encoder ``given``, or the one that a run in ``folder`` recorded.

    Raises:
        UserError: no encoder is known, or its weights differ from those in training.
    """
    used = given or record.encoder
    if used is None:
        raise UserError(
            f"{folder} does not record the encoder of its features (they were embeddings or arrays): provide a run "
            "folder or hf:OWNER/NAME that computes such features (--encoder)"
        )
    model = load(used)
    if record.weights is not None and fingerprint(model) != record.weights:
        raise UserError(
            f"{used} has other weights than the encoder of the features of {folder}: provide that encoder (--encoder)"
        )
    model.clip = replace(model.clip, **json.loads(record.clip_changes))
    return model


def features_along(
    encoder: VideoEncoder, video: Path, record: SequenceRecord, width: int
) -> tuple[FeatureSequence, float, list[tuple[float, Tensor]]]:
    """The features of so much ``width`` along a video, spaced as in training, its duration, and the middle frames of
    some clips (``C H W`` uint8), timed.

    Raises:
        UserError: the video cannot be read, is too short, or the encoder returns other features than in training.
    """
    features, pictures = [], []
    with opened(video, encoder.backend) as decoder:
        seconds = decoder.info.duration
        count = max(2, round(seconds / record.step_seconds))
        if count > frames_in(decoder.info):
            raise UserError(f"{video} lasts {seconds:.2f} s, too short for clips every {record.step_seconds:g} s")
        step, length = seconds / count, min(2 * record.reach_seconds, seconds)
        starts = (np.arange(count) + 0.5) * step - length / 2
        spans = [(s, s + length) for s in starts.clip(0.0, seconds - length).tolist()]
        shown = set(np.linspace(0, count - 1, min(SHOWN, count)).round().astype(int).tolist())
        read = reader_of(encoder, record.level)
        views = views_of_parts(decoder, encoder.clip, spans)
        for i, clip in enumerate(tracked(views, "encoding", total=count)):
            with inference(encoder):
                features.append(read(clip.video).tokens[0].float().mean(dim=0).cpu())
            if i in shown:
                frame = clip.video[0, clip.video.shape[1] // 2].clone()  # a view would keep the clip
                pictures.append(((i + 0.5) * step, frame))
    rows = torch.stack(features)
    if rows.shape[1] != width:
        raise UserError(
            f"the encoder returns features of width {rows.shape[1]}, and this run was trained on "
            f"{width}: provide the encoder of its features (--encoder)"
        )
    return FeatureSequence(rows, step / 2, step, length / 2), seconds, pictures
