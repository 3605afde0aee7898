"""A released BLIP, for captions or for retrieval, in the Hub's layout."""

from __future__ import annotations

from dataclasses import replace

from filmstrip.data.config import Data
from filmstrip.objectives.config import ObjectiveConfig
from filmstrip.protocols import Objective
from filmstrip.runs.hub import hub_folder
from filmstrip.runs.hub_captioned import load_hub_method
from filmstrip.weights.hub import config_of
from filmstrip.weights.keymap import Weights


def load_hub_blip(source: str, *, writes: bool) -> tuple[Objective, Data] | None:
    """A BLIP that ``writes`` captions, or one that matches and contrasts, and how its data are read; none of others.

    Raises:
        UserError: there is no such model, it has no safetensors, or they do not fit.
    """
    if config_of(source, hub_folder(source, "*.json")).get("model_type") != "blip":
        return None
    from filmstrip.systems.language.blip import BlipConfig, captioner_vit_b, filter_vit_b

    start = "text_decoder." if writes else "text_encoder."

    def sized(theirs: Weights) -> ObjectiveConfig | None:
        if not any(name.startswith(start) for name in theirs):
            return None
        config = (captioner_vit_b if writes else filter_vit_b)().objective
        assert isinstance(config, BlipConfig)
        return replace(config, momentum=None)

    return load_hub_method(source, sized)
