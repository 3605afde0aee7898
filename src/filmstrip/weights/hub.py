"""Encoders from the Hugging Face Hub, or a local folder in its layout. Safetensors only: nothing is unpickled."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, RepositoryNotFoundError
from safetensors import SafetensorError
from safetensors.torch import load_file

from filmstrip.data.config import Clip
from filmstrip.errors import UserError
from filmstrip.models.frozen import FrozenEncoder
from filmstrip.models.video_transformer import DIVIDED, JOINT, FrameTransformer, SpaceTimeTransformer
from filmstrip.models.vit import ViT
from filmstrip.nn.normalise import IMAGENET_MEAN, IMAGENET_STD
from filmstrip.weights.frozen import KINDS, kind_of, load_frozen
from filmstrip.weights.keymap import Weights, check_names
from filmstrip.weights.plain_transformers import IMAGE, TIMESFORMER, VIVIT
from filmstrip.weights.videomae import encoder_from

_WEIGHTS, _INDEX = "model.safetensors", "model.safetensors.index.json"
_PREPROCESSING = ("preprocessor_config.json", "video_preprocessor_config.json")
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
# Frames between two frames of a clip: checkpoints do not say; Kinetics' models were trained with these.
_STRIDE = 4
_STRIDES = {("timesformer", 8): 32, ("timesformer", 16): 16, ("vivit", 32): 2}
_PIXELS = (r"embed\.normalise\.(?:mean|std)",)
"""Of our names, those that a file has not: its preprocessor_config.json says them."""
_PLAIN = {"vit": IMAGE, "timesformer": TIMESFORMER, "vivit": VIVIT}
_GELU = {"gelu": "exact", "gelu_fast": "tanh", "gelu_new": "tanh", "gelu_pytorch_tanh": "tanh"}

HubEncoder = ViT | FrameTransformer | SpaceTimeTransformer | FrozenEncoder


def load_hub(source: str) -> tuple[HubEncoder, Clip]:
    """The encoder at ``hf:OWNER/NAME``, of a name in :data:`KNOWN`, or in a local folder of the Hub's layout, and how
    its clips are cut.

    The normalisation of pixels is inside the encoder. VideoMAE, ViT, TimeSformer and ViViT become our own networks;
    every other kind stays what ``transformers`` makes of it.

    Raises:
        UserError: there is no such model, it is of no kind that is known, it has no safetensors, or they do not fit;
            or transformers is needed and not installed.
    """
    folder = _folder(source)
    config = _json(folder / "config.json", source)
    kind = config.get("model_type", "model of unknown type")
    if kind_of(kind) is not None:
        _shards(folder, source)
        return load_frozen(folder, source, kind, _preprocessing(folder))
    if kind not in ("videomae", *_PLAIN):
        raise UserError(
            f"{source} is a {kind}; the encoders that can be loaded from the Hub's layout are: "
            f"{', '.join(('videomae', *_PLAIN, *KINDS))}"
        )
    theirs, statistics = _weights(folder, source), _statistics(_preprocessing(folder))
    try:
        weights = encoder_from(theirs) if kind == "videomae" else _PLAIN[kind].encoder_from(theirs)
    except UserError as error:
        raise UserError(f"{source}: {error}") from None
    if kind == "videomae":
        encoder = _build(config, statistics, final_norm="norm.weight" in weights)
    else:
        encoder = _build_plain(kind, config, statistics, source)
    check_names(f"{source}, by our names and its config.json,", weights, encoder.state_dict(), optional=_PIXELS)
    try:
        encoder.load_state_dict(weights, strict=False)
    except RuntimeError as error:
        raise UserError(f"the weights of {source} do not fit its config.json: {error}") from None
    num_frames = encoder.grid.t * encoder.patch_size[0]
    stride = _STRIDES.get((kind, num_frames), _STRIDE)
    return encoder.eval(), Clip(num_frames=num_frames, stride=stride, size=config.get("image_size", 224))


def is_on_hub(source: str) -> bool:
    """Whether a source is a model on the Hub, by its name or one of :data:`KNOWN`, and nothing on this disk."""
    return source.startswith("hf:") or (source in KNOWN and not Path(source).is_dir())


def files_of_hub(source: str) -> list[Path]:
    """The files that decide an encoder of the Hub or in its layout: configuration, preprocessing and weights.

    Raises:
        UserError: there is no such model, or it has no safetensors.
    """
    folder = _folder(source)
    described = [folder / name for name in ("config.json", *_PREPROCESSING) if (folder / name).exists()]
    return [*described, *(folder / shard for shard in sorted(_shards(folder, source)))]


def hub_sizes(source: str) -> dict[str, Any]:
    """The sizes of an encoder that becomes our own network, from its config.json alone; none of other kinds.

    ``width``, ``depth``, ``num_heads``, ``patch_size`` (height and width), ``mlp_ratio``; of a video's network also
    ``tubelet`` (frames of a token), ``num_frames`` and ``size`` of its clips.

    Raises:
        UserError: there is no such model.
    """
    config = _json(_folder(source, "config.json") / "config.json", source)
    kind = config.get("model_type")
    if kind not in ("videomae", *_PLAIN):
        return {}
    sizes = _sizes(kind, config)
    tubelet, patch, _ = sizes.pop("patch_size")
    if _sees_images(kind, config):
        return {key: sizes[key] for key in ("width", "depth", "num_heads", "mlp_ratio")} | {"patch_size": patch}
    return {**sizes, "patch_size": patch, "tubelet": tubelet}


def _sizes(kind: str, config: dict[str, Any]) -> dict[str, Any]:
    """The sizes of a network, under our names; what a config.json leaves out is as in ``transformers``."""
    width, patch = config.get("hidden_size", 768), config.get("patch_size", 16)
    cube = (1, patch, patch)
    if kind == "videomae":
        cube = (config.get("tubelet_size", 2), patch, patch)
    elif kind == "vivit":
        cube = tuple(config.get("tubelet_size", (2, 16, 16)))
    return {
        "width": width,
        "depth": config.get("num_hidden_layers", 12),
        "num_heads": config.get("num_attention_heads", 12),
        "num_frames": config.get("num_frames", {"videomae": 16, "vivit": 32}.get(kind, 8)),
        "size": config.get("image_size", 224),
        "patch_size": cube,
        "mlp_ratio": config.get("intermediate_size", 4 * width) / width,
    }


def _sees_images(kind: str, config: dict[str, Any]) -> bool:
    """Whether a network looks at each frame by itself."""
    return kind == "vit" or (kind == "timesformer" and config.get("attention_type") == "space_only")


def _build_plain(
    kind: str, config: dict[str, Any], statistics: dict[str, Any], source: str
) -> FrameTransformer | SpaceTimeTransformer:
    """An image's transformer (clips of any length), TimeSformer or ViViT."""
    if (act := config.get("hidden_act", "gelu_fast" if kind == "vivit" else "gelu")) not in _GELU:
        raise UserError(f"{source} has the activation {act!r}; those known here are: {', '.join(_GELU)}")
    sizes = {
        **_sizes(kind, config),
        "norm_eps": config.get("layer_norm_eps", 1e-12 if kind == "vit" else 1e-6),
        "gelu": _GELU[act],
        **statistics,
    }
    if _sees_images(kind, config):
        return FrameTransformer(**sizes)
    attention = config.get("attention_type", "divided_space_time")
    divided = kind == "timesformer" and attention == "divided_space_time"
    return SpaceTimeTransformer(DIVIDED if divided else JOINT, time_positions=kind == "timesformer", **sizes)


def _statistics(preprocessing: dict[str, Any]) -> dict[str, Any]:
    """The mean and deviation of pixels in 0..1 that a preprocessor's rescaling and normalising come to."""
    scale = 255 * preprocessing.get("rescale_factor", 1 / 255) if preprocessing.get("do_rescale", True) else 255.0
    offset = 1.0 if preprocessing.get("offset", False) else 0.0
    normalise = preprocessing.get("do_normalize", True)
    mean = preprocessing.get("image_mean", IMAGENET_MEAN) if normalise else (0.0, 0.0, 0.0)
    std = preprocessing.get("image_std", IMAGENET_STD) if normalise else (1.0, 1.0, 1.0)
    return {"mean": [(offset + m) / scale for m in mean], "std": [s / scale for s in std]}


def _build(config: dict[str, Any], statistics: dict[str, Any], *, final_norm: bool) -> ViT:
    return ViT(
        **_sizes("videomae", config),
        final_norm=final_norm,
        norm_eps=config.get("layer_norm_eps", 1e-12),
        **statistics,
    )


def _folder(source: str, *wanted: str) -> Path:
    """The files of a model on this disk, those ``wanted`` or all, fetched and cached when they come from the Hub."""
    if not is_on_hub(source):
        folder = Path(source)
        if not folder.is_dir():
            raise UserError(
                f"{source} is not a folder; write hf:OWNER/NAME for a model on the Hugging Face Hub, or one of "
                f"{', '.join(KNOWN)}"
            )
        return folder
    name = KNOWN.get(source, source.removeprefix("hf:"))
    try:
        return Path(snapshot_download(name, allow_patterns=list(wanted or ("*.json", "*.safetensors"))))
    except RepositoryNotFoundError:
        raise UserError(f"the Hugging Face Hub has no model {name!r}, or it is private") from None
    except HFValidationError:
        raise UserError(f"{name!r} is not the name of a model: write hf:OWNER/NAME") from None
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise UserError(
            f"{name} could not be fetched from the Hugging Face Hub, and is not cached: {error}"
        ) from None


def _weights(folder: Path, source: str) -> Weights:
    """All tensors of a model, whether in one file or in shards."""
    weights: Weights = {}
    for shard in sorted(_shards(folder, source)):
        try:
            weights |= load_file(folder / shard)
        except SafetensorError as error:
            raise UserError(f"{folder / shard} is damaged: {error}") from None
    return weights


def _shards(folder: Path, source: str) -> set[str]:
    """The names of the files that hold a model's weights, all of them in its folder."""
    if (folder / _WEIGHTS).exists():
        shards = {_WEIGHTS}
    elif (folder / _INDEX).exists():
        shards = set(_json(folder / _INDEX, source)["weight_map"].values())
    else:
        pickled = sorted(p.name for p in folder.glob("*.bin"))
        reason = f"only {', '.join(pickled)}, which is pickled and can run code" if pickled else "no weights"
        raise UserError(
            f"{source} holds {reason}: {_WEIGHTS} is needed (transformers writes it with save_pretrained)"
        )
    for shard in sorted(shards):
        if Path(shard).name != shard or not (folder / shard).exists():
            raise UserError(f"{source} names {shard} in {_INDEX}, but that file is not there")
    return shards


def _preprocessing(folder: Path) -> dict[str, Any]:
    """What the folder says of sizes and statistics of pixels, if anything."""
    for name in _PREPROCESSING:
        if (folder / name).exists():
            return _json(folder / name, str(folder))
    return {}


def _json(path: Path, source: str) -> dict[str, Any]:
    try:
        values = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise UserError(f"{source} is not a model in the Hub's layout: it has no {path.name}") from None
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise UserError(f"{path} is not JSON: {error}") from None
    if not isinstance(values, dict):
        raise UserError(f"{path} does not describe a model")
    return values
