"""Trained classifiers, from a run folder or from the Hub, which read files by themselves and name their classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from torch import Tensor

from filmstrip.data.config import Clip
from filmstrip.data.labels import scores_of
from filmstrip.data.reading.views import Views, read_views
from filmstrip.errors import UserError
from filmstrip.inference import device_of, inference
from filmstrip.protocols import Classifier, EncoderModule, Labels, Objective, find_encoder
from filmstrip.runs.contents import CONFIG, is_run
from filmstrip.runs.encoders import VideoEncoder
from filmstrip.runs.hub import is_on_hub
from filmstrip.runs.loading import default_device, load_classes, load_objective
from filmstrip.video.decode import Backend


@dataclass(frozen=True)
class Moment:
    """One clip of the timeline: its start and end in seconds, and its most probable class, or its first number."""

    start: float
    """Start of the clip, in seconds."""
    end: float
    """End of the clip, in seconds."""
    label: str
    """Name of the most probable class."""
    probability: float
    """Probability of that class, 0 to 1; or the number itself."""


@dataclass(frozen=True)
class Prediction:
    """The prediction for one file."""

    path: str
    """Path of the file, as it was given."""
    top: tuple[tuple[str, float], ...]
    """The most probable classes and their probabilities, averaged over all clips and crops; or all numbers, by their
    names."""
    timeline: tuple[Moment, ...]
    """Clips along the file, in order."""
    damaged: bool = False
    """Whether some decoded frames were damaged, or the file ends early."""
    labels: Labels = "class"
    """Whether probabilities are those of which class is true, or of each one alone, or there are numbers."""


class VideoClassifier(VideoEncoder):
    """A trained classifier that reads files by itself, and its encoder, if it has one.

    ``objective`` is the whole network, ``classes`` names its logits.
    """

    def __init__(self, objective: Objective, classes: Sequence[str], clip: Clip, backend: Backend = "auto") -> None:
        super().__init__(cast(EncoderModule, find_encoder(objective)), clip, backend)
        self.objective = objective
        self.classes = tuple(classes)
        self.eval()

    def classify(self, video: Tensor) -> Tensor:
        """Logits ``B K`` of ``B T C H W`` video, ``uint8`` or 0..1."""
        assert isinstance(self.objective, Classifier), "checked where it was loaded"
        return self.objective.classify(video.to(device_of(self)))

    def predict(self, path: Path | str, *, top_k: int = 5, num_clips: int = 4, num_crops: int = 3) -> Prediction:
        """Classify ``num_clips`` clips along a file, ``num_crops`` crops of each, and average.

        Raises:
            UserError: the file cannot be read, or the names are not as many as the model's classes.
        """
        views = read_views(path, self.clip, num_clips=num_clips, num_crops=num_crops, backend=self.backend)
        return self.predict_views(str(path), views, top_k=top_k)

    def predict_views(self, name: str, views: Views, *, top_k: int = 5) -> Prediction:
        """The prediction for the views of a file, averaged.

        Raises:
            UserError: as :meth:`predict`.
        """
        with inference(self):
            labels = self.objective.labels
            probabilities = scores_of(self.classify(views.video).float(), labels).cpu()
        if probabilities.shape[1] != len(self.classes):
            raise UserError(
                f"the model has {probabilities.shape[1]} classes, but {len(self.classes)} names were provided"
            )
        by_clip = probabilities.unflatten(0, (len(views.spans), -1)).mean(dim=1)
        mean = by_clip.mean(dim=0)
        if labels == "number":
            order, shown = list(range(len(self.classes))), [0] * len(by_clip)
        else:
            order, shown = mean.topk(min(top_k, len(self.classes))).indices.tolist(), by_clip.argmax(dim=1).tolist()
        return Prediction(
            path=name,
            top=tuple((self.classes[i], float(mean[i])) for i in order),
            timeline=tuple(
                Moment(start, end, self.classes[i], float(clip[i]))
                for (start, end), clip, i in zip(views.spans, by_clip, shown)
            ),
            damaged=views.damaged,
            labels=labels,
        )


def load_classifier(
    source: str | Path, device: torch.device | str | None = None, *, last: bool = False
) -> VideoClassifier:
    """A trained classifier from a run folder, with its best weights or those of its ``last`` step where it tells them
    apart; ``hf:OWNER/NAME``; or a local folder in the Hub's layout.

    Raises:
        UserError: there is no such source, or what it holds does not classify video.
    """
    in_hub_layout = is_on_hub(str(source)) or (Path(source) / CONFIG).exists()
    if not is_run(source) and in_hub_layout:
        from filmstrip.runs.hub_classifiers import load_hub_classifier  # runs do without its rooms

        found = load_hub_classifier(str(source))
        if found is None:
            raise UserError(
                f"{source} is an encoder without classes: train a head first (filmstrip train recognition.vit --init "
                f"{source} --data PATH), or give a model that was fine-tuned for classes"
            )
        return VideoClassifier(found.objective, found.classes, found.clip).to(default_device(device))
    objective, run = load_objective(source, device, last=last)
    if not isinstance(objective, Classifier):
        raise UserError(
            f"{source} holds a {type(objective).__name__}, which is not a classifier: give a run that was trained "
            "with labels (fine-tune this one with --init RUN)"
        )
    return VideoClassifier(objective, load_classes(source), run.data.clip, run.data.backend)
