"""Encoders from the Hugging Face Hub, or a local folder in its layout, and how their clips are cut."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from filmstrip.data.config import Clip
from filmstrip.errors import UserError
from filmstrip.models.decoder import DecoderConfig
from filmstrip.models.frozen import FrozenEncoder
from filmstrip.models.frozen_networks import KINDS, Tower, kind_of, load_frozen, tower_in_hub
from filmstrip.models.hub_networks import (
    LAYOUTS,
    OwnEncoder,
    architecture_in_hub,
    encoder_from_hub,
    sizes_in_hub,
)
from filmstrip.models.llama_layout import decoder_config
from filmstrip.models.video_transformer import TransformerArchitecture
from filmstrip.models.vit import ViTArchitecture
from filmstrip.models.vjepa import VJEPAArchitecture
from filmstrip.models.vjepa_classifier import architecture_of
from filmstrip.weights.hub import (
    HUB,
    config_of,
    folder_of,
    preprocessing_of,
    shards_of,
    sizes_of_frames,
    statistics_of,
    weights_of,
)
from filmstrip.weights.keymap import Weights

KNOWN = {
    "siglip": "google/siglip-so400m-patch14-384",
    "siglip-base": "google/siglip-base-patch16-224",
    "siglip2": "google/siglip2-so400m-patch14-384",
    "siglip2-base": "google/siglip2-base-patch16-224",
    "clip": "openai/clip-vit-large-patch14",
    "clip-base": "openai/clip-vit-base-patch32",
    "dinov2": "facebook/dinov2-large",
    "dinov2-base": "facebook/dinov2-base",
    "dinov2-giant": "facebook/dinov2-giant",
    "videomae": "MCG-NJU/videomae-large",
    "videomae-base": "MCG-NJU/videomae-base",
    "timesformer": "facebook/timesformer-base-finetuned-k400",
    "vjepa2": "facebook/vjepa2-vitl-fpc64-256",
    "vjepa2-huge": "facebook/vjepa2-vith-fpc64-256",
}
"""Short names of encoders on the Hub."""
NUM_FRAMES = 16
"""Frames of a clip, evenly over the video, for networks that take any number."""
# Frames between two frames of a clip: checkpoints do not say; Kinetics' models were trained with these.
_STRIDE = 4
_STRIDES = {("timesformer", 8): 32, ("timesformer", 16): 16, ("vivit", 32): 2}


def address_of(source: str) -> str:
    """``hf:OWNER/NAME`` for a name in :data:`KNOWN` that is no folder here; any other source as it is."""
    return f"{HUB}{KNOWN[source]}" if source in KNOWN and not Path(source).is_dir() else source


def is_on_hub(source: str) -> bool:
    """Whether a source is a model on the Hub, by its address or a name in :data:`KNOWN`."""
    return address_of(source).startswith(HUB)


def load_hub(source: str) -> tuple[OwnEncoder | FrozenEncoder, Clip]:
    """The encoder at ``hf:OWNER/NAME``, of a name in :data:`KNOWN`, or in a local folder of the Hub's layout, and how
    its clips are cut.

    The normalisation of pixels is inside the encoder. VideoMAE, ViT, TimeSformer and ViViT become our own networks;
    every other kind stays what ``transformers`` makes of it.

    Raises:
        UserError: there is no such model, it is of no kind that is known, it has no safetensors, or they do not fit;
            or transformers is needed and not installed.
    """
    folder = hub_folder(source)
    config, preprocessing = config_of(source, folder), preprocessing_of(folder)
    kind = config.get("model_type", "model of unknown type")
    if kind_of(kind) is not None:
        shards_of(source, folder)
        frozen, size = load_frozen(folder, source, kind, preprocessing)
        return frozen, Clip(num_frames=NUM_FRAMES, sampling="uniform", size=size)
    if kind not in LAYOUTS:
        raise UserError(
            f"{source} is a {kind}; the encoders that can be loaded from the Hub's layout are: "
            f"{', '.join((*LAYOUTS, *KINDS))}"
        )
    encoder = encoder_from_hub(config, weights_of(source, folder), statistics_of(preprocessing), source)
    num_frames = encoder.grid.t * encoder.patch_size[0]
    stride = _STRIDES.get((kind, num_frames), _STRIDE)
    return encoder, Clip(num_frames=num_frames, stride=stride, size=config.get("image_size", 224))


def hub_classes(source: str) -> tuple[str, ...]:
    """The names of the classes of a model that classifies video, in the order of its logits; none of any other.

    Raises:
        UserError: there is no such model.
    """
    config = hub_config(source)
    if not any(name.endswith("ForVideoClassification") for name in config.get("architectures") or ()):
        return ()
    names = config.get("id2label") or {}
    count = len(names) or config.get("num_labels", 2)  # transformers leaves two classes without names out
    return tuple(names.get(str(i), f"LABEL_{i}") for i in range(count))


def hub_clip(source: str) -> Clip:
    """How clips are cut for a model that classifies video, as its image processor says.

    Raises:
        UserError: there is no such model.
    """
    folder = hub_folder(source, "*.json")
    config, preprocessing = config_of(source, folder), preprocessing_of(folder)
    kind = config.get("model_type", "")
    size, short_side = sizes_of_frames(preprocessing)
    size = size or config.get("crop_size") or config.get("image_size", 224)
    clip = Clip(size=size, eval_short_side=None if short_side == size else short_side)
    if kind not in LAYOUTS:
        return replace(clip, num_frames=config.get("frames_per_clip", NUM_FRAMES), sampling="uniform")
    num_frames = sizes_in_hub(config)["num_frames"]
    return replace(clip, num_frames=num_frames, stride=_STRIDES.get((kind, num_frames), _STRIDE))


def hub_sizes(source: str) -> dict[str, Any]:
    """The sizes of an encoder that becomes our own network, as :func:`~filmstrip.models.hub_networks.sizes_in_hub`.

    Raises:
        UserError: there is no such model.
    """
    return sizes_in_hub(hub_config(source))


def hub_architecture(source: str) -> ViTArchitecture | TransformerArchitecture | VJEPAArchitecture:
    """The architecture of an image transformer or of VideoMAE's or V-JEPA 2's encoder; its weights are not read.

    Raises:
        UserError: there is no such model, or it is of another kind.
    """
    folder = hub_folder(source, "*.json")
    config = config_of(source, folder)
    if config.get("model_type") == "vjepa2":
        return architecture_of(config, source)
    return architecture_in_hub(config, statistics_of(preprocessing_of(folder)), source)


def hub_config(source: str) -> dict[str, Any]:
    """What the ``config.json`` of a model says.

    Raises:
        UserError: there is no such model.
    """
    return config_of(source, hub_folder(source, "config.json"))


def hub_network(source: str) -> ViTArchitecture | TransformerArchitecture | Tower:
    """The architecture of any encoder that :func:`load_hub` loads but a video's other than VideoMAE's.

    Raises:
        UserError: there is no such model, or it is of another kind.
    """
    folder = hub_folder(source, "*.json")
    kind = config_of(source, folder).get("model_type", "")
    if kind_of(kind) is not None:
        return tower_in_hub(folder, source, kind, preprocessing_of(folder))
    return architecture_in_hub(config_of(source, folder), statistics_of(preprocessing_of(folder)), source)


def hub_decoder(source: str) -> DecoderConfig:
    """The sizes of a language model; its weights are not read.

    Raises:
        UserError: there is no such model, or it is of another kind.
    """
    return decoder_config(config_of(source, hub_folder(source, "*.json")), source)


def hub_weights(source: str) -> Weights:
    """All tensors of a model, by their names there.

    Raises:
        UserError: there is no such model, or it has no safetensors.
    """
    return weights_of(source, hub_folder(source))


def hub_folder(source: str, *wanted: str) -> Path:
    """The local folder of a model, with those of its files that match ``wanted``, by default all that are needed.

    Raises:
        UserError: there is no such model.
    """
    if not is_on_hub(source) and not Path(source).is_dir():
        raise UserError(
            f"{source} is not a folder; write hf:OWNER/NAME for a model on the Hugging Face Hub, or one of "
            f"{', '.join(KNOWN)}"
        )
    return folder_of(address_of(source), *wanted)
