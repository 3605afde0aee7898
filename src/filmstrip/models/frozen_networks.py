"""Pretrained vision networks of ``transformers``, by the ``model_type`` of their config.json.

Fed as they were trained but for one thing: a frame's short side is scaled to the network's size and the centre cut
out, whatever else the folder says (SigLIP squeezes the whole frame into the square; DINOv2 and V-JEPA 2 scale to
8/7 of the size first).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from filmstrip.bounds import AnyNumber, AnyWhole, Rate
from filmstrip.errors import UserError
from filmstrip.models.frozen import FrozenEncoder, Pixels
from filmstrip.nn.normalise import CLIP_MEAN, CLIP_STD, IMAGENET_MEAN, IMAGENET_STD
from filmstrip.weights.hub import sizes_of_frames
from filmstrip.weights.keymap import check_names, some

_HALF = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
_IMAGENET = (IMAGENET_MEAN, IMAGENET_STD)
_TOWER = (r"text_model\..*", r"logit_(?:scale|bias)", r"(?:text|visual)_projection\..*", r".*\.position_ids")
_CLIP = (CLIP_MEAN, CLIP_STD)


@dataclass(frozen=True, kw_only=True)
class _Kind:
    """How one family is built and fed."""

    network: str
    """Name of the class in ``transformers``."""
    pixels: Pixels = "images"
    statistics: tuple[tuple[float, ...], tuple[float, ...]] = _IMAGENET
    """Mean and standard deviation of pixels, if the folder does not state them."""
    size: Callable[[Any], int] = lambda config: config.image_size
    patch: Callable[[Any], int] = lambda config: config.patch_size
    width: Callable[[Any], int] = lambda config: config.hidden_size
    prefix: Callable[[Any], int] = lambda config: 0
    pooled: str | None = None
    """Module of the pooled output, which a checkpoint can lack; ``""`` if it needs no weights."""
    tubelet: Callable[[Any], int] = lambda config: 1
    options: tuple[str, ...] = ()
    """Names of flags that are true in every call."""
    spare: tuple[str, ...] = (r"classifier\..*",)
    """Patterns of names that a checkpoint may hold beside the network: a classifier, the other tower, constants."""


KINDS: dict[str, _Kind] = {
    "siglip": _Kind(network="SiglipVisionModel", statistics=_HALF, pooled="head", spare=_TOWER),
    "siglip2": _Kind(
        network="Siglip2VisionModel",
        pixels="patches",
        statistics=_HALF,
        size=lambda config: config.patch_size * round(config.num_patches**0.5),
        pooled="head",
        spare=_TOWER,
    ),
    "clip": _Kind(
        network="CLIPVisionModel",
        statistics=_CLIP,
        prefix=lambda config: 1,
        pooled="post_layernorm",
        spare=_TOWER,
    ),
    "dinov2": _Kind(network="Dinov2Model", prefix=lambda config: 1, pooled="layernorm"),
    "dinov2_with_registers": _Kind(
        network="Dinov2WithRegistersModel",
        prefix=lambda config: 1 + config.num_register_tokens,
        pooled="layernorm",
    ),
    "mobilenet_v2": _Kind(
        network="MobileNetV2Model",
        statistics=_HALF,
        patch=lambda config: config.output_stride,
        width=lambda config: max(1280, round(1280 * config.depth_multiplier)),
        pooled="",
    ),
    "vjepa2": _Kind(
        network="VJEPA2Model",
        pixels="frames_first",
        size=lambda config: config.crop_size,
        tubelet=lambda config: config.tubelet_size,
        options=("skip_predictor",),
        spare=(r"classifier\..*", r"pooler\..*"),
    ),
}
"""Families by ``model_type``; the vision tower of a two-tower model has the suffix ``_vision_model``."""


@dataclass(frozen=True, kw_only=True)
class Tower:
    """A network of ``transformers`` that is always frozen, by its sizes alone."""

    model_type: str
    """Family of the network, as its config.json names it."""
    settings: tuple[tuple[str, bool | AnyWhole | AnyNumber | str], ...] = ()
    """Settings of its config.json that differ from the family's defaults."""
    mean: tuple[AnyNumber, AnyNumber, AnyNumber] | None = None
    """Mean RGB of pixels in 0..1; none for the family's."""
    std: tuple[Rate, Rate, Rate] | None = None
    """Standard deviation of RGB; none for the family's."""


_NO_SIZES = ("model_type", "transformers_version", "dtype", "_name_or_path")


def kind_of(model_type: str) -> _Kind | None:
    """The family of a ``model_type``, if it is known."""
    return KINDS.get(model_type.removesuffix("_vision_model"))


def load_frozen(
    folder: Path, source: str, model_type: str, preprocessing: dict[str, Any]
) -> tuple[FrozenEncoder, int]:
    """The network in a folder of the Hub's layout, and the height and width of its frames, pixels.

    Only safetensors are read, and no code of the folder is run.

    Raises:
        UserError: transformers is not installed, or weights are missing or do not fit.
    """
    kind = kind_of(model_type)
    network = _load_network(getattr(_transformers(), kind.network), folder, source, kind)
    size = (kind.pixels != "patches" and sizes_of_frames(preprocessing)[0]) or kind.size(network.config)
    _check_scale(preprocessing, source)
    mean = preprocessing.get("image_mean") or kind.statistics[0]
    std = preprocessing.get("image_std") or kind.statistics[1]
    return _around(network, kind, mean, std), size


def build_frozen(tower: Tower) -> FrozenEncoder:
    """The network of a description, with fresh weights.

    Raises:
        UserError: the family is not known, transformers is not installed, or it has no such settings.
    """
    kind = kind_of(tower.model_type)
    if kind is None:
        raise UserError(f"there is no encoder of kind {tower.model_type!r}; there are {', '.join(KINDS)}")
    cls = getattr(_transformers(), kind.network)
    try:
        config = cls.config_class(**dict(tower.settings))
        network = cls(config)
    except (TypeError, ValueError, AttributeError) as error:
        raise UserError(f"a {kind.network} cannot be built of {dict(tower.settings)}: {error}") from None
    return _around(network, kind, tower.mean or kind.statistics[0], tower.std or kind.statistics[1])


def tower_in_hub(folder: Path, source: str, model_type: str, preprocessing: dict[str, Any]) -> Tower:
    """The description of the network in a folder of the Hub's layout.

    Raises:
        UserError: transformers is not installed, or the folder describes no such network.
    """
    kind = kind_of(model_type)
    assert kind is not None, "asked for before"
    cls = getattr(_transformers(), kind.network)
    try:
        settings = cls.config_class.from_pretrained(folder, local_files_only=True).to_diff_dict()
    except (OSError, ValueError, TypeError) as error:
        raise UserError(f"{source} does not describe a {kind.network}: {error}") from None
    plain = {k: v for k, v in settings.items() if isinstance(v, (int, float, str)) and k not in _NO_SIZES}
    _check_scale(preprocessing, source)
    return Tower(
        model_type=model_type,
        settings=tuple(sorted(plain.items())),
        mean=tuple(preprocessing.get("image_mean") or kind.statistics[0]),
        std=tuple(preprocessing.get("image_std") or kind.statistics[1]),
    )


def _around(network: Any, kind: _Kind, mean: Sequence[float], std: Sequence[float]) -> FrozenEncoder:
    config = network.config
    return FrozenEncoder(
        network,
        width=kind.width(config),
        pixels=kind.pixels,
        patch_size=(kind.tubelet(config), kind.patch(config), kind.patch(config)),
        mean=mean,
        std=std,
        prefix=kind.prefix(config),
        pooled=kind.pooled is not None and getattr(config, "vision_use_head", True),
        options=dict.fromkeys(kind.options, True),
    )


def _load_network(cls: type, folder: Path, source: str, kind: _Kind) -> Any:
    try:
        network, report = cls.from_pretrained(
            folder,
            use_safetensors=True,
            trust_remote_code=False,
            local_files_only=True,
            output_loading_info=True,
            dtype="float32",
        )
    except (OSError, RuntimeError, ValueError, KeyError) as error:
        raise UserError(f"{source} cannot be loaded as a {kind.network}: {str(error).splitlines()[0]}") from None
    missing = sorted(name for name in report["missing_keys"] if "predictor." not in name)
    if missing or report["mismatched_keys"]:
        said = some([*missing, *(str(key[0]) for key in report["mismatched_keys"])])
        raise UserError(f"{source} lacks weights that its config.json asks for, or has them in other shapes: {said}")
    check_names(source, sorted(report["unexpected_keys"]), (), spare=kind.spare)
    return network


def _check_scale(preprocessing: dict[str, Any], source: str) -> None:
    scale = preprocessing.get("rescale_factor", 1 / 255)
    if (
        not preprocessing.get("do_rescale", True)
        or abs(scale * 255 - 1) > 1e-4
        or preprocessing.get("rescale_offset")
    ):
        raise UserError(f"{source} scales pixels by {scale:g} (preprocessor_config.json): only 1/255 is known here")


def _transformers() -> ModuleType:
    try:
        import transformers
    except ImportError:
        raise UserError(
            "this encoder is a network of transformers, which is not installed: pip install 'filmstrip[language]'"
        ) from None
    return transformers
