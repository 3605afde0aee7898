"""SigLIP and CLIP in the Hub's layout: both towers, the tokenizer, and how captions are read."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from filmstrip.data.config import Clip, Data
from filmstrip.data.kinds.captioned import Captioned
from filmstrip.models.dual_encoder import CLIP_PIXELS, SIGLIP_PIXELS, has_two_towers, towers_in_hub
from filmstrip.models.image_tower import ImageTowerArchitecture
from filmstrip.models.text_transformer import TextArchitecture
from filmstrip.objectives.contrastive import Contrastive, contrastive_in_hub
from filmstrip.runs.hub import NUM_FRAMES, hub_folder
from filmstrip.text.tokenizers import Pretrained
from filmstrip.weights.hub import config_of, preprocessing_of, statistics_of, weights_of
from filmstrip.weights.released import copy_published

_TOKENIZERS = ("tokenizer.json", "tokenizer.model", "spiece.model", "vocab.json")


def load_hub_towers(source: str) -> tuple[Contrastive, Data] | None:
    """A SigLIP or CLIP with both towers and a tokenizer, and how its data are read; none of other kinds.

    Raises:
        UserError: there is no such model, it has no safetensors, or they do not fit.
    """
    folder = hub_folder(source)
    config = config_of(source, folder)
    if not has_two_towers(config) or not any((folder / name).exists() for name in _TOKENIZERS):
        return None
    objective = contrastive_in_hub(config, _pixels(folder, config), source)
    copy_published(weights_of(source, folder), objective, source)
    vision, text = objective.config.vision, objective.config.text
    reads = towers_read(folder, config, text)
    clip = Clip(num_frames=NUM_FRAMES, sampling="uniform", size=vision.size)
    return objective.eval(), Data(clip=clip, reads=reads)


def _pixels(folder: Path, config: Mapping[str, Any]) -> dict[str, Any]:
    """Statistics of a two-tower model's pixels: those that the folder states, or its kind's."""
    preprocessing = preprocessing_of(folder)
    if "image_mean" in preprocessing:
        return statistics_of(preprocessing)
    return CLIP_PIXELS if config["model_type"] == "clip" else SIGLIP_PIXELS


def towers_read(folder: Path, config: Mapping[str, Any], text: TextArchitecture) -> Captioned:
    """How a SigLIP or CLIP in a folder reads captions: CLIP's begin with the tokenizer's start."""
    starts = config["model_type"] == "clip"
    return Captioned(tokenizer=Pretrained(folder=str(folder)), max_length=text.max_length, start=starts)


class HubTowers(NamedTuple):
    """What a folder says of a SigLIP or CLIP beside its weights."""

    vision: ImageTowerArchitecture
    text: TextArchitecture
    reads: Captioned
    embed_dim: int
    """Channels of the vectors that are compared."""


def hub_towers(source: str) -> HubTowers | None:
    """The towers of a SigLIP or CLIP and how it reads captions; its weights are not read. None of other kinds.

    Raises:
        UserError: there is no such model.
    """
    folder = hub_folder(source, "*.json", "*.model")
    config = config_of(source, folder)
    if not has_two_towers(config):
        return None
    vision, text = towers_in_hub(config, _pixels(folder, config), source)
    dim = config.get("projection_dim", 512) if config["model_type"] == "clip" else vision.width
    return HubTowers(vision, text, towers_read(folder, config, text), dim)
