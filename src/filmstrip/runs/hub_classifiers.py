"""Models of the Hugging Face Hub, or in its layout, that classify video, with their heads."""

from __future__ import annotations

import logging
import re
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from filmstrip.data.config import Clip
from filmstrip.errors import UserError
from filmstrip.models.hub_networks import LAYOUTS, encoder_from_hub
from filmstrip.models.vjepa_classifier import classifier_from_hub
from filmstrip.objectives.classification import Classification, ClassificationConfig
from filmstrip.protocols import Classifier, EncoderModule, Objective
from filmstrip.runs.hub import hub_classes, hub_clip, hub_folder
from filmstrip.weights.hub import config_of, preprocessing_of, statistics_of, weights_of
from filmstrip.weights.keymap import Weights

log = logging.getLogger(__name__)

_NORM_EPS = 1e-5  # of a classifier's own norm in transformers, whatever config.json says of the others


class HubClassifier(NamedTuple):
    """A model that classifies video, in evaluation mode on the CPU."""

    objective: Objective
    """A :class:`~filmstrip.protocols.Classifier` with an encoder."""
    clip: Clip
    """How its clips are cut, as its image processor says."""
    classes: tuple[str, ...]
    """Names of the classes, in the order of its logits."""


class TokenClassifier(Objective):
    """An encoder and a head that reads all of its tokens; a :class:`~filmstrip.protocols.Classifier`."""

    requires = ()

    def __init__(self, encoder: EncoderModule, head: nn.Module) -> None:
        super().__init__()
        self.encoder, self.head = encoder, head

    def classify(self, video: Tensor) -> Tensor:
        """Logits ``B K`` of ``B T C H W`` video."""
        return self.head(self.encoder(video).tokens)


def load_hub_classifier(source: str) -> HubClassifier | None:
    """The classifier at ``hf:OWNER/NAME`` or in a local folder of the Hub's layout; none of a model without a head.

    All of them become our own networks.

    Raises:
        UserError: there is no such model, its family is not known, or its weights do not fit.
    """
    if not (classes := hub_classes(source)):
        return None
    folder = hub_folder(source)
    config, preprocessing = config_of(source, folder), preprocessing_of(folder)
    kind = config.get("model_type", "model of unknown type")
    objective: Objective
    if kind == "vjepa2":
        encoder, head = classifier_from_hub(
            config, weights_of(source, folder), statistics_of(preprocessing), len(classes), source
        )
        objective = TokenClassifier(cast(EncoderModule, encoder), head)
    elif kind not in LAYOUTS:
        raise UserError(
            f"{source} classifies video and is a {kind}: known here are videomae, timesformer, vivit and vjepa2"
        )
    elif kind == "videomae" and not config.get("use_mean_pooling", True):
        raise UserError(
            f"{source} classifies by its first token (use_mean_pooling is false): heads on the mean alone are known"
        )
    elif kind == "timesformer" and config.get("attention_type") == "space_only":
        raise UserError(f"{source} classifies each frame by itself (space_only): it has no class of a clip")
    else:
        objective = _own(config, weights_of(source, folder), statistics_of(preprocessing), source)
    return HubClassifier(objective.eval(), hub_clip(source), classes)


def classifier_or_none(source: str) -> HubClassifier | None:
    """The same for whoever does with the encoder alone: none, and a message, of a head that is not known here."""
    try:
        return load_hub_classifier(source)
    except UserError as error:
        log.warning("%s; its encoder is taken without a head", error)
        return None


def _own(config: dict[str, Any], weights: Weights, statistics: dict[str, Any], source: str) -> Classification:
    """Our network with the weights of a whole model."""
    layout, encoder = LAYOUTS[config["model_type"]], encoder_from_hub(config, weights, statistics, source)
    if lacking := [theirs for theirs, _ in layout.head if theirs not in weights]:
        raise UserError(f"{source} says that it classifies video, and lacks {', '.join(lacking)}")
    head = {ours: weights[theirs] for theirs, ours in layout.head}
    objective = Classification(
        encoder,
        ClassificationConfig(num_classes=len(head["head.weight"])),
        norm="norm.weight" in head,
        norm_eps=_NORM_EPS,
    )
    try:
        objective.load_state_dict(head, strict=False)
    except RuntimeError as error:
        raise UserError(f"the head of {source} does not fit its config.json: {error}") from None
    return objective


def start_head(objective: Objective, source: str, classes: tuple[str, ...]) -> None:
    """Start a classifier with the head at ``source`` in the Hub's layout, if that has these ``classes`` in any order;
    otherwise it keeps its fresh one. A message says which."""
    if not isinstance(objective, Classifier) or not (theirs := hub_classes(source)):
        return
    if sorted(theirs) != sorted(classes) or len(set(theirs)) < len(theirs):
        log.warning("the head is fresh: %s has %s, and the data %s", source, _some(theirs), _some(classes))
        return
    found = classifier_or_none(source)
    given = {} if found is None else _head_of(found.objective)
    own = _head_of(objective)
    if {name: x.shape for name, x in given.items()} != {name: x.shape for name, x in own.items()}:
        log.warning("the head is fresh: that of %s is of another kind", source)
        return
    order = [theirs.index(name) for name in classes]
    for name in given:
        if re.fullmatch(r"(?:head\.)+(?:weight|bias)", name):
            given[name] = given[name][order]
    with torch.no_grad():
        objective.load_state_dict(given, strict=False)
    log.warning("the head is that of %s, which has the same %d classes", source, len(classes))


def _head_of(objective: nn.Module) -> dict[str, Tensor]:
    """What a classifier has beside its encoder, which may be called its learner."""
    return {name: x for name, x in objective.state_dict().items() if not name.startswith(("encoder.", "learner."))}


def _some(classes: tuple[str, ...]) -> str:
    shown = ", ".join(classes[:3])
    return f"{len(classes)} classes ({shown}{', ...' if len(classes) > 3 else ''})"
