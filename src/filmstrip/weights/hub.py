"""Files of models on the Hugging Face Hub, or in its layout. Safetensors only: nothing is unpickled."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file

from filmstrip.errors import UserError
from filmstrip.nn.normalise import IMAGENET_MEAN, IMAGENET_STD
from filmstrip.weights.keymap import Weights

CONFIG, WEIGHTS = "config.json", "model.safetensors"
_FILES = (WEIGHTS, "diffusion_pytorch_model.safetensors")
"""Names of a model's weights in the layouts of transformers and of diffusers."""
_PREPROCESSING = ("preprocessor_config.json", "video_preprocessor_config.json")
SHARDS = ".index.json"
"""End of the name of the list of a model's shards."""
HUB = "hf:"


def folder_of(source: str, *wanted: str) -> Path:
    """The folder of a model on this disk, with the files ``wanted`` or all, fetched and cached if it is on the Hub.

    ``hf:OWNER/NAME/PART`` is a folder within a model on the Hub, such as a part of a pipeline of ``diffusers``.

    Raises:
        UserError: there is no such model.
    """
    if not source.startswith(HUB):
        folder = Path(source)
        if not folder.is_dir():
            raise UserError(f"{source} is not a folder; write hf:OWNER/NAME for a model on the Hugging Face Hub")
        return folder
    # Slow to import, and of no use to what is on this disk.
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
    )

    name, part = _divided(source.removeprefix(HUB))
    files = [f"{part}/{pattern}" if part else pattern for pattern in wanted or ("*.json", "*.safetensors")]
    try:
        folder = Path(snapshot_download(name, allow_patterns=files)) / part
    except RepositoryNotFoundError:
        raise UserError(f"the Hugging Face Hub has no model {name!r}, or it is private") from None
    except HFValidationError:
        raise UserError(f"{name!r} is not the name of a model: write hf:OWNER/NAME") from None
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise UserError(
            f"{name} could not be fetched from the Hugging Face Hub, and is not cached: {error}"
        ) from None
    if not folder.is_dir():
        raise UserError(f"the model {name!r} of the Hugging Face Hub has no folder {part}")
    return folder


def _divided(name: str) -> tuple[str, str]:
    """The name of a model, and the folder within it, which may be the whole."""
    owner, _, rest = name.partition("/")
    model, _, part = rest.partition("/")
    return (f"{owner}/{model}" if part else name), part


def within(source: str, part: str) -> str:
    """The name of a folder within a model, as :func:`folder_of` reads it."""
    return f"{source}/{part}" if source.startswith(HUB) else str(Path(source) / part)


def config_of(source: str, folder: Path) -> dict[str, Any]:
    """The ``config.json`` of a model.

    Raises:
        UserError: there is none, or it is damaged.
    """
    return json_of(folder / CONFIG, source)


def weights_of(source: str, folder: Path) -> Weights:
    """All tensors of a model, whether in one file or in shards.

    Raises:
        UserError: there are none, or they are damaged.
    """
    weights: Weights = {}
    for shard in sorted(shards_of(source, folder)):
        try:
            weights |= load_file(folder / shard)
        except SafetensorError as error:
            raise UserError(f"{folder / shard} is damaged: {error}") from None
    return weights


def shards_of(source: str, folder: Path) -> set[str]:
    """The names of the files that hold a model's weights, all of them in its folder.

    Raises:
        UserError: there are none, or not all.
    """
    found = [name for name in _FILES if (folder / name).exists() or (folder / f"{name}{SHARDS}").exists()]
    if not found:
        pickled = sorted(p.name for p in folder.glob("*.bin"))
        reason = f"only {', '.join(pickled)}, which is pickled and can run code" if pickled else "no weights"
        raise UserError(f"{source} holds {reason}: {' or '.join(_FILES)} is needed (save_pretrained writes it)")
    name, index = found[0], f"{found[0]}{SHARDS}"
    shards = {name} if (folder / name).exists() else set(json_of(folder / index, source)["weight_map"].values())
    for shard in sorted(shards):
        if Path(shard).name != shard or not (folder / shard).exists():
            raise UserError(f"{source} names {shard} in {index}, but that file is not there")
    return shards


def files_of_hub(source: str) -> list[Path]:
    """The files that decide a model: configuration, preprocessing and weights, with the list of their shards.

    Raises:
        UserError: there is no such model, or it has no safetensors.
    """
    folder = folder_of(source)
    lists = [f"{name}{SHARDS}" for name in _FILES]
    described = [folder / name for name in (CONFIG, *_PREPROCESSING, *lists) if (folder / name).exists()]
    return [*described, *(folder / shard for shard in sorted(shards_of(source, folder)))]


def preprocessing_of(folder: Path) -> dict[str, Any]:
    """What the folder says of sizes and statistics of pixels, if anything."""
    for name in _PREPROCESSING:
        if (folder / name).exists():
            return json_of(folder / name, str(folder))
    return {}


def sizes_of_frames(preprocessing: Mapping[str, Any]) -> tuple[int | None, int | None]:
    """The side of the square that a preprocessor cuts out (DINOv2: 224, where config.json says 518), and that which
    it scales the short side to before that, pixels; none where it does not say. A frame that it squeezes into a
    square is taken to be cut."""
    size, crop = (_side(preprocessing.get(key)) for key in ("size", "crop_size"))
    if not preprocessing.get("do_center_crop", crop is not None) or crop is None:
        return size, size
    return crop, size if preprocessing.get("do_resize", True) else None


def _side(said: Any) -> int | None:
    return said.get("shortest_edge", said.get("height")) if isinstance(said, Mapping) else said


def statistics_of(preprocessing: Mapping[str, Any]) -> dict[str, Any]:
    """The mean and deviation of pixels in 0..1 that a preprocessor's rescaling and normalising come to."""
    scale = 255 * preprocessing.get("rescale_factor", 1 / 255) if preprocessing.get("do_rescale", True) else 255.0
    offset = 1.0 if preprocessing.get("offset", False) else 0.0
    normalise = preprocessing.get("do_normalize", True)
    mean = preprocessing.get("image_mean", IMAGENET_MEAN) if normalise else (0.0, 0.0, 0.0)
    std = preprocessing.get("image_std", IMAGENET_STD) if normalise else (1.0, 1.0, 1.0)
    return {"mean": tuple((offset + m) / scale for m in mean), "std": tuple(s / scale for s in std)}


def json_of(path: Path, source: str) -> dict[str, Any]:
    """A file of JSON of the model ``source``.

    Raises:
        UserError: there is none, or it is damaged.
    """
    try:
        values = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise UserError(f"{source} is not a model in the Hub's layout: it has no {path.name}") from None
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise UserError(f"{path} is not JSON: {error}") from None
    if not isinstance(values, dict):
        raise UserError(f"{path} does not describe a model")
    return values
